//! The server's app: takes its part in every life, and can die with all its connections.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustix::net::connect_unspec;
use testkit::mesh::Pod;

use super::dice::Dice;
use super::judge::lock;
use super::life::Life;
use super::traffic::{LONGEST_WAIT, SPEECH, patient, reset, rest, speech};

/// How often the server says a speech to a client who never reads: less than the kernel would take, of which there is one
/// for all these connections, and more than a slow reader's stream may pin.
const UNREAD: usize = 16;

/// Listens at the ports of all lives.
pub(super) struct App {
    pod: Pod,
    listeners: Mutex<Vec<TcpListener>>,
    open: Arc<Open>,
}

/// Its connections.
#[derive(Default)]
struct Open(Mutex<(u64, BTreeMap<u64, TcpStream>)>);

impl App {
    pub(super) fn start(pod: &Pod) -> io::Result<Self> {
        let app = Self { pod: pod.clone(), listeners: Mutex::default(), open: Arc::default() };
        app.revive()?;
        Ok(app)
    }

    /// Listens again.
    pub(super) fn revive(&self) -> io::Result<()> {
        for port in Life::ports() {
            let listener = self.pod.run(|| TcpListener::bind(("0.0.0.0", port)))??;
            lock(&self.listeners).push(listener.try_clone()?);
            let open = Arc::clone(&self.open);
            std::thread::spawn(move || serve(&listener, &open));
        }
        Ok(())
    }

    /// Closes its ports and resets its connections, as the kernel does when a process dies that had not read all.
    pub(super) fn die(&self) -> io::Result<()> {
        for listener in std::mem::take(&mut *lock(&self.listeners)) {
            // Wakes the thread that accepts, which then ends.
            rustix::net::shutdown(&listener, rustix::net::Shutdown::Both)?;
        }
        for stream in std::mem::take(&mut lock(&self.open.0).1).into_values() {
            // One that has just ended cannot be reset.
            let _ = connect_unspec(&stream);
        }
        Ok(())
    }
}

impl Open {
    fn enter(&self, stream: &TcpStream) -> io::Result<u64> {
        let mut open = lock(&self.0);
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, stream.try_clone()?);
        Ok(number)
    }
}

/// A thread for each connection. What surprises it surprises its client as well.
fn serve(listener: &TcpListener, open: &Arc<Open>) {
    while let Ok((stream, _)) = listener.accept() {
        let open = Arc::clone(open);
        std::thread::spawn(move || -> io::Result<()> {
            let number = open.enter(&stream)?;
            let played = patient(stream).and_then(|mut stream| play(&mut stream).map(|last| (stream, last)));
            // The last descriptor is the one that is closed, or reset.
            lock(&open.0).1.remove(&number);
            match played? {
                (stream, Last::Reset) => reset(stream),
                (_, Last::End) => Ok(()),
            }
        });
    }
}

/// How the server leaves.
enum Last {
    End,
    Reset,
}

/// The server's part.
fn play(stream: &mut TcpStream) -> io::Result<Last> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let life = Life::ALL.into_iter().find(|life| *life as u8 == first[0]);
    match life.ok_or(ErrorKind::InvalidData)? {
        Life::Talk | Life::ClientResets | Life::ServerResets => loop {
            let mut length = [0; 4];
            if stream.read(&mut length[..1])? == 0 {
                return Ok(Last::End);
            }
            stream.read_exact(&mut length[1..])?;
            let mut part = vec![0; (u32::from_be_bytes(length) as usize).min(SPEECH)];
            if part.is_empty() {
                return Ok(Last::Reset);
            }
            stream.read_exact(&mut part)?;
            stream.write_all(&part)?;
        },
        Life::ClientEndsFirst => {
            rest(stream)?;
            Dice::new(u64::from(stream.peer_addr()?.port()), 0).wait(LONGEST_WAIT);
            stream.write_all(&speech(0))?;
        }
        Life::ServerEndsFirst => {
            stream.write_all(&speech(0))?;
            stream.shutdown(Shutdown::Write)?;
            rest(stream)?;
        }
        Life::NeverRead => {
            for _ in 0..UNREAD {
                stream.write_all(&speech(0))?;
            }
            rest(stream)?;
        }
    }
    Ok(Last::End)
}
