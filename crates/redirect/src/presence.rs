//! Whether a namespace is redirected at all, by whomever: the node agent with nftables or iptables, or ztunnel itself.

use std::fs;
use std::io;

use crate::nft::list::redirecting;

/// What a look came to.
#[derive(Debug)]
pub enum Presence {
    /// A rule redirects to the port.
    Yes,
    /// None does.
    No,
    /// It cannot be told.
    Unknown(io::Error),
}

/// Looks whether a packet rule of the calling thread's namespace redirects to `port`.
///
/// Rules of iptables in its old form are not read: where that is in use, it cannot be told.
pub fn leads_to(port: u16) -> Presence {
    match redirecting(port) {
        Ok(true) => Presence::Yes,
        Ok(false) if old_iptables() => Presence::Unknown(io::Error::other("iptables (legacy) is in use here")),
        Ok(false) => Presence::No,
        Err(error) => Presence::Unknown(error.into_source()),
    }
}

/// Whether tables of the old form change addresses here.
fn old_iptables() -> bool {
    ["ip_tables_names", "ip6_tables_names"].into_iter().any(|file| {
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names.is_ok_and(|names| names.lines().any(|name| name == "nat"))
    })
}
