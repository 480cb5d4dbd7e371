//! Queries with all that they may say, and answers taken apart as far as two of them can be compared.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use testkit::apps::{PATIENCE, connect};
use testkit::mesh::Pod;

use crate::Outcome;

pub const A: u16 = 1;
/// The query and its answer have this number.
const NUMBER: u16 = 4711;
const HEADER: usize = 12;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    message: Vec<u8>,
    question_end: usize,
    way: Way,
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Udp,
    Tcp,
}

/// What came back, but for its number and its times to live.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    flags: u16,
    question: Vec<u8>,
    /// Of each section, without regard to order: owner, type, class, and data byte by byte.
    sections: [BTreeSet<Record>; 3],
}

type Record = (Vec<u8>, u16, u16, Vec<u8>);

impl Query {
    /// Without EDNS, by UDP.
    pub fn plain(name: &str, kind: u16) -> Self {
        let mut message = NUMBER.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.trim_end_matches('.').split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        Self { question_end: message.len(), message, way: Way::Udp }
    }

    /// With EDNS: the largest datagram, and `0x8000` for DNSSEC's records.
    pub fn edns(mut self, size: u16, flags: u16) -> Self {
        self.message[HEADER - 1] = 1;
        self.message.extend([0, 0, 41]);
        self.message.extend(size.to_be_bytes());
        self.message.extend([0, 0]);
        self.message.extend(flags.to_be_bytes());
        self.message.extend([0, 0]);
        self
    }

    pub fn way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    pub fn ask(&self, pod: &Pod, server: SocketAddr) -> Outcome<Answer> {
        let mut message = vec![0; 65_535];
        match self.way {
            Way::Udp => {
                let any: IpAddr =
                    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = pod.run(|| UdpSocket::bind((any, 0)))??;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(server)?;
                socket.send(&self.message)?;
                let length = socket.recv(&mut message)?;
                message.truncate(length);
            }
            Way::Tcp => {
                let mut stream = connect(pod, server)?;
                stream.write_all(&[&(self.message.len() as u16).to_be_bytes()[..], &self.message].concat())?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                message.truncate(u16::from_be_bytes(length).into());
                stream.read_exact(&mut message)?;
            }
        }
        if message.get(..2) != self.message.get(..2) {
            return Err(format!("not the answer: {message:?}").into());
        }
        read(&message, self.question_end).ok_or_else(|| format!("not a message: {message:?}").into())
    }
}

impl Answer {
    pub fn rcode(&self) -> u16 {
        self.flags & 15
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Types of the records that answer.
    pub fn kinds(&self) -> BTreeSet<u16> {
        self.sections[0].iter().map(|record| record.1).collect()
    }

    /// Everything but the header's flags, for servers that say differently what they knew before.
    pub fn records(&self) -> &[BTreeSet<Record>; 3] {
        &self.sections
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn read(message: &[u8], question_end: usize) -> Option<Answer> {
    let mut at = question_end;
    let mut sections: [BTreeSet<Record>; 3] = Default::default();
    for (index, section) in sections.iter_mut().enumerate() {
        for _ in 0..word(message, 6 + 2 * index)? {
            let (owner, end) = name(message, at)?;
            let (kind, class) = (word(message, end)?, word(message, end + 2)?);
            let data = end + 10..end + 10 + usize::from(word(message, end + 8)?);
            at = data.end;
            section.insert((owner, kind, class, message.get(data)?.to_vec()));
        }
    }
    let question = message.get(HEADER..question_end)?.to_vec();
    (at == message.len()).then_some(Answer { flags: word(message, 2)?, question, sections })
}

/// A name, written out, and where it ends.
fn name(message: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut written, mut at, mut end) = (Vec::new(), start, None);
    for _ in 0..255 {
        let head = *message.get(at)?;
        if head >= 0xc0 {
            end.get_or_insert(at + 2);
            at = usize::from(word(message, at)? & 0x3fff);
            continue;
        }
        written.extend(message.get(at..at + 1 + usize::from(head))?);
        at += 1 + usize::from(head);
        if head == 0 {
            return Some((written, end.unwrap_or(at)));
        }
    }
    None
}
