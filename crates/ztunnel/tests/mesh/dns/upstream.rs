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
    seen: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub fn start(pod: &Pod) -> Outcome<Self> {
        let any = (Ipv4Addr::UNSPECIFIED, 53);
        let (datagrams, streams) =
            pod.run(|| Ok::<_, std::io::Error>((UdpSocket::bind(any)?, TcpListener::bind(any)?)))??;
        let (ended, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeSet<Vec<u8>>>>::default());
        datagrams.set_read_timeout(Some(LOOK))?;
        streams.set_nonblocking(true)?;
        let (end, record) = (ended.clone(), seen.clone());
        let by_datagram = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                    let _ = datagrams.send_to(&answer(&buffer[..length], &record), from);
                }
            }
        });
        let (end, record) = (ended.clone(), seen.clone());
        let by_stream = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = streams.accept() else {
                    std::thread::sleep(LOOK);
                    continue;
                };
                let record = record.clone();
                std::thread::spawn(move || {
                    let _ = stream.set_nonblocking(false);
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        if stream.read_exact(&mut query).is_err() {
                            return;
                        }
                        let answer = answer(&query, &record);
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
        seen.iter().filter(|other| other.eq_ignore_ascii_case(&name)).count()
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

/// An address, or for other types bytes that no other type has, with a compressed name in them.
fn answer(query: &[u8], seen: &Mutex<BTreeSet<Vec<u8>>>) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap_or_default();
    let (name, question) = (&query[12..end], &query[12..end + 5]);
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_vec());
    let lower = name.to_ascii_lowercase();
    let has = |label: &[u8]| lower.windows(label.len()).any(|part| part == label);
    if has(b"\x04slow") {
        std::thread::sleep(SLOW);
    }
    let exists = lower.ends_with(b"\x07example") && !has(b"\x06absent");
    let ttl: u32 = if has(b"\x05brief") { 1 } else { 300 };
    let mut message = query[..2].to_vec();
    message.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(exists), 0, 0, 0, 0]);
    message.extend(question);
    if exists {
        message.extend([0xc0, 12]);
        message.extend(&question[question.len() - 4..]);
        message.extend(ttl.to_be_bytes());
        let data: &[u8] =
            if question.ends_with(&[0, 1, 0, 1]) { &[192, 0, 2, 1] } else { b"\x05MiXeD\xc0\x0c\x00\xff" };
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    message
}
