//! Authorization policies.
//!
//! An element of a match that cannot be read is counted in its list (`List::unreadable`), which makes the policy err on
//! the side of denying: an ALLOW may then not match, a DENY may. Leaving it out would make lists shorter or empty and so
//! widen what the policy allows.

use istio_api::security as wire;
use istio_api::security::string_match::MatchType;
use mesh::Policy;
use mesh::policy::{Action, Clause, DryRun, Group, List, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch};

use super::address::cidr;
use super::{Interner, Rejection};
use crate::xds::subscription::Name;

/// A policy under the name of its resource, which is what workloads refer to.
pub(super) fn policy(name: &Name, p: wire::Authorization, names: &mut Interner) -> Result<Policy, Rejection> {
    let unknown = |field, value| Rejection::UnknownEnum { field, value };
    if name.is_empty() {
        return Err(Rejection::NoKey("the resource's name"));
    }
    Ok(Policy {
        key: name.clone().into(),
        name: p.name.into(),
        namespace: names.get(&p.namespace),
        scope: match wire::Scope::try_from(p.scope).map_err(|_| unknown("scope", p.scope))? {
            wire::Scope::Global => PolicyScope::Global,
            wire::Scope::Namespace => PolicyScope::Namespace,
            wire::Scope::WorkloadSelector => PolicyScope::WorkloadSelector,
        },
        action: match wire::Action::try_from(p.action).map_err(|_| unknown("action", p.action))? {
            wire::Action::Allow => Action::Allow,
            wire::Action::Deny => Action::Deny,
        },
        dry_run: if p.dry_run { DryRun::DryRun } else { DryRun::Enforced },
        rules: p.rules.into_iter().map(rule).collect(),
    })
}

/// What of a policy could not be read, if anything.
pub(super) fn flaw(policy: &Policy) -> Option<String> {
    let clauses = policy.rules.iter().flat_map(|rule| &rule.clauses);
    let unreadable: usize = clauses.flat_map(|clause| &clause.matches).map(unreadable).sum();
    let parts = if unreadable == 1 { "part" } else { "parts" };
    (unreadable > 0).then(|| {
        format!("{unreadable} {parts} of its matches cannot be read; the policy denies wherever they would decide")
    })
}

fn unreadable(m: &Match) -> usize {
    fn of<T>(group: &Group<T>) -> usize {
        group.any.unreadable + group.none.unreadable
    }
    let Match { namespaces, principals, service_accounts, source_ips, destination_ips, destination_ports } = m;
    of(namespaces)
        + of(principals)
        + of(service_accounts)
        + of(source_ips)
        + of(destination_ips)
        + of(destination_ports)
}

fn rule(rule: wire::Rule) -> Rule {
    let clause = |c: wire::Clause| Clause { matches: c.matches.into_iter().map(one).collect() };
    Rule { clauses: rule.clauses.into_iter().map(clause).collect() }
}

fn one(m: wire::Match) -> Match {
    Match {
        namespaces: group(m.namespaces, m.not_namespaces, string),
        principals: group(m.principals, m.not_principals, string),
        service_accounts: group(m.service_accounts, m.not_service_accounts, |account| {
            Some(ServiceAccountMatch {
                namespace: account.namespace.into(),
                service_account: account.service_account.into(),
            })
        }),
        source_ips: group(m.source_ips, m.not_source_ips, |a| cidr(&a.address, a.length).ok()),
        destination_ips: group(m.destination_ips, m.not_destination_ips, |a| cidr(&a.address, a.length).ok()),
        destination_ports: group(m.destination_ports, m.not_destination_ports, |port| u16::try_from(port).ok()),
    }
}

fn group<W, T>(any: Vec<W>, none: Vec<W>, read: impl Fn(W) -> Option<T>) -> Group<T> {
    Group { any: list(any, &read), none: list(none, &read) }
}

fn list<W, T>(all: Vec<W>, read: &impl Fn(W) -> Option<T>) -> List<T> {
    let total = all.len();
    let elements: Vec<T> = all.into_iter().filter_map(read).collect();
    List { unreadable: total - elements.len(), elements }
}

fn string(m: wire::StringMatch) -> Option<StringMatch> {
    Some(match m.match_type? {
        MatchType::Exact(exact) => StringMatch::Exact(exact.into()),
        MatchType::Prefix(prefix) => StringMatch::Prefix(prefix.into()),
        MatchType::Suffix(suffix) => StringMatch::Suffix(suffix.into()),
        MatchType::Presence(()) => StringMatch::Presence,
    })
}
