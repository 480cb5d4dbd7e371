//! A resolver in a pod: everything below `example` exists, but for `absent`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::mesh::Pod;

use super::super::Outcome;

/// Between two looks at whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// What `slow` takes.
const SLOW: Duration = Duration::from_millis(300);

/// Ends when dropped, and is then no longer reachable.
pub struct Upstream {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

/// What it was asked.
#[derive(Default)]
struct Seen {
    /// Spellings of names.
    names: BTreeSet<Vec<u8>>,
    queries: usize,
}

impl Upstream {
    pub fn start(pod: &Pod) -> Outcome<Self> {
        Self::telling(pod, &[Ipv4Addr::new(192, 0, 2, 1)])
    }

    /// Everything has these addresses.
    pub fn telling(pod: &Pod, addresses: &[Ipv4Addr]) -> Outcome<Self> {
        let addresses: Arc<[Ipv4Addr]> = addresses.into();
        let any = (Ipv4Addr::UNSPECIFIED, 53);
        let (datagrams, streams) =
            pod.run(|| Ok::<_, std::io::Error>((UdpSocket::bind(any)?, TcpListener::bind(any)?)))??;
        let (ended, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        datagrams.set_read_timeout(Some(LOOK))?;
        streams.set_nonblocking(true)?;
        let (end, record, told) = (ended.clone(), seen.clone(), addresses.clone());
        let by_datagram = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                    let _ = datagrams.send_to(&answer(&buffer[..length], &record, &told), from);
                }
            }
        });
        let (end, record, told) = (ended.clone(), seen.clone(), addresses.clone());
        let by_stream = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = streams.accept() else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                let (record, told) = (record.clone(), told.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        if stream.read_exact(&mut query).is_err() {
                            return;
                        }
                        let answer = answer(&query, &record, &told);
                        let _ = stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat());
                    }
                });
            }
        });
        let address = SocketAddr::new(pod.ip(), 53);
        Ok(Self { address, ended, seen, threads: vec![by_datagram, by_stream] })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// In how many spellings a name was asked for.
    pub fn spellings(&self, name: &str) -> usize {
        let name: Vec<u8> = name.split('.').flat_map(|l| std::iter::once(l.len() as u8).chain(l.bytes())).collect();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.names.iter().filter(|other| other.eq_ignore_ascii_case(&name)).count()
    }

    /// How many queries it got.
    pub fn queries(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).queries
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Its addresses, none of IPv6; for other types bytes that no other type has, with a compressed name in them.
fn answer(query: &[u8], seen: &Mutex<Seen>, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap_or_default();
    let (name, question) = (&query[12..end], &query[12..end + 5]);
    {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.names.insert(name.to_vec());
        seen.queries += 1;
    }
    let lower = name.to_ascii_lowercase();
    let has = |label: &[u8]| lower.windows(label.len()).any(|part| part == label);
    if has(b"\x04slow") {
        std::thread::sleep(SLOW);
    }
    let exists = lower.ends_with(b"\x07example") && !has(b"\x06absent");
    let ttl: u32 = if has(b"\x05brief") { 1 } else { 300 };
    let octets: Vec<[u8; 4]> = addresses.iter().map(Ipv4Addr::octets).collect();
    let data: Vec<&[u8]> = match (exists, question.ends_with(&[0, 1, 0, 1])) {
        (false, _) => Vec::new(),
        (true, true) => octets.iter().map(|octets| &octets[..]).collect(),
        (true, false) if question.ends_with(&[0, 28, 0, 1]) => Vec::new(),
        (true, false) => vec![b"\x05MiXeD\xc0\x0c\x00\xff"],
    };
    let mut message = query[..2].to_vec();
    message.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
    message.extend(question);
    for data in data {
        message.extend([0xc0, 12]);
        message.extend(&question[question.len() - 4..]);
        message.extend(ttl.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    message
}
