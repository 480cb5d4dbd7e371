//! Requests over netlink sockets: what routes ([`crate::routes`]) and packet rules ([`crate::nft`]) share.
//!
//! A [`Message`] is built front to back with nested attributes; a [`Socket`] sends a batch and waits until every
//! request in it that wants an answer has one, or reads the list that a single request asks for ([`read`]). Sockets
//! belong to the network namespace of the thread that opens them, and nothing is waited for longer than the kernel takes
//! to answer.

pub mod read;

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Create the object, whether or not such a one exists.
pub const CREATE: u16 = 0x400;
/// Create the object; fail if there is one.
pub const CREATE_NEW: u16 = 0x600;
/// Create the object, in place of the one that there is.
pub const CREATE_OR_REPLACE: u16 = 0x500;
/// Rules of packet filters are appended, not put in front.
pub const APPEND: u16 = 0x800;

const DUMP: u16 = 0x300;

const NLA_F_NESTED: u16 = 0x8000;
/// The kernel answers at once; the wait ends what would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// An acknowledgement repeats at most its request, and lists come in packets of at most 32 KiB; one per read.
const ANSWER_BYTES: usize = 64 * 1024;

/// Which part of the kernel a socket speaks to.
#[derive(Debug, Clone, Copy)]
pub enum Family {
    /// Links, addresses, routes, rules.
    Route,
    /// Packet filters.
    Netfilter,
}

/// One request, or several in a row, ready to be sent.
#[derive(Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
    requests: u32,
    acknowledged: u32,
}

impl Message {
    /// Opens a request of `kind` with the fixed `head` of its family; attributes and further requests follow.
    pub fn request(mut self, kind: u16, flags: u16, head: &[u8], body: impl FnOnce(&mut Attributes<'_>)) -> Message {
        self.acknowledged += 1;
        self.push(kind, flags | NLM_F_ACK, head, body)
    }

    /// As [`Message::request`], for the marks around a batch, which the kernel does not acknowledge.
    pub fn mark(self, kind: u16, head: &[u8]) -> Message {
        self.push(kind, 0, head, |_| {})
    }

    /// Asks for all objects of a kind; see [`Socket::list`].
    pub fn list(kind: u16, head: &[u8]) -> Message {
        Message::default().push(kind, DUMP, head, |_| {})
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
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// Bytes as they are.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put(kind, |bytes| bytes.extend_from_slice(value))
    }

    /// A string with the terminating zero that the kernel expects.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        })
    }

    /// A number in the byte order of this machine (links and routes).
    pub fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order (packet filters).
    pub fn network(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes inside an attribute.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.put(kind | NLA_F_NESTED, |bytes| body(&mut Attributes { bytes }))
    }

    /// Bytes without an attribute around them: the fixed head inside some nested attributes.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
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
#[derive(Debug)]
pub struct Socket(socket2::Socket);

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel's: it may lack this part of netlink.
    pub fn open(family: Family) -> io::Result<Socket> {
        let protocol = match family {
            Family::Route => libc::NETLINK_ROUTE,
            Family::Netfilter => libc::NETLINK_NETFILTER,
        };
        let socket = socket2::Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(protocol)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Socket(socket))
    }

    /// Sends and waits for the acknowledgements.
    ///
    /// # Errors
    /// The first error that the kernel answers with; the rest of the batch is then undone or not done.
    pub fn perform(&mut self, message: &Message) -> io::Result<()> {
        self.0.write_all(&message.bytes)?;
        let mut answer = vec![0; ANSWER_BYTES];
        let mut missing = message.acknowledged;
        while missing > 0 {
            let length = self.0.read(&mut answer)?;
            for packet in read::packets(&answer[..length]) {
                packet.error()?;
                missing = missing.saturating_sub(u32::from(packet.is_answer()));
            }
        }
        Ok(())
    }

    /// Sends a [`Message::list`] and calls `each` with the body of every object, behind its fixed head of `head` bytes.
    ///
    /// # Errors
    /// The kernel's. Of kind `Interrupted` if what was listed changed meanwhile: ask again.
    pub fn list(&mut self, message: &Message, head: usize, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.0.write_all(&message.bytes)?;
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let length = self.0.read(&mut answer)?;
            for packet in read::packets(&answer[..length]) {
                packet.error()?;
                if packet.was_interrupted() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                if packet.ends_list() {
                    return Ok(());
                }
                each(packet.body.get(head..).unwrap_or_default());
            }
        }
    }
}
