//! What has to hold on every path from an app to an app, whoever carries it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use testkit::apps::{PATIENCE, connect, exchange, serve_echo};
use testkit::mesh::Pod;

use crate::Outcome;

/// The port of the app at the far end.
pub const APP_PORT: u16 = 9000;
/// Streams that are open at once in the test of that.
const STREAMS: usize = 100;
/// Connections one after another, in the tests of tunnels that come and go.
pub const CONNECTIONS: u8 = 40;
/// Bytes each way in the test of much data: more than any window on the way.
const MUCH: usize = 6 << 20;

/// A way to reach an app.
pub struct Path {
    /// Where the client runs.
    pub from: Pod,
    /// What it connects to.
    pub to: SocketAddr,
    /// Where the app listens, at [`APP_PORT`].
    pub app: Pod,
}

impl Path {
    /// Much data passes both ways unharmed; the client ends first.
    pub fn carries_bytes_both_ways(&self) -> Outcome {
        let _echo = serve_echo(&self.app, APP_PORT)?;
        let sent = pattern(MUCH, 1);
        let received = exchange(&self.from, self.to, &sent)?;
        assert!(received == sent, "{} bytes came back changed", received.len());
        Ok(())
    }

    /// A client that ends first still hears the app to its end.
    pub fn lets_the_client_end_first(&self) -> Outcome {
        let (mut client, mut server) = self.pair()?;
        client.write_all(b"question")?;
        client.shutdown(Shutdown::Write)?;
        assert_eq!(all_of(&mut server)?, b"question");
        server.write_all(b"answer")?;
        drop(server);
        assert_eq!(all_of(&mut client)?, b"answer");
        Ok(())
    }

    /// An app that ends first still hears the client to its end.
    pub fn lets_the_server_end_first(&self) -> Outcome {
        let (mut client, mut server) = self.talking()?;
        server.write_all(b"greeting")?;
        server.shutdown(Shutdown::Write)?;
        assert_eq!(all_of(&mut client)?, b"greeting");
        client.write_all(b"reply")?;
        drop(client);
        assert_eq!(all_of(&mut server)?, b"reply");
        Ok(())
    }

    /// Many connections at once, each with its own bytes.
    pub fn carries_many_streams_at_once(&self) -> Outcome {
        let _echo = serve_echo(&self.app, APP_PORT)?;
        let mut open: Vec<TcpStream> = (0..STREAMS).map(|_| connect(&self.from, self.to)).collect::<Result<_, _>>()?;
        let message = |i: usize| pattern(10_000 + 100 * i, i as u64 + 1);
        for (i, stream) in open.iter_mut().enumerate() {
            stream.write_all(&message(i))?;
        }
        for (i, stream) in open.iter_mut().enumerate() {
            let mut echoed = vec![0; message(i).len()];
            stream.read_exact(&mut echoed)?;
            assert!(echoed == message(i), "stream {i}");
        }
        Ok(())
    }

    /// Connections, one after another while an earlier one stays open, of which none is lost.
    pub fn loses_no_connection(&self) -> Outcome {
        let _echo = serve_echo(&self.app, APP_PORT)?;
        let mut lasting = connect(&self.from, self.to)?;
        for i in 0..CONNECTIONS {
            lasting.write_all(&[i])?;
            let sent = pattern(10_000, u64::from(i) + 1);
            let received = exchange(&self.from, self.to, &sent).map_err(|error| format!("connection {i}: {error}"))?;
            assert!(received == sent, "connection {i}");
        }
        lasting.shutdown(Shutdown::Write)?;
        assert_eq!(all_of(&mut lasting)?, (0..CONNECTIONS).collect::<Vec<u8>>());
        Ok(())
    }

    /// A connection, both ends in hand.
    pub fn pair(&self) -> Outcome<(TcpStream, TcpStream)> {
        let listener = self.app.run(|| TcpListener::bind(("0.0.0.0", APP_PORT)))??;
        let client = connect(&self.from, self.to)?;
        let (server, _) = listener.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        Ok((client, server))
    }

    /// A connection over which bytes have passed both ways.
    pub fn talking(&self) -> Outcome<(TcpStream, TcpStream)> {
        let (mut client, mut server) = self.pair()?;
        client.write_all(b"?")?;
        server.read_exact(&mut [0])?;
        server.write_all(b"!")?;
        client.read_exact(&mut [0])?;
        Ok((client, server))
    }
}

/// Everything until the end.
pub fn all_of(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// Closes a connection by RST.
pub fn reset(stream: TcpStream) -> std::io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Bytes in which a lost, doubled or swapped one shows.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
