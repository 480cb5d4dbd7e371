//! Envoy as the waypoint of a service, between a client's ztunnel and a server's.

use std::net::{IpAddr, SocketAddr};

use testkit::apps::{http_get, serve_http};
use testkit::control_plane::{Action, Match, Policy, Scope, Service, StringMatch};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::path::APP_PORT;
use super::process::Envoy;
use crate::{DEADLINE, HBONE_PORT, Outcome, at, eventually, has_line, ztunnel};

const CONFIG: &str = include_str!("waypoint.yaml");
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/front";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WAYPOINT: &str = "spiffe://cluster.local/ns/edge/sa/waypoint";
const VIP: [u8; 4] = [10, 250, 0, 1];
const SERVICE: &str = "10.250.0.1:80";

pub fn tests() -> Vec<Test> {
    vec![test("Envoy serves a service as its waypoint, and every hop knows who is who", every_hop)]
}

struct Rig {
    // Processes end before the namespaces they live in.
    envoy: Envoy,
    zt_a: Ztunnel,
    zt_c: Ztunnel,
    client: Pod,
    waypoint: Pod,
    server: Pod,
    mesh: Mesh,
}

impl Rig {
    fn start() -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b, c) = (mesh.add_node("a")?, mesh.add_node("b")?, mesh.add_node("c")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let waypoint = b.add_pod(PodSpec::new("waypoint", "edge", "waypoint", Capture::Off))?;
        let server = c.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
        let service = Service::new("cart", "shop", IpAddr::from(VIP), &[&server]).port(80, APP_PORT);
        let service = service.waypoint(&format!("/{}", waypoint.ip()), HBONE_PORT);
        let waypoint_only = Policy {
            name: "waypoint-only".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Allow,
            dry_run: false,
            rules: vec![vec![vec![Match {
                principals: vec![StringMatch::Exact(WAYPOINT.trim_start_matches("spiffe://").into())],
                ..Match::default()
            }]]],
        };
        mesh.control_plane().update(|plane| {
            plane.services.push(service);
            plane.policies.push(waypoint_only);
            plane.selections.insert("server".to_owned(), vec!["shop/waypoint-only".to_owned()]);
        })?;
        let pod = server.ip().to_string();
        let envoy =
            Envoy::start(&waypoint, CONFIG, WAYPOINT, &[("POD", &pod), ("SERVICE", SERVICE), ("PEER", SERVER)])?;
        let (zt_a, zt_c) = (a.start_ztunnel(&ztunnel())?, c.start_ztunnel(&ztunnel())?);
        zt_a.wait_ready(DEADLINE)?;
        zt_c.wait_ready(DEADLINE)?;
        Ok(Self { envoy, zt_a, zt_c, client, waypoint, server, mesh })
    }
}

fn every_hop() -> Outcome {
    let rig = Rig::start()?;
    let _app = serve_http(&rig.server, APP_PORT)?;
    let answer = http_get(&rig.client, SocketAddr::from((VIP, 80)))?;
    assert_eq!((answer.status, answer.told("pod")), (200, Some("server")));
    let peer = answer.told("peer").unwrap_or_default();
    assert!(peer.starts_with(&format!("{}:", rig.waypoint.ip())), "the app's peer is the waypoint, not {peer}");

    let out = [
        format!("src.identity=\"{CLIENT}\""),
        format!("dst.addr={} dst.hbone_addr={SERVICE}", at(&rig.waypoint, HBONE_PORT)),
        format!("dst.workload=\"waypoint\" dst.namespace=\"edge\" dst.identity=\"{WAYPOINT}\""),
        "direction=\"outbound\" bytes_sent=".to_owned(),
    ];
    eventually("the client's side has told", || has_line(&rig.zt_a, &out))?;
    let told = format!("tunnel CONNECT {SERVICE} status=200 peer={CLIENT} from={}", rig.client.ip());
    let looked = format!("request GET / status=200 from={}", rig.client.ip());
    eventually("the waypoint has told", || {
        let output = rig.envoy.output();
        output.contains(&told) && output.contains(&looked) && output.contains("host=cart.shop.svc.cluster.local")
    })
    .map_err(|error| format!("{error}: {}", rig.envoy.output()))?;
    let inward = [
        format!("src.addr={}:", rig.waypoint.ip()),
        format!("src.workload=\"waypoint\" src.namespace=\"edge\" src.identity=\"{WAYPOINT}\""),
        format!("dst.hbone_addr={}", at(&rig.server, APP_PORT)),
        format!("dst.identity=\"{SERVER}\""),
        "direction=\"inbound\"".to_owned(),
    ];
    // Envoy keeps the connection for further requests.
    eventually("the server's side has told", || has_line(&rig.zt_c, &inward))
        .map_err(|error| format!("{error}: {}", rig.zt_c.logs()))?;

    // Who passes by the waypoint is not let in.
    assert!(http_get(&rig.client, at(&rig.server, APP_PORT)).is_err());
    rig.zt_c.wait_for_log("allow policies exist, but none allowed", DEADLINE)?;
    drop(rig.mesh);
    Ok(())
}
