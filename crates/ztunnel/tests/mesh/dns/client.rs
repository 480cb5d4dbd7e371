//! A resolver that says what it got.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use testkit::apps::connect;
use testkit::mesh::Pod;

use super::super::Outcome;

pub const A: u16 = 1;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;
pub const SERVER_FAILURE: u8 = 2;
pub const NO_SUCH_NAME: u8 = 3;
/// As long as a resolver waits.
const PATIENCE: Duration = Duration::from_secs(6);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub from: SocketAddr,
    pub authoritative: bool,
    pub rcode: u8,
    pub addresses: Vec<IpAddr>,
    /// Type and data of each record of the answer.
    pub records: Vec<(u16, Vec<u8>)>,
}

/// A query for the type of a name.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Sends a datagram and waits for one.
pub fn exchange(pod: &Pod, server: SocketAddr, message: &[u8]) -> Outcome<Vec<u8>> {
    Ok(datagram(pod, server, message)?.0)
}

fn datagram(pod: &Pod, server: SocketAddr, message: &[u8]) -> Outcome<(Vec<u8>, SocketAddr)> {
    let socket = pod.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    // What is not answered at all need not be waited for as long.
    let silent = message.len() < 12 || message[2] & 0x80 != 0;
    socket.set_read_timeout(Some(if silent { Duration::from_millis(300) } else { PATIENCE }))?;
    socket.send_to(message, server)?;
    let mut buffer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// Asks over UDP.
pub fn ask(pod: &Pod, server: SocketAddr, name: &str, kind: u16) -> Outcome<Answer> {
    let question = query(4711, name, kind);
    let (message, from) = datagram(pod, server, &question)?;
    read(&message, &question, from)
}

/// Queries that wait for an answer at a time: far fewer than any socket's buffer holds.
const WINDOW: usize = 64;

/// Asks the questions over UDP again and again, and sees to it that all are answered.
pub fn ask_many(pod: &Pod, server: SocketAddr, questions: &[(&str, u16)], count: u32) -> Outcome {
    let socket = pod.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    let queries: Vec<Vec<u8>> = (0..).zip(questions).map(|(id, (name, kind))| query(id, name, *kind)).collect();
    let mut buffer = [0; 512];
    for _ in 0..count as usize / WINDOW {
        for query in queries.iter().cycle().take(WINDOW) {
            socket.send(query)?;
        }
        for _ in 0..WINDOW {
            let length = socket.recv(&mut buffer)?;
            let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
            let query = queries.get(id).filter(|query| length > query.len()).ok_or("an answer to nothing")?;
            if !buffer[12..].starts_with(&query[12..]) || buffer[2] & 0x80 == 0 {
                return Err("not an answer".into());
            }
        }
    }
    Ok(())
}

/// Asks all questions over one TCP connection at once; answers in the order of the questions.
pub fn ask_in_order(pod: &Pod, server: SocketAddr, questions: &[(&str, u16)]) -> Outcome<Vec<Answer>> {
    let mut stream = connect(pod, server)?;
    let all: Vec<_> = (0..).zip(questions).map(|(id, (name, kind))| query(id, name, *kind)).collect();
    for question in &all {
        stream.write_all(&(question.len() as u16).to_be_bytes())?;
        stream.write_all(question)?;
    }
    let mut answers = vec![None; all.len()];
    for _ in &all {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message)?;
        let id = usize::from(u16::from_be_bytes([message[0], message[1]]));
        let question = all.get(id).ok_or("an answer to nothing")?;
        answers[id] = Some(read(&message, question, server)?);
    }
    answers.into_iter().map(|answer| answer.ok_or_else(|| "no answer".into())).collect()
}

fn read(message: &[u8], question: &[u8], from: SocketAddr) -> Outcome<Answer> {
    let malformed = || io::Error::other(format!("not an answer: {message:?}"));
    if message.len() < question.len() || message[..2] != question[..2] || message[12..question.len()] != question[12..]
    {
        return Err(malformed().into());
    }
    let mut records = Vec::new();
    let mut at = question.len();
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        while message[at] & 0xc0 == 0 && message[at] != 0 {
            at += 1 + usize::from(message[at]);
        }
        at += if message[at] == 0 { 1 } else { 2 };
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let (kind, length) = (word(at), usize::from(word(at + 8)));
        records.push((kind, message.get(at + 10..at + 10 + length).ok_or_else(malformed)?.to_vec()));
        at += 10 + length;
    }
    let address = |(kind, data): &(u16, Vec<u8>)| -> Option<IpAddr> {
        match *kind {
            A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&data[..]).ok()?).into()),
            AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&data[..]).ok()?).into()),
            _ => None,
        }
    };
    let addresses = records.iter().filter_map(address).collect();
    Ok(Answer { from, authoritative: message[2] & 4 != 0, rcode: message[3] & 15, addresses, records })
}
