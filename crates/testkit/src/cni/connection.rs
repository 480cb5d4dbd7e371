//! One connected ztunnel: a request, then its answer, each within a deadline.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, recv, sendmsg, setsockopt, shutdown, sockopt};
use nix::sys::time::TimeVal;
use prost::Message;

use super::CniError;
use crate::netns::NetNs;
use crate::zds::{Answer, Payload, Version, WorkloadRequest, WorkloadResponse, ZdsHello};

/// For the hello, for each write and for each answer (spec in-pod 2, "istio-cni side").
const DEADLINE_SECONDS: i64 = 5;
/// Longest answer (same table).
const ANSWER_BYTES: usize = 1024;

pub(super) struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Takes a freshly accepted connection and waits for ztunnel's hello.
    pub(super) fn greet(accepted: RawFd) -> Result<Connection, CniError> {
        // SAFETY: accept4 returned this descriptor to the caller, who hands it over and keeps no copy.
        let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
        let deadline = TimeVal::new(DEADLINE_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &deadline).map_err(failed)?;
        setsockopt(&socket, sockopt::SendTimeout, &deadline).map_err(failed)?;
        let connection = Connection { socket };
        let hello: ZdsHello = connection.receive()?;
        if hello.version() == Version::V1 { Ok(connection) } else { Err(violation(format!("its hello is {hello:?}"))) }
    }

    /// Sends a request, with a descriptor if it is an addition, and waits for the answer.
    pub(super) fn request(&mut self, payload: Payload, netns: Option<&NetNs>) -> Result<(), CniError> {
        let packet = WorkloadRequest { payload: Some(payload) }.encode_to_vec();
        let descriptors: Vec<RawFd> = netns.iter().map(|netns| netns.as_fd().as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let packet = [IoSlice::new(&packet)];
        sendmsg::<()>(self.socket.as_raw_fd(), &packet, rights, MsgFlags::MSG_NOSIGNAL, None).map_err(failed)?;
        let response: WorkloadResponse = self.receive()?;
        match response.payload {
            Some(Answer::Ack(ack)) if ack.error.is_empty() => Ok(()),
            Some(Answer::Ack(ack)) => Err(CniError::Refused(ack.error)),
            None => Err(violation("its answer has no payload".to_owned())),
        }
    }

    /// Says something wrong, and then nothing.
    pub(super) fn misbehave(self, packet: &[u8], descriptors: &[BorrowedFd<'_>], times: usize) {
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        for _ in 0..times {
            // What it does not take, or no longer, is not sent.
            let _ = sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(packet)], rights, flags, None);
        }
        // Answers of any kind, until it leaves; it need not: what was wrong may be answered and forgotten.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        while matches!(recv(self.socket.as_raw_fd(), &mut [0; ANSWER_BYTES], MsgFlags::empty()), Ok(1..)) {}
    }

    /// Whether ztunnel has neither closed the connection nor said anything unasked.
    pub(super) fn is_open(&self) -> bool {
        let peek = recv(self.socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        peek == Err(nix::Error::EAGAIN)
    }

    fn receive<M: Message + Default>(&self) -> Result<M, CniError> {
        let mut buffer = [0; ANSWER_BYTES];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC).map_err(failed)?;
        match buffer.get(..length) {
            Some([]) => Err(CniError::Connection(io::ErrorKind::UnexpectedEof.into())),
            Some(packet) => M::decode(packet).map_err(|error| violation(error.to_string())),
            None => Err(violation(format!("an answer of {length} bytes; {ANSWER_BYTES} are permitted"))),
        }
    }
}

fn failed(errno: nix::Error) -> CniError {
    CniError::Connection(errno.into())
}

fn violation(text: String) -> CniError {
    CniError::Connection(io::Error::new(io::ErrorKind::InvalidData, text))
}
