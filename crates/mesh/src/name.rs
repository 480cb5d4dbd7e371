//! The names by which the mesh calls things, each a type of its own so that none is taken for another.
//!
//! All are immutable text behind a shared pointer: cloning copies no text. A name is whatever the control plane sent;
//! nothing here checks a syntax, except that host names compare without case and without a final dot.
//! Identities are in [`crate::identity`], addresses in [`crate::address`].

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether the name is empty, which for most kinds of names means "not given".
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// The name as shared text, without copying it.
            pub fn shared(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        text_impls!($name);
    )+};
}

/// What all names have in common, host names included.
macro_rules! text_impls {
    ($name:ident) => {
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

names! {
    /// A trust domain: the first part of a SPIFFE identity.
    TrustDomain;
    /// A Kubernetes namespace.
    Namespace;
    /// A Kubernetes service account.
    ServiceAccount;
    /// A network: addresses mean something only within one. The empty name is the default network.
    NetworkId;
    /// A node of the cluster.
    NodeName;
    /// A cluster of the mesh.
    ClusterId;
    /// A workload's primary key, for example `cluster1//v1/Pod/ns/name`.
    Uid;
    /// The key under which the control plane announces a policy and workloads refer to it: `namespace/name`.
    PolicyName;
}

/// Text that may be a part of another, whose memory it then shares: nearly every workload's name is the end of its key, and
/// a service's the beginning of its host name.
#[derive(Clone)]
pub struct Text {
    whole: Arc<str>,
    part: Part,
}

/// Which part of another text.
#[derive(Clone, Copy)]
enum Part {
    /// All from there on.
    From(u32),
    /// All before that.
    To(u32),
}

impl Text {
    /// `text`, as the end or the beginning of `whole` if it is that.
    pub fn part_of(whole: &Arc<str>, text: &str) -> Self {
        let part = if whole.ends_with(text) {
            u32::try_from(whole.len() - text.len()).ok().map(Part::From)
        } else if whole.starts_with(text) {
            u32::try_from(text.len()).ok().map(Part::To)
        } else {
            None
        };
        part.map_or_else(|| text.into(), |part| Self { whole: whole.clone(), part })
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        let part = match self.part {
            Part::From(start) => self.whole.get(start as usize..),
            Part::To(end) => self.whole.get(..end as usize),
        };
        part.unwrap_or_default()
    }
}

impl Default for Text {
    fn default() -> Self {
        Arc::<str>::default().into()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self { whole: text, part: Part::From(0) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Arc::<str>::from(text).into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

text_impls!(Text);

/// A host name, kept in lower case.
///
/// Two host names are equal if they differ only in case or in a final dot; the dot itself is kept, since it tells a
/// resolver not to expand the name (spec state-and-dns 7.8).
#[derive(Clone, Default)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// The name as text, in lower case, with its final dot if it was given with one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name by which it is compared: without a final dot.
    pub fn undotted(&self) -> &str {
        self.0.strip_suffix('.').unwrap_or(&self.0)
    }

    /// Whether the name is empty, which means "not given".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name as shared text, without copying it.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

text_impls!(Hostname);

impl From<&str> for Hostname {
    fn from(text: &str) -> Self {
        if text.is_empty() {
            Self::default() // Workloads have none, as a rule, and this one costs nothing.
        } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(text.to_ascii_lowercase().into())
        } else {
            Self(text.into())
        }
    }
}

impl From<String> for Hostname {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl Borrow<str> for Hostname {
    /// The undotted form, as `Eq` and `Hash` use it: look up with a [`Hostname`] rather than with raw text.
    fn borrow(&self) -> &str {
        self.undotted()
    }
}

impl PartialEq for Hostname {
    fn eq(&self, other: &Self) -> bool {
        self.undotted() == other.undotted()
    }
}

impl Eq for Hostname {}

impl std::hash::Hash for Hostname {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.undotted().hash(state);
    }
}

impl PartialOrd for Hostname {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hostname {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.undotted().cmp(other.undotted())
    }
}

/// The primary key of a service: `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// The namespace that the service lives in.
    pub namespace: Namespace,
    /// Its host name, possibly a wildcard.
    pub hostname: Hostname,
}

/// Text that is no `namespace/hostname` (wording: spec wire-protocols 3, conversion rules, via state-and-dns 2.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse namespaced hostname: {0}")]
pub struct InvalidNamespacedHostname(pub String);

impl FromStr for NamespacedHostname {
    type Err = InvalidNamespacedHostname;

    /// Splits at the first `/`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, hostname) = text.split_once('/').ok_or_else(|| InvalidNamespacedHostname(text.into()))?;
        Ok(Self { namespace: namespace.into(), hostname: hostname.into() })
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// The triple by which a proxy instance knows the workload that it stands for (spec data-plane 1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalWorkload {
    /// Name of the pod or entry.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: ServiceAccount,
}

impl fmt::Display for LocalWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ({})", self.service_account, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
