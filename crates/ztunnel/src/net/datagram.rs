//! Sockets for names: where queries of a pod arrive, and those that carry them on to a resolver.
//!
//! A resolver is no peer of the mesh: it is asked in the clear, from the pod's namespace, with our mark, and nothing that
//! an app sends in a connection goes there. That is why these sockets need no permit.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::listen::{BindError, ListenOptions, PortReuse};
use super::netns::Netns;

/// Queries that may wait in a socket while their pod's worker is busy, in bytes as the kernel counts them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Opens a socket for datagrams, as `options` say.
///
/// # Errors
/// [`BindError`], naming the address.
pub fn bind(address: SocketAddr, options: &ListenOptions) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if options.port_reuse == PortReuse::Shared
            && let Err(error) = socket.set_reuse_port(true)
        {
            tracing::warn!(%address, %error, "failed to share the port with another process");
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark)?;
        }
        // What the kernel does not give is what `net.core.rmem_max` forbids.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        Ok(UdpSocket::from(socket))
    };
    let opened = match &options.netns {
        Some(netns) => netns.run(open).and_then(|opened| opened),
        None => open(),
    };
    opened.map_err(|source| BindError { address, source })
}

/// The way from a pod to resolvers.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// Namespace that packets leave from; `None` is the process's own.
    pub netns: Option<Arc<Netns>>,
    /// Packet mark, which keeps our own queries from coming back to us.
    pub mark: Option<u32>,
}

impl Outlet {
    /// A socket at a port that the kernel draws, which hears nobody but `server`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn datagrams(&self, server: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.socket(server, Type::DGRAM, Protocol::UDP)?;
        socket.connect(&server.into())?;
        tokio::net::UdpSocket::from_std(socket.into())
    }

    /// A connection to `server`. Whoever waits bounds the wait.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn stream(&self, server: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let socket = self.socket(server, Type::STREAM, Protocol::TCP)?;
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        let stream = tokio::net::TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn socket(&self, server: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let new = || Socket::new(Domain::for_address(server), kind.nonblocking(), Some(protocol));
        let socket = match &self.netns {
            Some(netns) => netns.run(new)??,
            None => new()?,
        };
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }
}
