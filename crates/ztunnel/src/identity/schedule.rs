//! Which certificate to ask for next: the schedule of all identities of the node, as a machine without clock or I/O.
//!
//! Callers [`demand`](Schedule::demand) certificates; the driver takes those that [`start`](Schedule::start) names to
//! the CA and brings results to [`finish`](Schedule::finish). Invariants: at most one request per identity and
//! [`MAX_IN_FLIGHT`] in all are with the CA; of those that wait, the most urgent goes first, and of equals the oldest;
//! a certificate is given out until its last second, however often its renewal fails. Who signs, and what a
//! certificate is beyond its dates, is not known here.
//!
//! A look for due work walks all identities. A node has some hundreds at most, and looks only when something happened.

pub mod timing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use mesh::Identity;

use super::error::{IdentityError, MaterialError};
use timing::{Jitter, Now, Validity, backoff};

/// Requests with the CA at one time (spec identity-and-tls 4): enough to hide its latency, few enough that a thousand
/// nodes that start together do not drown it.
pub const MAX_IN_FLIGHT: usize = 8;
/// Demand and a recovered CA cut a backoff short, but attempts for one identity stay this far apart: a CA that fails
/// because it is overloaded must not be held down by the connections that its failure makes apps retry.
pub const DEMAND_FLOOR: Duration = Duration::from_secs(5);
/// A forgotten identity that is asked for again within this time gets its certificate back: a pod that restarts quickly
/// costs no request.
pub const FORGET_GRACE: Duration = Duration::from_secs(60);

/// How urgent a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Refreshes and retries that nobody waits for.
    Background,
    /// A workload has appeared on the node and will want it soon.
    Warmup,
    /// A connection waits.
    RealTime,
}

/// Something with a lifetime.
pub trait Dated {
    /// Its first and last second.
    fn validity(&self) -> Validity;
}

/// What a demand meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<C> {
    /// A valid certificate.
    Ready(C),
    /// An attempt is under way or about to be; its result comes out of [`Schedule::finish`].
    Pending,
    /// The last attempt failed and the next is not due yet.
    Failed(IdentityError),
}

/// What is known of an identity (spec identity-and-tls 4, States).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status<'a, C> {
    /// The first certificate is waited for, with the urgency of its request while that is queued.
    Initializing(Option<Priority>),
    /// There is a valid certificate.
    Available(&'a C),
    /// There is none, and this is why.
    Unavailable(&'a IdentityError),
}

/// What became of a request to the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// A new certificate is in use, to be refreshed at this time.
    Issued {
        /// When the next one will be asked for.
        refresh: SystemTime,
    },
    /// The renewal failed, the certificate before it is still valid.
    Retained {
        /// Why the renewal failed.
        error: IdentityError,
        /// Last second of the certificate in use.
        until: SystemTime,
        /// Time to the next attempt.
        retry: Duration,
    },
    /// It failed and there is no valid certificate.
    Failed {
        /// Why.
        error: IdentityError,
        /// Time to the next attempt.
        retry: Duration,
    },
    /// The identity was forgotten meanwhile.
    Discarded,
}

/// Certificates `C` of all identities and the plan for each.
#[derive(Debug)]
pub struct Schedule<C> {
    entries: BTreeMap<Identity, Entry<C>>,
    /// Who is with the CA; may hold identities that were forgotten meanwhile.
    in_flight: BTreeSet<Identity>,
    /// Counts what was queued, so that equals keep their order.
    turn: u64,
}

#[derive(Debug)]
struct Entry<C> {
    certificate: Option<C>,
    /// Why the last attempt failed; none if it did not.
    error: Option<IdentityError>,
    /// Failures since the last success.
    failures: u32,
    /// When the last attempt ended.
    attempted: Option<Instant>,
    plan: Plan,
    /// A certificate that is in use only from that moment on.
    held: Option<(Instant, C)>,
    /// When the identity was forgotten, if it was.
    forgotten: Option<Instant>,
}

/// What happens next to an identity.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// Waits for a free place with the CA.
    Queued { priority: Priority, turn: u64 },
    /// Is with the CA.
    InFlight,
    /// A refresh, due by the wall clock.
    Refresh(SystemTime),
    /// Another attempt after a failure.
    Retry(Instant),
}

impl<C> Default for Schedule<C> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), in_flight: BTreeSet::new(), turn: 0 }
    }
}

impl<C: Dated + Clone> Schedule<C> {
    /// Asks for the certificate of `identity`, which is managed from now on.
    ///
    /// A queued request becomes as urgent as its most urgent demand. A pending retry is brought forward, though not
    /// closer than [`DEMAND_FLOOR`] to the attempt before it.
    pub fn demand(&mut self, now: Now, identity: &Identity, priority: Priority) -> Answer<C> {
        let turn = self.next_turn();
        let in_flight = &self.in_flight;
        let entry = self.entries.entry(identity.clone()).or_insert_with(|| {
            let known = in_flight.contains(identity);
            Entry::new(if known { Plan::InFlight } else { Plan::Queued { priority, turn } })
        });
        entry.forgotten = None;
        if let Some(certificate) = entry.valid(now.wall) {
            return Answer::Ready(certificate.clone());
        }
        match &mut entry.plan {
            Plan::InFlight => Answer::Pending,
            Plan::Queued { priority: queued, .. } => {
                *queued = priority.max(*queued);
                Answer::Pending
            }
            plan @ (Plan::Refresh(_) | Plan::Retry(_)) => {
                let allowed = entry.attempted.map_or(now.instant, |attempted| attempted + DEMAND_FLOOR);
                let due = plan.due(now).min(allowed);
                if due <= now.instant {
                    *plan = Plan::Queued { priority, turn };
                    return Answer::Pending;
                }
                *plan = Plan::Retry(due);
                entry.error.clone().map_or(Answer::Pending, Answer::Failed)
            }
        }
    }

    /// Stops managing `identity`. Its certificate is out of use at once and gone after [`FORGET_GRACE`]; the result of
    /// a request that is with the CA is dropped unless the identity is demanded again.
    pub fn forget(&mut self, now: Now, identity: &Identity) {
        let Some(entry) = self.entries.get_mut(identity) else { return };
        if entry.valid(now.wall).is_some() {
            entry.forgotten.get_or_insert(now.instant);
            if matches!(entry.plan, Plan::Queued { .. }) {
                entry.plan = Plan::Retry(now.instant);
            }
        } else {
            self.entries.remove(identity);
        }
    }

    /// The identity to take to the CA now, if one is due and there is room; it counts as in flight until
    /// [`finish`](Self::finish) is called for it. To be called until it answers `None`.
    pub fn start(&mut self, now: Now) -> Option<Identity> {
        self.entries.retain(|_, entry| entry.forgotten.is_none_or(|at| now.instant < at + FORGET_GRACE));
        self.queue_due(now);
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (_, identity) = self
            .entries
            .iter()
            .filter_map(|(identity, entry)| match entry.plan {
                Plan::Queued { priority, turn } => Some(((std::cmp::Reverse(priority), turn), identity)),
                _ => None,
            })
            .min()?;
        let identity = identity.clone();
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.plan = Plan::InFlight;
        }
        self.in_flight.insert(identity.clone());
        Some(identity)
    }

    /// Turns refreshes and retries that are due into requests, the longest overdue first.
    fn queue_due(&mut self, now: Now) {
        let mut due: Vec<(Instant, &mut Plan)> = self
            .entries
            .values_mut()
            .filter(|entry| entry.forgotten.is_none())
            .filter(|entry| matches!(entry.plan, Plan::Refresh(_) | Plan::Retry(_)))
            .map(|entry| (entry.plan.due(now), &mut entry.plan))
            .filter(|(at, _)| *at <= now.instant)
            .collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, plan) in due {
            self.turn += 1;
            *plan = Plan::Queued { priority: Priority::Background, turn: self.turn };
        }
    }

    /// Takes the result for an identity that [`start`](Self::start) gave out. A certificate that has expired on
    /// arrival is a failure. A success shows that the CA works, and cuts the backoff of all other identities short.
    pub fn finish(
        &mut self,
        now: Now,
        identity: &Identity,
        result: Result<C, IdentityError>,
        jitter: Jitter,
    ) -> Settled {
        self.in_flight.remove(identity);
        let Some(entry) = self.entries.get_mut(identity) else { return Settled::Discarded };
        entry.attempted = Some(now.instant);
        match result {
            Ok(certificate) if certificate.validity().lasts(now.wall) => {
                let settled = entry.renew(now, certificate, jitter);
                self.hasten_retries(now);
                settled
            }
            Ok(_) => entry.fail(now, expired().into(), jitter),
            Err(error) => entry.fail(now, error, jitter),
        }
    }

    /// Brings all retries forward, as far as [`DEMAND_FLOOR`] allows.
    fn hasten_retries(&mut self, now: Now) {
        for entry in self.entries.values_mut() {
            if let Plan::Retry(at) = &mut entry.plan {
                let allowed = entry.attempted.map_or(now.instant, |attempted| attempted + DEMAND_FLOOR);
                *at = allowed.min(*at);
            }
        }
    }

    /// Keeps the certificate that has just arrived for `identity` back until `until`, and hands out `meanwhile`: peers
    /// shall learn the root of the new one first.
    pub fn hold(&mut self, identity: &Identity, meanwhile: C, until: Instant) {
        if let Some(entry) = self.entries.get_mut(identity) {
            entry.held = entry.certificate.replace(meanwhile).map(|arrived| (until, arrived));
        }
    }

    /// Puts certificates into use that were held back long enough, or whose predecessor has ended; tells for whom.
    pub fn promote(&mut self, now: Now) -> Vec<Identity> {
        let mut promoted = Vec::new();
        for (identity, entry) in &mut self.entries {
            let lasts = entry.certificate.as_ref().is_some_and(|current| current.validity().lasts(now.wall));
            if let Some((_, arrived)) = entry.held.take_if(|(until, _)| *until <= now.instant || !lasts) {
                entry.certificate = Some(arrived);
                promoted.push(identity.clone());
            }
        }
        promoted
    }

    /// Brings all refreshes forward, spread over `spread` by `chance` (0 to 1), and never beyond a quarter of what is
    /// left of a certificate: the CA has something new to say.
    pub fn hasten_refreshes(&mut self, now: Now, spread: Duration, mut chance: impl FnMut() -> f64) {
        for entry in self.entries.values_mut() {
            let left = entry.valid(now.wall).map(|certificate| certificate.validity().not_after);
            let left = left.and_then(|until| until.duration_since(now.wall).ok()).unwrap_or_default();
            if let Plan::Refresh(at) = &mut entry.plan {
                let soon = now.wall + spread.min(left / 4).mul_f64(chance().clamp(0.0, 1.0));
                *at = soon.min(*at);
            }
        }
    }

    /// Replaces certificates by what `change` makes of them, where it makes anything; their plans stay.
    pub fn amend(&mut self, change: impl Fn(&C) -> Option<C>) -> Vec<Identity> {
        for entry in self.entries.values_mut() {
            let held = entry.held.as_mut().map(|(_, certificate)| certificate);
            for certificate in entry.certificate.iter_mut().chain(held) {
                if let Some(amended) = change(certificate) {
                    *certificate = amended;
                }
            }
        }
        self.entries.keys().cloned().collect()
    }

    /// When [`start`](Self::start) or [`promote`](Self::promote) should be called though nothing happened; `None` if never. Refreshes follow the
    /// wall clock, so a driver should look at the clocks again from time to time even if this is far off.
    #[must_use]
    pub fn wake(&self, now: Now) -> Option<Instant> {
        let room = self.in_flight.len() < MAX_IN_FLIGHT;
        let held = self.entries.values().filter_map(|entry| entry.held.as_ref().map(|(until, _)| *until));
        self.entries
            .values()
            .filter_map(|entry| match (entry.forgotten, entry.plan) {
                (Some(at), _) => Some(at + FORGET_GRACE),
                (None, Plan::InFlight) => None,
                (None, Plan::Queued { .. }) => room.then_some(now.instant),
                (None, plan) => Some(plan.due(now)),
            })
            .chain(held)
            .min()
    }

    /// What is known of `identity`; `None` if it is not managed.
    #[must_use]
    pub fn status(&self, now: Now, identity: &Identity) -> Option<Status<'_, C>> {
        let entry = self.entries.get(identity).filter(|entry| entry.forgotten.is_none())?;
        Some(match (entry.valid(now.wall), &entry.error, entry.plan) {
            (Some(certificate), _, _) => Status::Available(certificate),
            (None, Some(error), _) => Status::Unavailable(error),
            (None, None, Plan::Queued { priority, .. }) => Status::Initializing(Some(priority)),
            (None, None, _) => Status::Initializing(None),
        })
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

impl<C: Dated + Clone> Entry<C> {
    fn new(plan: Plan) -> Self {
        Self { certificate: None, error: None, failures: 0, attempted: None, plan, held: None, forgotten: None }
    }

    fn valid(&self, wall: SystemTime) -> Option<&C> {
        let held = self.held.as_ref().map(|(_, certificate)| certificate);
        self.certificate.iter().chain(held).find(|certificate| certificate.validity().lasts(wall))
    }

    fn renew(&mut self, now: Now, certificate: C, jitter: Jitter) -> Settled {
        let refresh = certificate.validity().refresh(now, jitter);
        self.certificate = Some(certificate);
        self.held = None;
        self.error = None;
        self.failures = 0;
        self.plan = Plan::Refresh(refresh);
        Settled::Issued { refresh }
    }

    fn fail(&mut self, now: Now, error: IdentityError, jitter: Jitter) -> Settled {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error.clone());
        let delay = backoff(self.failures, jitter);
        let until = self.valid(now.wall).map(|certificate| certificate.validity().not_after);
        let expiry = until.map(|until| until.duration_since(now.wall).unwrap_or_default());
        // A last attempt is made when the certificate ends, however long the backoff.
        let retry = expiry.filter(|left| !left.is_zero()).map_or(delay, |left| left.min(delay));
        self.plan = Plan::Retry(now.instant + retry);
        match until {
            Some(until) => Settled::Retained { error, until, retry },
            None => Settled::Failed { error, retry },
        }
    }
}

impl Plan {
    /// When a refresh or retry is due; what is queued or with the CA is so now.
    fn due(&self, now: Now) -> Instant {
        match self {
            Self::Queued { .. } | Self::InFlight => now.instant,
            Self::Refresh(wall) => now.instant_of(*wall),
            Self::Retry(at) => *at,
        }
    }
}

fn expired() -> MaterialError {
    MaterialError::Certificate("the CA returned a certificate that has expired; check its clock and ours".into())
}

#[cfg(test)]
mod tests;
