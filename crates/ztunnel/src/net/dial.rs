//! Outgoing connections. Nothing else in the daemon connects to a peer or an app, and this asks for a [`Permit`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mesh::permit::Grant;
use mesh::{Hop, Permit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod race;

use super::netns::Netns;
use super::options::{self, Liveness};

/// How long a connection may take to be established, socket set-up included (spec data-plane 2.3).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Ports of connections under a client's address. To the kernel, such a connection and one that the client itself opens to
/// the app are the same if their ports are: packets of the second would count as the first's, not be redirected, and be
/// refused by the app's side. So they are none that kernels choose for clients by default (32768 and up).
const FOREIGN_PORTS: RangeInclusive<u16> = 1024..=32767;
/// How many of them are tried. A destination that has most of them in use from one client is rare, and not lost then.
const FOREIGN_PORT_ATTEMPTS: usize = 8;

/// What decides about a socket's options besides its addresses.
type How<'a> = (&'a Hop, FirstBytes);

/// Makes connections from the namespace of one pod.
#[derive(Debug, Clone)]
pub struct Dialer {
    netns: Option<Arc<Netns>>,
    mark: Option<u32>,
    peers: Liveness,
    apps: Liveness,
}

/// Who is known to speak first on a connection to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// We do, as soon as it is there.
    Ours,
    /// Anybody.
    Unknown,
}

impl Dialer {
    /// A dialer for `netns` (`None`: the process's own) whose packets carry `mark`, and whose connections to other
    /// proxies and to apps are kept alive as `peers` and `apps` say.
    #[must_use]
    pub fn new(netns: Option<Arc<Netns>>, mark: Option<u32>, peers: Liveness, apps: Liveness) -> Self {
        Self { netns, mark, peers, apps }
    }

    /// Connects to what `permit` allows, to whichever of its addresses answers first if it has several (RFC 8305), from the source address that it asks to keep, if any.
    ///
    /// A connection to an app is [reset](options::reset_on_close) when it is closed before it has ended.
    ///
    /// A source that cannot be used (missing capability) is given up with a warning: the connection then comes from the
    /// pod's own address (spec data-plane 2.3).
    ///
    /// # Errors
    /// The kernel's, or kind `TimedOut` after [`DIAL_TIMEOUT`].
    pub fn dial(&self, permit: &Permit, first_bytes: FirstBytes) -> impl Future<Output = io::Result<TcpStream>> {
        self.establish(permit, DIAL_TIMEOUT, first_bytes)
    }

    /// The same within a time that may be shorter than [`DIAL_TIMEOUT`].
    ///
    /// # Errors
    /// The kernel's, or kind `TimedOut`.
    pub fn dial_within(&self, permit: &Permit, patience: Duration) -> impl Future<Output = io::Result<TcpStream>> {
        self.establish(permit, patience, FirstBytes::Unknown)
    }

    async fn establish(&self, permit: &Permit, patience: Duration, first: FirstBytes) -> io::Result<TcpStream> {
        let destination = permit.hop().dial();
        let kept = match permit.grant() {
            Grant::Inbound(admission, _) => admission.source_ip(),
            Grant::Outbound(_) => None, // never spoofed
        };
        let source = kept.filter(|source| *source != destination.ip());
        let patience = patience.min(DIAL_TIMEOUT);
        let hop = permit.hop();
        let outcome = match permit.grant() {
            Grant::Outbound(route) if !route.others.is_empty() => {
                let all: Vec<SocketAddr> = std::iter::once(destination).chain(route.others.iter().copied()).collect();
                timeout(patience, race::first(&all, &|address| self.connect(None, address, (&hop, first)))).await
            }
            Grant::Outbound(_) | Grant::Inbound(..) => {
                timeout(patience, self.connect(source, destination, (&hop, first))).await
            }
        };
        outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed")))
    }

    async fn connect(&self, source: Option<IpAddr>, destination: SocketAddr, how: How<'_>) -> io::Result<TcpStream> {
        let (socket, connected) = self.begin(source, destination, how)?;
        let stream = TcpStream::from_std(socket.into())?;
        if connected {
            return Ok(stream);
        }
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// A socket that connects or has connected. A port of a source to be kept may be in use towards this destination:
    /// then another is tried, and in the end one of the kernel's choice.
    fn begin(&self, source: Option<IpAddr>, destination: SocketAddr, how: How<'_>) -> io::Result<(Socket, bool)> {
        for _ in 0..FOREIGN_PORT_ATTEMPTS {
            let Some(source) = source else { break };
            let from = SocketAddr::new(source, rand::random_range(FOREIGN_PORTS));
            let socket = self.socket(Some(from), destination, how)?;
            match is_connected(&socket, destination) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                begun => return Ok((socket, begun?)),
            }
        }
        let socket = self.socket(source.map(|source| SocketAddr::new(source, 0)), destination, how)?;
        let connected = is_connected(&socket, destination)?;
        Ok((socket, connected))
    }

    fn socket(&self, source: Option<SocketAddr>, destination: SocketAddr, how: How<'_>) -> io::Result<Socket> {
        let (hop, first) = how;
        let new = || Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), Some(Protocol::TCP));
        let socket = match &self.netns {
            Some(netns) => netns.run(new)??,
            None => new()?,
        };
        match hop {
            Hop::Tcp { .. } => {
                options::prepare_stream(&socket, &self.apps)?;
                options::reset_on_close(&socket)?;
            }
            Hop::Hbone { .. } | Hop::DoubleHbone { .. } => options::prepare_stream(&socket, &self.peers)?,
        }
        if first == FirstBytes::Ours
            && let Err(error) = options::acknowledge_with_first_bytes(&socket)
        {
            tracing::trace!(%error, "failed to hold the end of the handshake back");
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(source) = source {
            let kept = options::allow_foreign_source(&socket, source.ip()).and_then(|()| {
                // Another socket may listen at the port: then the kernel chooses.
                bind(&socket, source).or_else(|_| bind(&socket, SocketAddr::new(source.ip(), 0)))
            });
            if let Err(error) = kept {
                let source = source.ip();
                tracing::warn!(%source, %destination, %error, "failed to keep the client's address");
            }
        }
        Ok(socket)
    }
}

fn bind(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        options::bind_without_port(socket)?;
    }
    socket.bind(&source.into())
}

/// Starts to connect; tells whether it is done already.
///
/// An app listens in the same namespace as a rule: its answer comes while the kernel is still in the first call, and
/// asking again finds that out for less than waiting for it would cost.
fn is_connected(socket: &Socket, destination: SocketAddr) -> io::Result<bool> {
    let destination = SockAddr::from(destination);
    for _ in 0..2 {
        match socket.connect(&destination) {
            Ok(()) => return Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}
