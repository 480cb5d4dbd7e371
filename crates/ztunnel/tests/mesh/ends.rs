//! How connections end beyond what apps see of it (that is `matrix`): records, deadlines, neighbours.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use testkit::apps::{PATIENCE, connect, serve_echo};
use testkit::harness::Test;

use super::{DEADLINE, Outcome, TwoNodes, access_lines, at, eventually, metric, two_nodes};

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("a reset by the client is a reset for the server, not an end", |mesh| {
            let (mut client, mut server) = pair(&mesh)?;
            client.write_all(b"x")?;
            server.read_exact(&mut [0])?;
            reset(client)?;
            assert_eq!(all_of(&mut server).unwrap_err().kind(), ErrorKind::ConnectionReset);
            mesh.zt_a.wait_for_log("reset_by=\"client\"", DEADLINE)?;
            mesh.zt_b.wait_for_log("reset_by=\"client\"", DEADLINE)?;
            Ok(())
        }),
        two_nodes("a reset by the server is a reset for the client, not an end", |mesh| {
            let (mut client, mut server) = pair(&mesh)?;
            client.write_all(b"x")?;
            server.read_exact(&mut [0])?;
            reset(server)?;
            assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            mesh.zt_a.wait_for_log("reset_by=\"server\"", DEADLINE)?;
            mesh.zt_b.wait_for_log("reset_by=\"server\"", DEADLINE)?;
            Ok(())
        }),
        super::test("a connection half of which has ended is cut when the other half carries nothing", || {
            let mesh = TwoNodes::start_with(&super::spec().env("HALF_CLOSED_TIMEOUT", "1s"))?;
            let plain = mesh.outside_b.run(|| TcpListener::bind("0.0.0.0:9000"))??;
            let through_tunnel = pair(&mesh)?;
            let passed_through = accepted(connect(&mesh.client, at(&mesh.outside_b, 9000))?, &plain)?;
            for (mut client, mut server) in [through_tunnel, passed_through] {
                client.shutdown(Shutdown::Write)?;
                assert_eq!(all_of(&mut server)?, b"");
                assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
                eventually("the server is told as well", || server.write_all(b"x").is_err())?;
            }
            mesh.zt_a.wait_for_log("HALF_CLOSED_TIMEOUT", DEADLINE)?;
            Ok(())
        }),
        two_nodes("a port where nobody listens is a reset, with the reason in both logs", |mesh| {
            let mut client = connect(&mesh.client, at(&mesh.server, 9999))?;
            assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            mesh.zt_a.wait_for_log("reason=\"peer-refused\" peer_reason=\"app-unreachable\"", DEADLINE)?;
            mesh.zt_b.wait_for_log("error=\"connection failed: Connection refused", DEADLINE)?;
            assert_eq!(metric(&mesh.zt_a, "istio_tcp_connections_failed_total", &["response_flags=\"CONNECT\""])?, 1);
            Ok(())
        }),
        two_nodes("a slow reader does not hold up its neighbour in the same tunnel", |mesh| {
            let (mut slow, server) = pair(&mesh)?;
            let sent = send_until_stuck(&server)?;
            let _echo = serve_echo(&mesh.server, 9001)?;
            let payload = vec![9; 4 << 20];
            let echoed = testkit::apps::exchange(&mesh.client, at(&mesh.server, 9001), &payload)?;
            assert!(echoed == payload, "the neighbour's bytes are its own");
            drop(server);
            let received = all_of(&mut slow)?.len() as u64;
            assert_eq!(received, sent, "and the slow reader's are all there");
            Ok(())
        }),
        super::test("what an app never reads is bounded, and its tunnel gets it back when the app resets", || {
            // One stream may use up the window of its tunnel.
            let spec =
                super::spec().env("HTTP2_STREAM_WINDOW_SIZE", WINDOW).env("HTTP2_CONNECTION_WINDOW_SIZE", WINDOW);
            let mesh = TwoNodes::start_with(&spec)?;
            let _echo = serve_echo(&mesh.server, 9001)?;
            for _ in 0..2 {
                let (client, server) = pair(&mesh)?;
                send_until_stuck(&server)?;
                let held = || metric(&mesh.zt_a, "istio_hbone_buffered_bytes", &["towards=\"app\""]);
                let most = WINDOW.parse()?;
                eventually("the window is used up", || held().is_ok_and(|held| held > 0))?;
                assert!(held()? <= most, "{} bytes", held()?);
                reset(client)?;
                eventually("nothing is held", || held().is_ok_and(|held| held == 0))?;
            }
            let payload = vec![9; 1 << 20];
            let echoed = testkit::apps::exchange(&mesh.client, at(&mesh.server, 9001), &payload)?;
            assert!(echoed == payload);
            assert_eq!(metric(&mesh.zt_a, "istio_hbone_tunnels_open", &["source"])?, 1, "the same tunnel carries it");
            Ok(())
        }),
        two_nodes("records are exact: one line for each connection, however it ended", |mesh| {
            let _echo = serve_echo(&mesh.server, 9001)?;
            for i in 0..20 {
                let mut stream = connect(&mesh.client, at(&mesh.server, 9001))?;
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                if i % 2 == 0 {
                    reset(stream)?;
                }
            }
            for zt in [&mesh.zt_a, &mesh.zt_b] {
                eventually("20 lines", || access_lines(zt, &["connection complete"]).len() >= 20)?;
                assert_eq!(access_lines(zt, &["connection complete"]).len(), 20);
                assert_eq!(access_lines(zt, &["connection complete", "reset_by=\"client\""]).len(), 10);
                let left = |name| metric(zt, name, &[]);
                eventually("no stream is open", || left("istio_hbone_streams_open").is_ok_and(|n| n == 0))?;
                assert_eq!(left("istio_hbone_streams_half_closed")?, 0);
                assert_eq!(left("istio_hbone_buffered_bytes")?, 0);
                assert_eq!(left("istio_hbone_tunnels_open")?, 1);
            }
            for (zt, end) in [(&mesh.zt_a, "reset_by_app"), (&mesh.zt_b, "reset_by_peer")] {
                for end in ["clean", end] {
                    let label = format!("end=\"{end}\"");
                    assert_eq!(metric(zt, "istio_hbone_streams_ended_total", &[&label])?, 10, "{end}");
                }
            }
            Ok(())
        }),
    ]
}

/// As small as a window may be.
const WINDOW: &str = "65535";

/// Sends until nothing more fits anywhere on the way; returns how many bytes that were.
fn send_until_stuck(mut from: &TcpStream) -> Outcome<u64> {
    from.set_nonblocking(true)?;
    let block = vec![7; 1 << 20];
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 50 {
        match from.write(&block) {
            Ok(n) => {
                sent += n as u64;
                stuck = 0;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(sent)
}

/// A connection from client to server through both ztunnels, both ends in hand.
pub(super) fn pair(mesh: &TwoNodes) -> Outcome<(TcpStream, TcpStream)> {
    let listener = mesh.server.run(|| TcpListener::bind("0.0.0.0:9000"))??;
    accepted(connect(&mesh.client, at(&mesh.server, 9000))?, &listener)
}

pub(super) fn accepted(client: TcpStream, listener: &TcpListener) -> Outcome<(TcpStream, TcpStream)> {
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    Ok((client, server))
}

pub(super) fn all_of(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// Closes a connection by RST.
pub(super) fn reset(stream: TcpStream) -> std::io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}
