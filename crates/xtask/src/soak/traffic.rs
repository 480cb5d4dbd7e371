//! The clients: each opens one connection after the other and takes it through one of the [lives](Life).
//!
//! A client says in its first byte what is going to happen, so that both apps play their parts and each can tell when
//! the other's did not arrive as it was meant. Everything is bounded by [`PATIENCE`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use testkit::mesh::Pod;

use super::dice::Dice;
use super::judge::Judge;
use super::life::Life;

/// For connecting and for every read and write.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait between two steps of a life; most of a connection's time is waiting, as with real ones.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// What is said in one go. Larger than a stream's first window.
pub(super) const SPEECH: usize = 96 * 1024;

/// Clients at work.
pub(super) struct Traffic {
    ending: Arc<AtomicBool>,
    clients: Vec<JoinHandle<io::Result<()>>>,
}

impl Traffic {
    pub(super) fn start(
        client: &Pod,
        server: IpAddr,
        connections: u32,
        seed: u64,
        judge: &Arc<Judge>,
    ) -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let clients = (0..connections)
            .map(|number| {
                let (ending, judge) = (Arc::clone(&ending), Arc::clone(judge));
                client.netns().spawn(move || lives(server, Dice::new(seed, u64::from(number)), &ending, &judge))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { ending, clients })
    }

    /// Lets connections come to their ends, and waits for those.
    pub(super) fn stop(self, judge: &Judge) {
        self.ending.store(true, Ordering::Relaxed);
        for client in self.clients {
            match client.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => judge.surprise(judge.now(), error.to_string()),
                Err(_) => judge.surprise(judge.now(), "a client panicked".to_owned()),
            }
        }
    }
}

/// One client: a connection after the other.
fn lives(server: IpAddr, mut dice: Dice, ending: &AtomicBool, judge: &Judge) {
    // Not all at once.
    dice.wait(LONGEST_WAIT);
    while !ending.load(Ordering::Relaxed) {
        let life = Life::ALL[dice.below(Life::ALL.len())];
        if !live(server, life, &mut dice, judge) {
            // What does not come about ends at once, and so would the next.
            dice.wait(LONGEST_WAIT);
        }
    }
}

/// One connection; whether its life was what it should be.
pub(super) fn live(server: IpAddr, life: Life, dice: &mut Dice, judge: &Judge) -> bool {
    let (opened, mut bytes) = (judge.now(), 0);
    let lived = connect(server, life, dice, judge).and_then(|stream| play(life, stream, dice, &mut bytes));
    let surprise = lived.err().map(|error| error.to_string());
    let well = surprise.is_none();
    judge.ended(life, opened, bytes, surprise);
    well
}

/// A connection that talks and stays open.
pub(super) fn hold(server: IpAddr, dice: &mut Dice, judge: &Judge) -> io::Result<TcpStream> {
    let mut stream = connect(server, Life::Talk, dice, judge)?;
    stream.write_all(&[Life::Talk as u8])?;
    talk(&mut stream, &speech(0), dice, &mut 0)?;
    Ok(stream)
}

/// A connection that is in the books.
fn connect(server: IpAddr, life: Life, dice: &mut Dice, judge: &Judge) -> io::Result<TcpStream> {
    let (opened, began) = (judge.now(), judge.books().generation());
    let to = SocketAddr::new(server, life.port(dice.below(usize::MAX)));
    let connected = TcpStream::connect_timeout(&to, PATIENCE);
    // One that is reset before its client looks had been accepted all the same.
    if connected.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::ConnectionReset) {
        judge.books().established(life, began);
    }
    let stream = connected.map_err(|error| annotate("connecting", &error))?;
    judge.connected(judge.now() - opened);
    patient(stream)
}

fn annotate(doing: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

pub(super) fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The client's part.
fn play(life: Life, mut stream: TcpStream, dice: &mut Dice, bytes: &mut u64) -> io::Result<()> {
    stream.write_all(&[life as u8])?;
    let speech = speech(dice.below(251));
    match life {
        Life::Talk | Life::ClientResets | Life::ServerResets => {
            talk(&mut stream, &speech, dice, bytes)?;
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
            dice.wait(LONGEST_WAIT);
            stream.write_all(&speech)?;
            *bytes += (heard.len() + speech.len()) as u64;
            Ok(())
        }
        Life::NeverRead => {
            // What the kernel would keep for the client does not reach the proxies' buffers.
            set_socket_recv_buffer_size(&stream, SPEECH)?;
            dice.wait(LONGEST_WAIT);
            reset(stream)
        }
    }
}

/// Questions and answers.
fn talk(stream: &mut TcpStream, speech: &[u8], dice: &mut Dice, bytes: &mut u64) -> io::Result<()> {
    for _ in 0..=dice.below(3) {
        let part = &speech[..1 + dice.below(SPEECH)];
        stream.write_all(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes())?;
        stream.write_all(part)?;
        let mut answer = vec![0; part.len()];
        stream.read_exact(&mut answer)?;
        expect(answer == part, "the answer is not what was said")?;
        *bytes += 2 * part.len() as u64;
        dice.wait(LONGEST_WAIT);
    }
    Ok(())
}

pub(super) fn speech(first: usize) -> Vec<u8> {
    (first..first + SPEECH).map(|i| (i % 251) as u8).collect()
}

pub(super) fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
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

pub(super) fn reset(stream: TcpStream) -> io::Result<()> {
    Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
}

fn expect(what_should_be: bool, otherwise: &str) -> io::Result<()> {
    if what_should_be { Ok(()) } else { Err(io::Error::other(otherwise)) }
}
