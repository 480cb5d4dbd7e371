//! One connection to the node agent: packets with descriptors on a Unix `SOCK_SEQPACKET` socket (spec in-pod 2).
//!
//! A descriptor that arrives belongs to somebody from then on: it is handed over with its message or closed.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdSocket;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, recvmsg, socket_with,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::super::zds::{self, MAX_PACKET, Message, ZdsError};

/// How long the agent may take to read what we send; it reads at once when it is alive.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for descriptors of one packet: one is right, and more are recognised as wrong up to this many.
const MAX_DESCRIPTORS: usize = 4;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the agent closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the agent does not read: no progress for {} s", SEND_TIMEOUT.as_secs())]
    Stuck,
    #[error("another agent listens at the socket by now")]
    Replaced,
    #[error("failure to read message : {0}")]
    Protocol(#[from] ZdsError),
}

/// The agent at the other end.
pub(super) struct Agent {
    socket: UnixDatagram,
    /// The socket's file when we connected, if it could be looked at.
    file: Option<FileId>,
}

/// Tells files apart: device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let stat = rustix::fs::stat(path).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

impl Agent {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let file = file_id(path); // before connecting: a change in between is then noticed
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&fd, &SocketAddrUnix::new(path)?)?;
        // The type only lends its readiness; messages are received here, whole and with their descriptors.
        Ok(Self { socket: UnixDatagram::from_std(StdSocket::from(fd))?, file })
    }

    /// Whether another agent has put its socket in the place of the one that we are connected to. A file that is gone
    /// tells nothing.
    pub(super) fn is_abandoned(&self, path: &Path) -> bool {
        self.file.is_some() && file_id(path).is_some_and(|now| Some(now) != self.file)
    }

    pub(super) async fn send(&self, packet: &[u8]) -> Result<(), Ended> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(packet)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Ended::Stuck),
        }
    }

    /// The next message. Loses nothing when it is dropped.
    pub(super) async fn receive(&self) -> Result<Message<OwnedFd>, Ended> {
        self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await?
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<Result<Message<OwnedFd>, Ended>> {
    let mut bytes = [0; MAX_PACKET];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let packet = bytes.get(..received.bytes).unwrap_or(&bytes);
    Ok(read(packet, descriptors, received.flags))
}

fn read(packet: &[u8], descriptors: Vec<OwnedFd>, flags: ReturnFlags) -> Result<Message<OwnedFd>, Ended> {
    if flags.contains(ReturnFlags::CTRUNC) {
        return Err(ZdsError::DescriptorsTruncated.into());
    }
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(ZdsError::Truncated.into());
    }
    if packet.is_empty() && descriptors.is_empty() {
        return Err(Ended::Closed);
    }
    Ok(zds::parse(packet, descriptors)?)
}
