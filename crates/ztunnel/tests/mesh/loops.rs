//! ztunnel's own ports are no destinations: whoever goes there gets nowhere, and ztunnel never ends up talking to itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::{Node, Pod};

use super::{Outcome, TwoNodes, at, eventually, metric, spec};

const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const HBONE: u16 = 15008;
const SOCKS: u16 = 15080;
const ADMIN: u16 = 15000;
const STATS: u16 = 15020;
const PROBES: u16 = 15021;
const ALL: [u16; 7] = [OUTBOUND, INBOUND, HBONE, SOCKS, ADMIN, STATS, PROBES];
/// Whoever had anything to say would have begun by then.
const MOMENT: Duration = Duration::from_millis(200);

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Nobody listens.
    Refused,
    /// Connecting may work, since pods' connections are captured; not a byte comes back, and it ends.
    Nowhere,
    /// Somebody listens who wants something else: a listener for tunnels waits for the first byte of a handshake.
    Silence,
    /// Somebody answers that this is no HTTP.
    BadRequest,
}

use Fate::{BadRequest, Nowhere, Refused, Silence};

pub fn tests() -> Vec<Test> {
    vec![
        test("a captured pod gets nowhere through its own ztunnel's ports", || {
            let mesh = start()?;
            let ztunnel = ztunnel(&mesh.a);
            for port in [OUTBOUND, INBOUND, HBONE, SOCKS, ADMIN] {
                check(&mesh.client, (ztunnel, port), Nowhere)?;
            }
            for port in [STATS, PROBES] {
                check(&mesh.client, (ztunnel, port), BadRequest)?;
            }
            for own in [mesh.client.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST)] {
                for (port, fate) in [
                    (OUTBOUND, Nowhere),
                    (INBOUND, Nowhere),
                    (HBONE, Silence),
                    (ADMIN, Refused),
                    (STATS, Refused),
                    (PROBES, Refused),
                ] {
                    check(&mesh.client, (own, port), fate)?;
                }
            }
            as_before(&mesh)
        }),
        test("a captured pod gets nowhere through another's ports", || {
            let mesh = start()?;
            for port in ALL {
                check(&mesh.client, (mesh.server.ip(), port), Nowhere)?;
            }
            as_before(&mesh)
        }),
        test("nobody outside the mesh gets anywhere through a ztunnel's or a captured pod's ports", || {
            let mesh = start()?;
            for (port, fate) in [
                (OUTBOUND, Refused),
                (INBOUND, Refused),
                (SOCKS, Refused),
                (ADMIN, Refused),
                (STATS, BadRequest),
                (PROBES, BadRequest),
            ] {
                check(&mesh.outside_b, (ztunnel(&mesh.b), port), fate)?;
            }
            for port in ALL {
                let fate = if port == HBONE { Silence } else { Nowhere };
                check(&mesh.outside_b, (mesh.server.ip(), port), fate)?;
            }
            as_before(&mesh)
        }),
        test("a pod with SOCKS5 gets nowhere by asking it for ztunnel's own ports", || {
            let mesh = TwoNodes::start_with(&spec().env("UNSTABLE_ENABLE_SOCKS5", "true"))?;
            check(&mesh.outside_b, (mesh.server.ip(), SOCKS), Nowhere)?;
            check(&mesh.client, (mesh.server.ip(), SOCKS), Nowhere)?;
            as_before(&mesh)
        }),
    ]
}

fn start() -> Outcome<TwoNodes> {
    TwoNodes::start()
}

/// Where a node's first ztunnel is.
pub(super) fn ztunnel(node: &Node) -> IpAddr {
    match node.gateway() {
        IpAddr::V4(gateway) => Ipv4Addr::from_bits(gateway.to_bits() + 1).into(),
        IpAddr::V6(gateway) => std::net::Ipv6Addr::from_bits(gateway.to_bits() + 1).into(),
    }
}

fn check(from: &Pod, target: impl Into<SocketAddr>, expected: Fate) -> Outcome {
    let target = target.into();
    assert_eq!(fate(from, target)?, expected, "from {} to {target}", from.name());
    Ok(())
}

/// What a client finds out that says something that nobody here understands.
fn fate(from: &Pod, target: SocketAddr) -> Outcome<Fate> {
    let ended = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    let mut stream = match connect(from, target) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(Refused),
        // The end may be quicker than the return from `connect`.
        Err(error) if ended(error.kind()) => return Ok(Nowhere),
        Err(error) => return Err(error.into()),
    };
    // A handshake that does not begin is waited for; one that is garbage is answered by an alert.
    if target.port() == HBONE {
        stream.set_read_timeout(Some(MOMENT))?;
    } else if let Err(error) = stream.write_all(b"hello\r\nworld\r\n\r\n")
        && !ended(error.kind())
    {
        return Err(error.into());
    }
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => Ok(Nowhere),
        Err(error) if ended(error.kind()) => Ok(Nowhere),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Silence),
        Ok(n) if answer[..n].starts_with(b"HTTP/1.1 400 ") => Ok(BadRequest),
        other => Err(format!("{target}: {other:?}, {}", String::from_utf8_lossy(&answer)).into()),
    }
}

/// The pods are as they were, and nothing goes round in circles.
fn as_before(mesh: &TwoNodes) -> Outcome {
    let _app = serve_echo(&mesh.server, 9000)?;
    assert_eq!(exchange(&mesh.client, at(&mesh.server, 9000), b"hello")?, b"hello");
    for zt in [&mesh.zt_a, &mesh.zt_b] {
        eventually("nothing goes round in circles", || {
            metric(zt, "istio_tcp_sockets_open", &["source"]).is_ok_and(|open| open == 0)
        })?;
    }
    Ok(())
}
