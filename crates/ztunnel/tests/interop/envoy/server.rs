//! Envoy as HBONE server, where ztunnel is the client.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use testkit::apps::connect;

use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::path::{APP_PORT, CONNECTIONS, Path, all_of, reset};
use super::process::Envoy;
use crate::{DEADLINE, Outcome, at, eventually, ztunnel};

const CONFIG: &str = include_str!("server.yaml");
const IDENTITY: &str = "spiffe://cluster.local/ns/edge/sa/envoy";
const PEER: &str = "spiffe://cluster.local/ns/shop/sa/front";
/// A port for which Envoy's configuration has an upstream where nobody listens.
const CLOSED: u16 = 9999;

/// As many requests as ztunnel likes on a connection.
const NO_LIMIT: &str = "1000000";

pub fn tests() -> Vec<Test> {
    vec![
        rig("bytes pass both ways through ztunnel to Envoy", NO_LIMIT, |rig| rig.path.carries_bytes_both_ways()),
        // The other way round it does not work: to Envoy 1.40 a request is over when its answer is (as it is in HTTP).
        rig("ztunnel's client may end first and still hear the app behind Envoy", NO_LIMIT, |rig| {
            rig.path.lets_the_client_end_first()
        }),
        rig("a reset by the app behind Envoy is a reset for ztunnel's client", NO_LIMIT, |rig| {
            let (mut client, server) = rig.path.talking()?;
            reset(server)?;
            assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            Ok(())
        }),
        // Envoy 1.40 hears of it and tells its app no more than that it is over.
        rig("a reset by ztunnel's client is a reset for Envoy, and ends the connection of its app", NO_LIMIT, |rig| {
            let (client, mut server) = rig.path.talking()?;
            reset(client)?;
            assert_eq!(all_of(&mut server)?, b"");
            eventually("Envoy has logged it", || rig.envoy.output().contains("details=http2.remote_reset"))
        }),
        rig("an app that Envoy cannot reach is a reset for the client, with the status in the log", NO_LIMIT, |rig| {
            let mut client = connect(&rig.path.from, at(&rig.path.app, CLOSED))?;
            assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            rig.ztunnel.wait_for_log("error=\"http status: 503 Service Unavailable\"", DEADLINE)?;
            eventually("Envoy has logged it", || rig.envoy.output().contains(":9999 status=503"))
        }),
        rig("many streams share a tunnel to Envoy", NO_LIMIT, |rig| rig.path.carries_many_streams_at_once()),
        rig("an Envoy that ends its tunnels again and again costs no connection", "5", |rig| {
            rig.path.loses_no_connection()?;
            eventually("Envoy has logged tunnels of 5 streams each", || {
                let output = rig.envoy.output();
                let tunnels: BTreeSet<_> = output.split(' ').filter(|word| word.starts_with("connection=")).collect();
                tunnels.len() > usize::from(CONNECTIONS) / 5
            })?;
            Ok(())
        }),
    ]
}

struct Rig {
    // Processes end before the namespaces they live in.
    envoy: Envoy,
    ztunnel: Ztunnel,
    path: Path,
    _mesh: Mesh,
}

fn rig(name: &str, requests_per_connection: &'static str, run: fn(Rig) -> Outcome) -> Test {
    test(name, move || run(Rig::start(requests_per_connection)?))
}

impl Rig {
    fn start(requests_per_connection: &str) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let from = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        // Not redirected to a ztunnel, and known to the mesh as a workload that speaks HBONE itself.
        let app = b.add_pod(PodSpec::new("envoy", "edge", "envoy", Capture::Dedicated))?;
        let values = [("PEER", PEER), ("REQUESTS_PER_CONNECTION", requests_per_connection)];
        let envoy = Envoy::start(&app, CONFIG, IDENTITY, &values)?;
        let zt = a.start_ztunnel(&ztunnel())?;
        zt.wait_ready(DEADLINE)?;
        let to = at(&app, APP_PORT);
        Ok(Self { envoy, ztunnel: zt, path: Path { from, to, app }, _mesh: mesh })
    }
}
