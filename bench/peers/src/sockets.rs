//! Listening and dialling inside a pod, as a ztunnel there does it: marked packets, no Nagle delay, the client's address
//! kept towards the app. IPv4 only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What the pod's rules take for a ztunnel's packets.
const MARK: u32 = 0x539;
/// As much as the kernel gives: a burst of clients must not measure the backlog.
const BACKLOG: i32 = 65_535;

/// Where the pod's own connections arrive.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where other proxies' connections arrive.
pub const TUNNEL_PORT: u16 = 15008;

/// A non-blocking listener, which other threads may share.
///
/// # Errors
/// The kernel's: most likely the port is in use, or `CAP_NET_ADMIN` is missing.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_mark(MARK)?;
    socket.set_ip_transparent_v4(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The address that a redirected connection was going to.
///
/// # Errors
/// The connection was not redirected.
pub fn original_destination(socket: &impl AsFd) -> io::Result<SocketAddrV4> {
    let address = SockRef::from(socket).original_dst_v4()?;
    address.as_socket_ipv4().ok_or_else(|| io::Error::other("the original destination is not an IPv4 address"))
}

/// A socket that is about to be connected to `destination`, from `source` if that is not an address of its own.
///
/// # Errors
/// The kernel's.
pub fn dial(destination: SocketAddrV4, source: Option<Ipv4Addr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_mark(MARK)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.set_ip_transparent_v4(true)?;
        // Ports are picked at connect, per 4-tuple.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&SocketAddr::V4(destination).into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}
