//! The attempts of one connection to reach an endpoint.
//!
//! Invariant: it comes to an end, by its deadline, by running out of endpoints, or after [`MAX_ATTEMPTS`].

use std::time::{Duration, Instant};

use super::{Others, Pick, PickRole};

/// Attempts of one connection: enough to get past any endpoints that died together, few enough that a service of which
/// nothing is alive is not searched from end to end by each of its clients.
const MAX_ATTEMPTS: usize = 6;
/// An attempt that has alternatives may take this share of the whole time, so that two endpoints that do not answer
/// leave time for a third. Of 10 s it is long enough for a lost SYN to be sent twice more.
const SHARES: u32 = 3;

/// What the operator set about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrySettings {
    /// One attempt, as long as it takes.
    Off,
    /// Attempts at several endpoints that may take this long together.
    Within(Duration),
}

impl RetrySettings {
    /// How long an attempt may take that has alternatives, or that is shared by connections that may have some; `None`
    /// is as long as any.
    pub fn attempt(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Within(whole) => Some(whole / SHARES),
        }
    }

    /// How long a tunnel may take until it is established, shared as it is: longer than its dial alone, since a slow
    /// handshake is a sign of life.
    pub fn tunnel(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Within(whole) => Some(whole / 2),
        }
    }
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next hop could not be reached, or was lost before anything that it might have passed on was sent.
    Unreachable,
    /// The attempt's time was up.
    TimedOut,
    /// The next hop answers that it cannot reach what is behind it, and has passed nothing on.
    Unavailable,
    /// Something that another endpoint would not do better, or after which bytes are in doubt.
    Final,
}

/// What to do after an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a route again, with what has been tried.
    Again,
    /// The connection fails.
    GiveUp,
}

/// See the top of this file.
#[derive(Clone, Debug)]
pub struct Attempts {
    settings: RetrySettings,
    begun: Instant,
    failed: usize,
    tried: Vec<Pick>,
}

impl Attempts {
    /// No attempts yet; time runs from `now`.
    pub fn new(settings: RetrySettings, now: Instant) -> Self {
        Self { settings, begun: now, failed: 0, tried: Vec::new() }
    }

    /// What has been tried and has failed.
    pub fn tried(&self) -> &[Pick] {
        &self.tried
    }

    /// How long an attempt at `pick` may take that begins `now`; `None` is as long as any.
    pub fn patience(&self, pick: Option<&Pick>, now: Instant) -> Option<Duration> {
        let left = self.left(now)?;
        match pick {
            Some(Pick { others: Others::Left, .. }) => Some(left.min(self.settings.attempt()?)),
            _ => Some(left),
        }
    }

    /// How long a request to `pick` that is sent `now` may remain unanswered before the connection goes elsewhere; `None`
    /// is as long as it takes. A peer that is slow is better than none: it is left only if there is time for another.
    pub fn patience_for_answer(&self, pick: Option<&Pick>, now: Instant) -> Option<Duration> {
        let share = self.settings.attempt()?;
        let another = pick.is_some_and(|pick| pick.others == Others::Left) && self.failed + 1 < MAX_ATTEMPTS;
        (another && self.left(now)? > share).then_some(share)
    }

    /// What is left of the whole time.
    fn left(&self, now: Instant) -> Option<Duration> {
        match self.settings {
            RetrySettings::Off => None,
            RetrySettings::Within(whole) => Some(whole.saturating_sub(now.saturating_duration_since(self.begun))),
        }
    }

    /// Whether a failure is the fault of what was chosen, so that others had better avoid it.
    pub fn blames(&self, pick: &Pick, fault: Fault) -> bool {
        self.settings != RetrySettings::Off
            && match fault {
                Fault::Final => false,
                Fault::Unavailable => pick.role == PickRole::Endpoint,
                Fault::Unreachable | Fault::TimedOut => true,
            }
    }

    /// An attempt has failed. One that had no alternative and was cut short has another try for as long as time is left,
    /// since its time may have been up early for the sake of others.
    pub fn failed(&mut self, pick: Option<&Pick>, fault: Fault, now: Instant) -> Next {
        self.failed += 1;
        let time_is_left = self.left(now).is_some_and(|left| !left.is_zero());
        if !time_is_left || self.failed >= MAX_ATTEMPTS {
            return Next::GiveUp;
        }
        let alternative = pick.filter(|pick| pick.others == Others::Left);
        match (fault, alternative) {
            (_, Some(pick)) if self.blames(pick, fault) => {
                self.tried.push(pick.clone());
                Next::Again
            }
            (Fault::TimedOut, None) => Next::Again,
            _ => Next::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests;
