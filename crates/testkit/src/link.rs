//! Links, addresses, routes and rules of the calling thread's network namespace, set by rtnetlink.
//!
//! Every function acts in the namespace that the calling thread is in ([`crate::netns::NetNs::run`]); only a veth pair
//! reaches into a second one. No external program is run.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use redirect::netlink::{Attributes, CREATE, CREATE_NEW, CREATE_OR_REPLACE, Family, Message, Socket};
use redirect::routes::ipv6_available;

/// A link, address, route or rule could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct LinkError {
    action: String,
    source: io::Error,
}

impl LinkError {
    pub(crate) fn into_source(self) -> io::Error {
        self.source
    }
}

/// Creates a pair of connected interfaces, `name` here and `peer` in the namespace `peer_netns`; both are down.
pub fn add_veth(name: &str, peer: &str, peer_netns: BorrowedFd<'_>) -> Result<(), LinkError> {
    const VETH_INFO_PEER: u16 = 1;
    let message = Message::default().request(libc::RTM_NEWLINK, CREATE_NEW, &link_head(0, 0), |link| {
        link.text(libc::IFLA_IFNAME, name).nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    other.raw(&link_head(0, 0)).text(libc::IFLA_IFNAME, peer);
                    other.native(libc::IFLA_NET_NS_FD, peer_netns.as_fd().as_raw_fd().cast_unsigned());
                });
            });
        });
    });
    perform(&message, || format!("create the interfaces {name} and {peer}"))
}

/// Hardware address of bridges, locally administered. One that is not told its own has the lowest of its ports', and so
/// another as they come and go, which those who send to it learn only when nothing has come back for long.
const BRIDGE_ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Creates a bridge, down. It keeps its hardware address whatever becomes a port of it.
pub fn add_bridge(name: &str) -> Result<(), LinkError> {
    let message = Message::default().request(libc::RTM_NEWLINK, CREATE_NEW, &link_head(0, 0), |link| {
        link.text(libc::IFLA_IFNAME, name).bytes(libc::IFLA_ADDRESS, &BRIDGE_ADDRESS).nested(
            libc::IFLA_LINKINFO,
            |info| {
                info.text(libc::IFLA_INFO_KIND, "bridge");
            },
        );
    });
    perform(&message, || format!("create the bridge {name}"))
}

/// Makes an interface a port of a bridge.
pub fn attach(name: &str, bridge: &str) -> Result<(), LinkError> {
    let (port, bridge_index) = (index(name)?, index(bridge)?);
    let message = Message::default().request(libc::RTM_NEWLINK, 0, &link_head(port, 0), |link| {
        link.native(libc::IFLA_MASTER, bridge_index);
    });
    perform(&message, || format!("attach {name} to {bridge}"))
}

/// Sets an interface up.
pub fn set_up(name: &str) -> Result<(), LinkError> {
    let up = libc::IFF_UP.cast_unsigned();
    let message = Message::default().request(libc::RTM_NEWLINK, 0, &link_head(index(name)?, up), |_| {});
    perform(&message, || format!("set {name} up"))
}

/// Sets an interface down.
pub fn set_down(name: &str) -> Result<(), LinkError> {
    // Behind the flags stands the mask of those that change: the flag is in the mask and not in the flags.
    let mut head = link_head(index(name)?, 0);
    head[12..16].copy_from_slice(&libc::IFF_UP.to_ne_bytes());
    let message = Message::default().request(libc::RTM_NEWLINK, 0, &head, |_| {});
    perform(&message, || format!("set {name} down"))
}

/// Gives an interface an address, usable at once (no duplicate address detection).
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
    let mut head = [family(address), prefix, libc::IFA_F_NODAD as u8, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&index(name)?.to_ne_bytes());
    let message = Message::default().request(libc::RTM_NEWADDR, CREATE_NEW, &head, |attributes| {
        put_address(attributes, libc::IFA_LOCAL, address);
        put_address(attributes, libc::IFA_ADDRESS, address);
    });
    perform(&message, || format!("give {name} the address {address}/{prefix}"))
}

/// Routes `destination`/`prefix` over `gateway` (`0.0.0.0`/0 for the default route).
pub fn add_route(destination: IpAddr, prefix: u8, gateway: IpAddr) -> Result<(), LinkError> {
    let head = route_head(destination, prefix, libc::RT_TABLE_MAIN, libc::RTN_UNICAST, libc::RT_SCOPE_UNIVERSE);
    let message = Message::default().request(libc::RTM_NEWROUTE, CREATE, &head, |attributes| {
        put_address(attributes, libc::RTA_DST, destination);
        put_address(attributes, libc::RTA_GATEWAY, gateway);
    });
    perform(&message, || format!("route {destination}/{prefix} over {gateway}"))
}

/// Has this namespace take everything to `network`/`prefix` as its own, without an address for each.
pub fn add_own_network(network: IpAddr, prefix: u8) -> Result<(), LinkError> {
    let head = route_head(network, prefix, libc::RT_TABLE_LOCAL, libc::RTN_LOCAL, libc::RT_SCOPE_HOST);
    let out = index("lo")?;
    let message = Message::default().request(libc::RTM_NEWROUTE, CREATE, &head, |attributes| {
        put_address(attributes, libc::RTA_DST, network);
        attributes.native(libc::RTA_OIF, out);
    });
    perform(&message, || format!("take {network}/{prefix} as its own"))
}

/// A route of this namespace, as far as [`set_congestion_control`] has to name it again.
#[derive(Debug, Clone, Copy)]
pub enum KnownRoute {
    /// Everything, over a gateway.
    Default {
        /// Which.
        gateway: IpAddr,
    },
    /// To the network that the interface is in.
    Connected {
        /// Its base address.
        network: IpAddr,
        /// Length of its prefix.
        prefix: u8,
    },
    /// To an address of this namespace itself.
    Own {
        /// Which.
        address: IpAddr,
    },
    /// The way back for replies in a redirected pod.
    LocalDefault {
        /// Of this family.
        any: IpAddr,
        /// In this table.
        table: u8,
    },
}

/// Has connections over a route use the congestion control `name` (for example `bbr` or `cubic`), unless they ask for
/// another; replaces the route of the same destination.
///
/// Works where the namespace's default (`net.ipv4.tcp_congestion_control`) may not be changed.
///
/// # Errors
/// [`LinkError`]; "no such file or directory" or an invalid argument means that the kernel has no such algorithm.
pub fn set_congestion_control(route: KnownRoute, interface: &str, name: &str) -> Result<(), LinkError> {
    const RTAX_CC_ALGO: u16 = 16;
    let host = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let head = match route {
        KnownRoute::Default { gateway } => {
            route_head(gateway, 0, libc::RT_TABLE_MAIN, libc::RTN_UNICAST, libc::RT_SCOPE_UNIVERSE)
        }
        KnownRoute::Connected { network, prefix } => {
            route_head(network, prefix, libc::RT_TABLE_MAIN, libc::RTN_UNICAST, libc::RT_SCOPE_LINK)
        }
        KnownRoute::Own { address } => {
            route_head(address, host(address), libc::RT_TABLE_LOCAL, libc::RTN_LOCAL, libc::RT_SCOPE_HOST)
        }
        KnownRoute::LocalDefault { any, table } => route_head(any, 0, table, libc::RTN_LOCAL, libc::RT_SCOPE_HOST),
    };
    let out = index(interface)?;
    let message = Message::default().request(libc::RTM_NEWROUTE, CREATE_OR_REPLACE, &head, |attributes| {
        match route {
            KnownRoute::Default { gateway } => put_address(attributes, libc::RTA_GATEWAY, gateway),
            KnownRoute::Own { address } => {
                put_address(attributes, libc::RTA_DST, address);
                put_address(attributes, libc::RTA_PREFSRC, address);
            }
            KnownRoute::Connected { network, .. } => put_address(attributes, libc::RTA_DST, network),
            KnownRoute::LocalDefault { .. } => {}
        }
        attributes.native(libc::RTA_OIF, out);
        attributes.nested(libc::RTA_METRICS, |metrics| {
            metrics.text(RTAX_CC_ALGO, name);
        });
    });
    perform(&message, || format!("set congestion control {name} on {route:?}"))
}

/// Lets this namespace forward packets between its interfaces.
pub fn enable_forwarding() -> Result<(), LinkError> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    if ipv6_available() { set("/proc/sys/net/ipv6/conf/all/forwarding", "1") } else { Ok(()) }
}

/// Has interfaces that this namespace gets from now on use their own IPv6 addresses at once.
///
/// Otherwise the kernel looks for a second or two whether another has the link-local one, and answers no neighbour until
/// then: whoever asked first may have given up (three questions, a second each).
pub fn trust_addresses() -> Result<(), LinkError> {
    if ipv6_available() { set("/proc/sys/net/ipv6/conf/default/accept_dad", "0") } else { Ok(()) }
}

fn set(path: &str, value: &str) -> Result<(), LinkError> {
    fs::write(path, value).map_err(|source| LinkError { action: format!("write {value} to {path}"), source })
}

fn perform(message: &Message, action: impl FnOnce() -> String) -> Result<(), LinkError> {
    let performed = Socket::open(Family::Route).and_then(|mut socket| socket.perform(message));
    performed.map_err(|source| LinkError { action: action(), source })
}

fn index(name: &str) -> Result<u32, LinkError> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|errno| LinkError { action: format!("find the interface {name}"), source: errno.into() })
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn put_address(attributes: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => attributes.bytes(kind, &v4.octets()),
        IpAddr::V6(v6) => attributes.bytes(kind, &v6.octets()),
    };
}

/// `struct ifinfomsg`, changing only the flags that are set in `flags`.
fn link_head(index: u32, flags: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..16].copy_from_slice(&flags.to_ne_bytes());
    head
}

/// `struct rtmsg`.
fn route_head(destination: IpAddr, prefix: u8, table: u8, kind: u8, scope: u8) -> [u8; 12] {
    [family(destination), prefix, 0, 0, table, libc::RTPROT_BOOT, scope, kind, 0, 0, 0, 0]
}
