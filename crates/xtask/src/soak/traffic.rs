//! Connections and the lives that they have.
//!
//! A client says in its first byte what is going to happen, so that both apps play their parts and each can tell when
//! the other's did not arrive as it was meant. Everything is bounded by [`PATIENCE`].

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use testkit::mesh::Pod;

/// For connecting and for every read and write.
const PATIENCE: Duration = Duration::from_secs(60);
/// The server's ports: a client runs out of ports of its own towards one address only after 28,000 connections a minute.
const PORTS: std::ops::Range<u16> = 9000..9032;
/// Longest wait between two steps of a life; most of a connection's time is waiting, as with real ones.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// What is said in one go. Larger than a stream's first window.
const SPEECH: usize = 96 * 1024;

/// How often the server says that to a client who never reads: less than the kernel would take, of which there is one
/// for all these connections, and more than a slow reader's stream may pin.
const UNREAD: usize = 16;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    /// Questions and answers, then the client ends and the server ends.
    Talk,
    /// The client ends its direction at once and reads on; the answer comes after a wait.
    ClientEndsFirst,
    /// The server ends its direction at once; the client goes on talking.
    ServerEndsFirst,
    /// The client resets after some questions and answers.
    ClientResets,
    /// The server does.
    ServerResets,
    /// The server says more than its share of windows, the client reads nothing of it and resets.
    NeverRead,
}

const LIVES: [Life; 6] =
    [Life::Talk, Life::ClientEndsFirst, Life::ServerEndsFirst, Life::ClientResets, Life::ServerResets, Life::NeverRead];

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Score {
    /// Connections, by [`Life`].
    pub(super) lives: BTreeMap<String, u64>,
    /// Bytes that clients have read and written.
    pub(super) bytes: u64,
    /// Connections that went otherwise than they should, by life and what happened.
    pub(super) surprises: BTreeMap<String, u64>,
}

impl Score {
    pub(super) fn connections(&self) -> u64 {
        self.lives.values().sum()
    }
}

/// Clients at work.
pub(super) struct Traffic {
    ending: Arc<AtomicBool>,
    score: Arc<Mutex<Score>>,
    clients: Vec<JoinHandle<io::Result<()>>>,
}

impl Traffic {
    pub(super) fn start(client: &Pod, server: &Pod, connections: u32) -> io::Result<Self> {
        for port in PORTS {
            let listener = server.run(|| TcpListener::bind(("0.0.0.0", port)))??;
            std::thread::spawn(move || serve(&listener));
        }
        let ending = Arc::new(AtomicBool::new(false));
        let score = Arc::<Mutex<Score>>::default();
        let clients = (0..connections)
            .map(|number| {
                let (ending, score) = (Arc::clone(&ending), Arc::clone(&score));
                let to = SocketAddr::new(server.ip(), PORTS.start + (number % PORTS.len() as u32) as u16);
                client.netns().spawn(move || live(to, Dice(u64::from(number) + 1), &ending, &score))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { ending, score, clients })
    }

    /// Lets connections come to their ends, and waits for those.
    pub(super) fn stop(self) -> Score {
        self.ending.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for client in self.clients {
            match client.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed.push(error.to_string()),
                Err(_) => failed.push("a client panicked".to_owned()),
            }
        }
        let mut score = std::mem::take(&mut *self.score.lock().unwrap_or_else(PoisonError::into_inner));
        for what in failed {
            *score.surprises.entry(what).or_default() += 1;
        }
        score
    }
}

/// One client: a connection after the other.
fn live(to: SocketAddr, mut dice: Dice, ending: &AtomicBool, score: &Mutex<Score>) {
    // Not all at once.
    dice.wait();
    while !ending.load(Ordering::Relaxed) {
        let life = LIVES[dice.below(LIVES.len())];
        let mut bytes = 0;
        let lived = connect(to).and_then(|stream| client(life, stream, &mut dice, &mut bytes));
        let mut score = score.lock().unwrap_or_else(PoisonError::into_inner);
        *score.lives.entry(format!("{life:?}")).or_default() += 1;
        score.bytes += bytes;
        if let Err(error) = lived {
            *score.surprises.entry(format!("{life:?}: {error}")).or_default() += 1;
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    patient(TcpStream::connect_timeout(&to, PATIENCE)?)
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The client's part.
fn client(life: Life, mut stream: TcpStream, dice: &mut Dice, bytes: &mut u64) -> io::Result<()> {
    stream.write_all(&[life as u8])?;
    let speech = speech(dice.below(251));
    match life {
        Life::Talk | Life::ClientResets | Life::ServerResets => {
            for _ in 0..=dice.below(3) {
                let part = &speech[..1 + dice.below(SPEECH)];
                stream.write_all(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes())?;
                stream.write_all(part)?;
                let mut answer = vec![0; part.len()];
                stream.read_exact(&mut answer)?;
                expect(answer == part, "the answer is not what was said")?;
                *bytes += 2 * part.len() as u64;
                dice.wait();
            }
            match life {
                Life::ClientResets => reset(stream),
                Life::ServerResets => {
                    // A part of no bytes asks for it.
                    stream.write_all(&0_u32.to_be_bytes())?;
                    expect(is_reset(&mut stream)?, "the server's reset came as an end")
                }
                _ => {
                    stream.shutdown(Shutdown::Write)?;
                    expect(rest(&mut stream)?.is_empty(), "there was more than the answers")
                }
            }
        }
        Life::ClientEndsFirst => {
            stream.shutdown(Shutdown::Write)?;
            let heard = rest(&mut stream)?;
            *bytes += heard.len() as u64;
            expect(heard == self::speech(0), "the answer after the client's end is not whole")
        }
        Life::ServerEndsFirst => {
            let heard = rest(&mut stream)?;
            expect(heard == self::speech(0), "what came before the server's end is not whole")?;
            dice.wait();
            stream.write_all(&speech)?;
            *bytes += (heard.len() + speech.len()) as u64;
            Ok(())
        }
        Life::NeverRead => {
            // What the kernel would keep for the client does not reach the proxies' buffers.
            set_socket_recv_buffer_size(&stream, SPEECH)?;
            dice.wait();
            reset(stream)
        }
    }
}

/// The server's side: a thread for each connection. What surprises it surprises its client as well.
fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        std::thread::spawn(move || patient(stream).and_then(server));
    }
}

/// The server's part.
fn server(mut stream: TcpStream) -> io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let life = LIVES.into_iter().find(|life| *life as u8 == first[0]);
    match life.ok_or(ErrorKind::InvalidData)? {
        Life::Talk | Life::ClientResets | Life::ServerResets => loop {
            let mut length = [0; 4];
            if stream.read(&mut length[..1])? == 0 {
                return Ok(());
            }
            stream.read_exact(&mut length[1..])?;
            let mut part = vec![0; u32::from_be_bytes(length) as usize];
            if part.is_empty() {
                return reset(stream);
            }
            stream.read_exact(&mut part)?;
            stream.write_all(&part)?;
        },
        Life::ClientEndsFirst => {
            rest(&mut stream)?;
            Dice(u64::from(stream.peer_addr()?.port())).wait();
            stream.write_all(&speech(0))
        }
        Life::ServerEndsFirst => {
            stream.write_all(&speech(0))?;
            stream.shutdown(Shutdown::Write)?;
            rest(&mut stream).map(drop)
        }
        Life::NeverRead => {
            for _ in 0..UNREAD {
                stream.write_all(&speech(0))?;
            }
            rest(&mut stream).map(drop)
        }
    }
}

fn speech(first: usize) -> Vec<u8> {
    (first..first + SPEECH).map(|i| (i % 251) as u8).collect()
}

fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

fn is_reset(stream: &mut TcpStream) -> io::Result<bool> {
    match rest(stream) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error),
    }
}

fn reset(stream: TcpStream) -> io::Result<()> {
    Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
}

fn expect(what_should_be: bool, otherwise: &str) -> io::Result<()> {
    if what_should_be { Ok(()) } else { Err(io::Error::other(otherwise)) }
}

/// A generator of numbers that need not be good (xorshift); each client's are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high bits of a small seed are poor at first, the product's are not.
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % bound
    }

    /// Waits for up to [`LONGEST_WAIT`].
    fn wait(&mut self) {
        std::thread::sleep(Duration::from_millis(self.below(LONGEST_WAIT.as_millis() as usize) as u64));
    }
}
