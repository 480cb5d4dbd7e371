//! ztunnel's own ports are no destinations: whoever goes there gets nowhere, and ztunnel never ends up talking to itself.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{Outcome, TwoNodes, at, eventually, metric, spec};

const HBONE: u16 = 15008;
const OWN_PORTS: [u16; 3] = [15001, 15006, HBONE];
/// Whoever had anything to say would have begun by then.
const MOMENT: Duration = Duration::from_millis(200);

pub fn tests() -> Vec<Test> {
    vec![test("nobody gets anywhere through ztunnel's own ports, from inside a pod or from outside", || {
        let mesh = TwoNodes::start_with(&spec().env("UNSTABLE_ENABLE_SOCKS5", "true"))?;
        let own = [mesh.client.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        for target in own.iter().flat_map(|ip| OWN_PORTS.map(|port| SocketAddr::new(*ip, port))) {
            leads_nowhere(&mesh.client, target)?;
        }
        for port in OWN_PORTS.into_iter().chain([15080]) {
            leads_nowhere(&mesh.outside_b, at(&mesh.server, port))?;
            leads_nowhere(&mesh.client, at(&mesh.server, port))?;
        }
        // And the pods are as they were.
        let _app = serve_echo(&mesh.server, 9000)?;
        assert_eq!(exchange(&mesh.client, at(&mesh.server, 9000), b"hello")?, b"hello");
        for zt in [&mesh.zt_a, &mesh.zt_b] {
            eventually("nothing goes round in circles", || {
                metric(zt, "istio_tcp_sockets_open", &["source"]).is_ok_and(|open| open == 0)
            })?;
        }
        Ok(())
    })]
}

/// Connecting may work, since pods' connections are captured; not a byte comes back, and it ends.
fn leads_nowhere(from: &Pod, target: SocketAddr) -> Outcome {
    let Ok(mut stream) = connect(from, target) else { return Ok(()) };
    if target.port() == HBONE {
        stream.set_read_timeout(Some(MOMENT))?;
    }
    match stream.read(&mut [0; 16]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        // A listener for tunnels waits for the first byte of a handshake.
        Err(_) if target.port() == HBONE => Ok(()),
        other => Err(format!("{target}: {other:?}").into()),
    }
}
