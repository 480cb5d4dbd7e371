//! Decisions that cannot be made yet: what the caller has to find out first, and how it asks again.
//!
//! A decision never waits. It names one [`Need`] at a time, at most once each, so that asking again comes to an end.

use std::net::IpAddr;

use crate::address::NetworkAddress;
use crate::balance::Draw;
use crate::name::{Hostname, LocalWorkload, NamespacedHostname, PolicyName, Uid};
use crate::refusal::Refusal;

/// No decision, or none that goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Find this out, put it into [`Learnt`] and ask again.
    Need(Need),
    /// The answer is no.
    Refuse(Refusal),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Something that a decision turns on and that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// The control plane's word on the workload that this instance stands for.
    LocalWorkload(LocalWorkload),
    /// The control plane's word on an address.
    Address(NetworkAddress),
    /// The control plane's word on a host name.
    Host(NamespacedHostname),
    /// The control plane's word on a policy.
    Policy(PolicyName),
    /// The addresses of a host name.
    Resolve {
        /// The workload that is reached by it.
        workload: Uid,
        /// The name to resolve.
        hostname: Hostname,
    },
}

/// What a caller has found out in answer to [`Need`]s, for one connection.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    asked: Vec<Need>,
    resolved: Vec<(Hostname, Resolution)>,
}

/// What came of resolving a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// An answer, possibly without any address.
    Addresses(Vec<IpAddr>),
    /// None.
    Failed,
}

impl Learnt {
    /// That the control plane was asked; whatever it said is in the view by now, and it is not asked again.
    pub fn asked(&mut self, need: Need) {
        self.asked.push(need);
    }

    /// What came of resolving a host name.
    pub fn resolved(&mut self, hostname: Hostname, resolution: Resolution) {
        self.resolved.push((hostname, resolution));
    }

    pub(crate) fn has_asked(&self, need: &Need) -> bool {
        self.asked.contains(need)
    }

    pub(crate) fn resolution(&self, hostname: &Hostname) -> Option<&Resolution> {
        self.resolved.iter().find(|(name, _)| name == hostname).map(|(_, resolution)| resolution)
    }
}

/// Makes asking again come to the same choices: remembers what was drawn, and hands it out once more after a
/// [`rewind`](Replay::rewind).
pub struct Replay<D> {
    source: D,
    drawn: Vec<u64>,
    at: usize,
}

impl<D: Draw> Replay<D> {
    /// Draws from `source`.
    pub fn new(source: D) -> Self {
        Self { source, drawn: Vec::new(), at: 0 }
    }

    /// Starts over.
    pub fn rewind(&mut self) {
        self.at = 0;
    }
}

impl<D: Draw> Draw for Replay<D> {
    fn below(&mut self, bound: u64) -> u64 {
        // A view that changed in between may ask for less than it did.
        let number = match self.drawn.get(self.at) {
            Some(drawn) if *drawn < bound => *drawn,
            _ => {
                let fresh = self.source.below(bound);
                self.drawn.truncate(self.at);
                self.drawn.push(fresh);
                fresh
            }
        };
        self.at += 1;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Script;

    #[test]
    fn a_replay_repeats_what_was_drawn_and_then_goes_on() {
        let mut script = Script(vec![3, 1, 4, 2]);
        let mut replay = Replay::new(&mut script);
        assert_eq!([replay.below(5), replay.below(5)], [3, 1]);
        replay.rewind();
        assert_eq!([replay.below(5), replay.below(5), replay.below(5)], [3, 1, 4]);
        replay.rewind();
        assert_eq!([replay.below(5), replay.below(5), replay.below(5), replay.below(5)], [3, 1, 4, 2]);
    }

    #[test]
    fn what_no_longer_fits_is_drawn_anew_with_all_that_follows() {
        let mut replay = Replay::new(Script(vec![3, 1, 0, 2]));
        assert_eq!([replay.below(5), replay.below(5)], [3, 1]);
        replay.rewind();
        assert_eq!([replay.below(3), replay.below(5)], [0, 2]);
    }
}
