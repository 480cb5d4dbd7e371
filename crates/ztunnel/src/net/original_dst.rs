//! Where a captured connection was going before the packet rules redirected it (spec data-plane 2.4).

use std::net::SocketAddr;
use std::os::fd::AsFd;

use mesh::address::canonical;
use rustix::net::sockopt;

/// The original destination of an accepted connection: what connection tracking remembers, else `local`, the address
/// the socket was accepted on, which is right for TPROXY and for connections that were made to the listener directly.
pub fn original_destination(socket: &impl AsFd, local: SocketAddr) -> SocketAddr {
    let tracked = match sockopt::ip_original_dst(socket) {
        Ok(v4) => SocketAddr::V4(v4),
        Err(_) => match sockopt::ipv6_original_dst(socket) {
            Ok(v6) => SocketAddr::V6(v6),
            Err(_) => local,
        },
    };
    canonical(tracked)
}
