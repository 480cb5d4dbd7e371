//! Requests over netlink sockets: what routes and links ([`crate::link`]) and packet rules ([`crate::nft`]) share.
//!
//! A [`Message`] is built front to back with nested attributes; a [`Socket`] sends a batch and waits until every
//! request in it that wants an answer has one. Only requests are offered that the kernel answers with an
//! acknowledgement or an error: nothing here reads back lists.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Create the object, whether or not such a one exists.
pub(crate) const CREATE: u16 = 0x400;
/// Create the object; fail if there is one.
pub(crate) const CREATE_NEW: u16 = 0x600;
/// Create the object, in place of the one that there is.
pub(crate) const CREATE_OR_REPLACE: u16 = 0x500;
/// Rules of packet filters are appended, not put in front.
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// The kernel answers at once; the wait ends a test that would otherwise hang.
const ANSWER_SECONDS: i64 = 5;
/// An acknowledgement repeats at most its request; one per read.
const ANSWER_BYTES: usize = 64 * 1024;

/// Which part of the kernel a socket speaks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    /// Links, addresses, routes, rules.
    Route,
    /// Packet filters.
    Netfilter,
}

/// One request, or several in a row, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    requests: u32,
    acknowledged: u32,
}

impl Message {
    /// Opens a request of `kind` with the fixed `head` of its family; attributes and further requests follow.
    pub(crate) fn request(
        mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> Message {
        self.acknowledged += 1;
        self.push(kind, flags | NLM_F_ACK, head, body)
    }

    /// As [`Message::request`], for the marks around a batch, which the kernel does not acknowledge.
    pub(crate) fn mark(self, kind: u16, head: &[u8]) -> Message {
        self.push(kind, 0, head, |_| {})
    }

    fn push(mut self, kind: u16, flags: u16, head: &[u8], body: impl FnOnce(&mut Attributes<'_>)) -> Message {
        let start = self.bytes.len();
        self.requests += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.requests.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(head);
        pad(&mut self.bytes);
        body(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("requests are built here and small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// The attributes of one request, appended in order.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put(kind, |bytes| bytes.extend_from_slice(value))
    }

    /// A string with the terminating zero that the kernel expects.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        })
    }

    /// A number in the byte order of this machine (links and routes).
    pub(crate) fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order (packet filters).
    pub(crate) fn network(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.put(kind | NLA_F_NESTED, |bytes| body(&mut Attributes { bytes }))
    }

    /// Bytes without an attribute around them: the fixed head inside some nested attributes.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    fn put(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        value(self.bytes);
        let length = u16::try_from(self.bytes.len() - start).expect("attributes are built here and small");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(self.bytes);
        self
    }
}

/// Headers and attributes begin at multiples of four (netlink(7)).
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A netlink socket; it belongs to the network namespace of the thread that opened it.
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub(crate) fn open(family: Family) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
        Ok(Socket { fd })
    }

    /// Sends and waits for the acknowledgements.
    ///
    /// # Errors
    /// The first error that the kernel answers with; the rest of the batch is then undone or not done.
    pub(crate) fn perform(&self, message: &Message) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), &message.bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let mut missing = message.acknowledged;
        while missing > 0 {
            let length = recv(self.fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            missing = missing.saturating_sub(acknowledgements(&answer[..length])?);
        }
        Ok(())
    }
}

/// How many requests `answer` acknowledges; the error in it, if there is one.
fn acknowledgements(mut answer: &[u8]) -> io::Result<u32> {
    let mut count = 0;
    while let Some(header) = answer.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if let (NLMSG_ERROR, Some(&[a, b, c, d])) = (kind, answer.get(HEADER..HEADER + 4)) {
            match i32::from_ne_bytes([a, b, c, d]) {
                0 => count += 1,
                negative => return Err(io::Error::from_raw_os_error(negative.saturating_neg())),
            }
        }
        answer = answer.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}
