//! Sockets for names: where queries of a pod arrive, and those that carry them on to a resolver.
//!
//! A resolver is no peer of the mesh: it is asked in the clear, from the pod's namespace, with our mark, and nothing that
//! an app sends in a connection goes there. That is why these sockets need no permit.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
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

/// Datagrams that leave together, with one system call: whoever waits for several of them is woken once. Keeps its buffers.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    /// Where each ends, and where it goes.
    parts: Vec<(usize, SocketAddrAny)>,
}

impl Parcel {
    /// One more.
    pub fn add(&mut self, datagram: &[u8], to: SocketAddr) {
        self.bytes.extend_from_slice(datagram);
        self.parts.push((self.bytes.len(), to.as_any()));
    }

    /// Sends all, and is empty then. What a socket does not take is lost, as on a network.
    pub fn send(&mut self, socket: impl AsFd) {
        let mut from = 0;
        let slice =
            |(end, _): &(usize, SocketAddrAny)| [IoSlice::new(&self.bytes[std::mem::replace(&mut from, *end)..*end])];
        let slices: Vec<[IoSlice<'_>; 1]> = self.parts.iter().map(slice).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
        controls.resize_with(self.parts.len(), SendAncillaryBuffer::default);
        let parts = self.parts.iter().zip(&slices).zip(&mut controls);
        let mut messages: Vec<MMsgHdr<'_>> =
            parts.map(|(((_, to), slice), control)| MMsgHdr::new_with_addr(to, slice, control)).collect();
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            let gone = match sendmmsg(&socket, rest, SendFlags::DONTWAIT) {
                Ok(sent) => sent.max(1),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot send a datagram");
                    1
                }
            };
            rest = rest.get_mut(gone..).unwrap_or_default();
        }
        drop(messages);
        self.bytes.clear();
        self.parts.clear();
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn local() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    #[test]
    fn datagrams_that_leave_together_arrive_one_by_one_where_they_are_to_go() {
        let (sender, first, second) = (local(), local(), local());
        let mut parcel = Parcel::default();
        parcel.send(&sender);
        for round in 0..2u8 {
            parcel.add(&[round, 1], first.local_addr().unwrap());
            parcel.add(&[], second.local_addr().unwrap());
            // Nothing goes to port 0; what comes after it does.
            parcel.add(&[9], (Ipv4Addr::LOCALHOST, 0).into());
            parcel.add(&[round, 2, 3], first.local_addr().unwrap());
            parcel.send(&sender);
            let receive = |socket: &UdpSocket| {
                let mut buffer = [0; 16];
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(from, sender.local_addr().unwrap());
                buffer[..length].to_vec()
            };
            assert_eq!((receive(&first), receive(&first)), (vec![round, 1], vec![round, 2, 3]));
            assert_eq!(receive(&second), [0; 0]);
        }
    }
}
