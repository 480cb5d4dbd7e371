//! Choosing an endpoint of a service (spec data-plane 4.4, state-and-dns 7.3 to 7.5).
//!
//! Each connection gets a fresh, independent choice among the endpoints that have most in common with its source, by
//! weight. Choosing costs a draw from a prepared pool; only where the pool's endpoints turn out to be unusable for
//! this connection are all endpoints looked at. Endpoints that this connection has tried are left out, and those that
//! failed others lately are avoided as long as enough are left; where that empties a group, the next one serves.

use std::ops::Range;
use std::sync::Arc;

use crate::name::Uid;
use crate::retry::{Others, Past};
use crate::service::{Mode, Scope, Service};
use crate::view::View;
use crate::view::endpoints::{Endpoints, value};
use crate::view::pool::{Member, Pool};
use crate::workload::Workload;

/// The caller's randomness; tests script it.
pub trait Draw {
    /// A number below `bound`, all equally likely. `bound` is at least 1.
    fn below(&mut self, bound: u64) -> u64;
}

impl<D: Draw + ?Sized> Draw for &mut D {
    fn below(&mut self, bound: u64) -> u64 {
        (**self).below(bound)
    }
}

/// Which ports of a service may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortRule {
    /// Those that the service declares.
    Declared,
    /// Those, and any port of endpoints that have an application tunnel: the service is a waypoint.
    Waypoint,
}

/// An endpoint chosen, and the port to reach it at.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: u16,
    pub(crate) others: Others,
}

/// Avoiding spares at least one endpoint for each that it leaves out: never more than half of them, and never the last.
const SPARED: usize = 2;

/// How often to draw before looking at all endpoints: endpoints that are unusable for just this connection are rare, so
/// a second draw nearly always settles it.
const DRAWS: usize = 4;

/// What is asked of a service.
struct Choice<'a> {
    service: &'a Service,
    source: &'a Workload,
    port: u16,
    rule: PortRule,
    past: &'a Past<'a>,
}

/// Chooses an endpoint of `service` for its port `port`; `None` if there is none to choose.
pub(crate) fn choose(
    view: &View,
    service: &Service,
    source: &Workload,
    (port, rule): (u16, PortRule),
    past: &Past<'_>,
    draw: &mut dyn Draw,
) -> Option<Chosen> {
    if rule == PortRule::Declared && service.ports.get(port).is_none() {
        return None;
    }
    let endpoints = view.endpoints_of(&service.key())?;
    let choice = Choice { service, source, port, rule, past };
    let member = choice.draw(endpoints, draw)?;
    let others = choice.others(endpoints, member);
    Some(Chosen { workload: member.workload.clone(), port: choice.target_port(member)?, others })
}

impl Choice<'_> {
    fn draw<'a>(&self, endpoints: &'a Endpoints, draw: &mut dyn Draw) -> Option<&'a Member> {
        let tried: Vec<&Uid> = self.past.tried(&self.service.key(), self.port).collect();
        let avoided = self.avoided(endpoints);
        if avoided.is_empty() {
            return self.draw_without(endpoints, &tried, draw);
        }
        let both: Vec<&Uid> = tried.iter().chain(&avoided).copied().collect();
        // What is avoided is better than nothing.
        self.draw_without(endpoints, &both, draw).or_else(|| self.draw_without(endpoints, &tried, draw))
    }

    /// Endpoints that failed lately and may be left out.
    fn avoided(&self, endpoints: &Endpoints) -> Vec<&Uid> {
        if self.past.failures.is_empty() {
            return Vec::new();
        }
        let mut avoided = self.past.failures.avoided(&self.service.key(), self.port, self.past.now);
        avoided.retain(|uid| endpoints.member(uid).is_some_and(|member| self.candidate(endpoints, member)));
        let wanted = avoided.len() * SPARED;
        let candidates = endpoints.members().filter(|member| self.candidate(endpoints, member)).take(wanted).count();
        avoided.truncate(candidates / SPARED);
        avoided
    }

    /// Whether an endpoint could be chosen at all, nearer ones or not.
    fn candidate(&self, endpoints: &Endpoints, member: &Member) -> bool {
        member.weight() > 0
            && self.usable(member)
            && rank(endpoints.preferences(), self.source, &member.workload).is_some()
    }

    /// Whether another endpoint could have been chosen.
    fn others(&self, endpoints: &Endpoints, chosen: &Member) -> Others {
        let tried: Vec<&Uid> = self.past.tried(&self.service.key(), self.port).collect();
        let is_other = |member: &Member| {
            let uid = &member.workload.uid;
            *uid != chosen.workload.uid && !tried.contains(&uid) && self.candidate(endpoints, member)
        };
        if endpoints.members().any(is_other) { Others::Left } else { Others::None }
    }

    fn draw_without<'a>(&self, endpoints: &'a Endpoints, out: &[&Uid], draw: &mut dyn Draw) -> Option<&'a Member> {
        for pool in endpoints.groups(self.source) {
            let gaps = Gaps::new(pool, out);
            let weight = pool.weight() - gaps.weight();
            if weight == 0 && gaps.weight() > 0 {
                continue;
            }
            for _ in 0..DRAWS {
                if weight == 0 {
                    break;
                }
                // Drawing again after an unusable endpoint gives each usable one its share of what is usable.
                let member = pool.at(gaps.beside(draw.below(weight)))?;
                if self.usable(member) {
                    return Some(member);
                }
            }
            break;
        }
        self.scan(endpoints, out, draw)
    }

    /// The choice by definition: all endpoints filtered, ranked and weighed.
    fn scan<'a>(&self, endpoints: &'a Endpoints, out: &[&Uid], draw: &mut dyn Draw) -> Option<&'a Member> {
        let mut best = 0;
        let mut nearest: Vec<&Member> = Vec::new();
        let may_be_chosen =
            |member: &&Member| member.eligible && self.usable(member) && !out.contains(&&member.workload.uid);
        for member in endpoints.members().filter(may_be_chosen) {
            let Some(rank) = rank(endpoints.preferences(), self.source, &member.workload) else {
                continue;
            };
            if rank > best || nearest.is_empty() {
                best = rank;
                nearest.clear();
            }
            if rank == best {
                nearest.push(member);
            }
        }
        let weight = |member: &Member| u64::from(member.workload.capacity);
        let total: u64 = nearest.iter().map(|member| weight(member)).sum();
        if total == 0 {
            return None;
        }
        let mut point = draw.below(total);
        nearest.into_iter().find(|member| {
            let falls_here = point < weight(member);
            point = point.saturating_sub(weight(member));
            falls_here
        })
    }

    /// Whether an endpoint can serve this connection at all (spec state-and-dns 7.3).
    fn usable(&self, member: &Member) -> bool {
        let workload = &member.workload;
        let addressable = !workload.addresses.is_empty() || !workload.hostname.is_empty();
        let behind_gateway = workload.network != self.source.network && workload.network_gateway.is_some();
        let serves = match (self.rule, self.service.ports.get(self.port)) {
            (PortRule::Declared, Some(0)) => member.ports().get(self.port).is_some(),
            (PortRule::Declared, declared) => declared.is_some(),
            (PortRule::Waypoint, declared) => declared.is_some() || workload.application_tunnel.is_some(),
        };
        (addressable || behind_gateway) && serves
    }

    fn target_port(&self, member: &Member) -> Option<u16> {
        let own = member.ports().get(self.port);
        let declared = || self.service.ports.get(self.port).filter(|target| *target > 0);
        let tunnelled = || member.workload.application_tunnel?.port.map(|_| self.port);
        own.or_else(declared).or_else(tunnelled)
    }
}

/// Stretches of a pool's weight that are left out, so that one draw is enough however much they are.
struct Gaps(Vec<Range<u64>>);

impl Gaps {
    fn new(pool: &Pool, out: &[&Uid]) -> Self {
        let mut gaps: Vec<Range<u64>> = out.iter().filter_map(|uid| pool.points(uid)).collect();
        gaps.sort_by_key(|gap| gap.start);
        gaps.dedup();
        Self(gaps)
    }

    fn weight(&self) -> u64 {
        self.0.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// The point at which a point lies when the gaps are put back.
    fn beside(&self, point: u64) -> u64 {
        self.0.iter().fold(point, |point, gap| if point < gap.start { point } else { point + (gap.end - gap.start) })
    }
}

/// How much an endpoint has in common with the source; `None` if that is not enough (spec state-and-dns 7.4).
fn rank(preferences: Option<(&[Scope], Mode)>, source: &Workload, endpoint: &Workload) -> Option<usize> {
    let Some((scopes, mode)) = preferences else {
        return Some(0);
    };
    let common = |scope: &Scope| value(*scope, source) == value(*scope, endpoint);
    if mode == Mode::Strict {
        return scopes.iter().all(common).then_some(0);
    }
    let in_a_row = |scopes: &[Scope]| scopes.iter().take_while(|scope| common(scope)).count();
    Some(match scopes {
        // Any endpoint of the source's network is better than all others, which are still told apart.
        [Scope::Network, rest @ ..] if common(&Scope::Network) => scopes.len() + in_a_row(rest),
        [Scope::Network, rest @ ..] => in_a_row(rest),
        scopes => in_a_row(scopes),
    })
}

#[cfg(test)]
mod tests;
