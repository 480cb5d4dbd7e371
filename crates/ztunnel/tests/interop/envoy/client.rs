//! Envoy as HBONE client of ztunnel's inbound listener.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use testkit::apps::connect;
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::path::{Path, all_of, reset};
use super::process::Envoy;
use crate::{DEADLINE, Outcome, eventually, ztunnel};

const CONFIG: &str = include_str!("client.yaml");
const IDENTITY: &str = "spiffe://cluster.local/ns/edge/sa/envoy";
const PEER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// Envoy's ports: to an app, and to where nobody listens.
const OPEN: u16 = 10_001;
const CLOSED: u16 = 10_002;

/// As many requests as Envoy likes on a connection.
const NO_LIMIT: &str = "1000000";

pub fn tests() -> Vec<Test> {
    vec![
        rig("Envoy's bytes pass both ways through ztunnel", NO_LIMIT, |rig| rig.path.carries_bytes_both_ways()),
        rig("Envoy's client may end first and still hear the app", NO_LIMIT, |rig| {
            rig.path.lets_the_client_end_first()
        }),
        rig("an app behind ztunnel may end first and still hear Envoy's client", NO_LIMIT, |rig| {
            rig.path.lets_the_server_end_first()
        }),
        rig("a reset by Envoy's client is a reset for the app", NO_LIMIT, |rig| {
            let (client, mut server) = rig.path.talking()?;
            reset(client)?;
            assert_eq!(all_of(&mut server).unwrap_err().kind(), ErrorKind::ConnectionReset);
            Ok(())
        }),
        // Envoy 1.40 hears of it (RST_STREAM with CONNECT_ERROR) and tells its client no more than that it is over.
        rig("a reset by the app ends the connection of Envoy's client", NO_LIMIT, |rig| {
            let (mut client, server) = rig.path.talking()?;
            reset(server)?;
            assert_eq!(all_of(&mut client)?, b"");
            rig.ztunnel.wait_for_log("reset_by=\"server\"", DEADLINE)?;
            Ok(())
        }),
        rig("a port where nobody listens is a status of 503 for Envoy", NO_LIMIT, |rig| {
            let mut client = connect(&rig.path.from, SocketAddr::from((Ipv4Addr::LOCALHOST, CLOSED)))?;
            assert!(all_of(&mut client).is_ok_and(|all| all.is_empty()), "Envoy ends the connection");
            eventually("Envoy has logged it", || rig.envoy.output().contains("failure=tunnel_response:503"))?;
            rig.ztunnel.wait_for_log("error=\"connection failed: Connection refused", DEADLINE)?;
            Ok(())
        }),
        rig("many streams of Envoy share a tunnel", NO_LIMIT, |rig| rig.path.carries_many_streams_at_once()),
        rig("an Envoy that goes on to new tunnels loses no connection", "5", |rig| rig.path.loses_no_connection()),
        rig("a ztunnel that drains serves Envoy's streams to their ends", NO_LIMIT, drain),
    ]
}

struct Rig {
    // Processes end before the namespaces they live in.
    envoy: Envoy,
    ztunnel: Ztunnel,
    path: Path,
    node: Node,
    _mesh: Mesh,
}

fn rig(name: &str, requests_per_connection: &'static str, run: fn(Rig) -> Outcome) -> Test {
    test(name, move || run(Rig::start(requests_per_connection)?))
}

impl Rig {
    fn start(requests_per_connection: &str) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let from: Pod = a.add_pod(PodSpec::new("envoy", "edge", "envoy", Capture::Off))?;
        let app = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
        let zt = b.start_ztunnel(&ztunnel().env("TERMINATION_GRACE_PERIOD_SECONDS", "60"))?;
        zt.wait_ready(DEADLINE)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, OPEN));
        let pod = app.ip().to_string();
        let values = [("POD", pod.as_str()), ("PEER", PEER), ("REQUESTS_PER_CONNECTION", requests_per_connection)];
        let envoy = Envoy::start(&from, CONFIG, IDENTITY, &values)?;
        Ok(Self { envoy, ztunnel: zt, path: Path { from, to, app }, node: b, _mesh: mesh })
    }
}

fn drain(rig: Rig) -> Outcome {
    let (mut client, mut server) = rig.path.talking()?;
    let successor = rig.node.start_ztunnel(&ztunnel())?;
    successor.wait_ready(DEADLINE)?;
    rig.ztunnel.terminate()?;
    rig.ztunnel.wait_for_log("drain", DEADLINE)?;
    for _ in 0..3 {
        rig.path.carries_bytes_both_ways()?;
        client.write_all(b"still there?")?;
        server.read_exact(&mut [0; 12])?;
        server.write_all(b"yes")?;
        client.read_exact(&mut [0; 3])?;
    }
    drop(client);
    assert_eq!(all_of(&mut server)?, b"");
    Ok(())
}
