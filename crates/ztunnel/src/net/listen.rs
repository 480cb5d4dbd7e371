//! Listening sockets, inside the namespace of a pod or our own, and what is accepted from them.
//!
//! A listener never spins: an accept error backs off. Accepted sockets come out unregistered with any runtime, because
//! the task that will own one may live on another thread.

mod reuseport;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mesh::address::canonical;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::netns::Netns;
use super::options::{self, Liveness};

/// Length asked for the accept queue. The kernel cuts it to `net.core.somaxconn` of the namespace, which is the
/// operator's bound.
const BACKLOG: i32 = 65_535;
/// First and longest wait after an accept error such as too many open files: long enough not to spin, short enough
/// that a shortage that has passed is not felt.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Whether a listener gets connections to, and may answer from, addresses that are not its own (`ENABLE_ORIG_SRC`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transparency {
    /// Failing to set it is a failure to start.
    Required,
    /// Tried; the outcome decides whether client addresses are kept.
    IfPossible,
    /// Not tried.
    Never,
}

/// Whether a second process may listen on the same port, as while one ztunnel replaces another (`INPOD_PORT_REUSE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortReuse {
    /// `SO_REUSEPORT` is set, and of two processes the one that came later gets the new connections.
    Shared,
    /// The port is ours alone.
    Exclusive,
}

/// What the far end of an accepted socket sees when it is closed before its connection has
/// [ended](options::end_in_order).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A reset, which an app cannot mistake for an end.
    Reset,
    /// An end; what it means is said inside the connection (TLS, HTTP/2).
    End,
}

/// How listeners of one pod are made.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Namespace to listen in; `None` is the process's own.
    pub netns: Option<Arc<Netns>>,
    /// Packet mark of the listener and so of all it accepts.
    pub mark: Option<u32>,
    /// See [`PortReuse`].
    pub port_reuse: PortReuse,
    /// See [`Transparency`].
    pub transparency: Transparency,
    /// Options of accepted sockets.
    pub liveness: Liveness,
    /// See [`Cut`].
    pub cut: Cut,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind to address {address}: {source}{}", remedy(.source))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The kernel's answer.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process listens there: stop it, or is a second ztunnel running?)",
        io::ErrorKind::PermissionDenied => " (CAP_NET_ADMIN is needed for packet marks and transparent sockets)",
        _ => "",
    }
}

/// An open listener, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    transparent: bool,
}

/// One accepted connection: the first value in the life of a connection.
#[derive(Debug)]
pub struct Arrival {
    /// The app's or the peer's socket; non-blocking and not registered with a runtime.
    pub socket: TcpStream,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Address the connection was accepted on.
    pub local: SocketAddr,
}

impl Listener {
    /// Opens a listener. An unspecified IPv6 address falls back to IPv4 where the namespace has no IPv6.
    ///
    /// # Errors
    /// [`BindError`], naming the address.
    pub fn bind(address: SocketAddr, options: &ListenOptions) -> Result<Self, BindError> {
        let fail = |source| BindError { address, source };
        match Self::bind_in_namespace(address, options) {
            Err(e) if address.ip() == IpAddr::from([0u16; 8]) && lacks_ipv6(&e) => {
                let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
                Self::bind_in_namespace(v4, options)
            }
            outcome => outcome,
        }
        .map_err(fail)
    }

    fn bind_in_namespace(address: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        match &options.netns {
            Some(netns) => netns.run(|| Self::bind_here(address, options))?,
            None => Self::bind_here(address, options),
        }
    }

    fn bind_here(address: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        if options.port_reuse == PortReuse::Shared
            && let Err(error) = socket.set_reuse_port(true)
        {
            tracing::warn!(%address, %error, "failed to share the port with another process");
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark)?;
        }
        let transparent = match options.transparency {
            Transparency::Never => false,
            // The IPv4 option also serves IPv4 connections to a dual-stack socket.
            Transparency::IfPossible => socket.set_ip_transparent_v4(true).is_ok(),
            Transparency::Required => socket.set_ip_transparent_v4(true).map(|()| true)?,
        };
        // Accepted sockets inherit these from the listener, which saves half a dozen system calls for each.
        options::prepare_stream(&socket, &options.liveness)?;
        if options.cut == Cut::Reset {
            options::reset_on_close(&socket)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        if options.port_reuse == PortReuse::Shared
            && let Err(error) = reuseport::prefer_newcomer(&socket)
        {
            // Then connections are spread over both.
            tracing::warn!(%address, %error, "failed to leave new connections to the newer of two processes");
        }
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address, transparent })
    }

    /// The address listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections from here may be carried on under their client's address.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.transparent
    }

    /// Starts accepting on the runtime of the calling task.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    #[allow(unsafe_code, reason = "tokio's own listener registers accepted sockets with the thread that accepts")]
    pub fn accepting(self) -> io::Result<Acceptor> {
        // SAFETY: a `TcpListener` owns its descriptor, always gives out the same one, and stays inside until it is
        // dropped together with the registration.
        let socket = unsafe { AsyncFd::register_with_interest(self.socket, Interest::READABLE) }?;
        Ok(Acceptor { socket, backoff: ACCEPT_BACKOFF.0 })
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// A listener in use.
#[derive(Debug)]
pub struct Acceptor {
    socket: AsyncFd<TcpListener>,
    backoff: Duration,
}

impl Acceptor {
    /// The next connection. Errors of single connections are skipped; a shortage (descriptors, memory) is logged and
    /// waited out. Cancel safe: a connection is never lost.
    pub async fn next(&mut self) -> Arrival {
        loop {
            match self.accept().await {
                Ok(arrival) => {
                    self.backoff = ACCEPT_BACKOFF.0;
                    return arrival;
                }
                Err(error) if is_about_one_connection(&error) => {
                    tracing::debug!(%error, "connection ended before it was accepted");
                }
                Err(error) => {
                    tracing::error!(%error, retry_in = ?self.backoff, "failed to accept a connection");
                    tokio::time::sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(ACCEPT_BACKOFF.1);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Arrival> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, peer) =
            self.socket.async_io(Interest::READABLE, |l| acceptfrom_with(l, flags).map_err(io::Error::from)).await?;
        let socket = TcpStream::from(fd);
        let peer = match peer.and_then(|any| SocketAddr::try_from(any).ok()) {
            Some(peer) => peer,
            None => socket.peer_addr()?,
        };
        let local = canonical(socket.local_addr()?);
        Ok(Arrival { socket, peer: canonical(peer), local })
    }
}

/// Errors that accept(2) reports for a connection that has already failed, as opposed to those of the process.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}
