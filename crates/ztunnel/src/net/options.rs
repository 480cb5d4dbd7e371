//! Socket options that a mesh needs: packet mark, transparency, keepalive, reset on close.
//!
//! Every option is set through here, so that the table in spec data-plane 2.1 has one counterpart in code. What the
//! options are for which socket is decided by [`listen`](super::listen) and [`dial`](super::dial).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{SockRef, TcpKeepalive};

/// What the kernel may hold of what an app has said and we have not read, in bytes, its own bookkeeping for packets included:
/// as much as is read at a time. What waits behind that costs more to read: it seems to have left the processor's cache by then.
const UNREAD: u32 = 1 << 20;

/// How long a silent connection is believed in (spec configuration 3.3, `KEEPALIVE_*` and `USER_TIMEOUT_ENABLED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Kernel keepalive probes; `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
}

/// Kernel keepalive: idle time before the first probe, time between probes, probes until the peer counts as dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe; whole seconds.
    pub time: Duration,
    /// Time between probes; whole seconds.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub retries: u32,
}

/// Prepares a connected or accepted TCP socket: no Nagle delay, and `liveness`.
///
/// # Errors
/// Only for `TCP_NODELAY`; a kernel that refuses a keepalive value still gives a working connection.
pub fn prepare_stream(socket: &impl AsFd, liveness: &Liveness) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = liveness.keepalive {
        let parameters = TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries);
        if let Err(error) = socket.set_tcp_keepalive(&parameters) {
            tracing::trace!(%error, "failed to set keepalive");
        }
    }
    if let Some(timeout) = liveness.user_timeout
        && let Err(error) = socket.set_tcp_user_timeout(Some(timeout))
    {
        tracing::trace!(%error, "failed to set user timeout");
    }
    Ok(())
}

/// Makes a close of this socket a reset (RST) instead of an orderly end, so that the app at the other side can tell a
/// connection that was cut from a finished one, whoever cuts it: also the kernel, for a process that was killed.
///
/// # Errors
/// The kernel's; none is known for a socket that is open.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Makes the coming close of this socket an orderly end: both directions of its connection have ended.
pub fn end_in_order(socket: &impl AsFd) {
    // Failing means that the connection is gone already: then there is nobody left to tell.
    let _ = SockRef::from(socket).set_linger(None);
}

/// Lets a socket send from an address that is not ours, and answers to it reach us (spec data-plane 2.3).
///
/// # Errors
/// The kernel's, usually for want of `CAP_NET_ADMIN` or `CAP_NET_RAW`.
pub fn allow_foreign_source(socket: &socket2::Socket, source: IpAddr) -> io::Result<()> {
    match source {
        // A transparent socket may bind to addresses that are not there as well: IP_FREEBIND would add nothing.
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    // A port serves towards every destination at once.
    socket.set_reuse_address(true)
}

/// Lets a socket that is bound without a port have one picked at connect, per 4-tuple: one busy client address cannot
/// use up the port range.
///
/// # Errors
/// The kernel's; none is known for a socket that is open.
pub fn bind_without_port(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Lets the last packet of the handshake of a connection that is to be made wait for the first bytes and go along with them,
/// for up to 200 ms: one packet less, and whoever accepts is woken once, with the bytes there. For connections on which
/// nothing is to be written at once it would only be a delay.
///
/// # Errors
/// The kernel's; none is known for a socket that is open.
pub fn acknowledge_with_first_bytes(socket: &impl AsRawFd) -> io::Result<()> {
    // Said of a socket that listens, the option means something else. A client holds its answer back for it
    // (`tcp_rcv_synsent_state_process` in Linux).
    set(socket, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 1)
}

/// Bounds what the kernel takes from an app that says more than is read, at [`UNREAD`], where by itself it would let that grow
/// to many times as much (`net.ipv4.tcp_rmem`). Only for connections within a pod: over a network, the bound would be one on
/// what is under way as well.
///
/// # Errors
/// The kernel's, for want of `CAP_NET_ADMIN`; all is as it was then.
pub fn bound_unread(socket: &(impl AsFd + AsRawFd)) -> io::Result<()> {
    // The kernel makes twice of it what it is told. Told in the ordinary way, it would keep to `net.core.rmem_max`, which is
    // about datagrams first: less than this costs more than no bound at all.
    set_socket_recv_buffer_size_force(socket, UNREAD as usize / 2)?;
    // From here on it leaves the window where it is.
    set(socket, libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, UNREAD.cast_signed())
}

#[allow(unsafe_code, reason = "none of these options has a safe wrapper in socket2 or rustix")]
fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads exactly the `c_int` that
    // the pointer and the length describe.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn an_accepted_socket_has_the_options_that_were_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepted = |liveness: &Liveness| {
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = listener.accept().unwrap().0;
            prepare_stream(&socket, liveness).unwrap();
            socket
        };
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { time: seconds(111), interval: seconds(22), retries: 3 };
        let socket = accepted(&Liveness { keepalive: Some(keepalive), user_timeout: Some(seconds(44)) });
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((times, socket.tcp_keepalive_retries().unwrap()), ((seconds(111), seconds(22)), 3));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(44)));

        let socket = accepted(&Liveness { keepalive: None, user_timeout: None });
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn what_an_app_may_have_said_unread_is_bounded_where_that_is_permitted_and_as_it_was_otherwise() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _app = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        let before = SockRef::from(&ours).recv_buffer_size().unwrap();
        match bound_unread(&ours) {
            Ok(()) => assert_eq!(SockRef::from(&ours).recv_buffer_size().unwrap(), UNREAD as usize),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                assert_eq!(SockRef::from(&ours).recv_buffer_size().unwrap(), before);
            }
        }
    }

    #[test]
    fn a_connection_may_be_seen_only_with_its_first_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().into();
        // Where this test is held up for longer than the kernel waits, the connection is seen without them.
        let waited = (0..10).any(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            acknowledge_with_first_bytes(&client).unwrap();
            client.connect(&address).unwrap();
            let early = listener.accept();
            client.send(b"x").unwrap();
            let seen_early = early.is_ok();
            let (mut server, _) = early.or_else(|_| listener.accept()).unwrap();
            server.set_nonblocking(false).unwrap();
            server.read_exact(&mut [0]).unwrap();
            !seen_early
        });
        assert!(waited);
    }
}
