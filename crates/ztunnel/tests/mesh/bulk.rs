//! Much data, and many connections at once.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;
use testkit::apps::{connect, serve_echo};
use testkit::harness::Test;
use testkit::mesh::Pod;
use testkit::ztunnel::Ztunnel;

use super::{Outcome, TwoNodes, at, eventually, metric, two_nodes};

/// What a test moves each way.
const GIB: u64 = 1 << 30;
const CONNECTIONS: usize = 1000;
/// For one write or read of bulk data: on a machine that does much else, a stall is not yet a failure.
const BULK_PATIENCE: Duration = Duration::from_secs(60);
/// What an app that says much may have said unread, in bytes.
const UNREAD: usize = 1 << 20;
/// What is said again and again until it counts as much.
const MUCH: usize = 16 << 20;

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
        two_nodes("what may wait unread of an app that says much is bounded, at both ends, and of no other", |mesh| {
            let _app = serve_echo(&mesh.server, 9000)?;
            let at_near = |client: SocketAddr| receive_buffer(&mesh.zt_a, move |_, peer| peer == client);
            let at_far = || receive_buffer(&mesh.zt_b, |_, peer| peer == at(&mesh.server, 9000));

            let mut brief = connect(&mesh.client, at(&mesh.server, 9000))?;
            brief.write_all(b"hello")?;
            brief.read_exact(&mut [0; 5])?;
            assert_ne!(at_near(brief.local_addr()?)?, Some(UNREAD));
            assert_ne!(at_far()?, Some(UNREAD));
            drop(brief);
            eventually("the brief connection is over", || matches!(at_far(), Ok(None)))?;

            let mut much = connect(&mesh.client, at(&mesh.server, 9000))?;
            much.set_read_timeout(Some(BULK_PATIENCE))?;
            much.set_write_timeout(Some(BULK_PATIENCE))?;
            let mut sender = much.try_clone()?;
            let (said, mut heard) = (vec![7; MUCH], vec![0; MUCH]);
            eventually("both ends are bounded", || {
                let echoed = std::thread::scope(|scope| {
                    let sent = scope.spawn(|| sender.write_all(&said));
                    let echoed = much.read_exact(&mut heard);
                    sent.join().is_ok_and(|sent| sent.is_ok()) && echoed.is_ok()
                });
                let bounds = (much.local_addr().map(at_near), at_far());
                echoed && matches!(bounds, (Ok(Ok(Some(UNREAD))), Ok(Some(UNREAD))))
            })?;
            assert_eq!(heard, said);
            for zt in [&mesh.zt_a, &mesh.zt_b] {
                let tunnel = receive_buffer(zt, |local, peer| local.port() == 15008 || peer.port() == 15008)?;
                assert!(tunnel.is_some() && tunnel != Some(UNREAD), "{tunnel:?}");
            }
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

/// The room that a ztunnel's kernel has for what arrives on the connection that `is_meant` says, if there is one.
fn receive_buffer(zt: &Ztunnel, is_meant: impl Fn(SocketAddr, SocketAddr) -> bool) -> Outcome<Option<usize>> {
    let pid = Pid::from_raw(zt.pid().cast_signed()).ok_or("no process")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{}/fd", zt.pid()))? {
        let fd: i32 = entry?.file_name().to_string_lossy().parse()?;
        // It may have been closed meanwhile.
        let Ok(copy) = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()) else { continue };
        let socket = Socket::from(copy);
        let address = |found: std::io::Result<socket2::SockAddr>| {
            let found = found.ok()?.as_socket()?;
            Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
        };
        if let (Some(local), Some(peer)) = (address(socket.local_addr()), address(socket.peer_addr()))
            && is_meant(local, peer)
        {
            return Ok(Some(socket.recv_buffer_size()?));
        }
    }
    Ok(None)
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
