//! A wire tap: what passes on a link, kept to be searched.
//!
//! A search covers every packet that was delivered before it began. What it cannot find is what lies across two
//! packets, and what was lost: [`Tap::is_complete`] tells whether anything was.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};

use crate::netns::NetNs;

/// Bytes of packets kept; the oldest go first.
const KEPT_BYTES: usize = 64 << 20;
/// What the kernel may hold until it is fetched: a burst of large segments.
const KERNEL_BYTES: usize = 32 << 20;
/// Largest packet: virtual links carry whole segments of up to 64 KiB, and a link header.
const PACKET_BYTES: usize = (64 << 10) + 256;
/// The thread that fetches looks this often whether the tap still exists.
const PATIENCE_MILLISECONDS: u8 = 100;

/// A running tap; it ends when dropped.
pub struct Tap {
    record: Arc<Mutex<Record>>,
}

struct Record {
    socket: OwnedFd,
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
    complete: bool,
}

impl Tap {
    /// Taps all links of a namespace.
    pub(crate) fn open(netns: &NetNs) -> io::Result<Tap> {
        let raw = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let socket = netns.run(raw)??;
        // Beyond the system's limit where permitted, up to it elsewhere.
        setsockopt(&socket, sockopt::RcvBufForce, &KERNEL_BYTES)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BYTES))?;
        let watched = socket.try_clone()?;
        let record = Record { socket, packets: VecDeque::new(), bytes: 0, complete: true };
        let record = Arc::new(Mutex::new(record));
        let fetched = Arc::downgrade(&record);
        std::thread::Builder::new().name("tap".to_owned()).spawn(move || {
            loop {
                let mut readable = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut readable, PollTimeout::from(PATIENCE_MILLISECONDS));
                let Some(record) = fetched.upgrade() else { return };
                lock(&record).fetch();
            }
        })?;
        Ok(Tap { record })
    }

    /// Whether some packet so far contains `bytes`.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.any(|packet| bytes.is_empty() || packet.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Whether some TCP segment so far begins with a TLS record of application data (RFC 8446 5.1: type 23).
    pub fn saw_tls_application_data(&self) -> bool {
        self.any(|packet| tcp_payload(packet).is_some_and(|payload| payload.starts_with(&[23, 3, 3])))
    }

    /// Whether some TCP segment so far went to or came from `port`.
    pub fn saw_tcp_port(&self, port: u16) -> bool {
        self.any(|packet| {
            tcp(packet).is_some_and(|segment| segment.chunks(2).take(2).any(|end| end == port.to_be_bytes()))
        })
    }

    /// How many bytes a client said in the first segment to `port` that was not the opening of a connection, if there was one.
    pub fn first_said_to(&self, port: u16) -> Option<usize> {
        const SYN: u8 = 2;
        let mut record = lock(&self.record);
        record.fetch();
        let mut segments = record.packets.iter().filter_map(|packet| Some((tcp(packet)?, tcp_payload(packet)?)));
        let first = segments.find(|(segment, _)| {
            segment.get(2..4) == Some(&port.to_be_bytes()) && segment.get(13).is_some_and(|flags| flags & SYN == 0)
        });
        first.map(|(_, payload)| payload.len())
    }

    /// Whether every packet so far could be kept.
    pub fn is_complete(&self) -> bool {
        let mut record = lock(&self.record);
        record.fetch();
        record.complete
    }

    fn any(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let mut record = lock(&self.record);
        record.fetch();
        record.packets.iter().any(|packet| wanted(packet))
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Takes over all that the kernel holds by now.
    fn fetch(&mut self) {
        let mut buffer = vec![0; PACKET_BYTES];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(length) => {
                    self.complete &= length <= buffer.len();
                    self.keep(buffer[..length.min(buffer.len())].into());
                }
                Err(nix::Error::EINTR) => {}
                Err(_) => break,
            }
        }
        self.complete &= dropped(&self.socket) == 0;
    }

    fn keep(&mut self, packet: Box<[u8]>) {
        self.bytes += packet.len();
        self.packets.push_back(packet);
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.packets.pop_front() else { return };
            self.bytes -= oldest.len();
            self.complete = false;
        }
    }
}

/// How many packets the kernel could not hold since this was last asked (packet(7), PACKET_STATISTICS).
fn dropped(socket: &OwnedFd) -> u32 {
    let mut statistics = nix::libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as nix::libc::socklen_t;
    let target = (&raw mut statistics).cast();
    // SAFETY: the kernel writes at most `length` bytes to `target`, which is that large and lives through the call.
    let asked = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_PACKET,
            nix::libc::PACKET_STATISTICS,
            target,
            &raw mut length,
        )
    };
    if asked == 0 { statistics.tp_drops } else { u32::MAX }
}

/// The TCP segment in an Ethernet frame over IPv4 or (without extension headers) IPv6.
fn tcp(frame: &[u8]) -> Option<&[u8]> {
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] if *packet.get(9)? == TCP => packet.get(usize::from(packet.first()? & 15) * 4..),
        [0x86, 0xdd] if *packet.get(6)? == TCP => packet.get(40..),
        _ => None,
    }
}

fn tcp_payload(frame: &[u8]) -> Option<&[u8]> {
    let segment = tcp(frame)?;
    segment.get(usize::from(segment.get(12)? >> 4) * 4..)
}
