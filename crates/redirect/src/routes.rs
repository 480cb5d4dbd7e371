//! The way back for replies to connections under a foreign address: a table of its own, that marked packets are looked up
//! in, and in which everything is delivered to this namespace itself (spec in-pod 5).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Attributes, CREATE_NEW, Family, Message, Socket};

/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// A route or rule could not be set.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {action}: {source}; CAP_NET_ADMIN in this network namespace is needed, and a kernel with policy routing"
)]
pub struct RouteError {
    action: String,
    source: io::Error,
}

/// Which packets go which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyRoute {
    /// The mark of such packets,
    pub mark: u32,
    /// of which only these bits count.
    pub mask: u32,
    /// Where the rule stands among others.
    pub priority: u32,
    /// The routing table that it leads to.
    pub table: u8,
}

/// Unspecified addresses of the families that there are.
pub fn families() -> Vec<IpAddr> {
    let v6 = ipv6_available().then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    std::iter::once(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).chain(v6).collect()
}

/// Whether the kernel has IPv6 and it is switched off neither for all interfaces nor for `lo`.
pub fn ipv6_available() -> bool {
    let on = |interface| {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
    };
    on("all") && on("lo")
}

impl ReplyRoute {
    /// Sets rule and route for all families; what is there already stays.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn add(self) -> Result<(), RouteError> {
        for any in families() {
            perform(&self.rule(any, libc::RTM_NEWRULE, CREATE_NEW), libc::EEXIST, "add a routing rule")?;
            perform(&self.route(any, libc::RTM_NEWROUTE, CREATE_NEW), libc::EEXIST, "add a route")?;
        }
        Ok(())
    }

    /// Takes away exactly these; what is not there need not be.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn remove(self) -> Result<(), RouteError> {
        for any in families() {
            perform(&self.rule(any, libc::RTM_DELRULE, 0), libc::ENOENT, "remove a routing rule")?;
            perform(&self.route(any, libc::RTM_DELROUTE, 0), libc::ESRCH, "remove a route")?;
        }
        Ok(())
    }

    fn rule(self, any: IpAddr, kind: u16, flags: u16) -> Message {
        // `linux/fib_rules.h`.
        const FR_ACT_TO_TBL: u8 = 1;
        const FRA_PRIORITY: u16 = 6;
        const FRA_FWMARK: u16 = 10;
        const FRA_FWMASK: u16 = 16;
        let head = [family(any), 0, 0, 0, self.table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        Message::default().request(kind, flags, &head, |attributes: &mut Attributes<'_>| {
            attributes.native(FRA_PRIORITY, self.priority);
            attributes.native(FRA_FWMARK, self.mark).native(FRA_FWMASK, self.mask);
        })
    }

    fn route(self, any: IpAddr, kind: u16, flags: u16) -> Message {
        let (boot, host, local) = (libc::RTPROT_BOOT, libc::RT_SCOPE_HOST, libc::RTN_LOCAL);
        let head = [family(any), 0, 0, 0, self.table, boot, host, local, 0, 0, 0, 0];
        Message::default().request(kind, flags, &head, |attributes: &mut Attributes<'_>| {
            attributes.native(libc::RTA_OIF, LOOPBACK);
        })
    }
}

/// Has the kernel do it; `done` is its error for what is so already.
fn perform(message: &Message, done: i32, action: &str) -> Result<(), RouteError> {
    match Socket::open(Family::Route).and_then(|mut socket| socket.perform(message)) {
        Err(error) if error.raw_os_error() == Some(done) => Ok(()),
        performed => performed.map_err(|source| RouteError { action: action.to_owned(), source }),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
