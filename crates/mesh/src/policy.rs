//! Authorization policies, as the control plane describes them.
//!
//! The structure only; what it means is in [`mod@crate::authorize`]. A value that a decoder could not read is never
//! silently left out of a list: the list remembers that it is not whole, and the policy then errs on the side of
//! denying.

use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{Namespace, PolicyName, ServiceAccount};

/// An authorization policy (spec wire-protocols 4, data-plane 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The key under which it is announced and referred to: normally `namespace/name`.
    pub key: PolicyName,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Which workloads it is for.
    pub scope: PolicyScope,
    /// What a match means.
    pub action: Action,
    /// Whether it is enforced.
    pub dry_run: DryRun,
    /// Any of these has to match; none means that the policy never matches.
    pub rules: Vec<Rule>,
}

/// Which workloads a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyScope {
    /// All.
    Global,
    /// Those of its namespace.
    Namespace,
    /// Those that refer to it.
    WorkloadSelector,
}

/// What a match of a policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection is allowed.
    Allow,
    /// The connection is denied.
    Deny,
}

/// Whether a policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// It is.
    Enforced,
    /// Its matches are logged and change nothing.
    DryRun,
}

/// Matches if all of its clauses do; without clauses it matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// All of these have to match.
    pub clauses: Vec<Clause>,
}

/// Matches if any of its matches does; an empty one matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Clause {
    /// Any of these has to match.
    pub matches: Vec<Match>,
}

/// Matches if every group that says anything does; one that says nothing at all never matches.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Match {
    /// Namespace of the peer's identity.
    pub namespaces: Group<StringMatch>,
    /// The peer's identity, as text without `spiffe://`.
    pub principals: Group<StringMatch>,
    /// The peer's namespace and service account.
    pub service_accounts: Group<ServiceAccountMatch>,
    /// The peer's address.
    pub source_ips: Group<IpNet>,
    /// The address that the app is reached at.
    pub destination_ips: Group<IpNet>,
    /// The port that the app is reached at.
    pub destination_ports: Group<u16>,
}

/// A list of which some element has to match, and one of which none may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    /// If it says anything, some element has to match.
    pub any: List<T>,
    /// No element may match.
    pub none: List<T>,
}

/// The elements of a list that could be read, and whether those are all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T> {
    /// What could be read.
    pub elements: Vec<T>,
    /// How many elements could not.
    pub unreadable: usize,
}

impl<T> List<T> {
    /// Whether the list says nothing: it has no element, readable or not.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty() && self.unreadable == 0
    }
}

impl<T> Group<T> {
    /// Whether neither list says anything.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self { any: List::default(), none: List::default() }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), unreadable: 0 }
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(elements: Vec<T>) -> Self {
        Self { elements, unreadable: 0 }
    }
}

/// A way of comparing text; always with case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Begins with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

/// A namespace and a service account, both compared exactly, in any trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// Namespace of the identity.
    pub namespace: Namespace,
    /// Service account of the identity.
    pub service_account: ServiceAccount,
}
