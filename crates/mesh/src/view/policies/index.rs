//! Policies by what a connection must have for them to match, so that asking ten thousand of them costs a few lookups.
//!
//! All clauses of a rule have to match, so that one clause that lists what it wants is enough to find the rule by: by the
//! elements of the lists, each of which becomes a [`Key`]. Invariant: a policy that a probe does not find is one of which
//! no rule matches, not even [maybe](crate::authorize). Policies with a rule that no list sums up are found by every probe.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::RedBlackTreeMapSync;

use super::super::Map;
use crate::name::{Namespace, PolicyName, ServiceAccount};
use crate::policy::{Action, Clause, DryRun, Group, Match, Policy, Rule, StringMatch};

/// A connection, as keys look at it.
pub(crate) struct Probe<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    /// Namespace and service account that the peer has proven.
    pub(crate) account: Option<(&'a Namespace, &'a ServiceAccount)>,
    /// What it has proven as text, without scheme.
    pub(crate) principal: Option<&'a str>,
}

/// Something that a connection has to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Port(u16),
    Account(Namespace, ServiceAccount),
    Text(Part, Arc<str>),
    Net(Side, IpNet),
}

/// What of a text is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Principal,
    PrincipalStart,
    PrincipalEnd,
    Namespace,
    NamespaceStart,
    NamespaceEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Side {
    Source,
    Destination,
}

/// Keys that are told from each other by how much of something they know. A probe looks for each length in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Length {
    Text(Part, usize),
    Net(Side, Family, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

type ByName = RedBlackTreeMapSync<PolicyName, Arc<Policy>>;

/// The policies that apply to the same workloads.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicySet {
    keyed: Map<Key, ByName>,
    /// Those that keys do not tell of.
    others: ByName,
    /// How many keys there are of each length.
    lengths: RedBlackTreeMapSync<Length, usize>,
    /// How many policies there are of each kind.
    kinds: [[usize; 2]; 2],
}

impl PolicySet {
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.iter().flatten().all(|count| *count == 0)
    }

    /// Whether there is any policy of that kind.
    pub(crate) fn has(&self, action: Action, dry_run: DryRun) -> bool {
        self.kinds[action as usize][dry_run as usize] > 0
    }

    /// Adds those policies to `found`, in the order of their keys, of which a rule may match.
    pub(crate) fn find<'a>(&'a self, probe: &Probe<'_>, found: &mut Vec<&'a Arc<Policy>>) {
        let from = found.len();
        found.extend(self.others.values());
        self.probe_keys(probe, |key| {
            found.extend(self.keyed.get(&key).into_iter().flat_map(|policies| policies.values()));
        });
        if let Some(own) = found.get_mut(from..) {
            own.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        }
        // One policy may have several keys.
        let mut last: Option<&PolicyName> = None;
        let mut index = 0;
        found.retain(|policy| {
            let again = index >= from && last == Some(&policy.key);
            index += 1;
            last = Some(&policy.key);
            !again
        });
    }

    fn probe_keys(&self, probe: &Probe<'_>, mut look: impl FnMut(Key)) {
        look(Key::Port(probe.port));
        if let Some((namespace, account)) = probe.account {
            look(Key::Account(namespace.clone(), account.clone()));
        }
        // Without an identity, a namespace is the empty text, and there is no principal.
        let namespace = probe.account.map_or("", |(namespace, _)| namespace.as_str());
        for length in self.lengths.keys() {
            match *length {
                Length::Text(part, length) => {
                    let text = match part {
                        Part::Principal | Part::PrincipalStart | Part::PrincipalEnd => probe.principal,
                        Part::Namespace | Part::NamespaceStart | Part::NamespaceEnd => Some(namespace),
                    };
                    if let Some(piece) = text.and_then(|text| piece(part, text, length)) {
                        look(Key::Text(part, piece.into()));
                    }
                }
                Length::Net(side, family, length) => {
                    let ip = match side {
                        Side::Source => probe.source,
                        Side::Destination => probe.destination,
                    };
                    if Family::of(ip) == family
                        && let Ok(net) = IpNet::new(ip, length)
                    {
                        look(Key::Net(side, net.trunc()));
                    }
                }
            }
        }
    }

    pub(super) fn put(&mut self, policy: &Arc<Policy>) {
        let name = &policy.key;
        self.kinds[policy.action as usize][policy.dry_run as usize] += 1;
        let Some(keys) = keys(policy) else {
            self.others.insert_mut(name.clone(), policy.clone());
            return;
        };
        for key in keys {
            if let Some(length) = key.length() {
                let count = self.lengths.get(&length).copied().unwrap_or(0);
                self.lengths.insert_mut(length, count + 1);
            }
            self.keyed.insert_with(key, |same| same.cloned().unwrap_or_default().insert(name.clone(), policy.clone()));
        }
    }

    /// Takes out a policy that was put in.
    pub(super) fn remove(&mut self, policy: &Policy) {
        let name = &policy.key;
        let kind = &mut self.kinds[policy.action as usize][policy.dry_run as usize];
        *kind = kind.saturating_sub(1);
        let Some(keys) = keys(policy) else {
            self.others.remove_mut(name);
            return;
        };
        for key in keys {
            if let Some(length) = key.length() {
                match self.lengths.get(&length).copied().unwrap_or(0) {
                    0 | 1 => drop(self.lengths.remove_mut(&length)),
                    count => self.lengths.insert_mut(length, count - 1),
                }
            }
            let rest = self.keyed.get(&key).map(|same| same.remove(name));
            match rest.filter(|rest| !rest.is_empty()) {
                Some(rest) => self.keyed.insert_mut(key, rest),
                None => drop(self.keyed.remove_mut(&key)),
            }
        }
    }
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Key {
    /// The length that a probe has to look for to find it; `None` if it always looks.
    fn length(&self) -> Option<Length> {
        match self {
            Self::Port(_) | Self::Account(..) => None,
            Self::Text(part, text) => Some(Length::Text(*part, part.counted(text.len()))),
            Self::Net(side, net) => Some(Length::Net(*side, Family::of(net.addr()), net.prefix_len())),
        }
    }
}

impl Part {
    /// Whole texts are looked for as they are, however long.
    fn counted(self, length: usize) -> usize {
        match self {
            Self::Principal | Self::Namespace => 0,
            _ => length,
        }
    }
}

/// The part of a text that a key of this length would be.
fn piece(part: Part, text: &str, length: usize) -> Option<&str> {
    match part {
        Part::Principal | Part::Namespace => Some(text),
        Part::PrincipalStart | Part::NamespaceStart => text.get(..length),
        Part::PrincipalEnd | Part::NamespaceEnd => text.get(text.len().checked_sub(length)?..),
    }
}

/// The keys of which a connection has to have one for a rule of the policy to match, each once; `None` if that cannot be
/// said by keys.
fn keys(policy: &Policy) -> Option<Vec<Key>> {
    let mut all = Vec::new();
    for rule in &policy.rules {
        for key in of_rule(rule)? {
            if !all.contains(&key) {
                all.push(key);
            }
        }
    }
    Some(all)
}

/// By the clause that tells most.
fn of_rule(rule: &Rule) -> Option<Vec<Key>> {
    let told = rule.clauses.iter().filter_map(of_clause);
    told.min_by_key(|(vagueness, keys)| (*vagueness, keys.len())).map(|(_, keys)| keys)
}

/// The keys of which a connection has to have one for the clause to match, and how little they tell.
fn of_clause(clause: &Clause) -> Option<(usize, Vec<Key>)> {
    if clause.matches.is_empty() {
        return None; // matches everything
    }
    let (mut vaguest, mut all) = (0, Vec::new());
    for one in &clause.matches {
        let (vagueness, keys) = of_match(one)?;
        vaguest = vaguest.max(vagueness);
        all.extend(keys);
    }
    Some((vaguest, all))
}

/// By the list that tells most, as a rule: who, from where, to where.
fn of_match(one: &Match) -> Option<(usize, Vec<Key>)> {
    let Match { namespaces, principals, service_accounts, source_ips, destination_ips, destination_ports } = one;
    let account = |wanted: &crate::policy::ServiceAccountMatch| {
        Some(Key::Account(wanted.namespace.clone(), wanted.service_account.clone()))
    };
    let net = |side| move |net: &IpNet| Some(Key::Net(side, net.trunc()));
    let principal = [Part::Principal, Part::PrincipalStart, Part::PrincipalEnd];
    let namespace = [Part::Namespace, Part::NamespaceStart, Part::NamespaceEnd];
    listed(principals, |pattern| text(pattern, principal))
        .or_else(|| listed(service_accounts, account))
        .map(|keys| (0, keys))
        .or_else(|| listed(source_ips, net(Side::Source)).map(|keys| (1, keys)))
        .or_else(|| listed(namespaces, |pattern| text(pattern, namespace)).map(|keys| (2, keys)))
        .or_else(|| listed(destination_ips, net(Side::Destination)).map(|keys| (3, keys)))
        .or_else(|| listed(destination_ports, |port| Some(Key::Port(*port))).map(|keys| (4, keys)))
}

/// A key for each element of which one has to match. A list that could not be read whole is not summed up by what could.
fn listed<T>(group: &Group<T>, key: impl Fn(&T) -> Option<Key>) -> Option<Vec<Key>> {
    if group.any.unreadable > 0 || group.any.elements.is_empty() {
        return None;
    }
    group.any.elements.iter().map(key).collect()
}

fn text(pattern: &StringMatch, [whole, start, end]: [Part; 3]) -> Option<Key> {
    match pattern {
        StringMatch::Exact(text) => Some(Key::Text(whole, text.clone())),
        StringMatch::Prefix(text) => Some(Key::Text(start, text.clone())),
        StringMatch::Suffix(text) => Some(Key::Text(end, text.clone())),
        StringMatch::Presence => None,
    }
}

#[cfg(test)]
mod tests;
