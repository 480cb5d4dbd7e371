//! Sockets for names: where queries of a pod arrive, and those that carry them on to a resolver.
//!
//! A resolver is no peer of the mesh: it is asked in the clear, from the pod's namespace, with our mark, and nothing that
//! an app sends in a connection goes there. That is why these sockets need no permit.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use nix::sys::socket::{self, ControlMessage, MsgFlags, SockaddrStorage};
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

/// Datagrams of one train: the least that every kernel with `UDP_SEGMENT` takes (`UDP_MAX_SEGMENTS`).
const LONGEST_TRAIN: usize = 64;
/// Bytes of one train: what an IPv4 datagram can hold, headers excluded.
const HEAVIEST_TRAIN: usize = 65_507;

/// Datagrams that leave together, with few system calls: whoever waits for several of them is woken once. Keeps its buffers.
///
/// What goes to one receiver travels as a train where lengths allow: the kernel carries it through its layers as one packet
/// and parts it at the receiver's socket (`UDP_SEGMENT`). That is two answers to a resolver that asked for both families,
/// and many to one that asks for others. Datagrams to one receiver may hence overtake each other, as on any network.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    parts: Vec<Part>,
    /// The kernel, or what the socket sends through, cannot part trains.
    only_singles: bool,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    to: SocketAddr,
    start: usize,
    end: usize,
}

impl Part {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

impl Parcel {
    /// One more.
    pub fn add(&mut self, datagram: &[u8], to: SocketAddr) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.parts.push(Part { to, start, end: self.bytes.len() });
    }

    /// Sends all, and is empty then. What a socket does not take is lost, as on a network.
    pub fn send(&mut self, socket: impl AsFd) {
        self.parts.sort_unstable_by_key(|part| (part.to, std::cmp::Reverse(part.len())));
        let mut singles = Vec::new();
        for train in trains(&self.parts) {
            if train.len() > 1 && !self.only_singles {
                match send_train(&socket, &self.bytes, train) {
                    Ok(()) | Err(Errno::AGAIN | Errno::NOBUFS) => continue,
                    Err(error) => {
                        tracing::debug!(%error, "cannot send datagrams as a train");
                        self.only_singles = matches!(error, Errno::INVAL | Errno::IO | Errno::OPNOTSUPP);
                    }
                }
            }
            singles.extend_from_slice(train);
        }
        send_singles(&socket, &self.bytes, &singles);
        self.bytes.clear();
        self.parts.clear();
    }
}

/// Parts of equal receiver and length, of which the last may be shorter; `parts` are in order of both.
fn trains(parts: &[Part]) -> impl Iterator<Item = &[Part]> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        // An empty datagram has no place in a train.
        let most = HEAVIEST_TRAIN.checked_div(first.len()).map_or(1, |most| most.clamp(1, LONGEST_TRAIN));
        let equal = |part: &&Part| part.to == first.to && part.len() == first.len();
        let mut length = rest.iter().take(most).take_while(equal).count();
        let last = rest.get(length).filter(|last| last.to == first.to && last.len() > 0);
        if length < most && last.is_some() {
            length += 1;
        }
        let (train, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(train)
    })
}

fn send_train(socket: &impl AsFd, bytes: &[u8], train: &[Part]) -> Result<(), Errno> {
    let Some(first) = train.first() else { return Ok(()) };
    let slices: Vec<IoSlice<'_>> = train.iter().map(|part| IoSlice::new(&bytes[part.start..part.end])).collect();
    let length = u16::try_from(first.len()).map_err(|_| Errno::INVAL)?;
    let to = SockaddrStorage::from(first.to);
    let descriptor = socket.as_fd().as_raw_fd();
    let parting = [ControlMessage::UdpGsoSegments(&length)];
    loop {
        return match socket::sendmsg(descriptor, &slices, &parting, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            Ok(_) => Ok(()),
            Err(nix::Error::EINTR) => continue,
            Err(error) => Err(Errno::from_raw_os_error(error as i32)),
        };
    }
}

fn send_singles(socket: &impl AsFd, bytes: &[u8], parts: &[Part]) {
    let receivers: Vec<SocketAddrAny> = parts.iter().map(|part| part.to.as_any()).collect();
    let slices: Vec<[IoSlice<'_>; 1]> = parts.iter().map(|part| [IoSlice::new(&bytes[part.start..part.end])]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
    controls.resize_with(parts.len(), SendAncillaryBuffer::default);
    let messages = receivers.iter().zip(&slices).zip(&mut controls);
    let mut messages: Vec<MMsgHdr<'_>> =
        messages.map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control)).collect();
    let mut rest = messages.as_mut_slice();
    while !rest.is_empty() {
        let gone = match sendmmsg(socket, rest, SendFlags::DONTWAIT) {
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

    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn local() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
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
            assert_eq!((receive(&first), receive(&first)), (vec![round, 2, 3], vec![round, 1]));
            assert_eq!(receive(&second), [0; 0]);
        }
    }

    #[test]
    fn any_lengths_to_any_receivers_arrive_whole() {
        let (sender, receivers) = (local(), [local(), local(), local()]);
        let mut parcel = Parcel::default();
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..50 {
            let mut sent = [const { Vec::new() }; 3];
            for number in 0..random.random_range(0..200u8) {
                let receiver = random.random_range(0..receivers.len());
                let length = [0, 1, 40, 40, 40, 41, 300, 1472][random.random_range(0..8usize)];
                let datagram = vec![number; length];
                parcel.add(&datagram, receivers[receiver].local_addr().unwrap());
                sent[receiver].push(datagram);
            }
            parcel.send(&sender);
            assert!(!parcel.only_singles, "loopback parts trains");
            for (receiver, sent) in receivers.iter().zip(&mut sent) {
                let mut received: Vec<Vec<u8>> = sent.iter().map(|_| receive(receiver)).collect();
                received.sort();
                sent.sort();
                assert_eq!(received, *sent);
            }
        }
    }

    #[test]
    fn what_cannot_part_a_train_sends_its_datagrams_one_by_one() {
        let (sender, receiver) = (local(), local());
        let mut parcel = Parcel { only_singles: true, ..Parcel::default() };
        for number in 0..3 {
            parcel.add(&[number], receiver.local_addr().unwrap());
        }
        parcel.send(&sender);
        let mut received = [receive(&receiver), receive(&receiver), receive(&receiver)];
        received.sort();
        assert_eq!(received, [[0], [1], [2]]);
    }

    #[test]
    fn a_train_has_one_receiver_and_one_length_but_for_its_last() {
        let to = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let part = |port, length| Part { to: to(port), start: 0, end: length };
        let lengths = |parts: &[Part]| -> Vec<Vec<usize>> {
            trains(parts).map(|train| train.iter().map(Part::len).collect()).collect()
        };
        assert_eq!(lengths(&[]), [[0; 0]; 0]);
        assert_eq!(lengths(&[part(1, 9), part(1, 9), part(1, 5), part(1, 5)]), [vec![9, 9, 5], vec![5]]);
        assert_eq!(lengths(&[part(1, 9), part(2, 9), part(2, 0)]), [[9], [9], [0]]);
        assert_eq!(lengths(&[part(1, 0), part(1, 0)]), [[0], [0]]);
        assert_eq!(lengths(&[part(1, 40_000), part(1, 40_000)]), [[40_000], [40_000]]);
        assert_eq!(lengths(&[part(1, 1); 65]), [vec![1; 64], vec![1]]);
    }
}
