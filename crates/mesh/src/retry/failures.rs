//! Who has failed lately, and how long they are avoided for it.
//!
//! Invariant: bounded ([`MAX_SERVICES`] times [`MAX_ENDPOINTS`]), and an endpoint whose time is over is tried by one
//! connection at a time until it has answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Pick;
use crate::name::{NamespacedHostname, Uid};

/// How long an endpoint is avoided after it has failed once; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that an endpoint is avoided: soon enough that one that came back is used again.
const LONGEST: Duration = Duration::from_secs(30);
/// How long the one connection that tries a failed endpoint again has it for itself; as long as any dial takes.
const TRIAL: Duration = Duration::from_secs(10);
/// Endpoints remembered of one service; avoiding more would make little difference to how often one that fails is tried.
const MAX_ENDPOINTS: usize = 64;
/// Services whose endpoints are remembered; a pod talks to a few at once.
const MAX_SERVICES: usize = 64;

/// See the top of this file.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    services: HashMap<NamespacedHostname, Vec<Failing>>,
}

/// An endpoint that has failed and not worked since.
#[derive(Clone, Debug)]
struct Failing {
    uid: Uid,
    port: u16,
    /// How long it was avoided for its last failure.
    avoided_for: Duration,
    avoided_until: Instant,
    trial: Trial,
}

/// Whether somebody finds out if an endpoint works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Not at the moment.
    None,
    /// One connection does, and the others avoid the endpoint meanwhile.
    UnderWay,
}

impl Failures {
    /// Nobody has failed.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// An endpoint has failed. Connections that fail while it is avoided began before that, and tell nothing new.
    pub fn failed(&mut self, pick: &Pick, now: Instant) {
        self.forget(now);
        if !self.services.contains_key(&pick.service) && self.services.len() >= MAX_SERVICES {
            self.make_way();
        }
        let failing = self.services.entry(pick.service.clone()).or_default();
        match failing.iter_mut().find(|failing| failing.is(pick)) {
            Some(known) if known.avoided_until > now && known.trial == Trial::None => {}
            Some(known) => {
                known.avoided_for = (known.avoided_for * 2).min(LONGEST);
                known.avoided_until = now + known.avoided_for;
                known.trial = Trial::None;
            }
            None => {
                if failing.len() >= MAX_ENDPOINTS {
                    let first = failing.iter().enumerate().min_by_key(|(_, one)| one.avoided_until);
                    if let Some((first, _)) = first {
                        failing.swap_remove(first);
                    }
                }
                let (uid, port) = (pick.uid.clone(), pick.port);
                failing.push(Failing { uid, port, avoided_for: FIRST, avoided_until: now + FIRST, trial: Trial::None });
            }
        }
    }

    /// An endpoint has been chosen. If it has failed before, others leave it alone until it has answered this one.
    pub fn chosen(&mut self, pick: &Pick, now: Instant) {
        let failing = self.services.get_mut(&pick.service).and_then(|all| all.iter_mut().find(|one| one.is(pick)));
        if let Some(failing) = failing
            && failing.avoided_until <= now
        {
            failing.avoided_until = now + TRIAL;
            failing.trial = Trial::UnderWay;
        }
    }

    /// An endpoint has answered.
    pub fn worked(&mut self, pick: &Pick) {
        if let Some(failing) = self.services.get_mut(&pick.service) {
            failing.retain(|failing| !failing.is(pick));
            if failing.is_empty() {
                self.services.remove(&pick.service);
            }
        }
    }

    /// Endpoints of a service that had better be avoided, those first that have the longest to go.
    pub(crate) fn avoided(&self, service: &NamespacedHostname, port: u16, now: Instant) -> Vec<&Uid> {
        let Some(failing) = self.services.get(service) else { return Vec::new() };
        let mut avoided: Vec<&Failing> =
            failing.iter().filter(|failing| failing.port == port && failing.avoided_until > now).collect();
        avoided.sort_by_key(|failing| std::cmp::Reverse(failing.avoided_until));
        avoided.into_iter().map(|failing| &failing.uid).collect()
    }

    /// Forgets endpoints that nobody has tried again for long: what they did says nothing about them any more.
    fn forget(&mut self, now: Instant) {
        for failing in self.services.values_mut() {
            failing.retain(|failing| failing.avoided_until + LONGEST > now);
        }
        self.services.retain(|_, failing| !failing.is_empty());
    }

    /// Forgets the service whose endpoints will be tried again first.
    fn make_way(&mut self) {
        let last = |failing: &[Failing]| failing.iter().map(|failing| failing.avoided_until).max();
        let first = self.services.iter().min_by_key(|(_, failing)| last(failing)).map(|(service, _)| service.clone());
        if let Some(first) = first {
            self.services.remove(&first);
        }
    }
}

impl Failing {
    fn is(&self, pick: &Pick) -> bool {
        self.uid == pick.uid && self.port == pick.port
    }
}

#[cfg(test)]
mod tests;
