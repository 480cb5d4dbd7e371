//! A stand-in for what is behind the tunnel of an east-west gateway: it takes the bytes of each connection to the next
//! hop, as a gateway does with the streams of its outer tunnels, or does something worse with them.
//!
//! Where a ztunnel serves the gateway's pod it ends the outer tunnel and connects this, the pod's app. Connections onward
//! are made outside the pod, as they would otherwise be captured again.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::mesh::Pod;
use crate::netns::NetNs;
use socket2::SockRef;

/// What a gateway does with what it is to carry.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Carries it to a ztunnel's port for HBONE.
    Carry(SocketAddr),
    /// Carries it there, and ends after that many bytes from there.
    CarryOnly(SocketAddr, u64),
    /// Ends at once.
    End,
    /// Resets at once.
    Reset,
    /// Answers with what is no TLS.
    Babble,
    /// Says nothing, ever.
    Silence,
}

/// A running gateway; dropped, it accepts no more.
pub struct Relay {
    listener: TcpListener,
    accepted: Arc<AtomicUsize>,
}

impl Relay {
    /// Listens at `port` of `gateway`.
    ///
    /// # Errors
    /// The port cannot be had.
    pub fn start(gateway: &Pod, port: u16, manner: Manner) -> io::Result<Relay> {
        let listener = gateway.run(|| TcpListener::bind(("0.0.0.0", port)))??;
        let accepting = listener.try_clone()?;
        let outside = gateway.node().netns().clone();
        let accepted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&accepted);
        thread::Builder::new().name("relay".to_owned()).spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                count.fetch_add(1, Ordering::Relaxed);
                let outside = outside.clone();
                // What goes wrong here is what is tested for.
                let _ = thread::Builder::new().spawn(move || serve(stream, manner, &outside));
            }
        })?;
        Ok(Relay { listener, accepted })
    }

    /// How many streams have come.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then ends.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn serve(mut stream: TcpStream, manner: Manner, outside: &NetNs) -> io::Result<()> {
    match manner {
        Manner::Carry(to) => carry(&stream, to, outside, u64::MAX),
        Manner::CarryOnly(to, most) => carry(&stream, to, outside, most),
        Manner::End => hear_out(&mut stream),
        Manner::Reset => {
            hear_something(&mut stream)?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        }
        Manner::Babble => {
            hear_something(&mut stream)?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
            hear_out(&mut stream)
        }
        Manner::Silence => io::copy(&mut stream, &mut io::sink()).map(drop),
    }
}

fn hear_something(stream: &mut TcpStream) -> io::Result<()> {
    stream.read(&mut [0; 4096]).map(drop)
}

/// Ends, and hears the other side to its end, so that it sees no reset.
fn hear_out(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    io::copy(stream, &mut io::sink()).map(drop)
}

fn carry(near: &TcpStream, to: SocketAddr, outside: &NetNs, most: u64) -> io::Result<()> {
    let far = outside.run(|| TcpStream::connect(to))??;
    thread::scope(|scope| {
        scope.spawn(|| pass(near, &far, u64::MAX));
        pass(&far, near, most);
    });
    Ok(())
}

/// Passes bytes on up to the end; what breaks off one way ends the other, too.
fn pass(from: &TcpStream, mut to: &TcpStream, most: u64) {
    let ended = io::copy(&mut from.take(most), &mut to);
    // What is gone already needs no end.
    let _ = to.shutdown(if ended.is_err() { Shutdown::Both } else { Shutdown::Write });
}
