//! The faults that a soak knows: how long each lasts, and what of its consequences is permitted.
//!
//! Invariant: what is not named here as a consequence of a fault is nobody's consequence, and fails the soak.
//!
//! How they are brought about is in [`injection`](super::injection).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// Something that happens to the mesh and passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ControlPlaneRestarts,
    ControlPlaneFlaps,
    ControlPlaneSilent,
    CaRefuses,
    CaHangs,
    RootRotates,
    PodsChurn,
    AppDies,
    LinkCut,
    ZtunnelKilled,
    AgentHangsUp,
    ResourcesFlap,
}

/// What there is to say of a [`Kind`].
#[derive(Debug)]
pub(super) struct Profile {
    /// How it is called in logs and on the command line.
    pub(super) name: &'static str,
    /// Seconds from when it begins until it is undone.
    pub(super) lasts: Range<u64>,
    /// For how long its consequences may be seen afterwards.
    pub(super) aftermath: Duration,
    /// What it may do to connections that it meets.
    pub(super) toll: Toll,
    /// Parts of lines of which one must be in a line at level error that it causes.
    pub(super) errors: &'static [&'static str],
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Toll {
    /// Nothing: they live as they should.
    None,
    /// They may end otherwise than they should, or not come about.
    Breaks,
}

/// For all certificates of a soak to be renewed twice.
const GENERATIONS: Range<u64> = 40..90;

impl Kind {
    pub(super) const ALL: [Kind; 12] = [
        Kind::ControlPlaneRestarts,
        Kind::ControlPlaneFlaps,
        Kind::ControlPlaneSilent,
        Kind::CaRefuses,
        Kind::CaHangs,
        Kind::RootRotates,
        Kind::PodsChurn,
        Kind::AppDies,
        Kind::LinkCut,
        Kind::ZtunnelKilled,
        Kind::AgentHangsUp,
        Kind::ResourcesFlap,
    ];

    pub(super) fn profile(self) -> Profile {
        let profile = |name, lasts, aftermath, toll, errors| {
            let aftermath = Duration::from_secs(aftermath);
            Profile { name, lasts, aftermath, toll, errors }
        };
        match self {
            Self::ControlPlaneRestarts => profile("control-plane-restarts", 2..8, 5, Toll::None, &[]),
            Self::ControlPlaneFlaps => profile("control-plane-flaps", 3..8, 5, Toll::None, &[]),
            Self::ControlPlaneSilent => profile("control-plane-silent", 4..9, 5, Toll::None, &[]),
            Self::CaRefuses => profile("ca-refuses", 4..9, 5, Toll::None, &[]),
            Self::CaHangs => profile("ca-hangs", 4..9, 15, Toll::None, &[]),
            Self::RootRotates => profile("root-rotates", GENERATIONS, 5, Toll::None, &[]),
            Self::PodsChurn => {
                profile("pods-churn", 5..15, 5, Toll::None, &["error=\"connection closed due to connection drain\""])
            }
            // Apps that are gone cut what they had, and are not there for what comes.
            Self::AppDies => {
                profile("app-dies", 2..6, 5, Toll::Breaks, &["reason=\"app-unreachable\"", "reason=\"peer-refused\""])
            }
            // What was sent is sent again at intervals that double: as long again as the link was down.
            Self::LinkCut => profile(
                "link-cut",
                2..6,
                15,
                Toll::Breaks,
                &["reason=\"dial-", "reason=\"tunnel-lost\"", "reason=\"http2\"", "reason=\"tls-handshake\""],
            ),
            Self::ZtunnelKilled => profile(
                "ztunnel-killed",
                1..4,
                10,
                Toll::Breaks,
                &["reason=\"dial-", "reason=\"tunnel-lost\"", "reason=\"http2\"", "reason=\"tls-handshake\""],
            ),
            // An agent that is busy takes leave of a ztunnel before it has heard its greeting.
            Self::AgentHangsUp => profile("agent-hangs-up", 2..8, 5, Toll::None, &["node agent announcement failed"]),
            Self::ResourcesFlap => profile("resources-flap", 5..15, 5, Toll::None, &[]),
        }
    }

    /// Whether a line at level error, of an instant at which this was there, is its consequence.
    pub(super) fn may_log(self, line: &str) -> bool {
        self.profile().errors.iter().any(|part| line.contains(part))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.profile().name)
    }
}

/// Which faults a soak has: `all`, `none`, or names separated by commas.
#[derive(Debug, Clone)]
pub struct Faults(pub(super) Vec<Kind>);

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |name: &str| {
            let known = || Kind::ALL.map(|kind| kind.profile().name).join(", ");
            let found = Kind::ALL.into_iter().find(|kind| kind.profile().name == name);
            found.ok_or_else(|| format!("there is no fault {name}; there are: all, none, {}", known()))
        };
        match text {
            "all" => Ok(Self(Kind::ALL.to_vec())),
            "none" => Ok(Self(Vec::new())),
            names => Ok(Self(names.split(',').map(one).collect::<Result<_, _>>()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_chosen_by_their_names() {
        assert_eq!("link-cut,ca-hangs".parse::<Faults>().unwrap().0, [Kind::LinkCut, Kind::CaHangs]);
        assert_eq!("all".parse::<Faults>().unwrap().0.len(), Kind::ALL.len());
        assert!("none".parse::<Faults>().unwrap().0.is_empty());
        assert!("earthquake".parse::<Faults>().unwrap_err().contains("there is no fault earthquake"));
    }

    #[test]
    fn every_fault_is_listed_once_and_passes() {
        for kind in Kind::ALL {
            assert_eq!(Kind::ALL.into_iter().filter(|other| other.profile().name == kind.profile().name).count(), 1);
            assert!(!kind.profile().lasts.is_empty(), "{kind}");
        }
    }
}
