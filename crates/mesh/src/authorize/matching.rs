//! Whether a rule of a policy matches a connection (spec data-plane 13.4, 13.5).
//!
//! A part of a policy that could not be read neither matches nor fails to: the answer is then [`Truth::Maybe`], unless
//! the parts that could be read settle it alone.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

use crate::admit::Tuple;
use crate::identity::Identity;
use crate::policy::{Clause, Group, List, Match, Rule, ServiceAccountMatch, StringMatch};
use crate::view::policies::Probe;

/// Whether something holds. Ordered so that "and" is the least and "or" the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    /// Both; the other is not looked at if this one settles it.
    fn and(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::No { self } else { self.min(other()) }
    }
}

/// A connection, as matches look at it.
pub(super) struct Subject<'a> {
    source: IpAddr,
    destination: SocketAddr,
    identity: Option<&'a Identity>,
    /// The identity as principals are written: without its scheme. Made when the first policy asks for it.
    principal: OnceCell<String>,
}

impl<'a> Subject<'a> {
    pub(super) fn of(tuple: &'a Tuple) -> Self {
        Self {
            source: tuple.source.ip(),
            destination: tuple.destination,
            identity: tuple.identity.as_ref(),
            principal: OnceCell::new(),
        }
    }

    /// What policies are found by.
    pub(super) fn probe(&self) -> Probe<'_> {
        Probe {
            source: self.source,
            destination: self.destination.ip(),
            port: self.destination.port(),
            account: self.identity.map(|identity| (&identity.namespace, &identity.service_account)),
            principal: self.principal(),
        }
    }

    fn principal(&self) -> Option<&str> {
        let identity = self.identity?;
        Some(self.principal.get_or_init(|| identity.principal()))
    }
}

/// All clauses have to match; without clauses everything does.
pub(super) fn rule(rule: &Rule, subject: &Subject<'_>) -> Truth {
    rule.clauses.iter().map(|c| clause(c, subject)).min().unwrap_or(Truth::Yes)
}

/// Some match has to; without matches everything does.
fn clause(clause: &Clause, subject: &Subject<'_>) -> Truth {
    clause.matches.iter().map(|m| one(m, subject)).max().unwrap_or(Truth::Yes)
}

/// Every group has to match; if none says anything, nothing does.
fn one(m: &Match, subject: &Subject<'_>) -> Truth {
    let Match { namespaces, principals, service_accounts, source_ips, destination_ips, destination_ports } = m;
    let silent = namespaces.is_empty()
        && principals.is_empty()
        && service_accounts.is_empty()
        && source_ips.is_empty()
        && destination_ips.is_empty()
        && destination_ports.is_empty();
    if silent {
        return Truth::No;
    }
    let namespace = subject.identity.map_or("", |identity| identity.namespace.as_str());
    let account = |identity: &Identity, account: &ServiceAccountMatch| {
        identity.namespace == account.namespace && identity.service_account == account.service_account
    };
    // What is cheap to compare comes first.
    group(destination_ports, |port| *port == subject.destination.port())
        .and(|| group(service_accounts, |wanted| subject.identity.is_some_and(|identity| account(identity, wanted))))
        .and(|| group(namespaces, |pattern| text(pattern, namespace)))
        .and(|| group(principals, |pattern| subject.principal().is_some_and(|principal| text(pattern, principal))))
        .and(|| group(source_ips, |net| net.contains(&subject.source)))
        .and(|| group(destination_ips, |net| net.contains(&subject.destination.ip())))
}

fn group<T>(group: &Group<T>, matches: impl Fn(&T) -> bool) -> Truth {
    let any = if group.any.is_empty() { Truth::Yes } else { some(&group.any, &matches) };
    let none = match some(&group.none, &matches) {
        Truth::Yes => Truth::No,
        Truth::Maybe => Truth::Maybe,
        Truth::No => Truth::Yes,
    };
    any.min(none)
}

/// Whether some element of a list matches.
fn some<T>(list: &List<T>, matches: impl Fn(&T) -> bool) -> Truth {
    if list.elements.iter().any(matches) {
        return Truth::Yes;
    }
    if list.unreadable > 0 { Truth::Maybe } else { Truth::No }
}

fn text(pattern: &StringMatch, text: &str) -> bool {
    match pattern {
        StringMatch::Exact(exact) => *text == **exact,
        StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
        StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
        StringMatch::Presence => !text.is_empty(),
    }
}
