//! Much data, and many connections at once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use testkit::apps::{connect, serve_echo};
use testkit::harness::Test;
use testkit::mesh::Pod;

use super::{Outcome, TwoNodes, at, eventually, metric, two_nodes};

/// What a test moves each way.
const GIB: u64 = 1 << 30;
const CONNECTIONS: usize = 1000;
/// For one write or read of bulk data: on a machine that does much else, a stall is not yet a failure.
const BULK_PATIENCE: Duration = Duration::from_secs(60);

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("1 GiB arrives intact from client to server", |mesh| {
            let listener = mesh.server.run(|| std::net::TcpListener::bind("0.0.0.0:9000"))??;
            let receiver = std::thread::spawn(move || digest_of_all(listener.accept()?.0));
            let stream = connect(&mesh.client, at(&mesh.server, 9000))?;
            stream.set_write_timeout(Some(BULK_PATIENCE))?;
            let sent = send_pattern(stream)?;
            let received = receiver.join().map_err(|_| "the receiver panicked")??;
            assert_eq!(received, sent);
            Ok(())
        }),
        two_nodes("1 GiB arrives intact from server to client", |mesh| {
            let listener = mesh.server.run(|| std::net::TcpListener::bind("0.0.0.0:9000"))??;
            let sender = std::thread::spawn(move || send_pattern(listener.accept()?.0));
            let stream = connect(&mesh.client, at(&mesh.server, 9000))?;
            stream.set_read_timeout(Some(BULK_PATIENCE))?;
            let received = digest_of_all(stream)?;
            let sent = sender.join().map_err(|_| "the sender panicked")??;
            assert_eq!(received, sent);
            Ok(())
        }),
        two_nodes("1 GiB arrives intact through plain connections, which copy nothing", |mesh| {
            let listener = mesh.outside_b.run(|| std::net::TcpListener::bind("0.0.0.0:9000"))??;
            let receiver = std::thread::spawn(move || digest_of_all(listener.accept()?.0));
            let stream = connect(&mesh.client, at(&mesh.outside_b, 9000))?;
            stream.set_write_timeout(Some(BULK_PATIENCE))?;
            let sent = send_pattern(stream)?;
            let received = receiver.join().map_err(|_| "the receiver panicked")??;
            assert_eq!(received, sent);
            Ok(())
        }),
        two_nodes("1000 connections at once echo correctly and leave no stream and no file behind", |mesh| {
            let _app = serve_echo(&mesh.server, 9000)?;
            // Everything that is made on first use has been made by then.
            echo_on(&mesh.client, &mesh, 0)?;
            settle(&mesh)?;
            let before = (mesh.zt_a.open_fds()?, mesh.zt_b.open_fds()?);
            let mut open: Vec<TcpStream> =
                (0..CONNECTIONS).map(|_| connect(&mesh.client, at(&mesh.server, 9000))).collect::<Result<_, _>>()?;
            for (i, stream) in open.iter_mut().enumerate() {
                stream.write_all(&message(i))?;
            }
            for (i, stream) in open.iter_mut().enumerate() {
                let mut echoed = vec![0; message(i).len()];
                stream.read_exact(&mut echoed)?;
                assert_eq!(echoed, message(i), "connection {i}");
            }
            assert_eq!(metric(&mesh.zt_a, "istio_tcp_sockets_open", &["source"])?, CONNECTIONS as u64);
            drop(open);
            settle(&mesh)?;
            for (zt, reporter) in [(&mesh.zt_a, "reporter=\"source\""), (&mesh.zt_b, "reporter=\"destination\"")] {
                assert_eq!(metric(zt, "istio_tcp_connections_closed_total", &[reporter])?, CONNECTIONS as u64 + 1);
                assert_eq!(metric(zt, "istio_tcp_connections_failed_total", &[reporter])?, 0);
            }
            // Tunnels of the burst stay pooled for a while; they are few, and streams share them.
            let tunnels = CONNECTIONS / 100 + 1;
            let after = (mesh.zt_a.open_fds()?, mesh.zt_b.open_fds()?);
            assert!(after.0 <= before.0 + tunnels && after.1 <= before.1 + tunnels, "{before:?} then {after:?}");
            Ok(())
        }),
    ]
}

fn message(i: usize) -> Vec<u8> {
    format!("connection {i} says hello; ").into_bytes().repeat(1 + i % 50)
}

fn echo_on(client: &Pod, mesh: &TwoNodes, i: usize) -> Outcome {
    let echoed = testkit::apps::exchange(client, at(&mesh.server, 9000), &message(i))?;
    assert_eq!(echoed, message(i));
    Ok(())
}

/// Waits until every connection that was opened has been closed.
fn settle(mesh: &TwoNodes) -> Outcome {
    for (zt, reporter) in [(&mesh.zt_a, "reporter=\"source\""), (&mesh.zt_b, "reporter=\"destination\"")] {
        eventually("all connections are closed", || {
            let count = |name| metric(zt, name, &[reporter]).unwrap_or(u64::MAX);
            count("istio_tcp_connections_opened_total") == count("istio_tcp_connections_closed_total")
        })?;
    }
    eventually("no app socket is open", || metric(&mesh.zt_a, "istio_tcp_sockets_open", &["source"]).ok() == Some(0))
}

/// Sends [`GIB`] bytes that never repeat within a window, ends, and returns their digest.
fn send_pattern(mut stream: TcpStream) -> std::io::Result<(u64, u64)> {
    let mut block = vec![0; 1 << 20];
    let (mut state, mut digest) = (0x9e37_79b9_7f4a_7c15_u64, Digest::default());
    for _ in 0..GIB >> 20 {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        digest.add(&block);
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(digest.end())
}

fn digest_of_all(mut stream: TcpStream) -> std::io::Result<(u64, u64)> {
    let mut block = vec![0; 1 << 20];
    let mut digest = Digest::default();
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(digest.end()),
            n => digest.add(&block[..n]),
        }
    }
}

/// A checksum that notices lost, doubled and swapped bytes (two sums, the second of the first, as Fletcher's).
#[derive(Default)]
struct Digest {
    sum: u64,
    sum_of_sums: u64,
    length: u64,
}

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.sum = self.sum.wrapping_add(u64::from(*byte) + 1);
            self.sum_of_sums = self.sum_of_sums.wrapping_add(self.sum);
        }
        self.length += bytes.len() as u64;
    }

    fn end(self) -> (u64, u64) {
        (self.length, self.sum_of_sums)
    }
}
