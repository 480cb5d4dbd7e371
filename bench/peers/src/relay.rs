//! Relays that do nothing with bytes but move them, or move them in sealed records: the price of the kernel, and of the
//! kernel plus one pass of cryptography.
//!
//! One thread is one epoll loop with one pair of large buffers that all its connections share; what a socket does not
//! take is kept with its connection. Between two relays a connection opens with the six bytes of its destination.

mod connection;
mod seal;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::sockets::{OUTBOUND_PORT, TUNNEL_PORT, dial, listen, original_destination};
use connection::{Connection, Progress};
pub use seal::Protection;
use seal::{Codec, Scratch};

/// Events taken per wait.
const EVENTS: usize = 256;
/// What `Token` a listener has.
const LISTENER: u64 = u64::MAX;

/// Which end of a connection a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In the client's pod: towards a relay of role [`Role::Inbound`] at the destination.
    Outbound,
    /// In the server's pod.
    Inbound,
    /// In the client's pod, with nobody at the other end: straight to the destination.
    Passthrough,
}

/// Serves for ever on the calling thread; several threads of a process may do so.
///
/// # Errors
/// No listener, or epoll failed.
pub fn serve(role: Role, protection: Protection) -> io::Result<()> {
    let port = if role == Role::Inbound { TUNNEL_PORT } else { OUTBOUND_PORT };
    let listener = listen(port)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let relay = Relay { role, protection, listener, epoll, places: Vec::new(), free: Vec::new() };
    relay.run()
}

struct Relay {
    role: Role,
    protection: Protection,
    listener: TcpListener,
    epoll: Epoll,
    places: Vec<Place>,
    free: Vec<usize>,
}

enum Place {
    Free,
    /// Its destination has not arrived in full.
    Announcing(TcpStream, Vec<u8>),
    Open(Box<Connection>),
}

impl Relay {
    fn run(mut self) -> io::Result<()> {
        let mut scratch = Scratch::default();
        let mut events = vec![EpollEvent::empty(); EVENTS];
        // Connections that stopped only to let others have their turn.
        let mut unfinished = VecDeque::new();
        loop {
            let wait = if unfinished.is_empty() { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            let count = match self.epoll.wait(&mut events, wait) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                match usize::try_from(event.data()) {
                    Ok(index) if event.data() != LISTENER => {
                        if !unfinished.contains(&index) {
                            unfinished.push_back(index);
                        }
                    }
                    _ => self.accept(),
                }
            }
            for _ in 0..unfinished.len() {
                let Some(index) = unfinished.pop_front() else { break };
                if self.turn(index, &mut scratch) == Progress::More {
                    unfinished.push_back(index);
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((client, _)) = self.listener.accept() {
            // A connection that cannot be set up is dropped, which its client will notice.
            let _ = self.begin(client);
        }
    }

    fn begin(&mut self, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        match self.role {
            Role::Inbound => self.place(Place::Announcing(client, Vec::new())).map(drop),
            Role::Passthrough => {
                let server = dial(original_destination(&client)?, None)?;
                self.open(client, server.into(), Vec::new())
            }
            Role::Outbound => {
                let destination = original_destination(&client)?;
                let server = dial(SocketAddrV4::new(*destination.ip(), TUNNEL_PORT), None)?;
                let mut announcement = destination.ip().octets().to_vec();
                announcement.extend(destination.port().to_be_bytes());
                self.open(client, server.into(), announcement)
            }
        }
    }

    fn open(&mut self, client: TcpStream, server: TcpStream, announcement: Vec<u8>) -> io::Result<()> {
        let (up, down) = self.codecs();
        self.place(Place::Open(Box::new(Connection::new(client, server, (up, down), announcement)))).map(drop)
    }

    fn codecs(&self) -> (Codec, Codec) {
        match self.role {
            Role::Outbound => (Codec::sealing(self.protection), Codec::opening(self.protection)),
            Role::Inbound => (Codec::opening(self.protection), Codec::sealing(self.protection)),
            Role::Passthrough => (Codec::Plain, Codec::Plain),
        }
    }

    fn place(&mut self, place: Place) -> io::Result<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        let watched = match &place {
            Place::Free => Ok(()),
            Place::Announcing(client, _) => self.watch(client, index),
            Place::Open(connection) => {
                connection.sockets().into_iter().try_for_each(|socket| self.watch(socket, index))
            }
        };
        if watched.is_err() {
            self.free.push(index);
            return watched.map(|()| index);
        }
        self.places[index] = place;
        Ok(index)
    }

    fn watch(&self, socket: &TcpStream, index: usize) -> io::Result<()> {
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.epoll.add(socket, EpollEvent::new(interest, index as u64))?)
    }

    fn turn(&mut self, index: usize, scratch: &mut Scratch) -> Progress {
        let progress = match &mut self.places[index] {
            Place::Free => return Progress::Blocked,
            Place::Announcing(client, announcement) => match announced(client, announcement) {
                Ok(None) => return Progress::Blocked,
                Ok(Some(destination)) => match self.answer(index, destination) {
                    Ok(()) => Progress::More,
                    Err(_) => Progress::Ended,
                },
                Err(_) => Progress::Ended,
            },
            Place::Open(connection) => connection.turn(scratch).unwrap_or(Progress::Ended),
        };
        if progress == Progress::Ended {
            self.places[index] = Place::Free;
            self.free.push(index);
        }
        progress
    }

    /// Turns a connection whose destination is known by now into an open one, in its place.
    fn answer(&mut self, index: usize, destination: SocketAddrV4) -> io::Result<()> {
        let Place::Announcing(client, _) = std::mem::replace(&mut self.places[index], Place::Free) else {
            return Ok(());
        };
        let source = match client.peer_addr()? {
            SocketAddr::V4(peer) => Some(*peer.ip()),
            SocketAddr::V6(_) => None,
        };
        let server = TcpStream::from(dial(destination, source)?);
        self.watch(&server, index)?;
        let codecs = self.codecs();
        self.places[index] = Place::Open(Box::new(Connection::new(client, server, codecs, Vec::new())));
        Ok(())
    }
}

/// The destination, once all six bytes are there.
fn announced(mut client: &TcpStream, so_far: &mut Vec<u8>) -> io::Result<Option<SocketAddrV4>> {
    let mut bytes = [0; 6];
    let missing = bytes.len() - so_far.len();
    match client.read(&mut bytes[..missing]) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => so_far.extend_from_slice(&bytes[..n]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(match so_far[..] {
        [a, b, c, d, high, low] => Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))),
        _ => None,
    })
}
