//! Whether packet rules lead a namespace's connections here. Looking changes nothing; nobody depends on the answer.

use redirect::presence::{self, Presence};

use super::netns::Netns;

/// Looks at `netns` (`None`: our own) for rules that redirect to `port`.
#[must_use]
pub fn leads_to(netns: Option<&Netns>, port: u16) -> Presence {
    match netns {
        None => presence::leads_to(port),
        Some(netns) => netns.run(|| presence::leads_to(port)).unwrap_or_else(Presence::Unknown),
    }
}
