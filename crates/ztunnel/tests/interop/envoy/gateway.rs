//! Envoy as the gateway of one network, while another one has a stand-in; the client is in a third.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use testkit::apps::{http_get, serve_http};
use testkit::control_plane::{Particulars, Service};
use testkit::gateway::{Manner, Relay};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::path::{APP_PORT, CONNECTIONS, Path, all_of, reset};
use super::process::Envoy;
use crate::{DEADLINE, HBONE_PORT, Outcome, at, eventually, ztunnel};

const CONFIG: &str = include_str!("gateway.yaml");
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/front";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const GATEWAY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";
const VIP: [u8; 4] = [10, 250, 0, 1];
const SERVICE: &str = "cart.shop.svc.cluster.local:80";
/// As many requests as ztunnel likes on a connection.
const NO_LIMIT: &str = "1000000";

pub fn tests() -> Vec<Test> {
    vec![
        rig("a service in two other networks is reached by Envoy's gateway and by another", NO_LIMIT, every_hop),
        near("bytes pass both ways in a tunnel through Envoy's gateway", NO_LIMIT, |rig| {
            rig.path()?.carries_bytes_both_ways()
        }),
        near("either side of a tunnel through Envoy's gateway may end first", NO_LIMIT, |rig| {
            let path = rig.path()?;
            path.lets_the_client_end_first()?;
            path.lets_the_server_end_first()
        }),
        near("resets pass both ways in a tunnel through Envoy's gateway", NO_LIMIT, |rig| {
            let path = rig.path()?;
            let (client, mut server) = path.talking()?;
            reset(client)?;
            assert_eq!(all_of(&mut server).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let (mut client, server) = path.talking()?;
            reset(server)?;
            assert_eq!(all_of(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
            Ok(())
        }),
        near("many tunnels share a tunnel to Envoy's gateway", NO_LIMIT, |rig| {
            rig.path()?.carries_many_streams_at_once()
        }),
        near("an Envoy's gateway that ends its tunnels again and again costs no connection", "5", |rig| {
            rig.path()?.loses_no_connection()?;
            eventually("Envoy has logged tunnels of 5 streams each", || {
                let output = rig.envoy.output();
                let tunnels: BTreeSet<_> = output.split(' ').filter(|word| word.starts_with("connection=")).collect();
                tunnels.len() > usize::from(CONNECTIONS) / 5
            })
        }),
    ]
}

/// The client's network `a`; `b`, of which Envoy is the gateway; and `c`, of which a ztunnel's pod is.
struct Rig {
    // Processes end before the namespaces they live in.
    envoy: Envoy,
    zt: Ztunnel,
    zt_b: Ztunnel,
    zt_c: Ztunnel,
    client: Pod,
    server_b: Pod,
    server_c: Pod,
    gateway_b: Pod,
    gateway_c: Pod,
    mesh: Mesh,
    _a: Node,
}

fn rig(name: &str, requests_per_connection: &'static str, run: fn(Rig) -> Outcome) -> Test {
    test(name, move || run(Rig::start(requests_per_connection)?))
}

/// The same with an endpoint behind Envoy only.
fn near(name: &str, requests_per_connection: &'static str, run: fn(Rig) -> Outcome) -> Test {
    test(name, move || {
        let rig = Rig::start(requests_per_connection)?;
        rig.mesh.control_plane().update(|plane| {
            let only = rig.server_b.workload_uid();
            plane.services.iter_mut().for_each(|service| service.endpoints.retain(|endpoint| *endpoint == only));
        })?;
        eventually("the service has one endpoint", || endpoints(&rig.zt).is_ok_and(|count| count == 1))?;
        run(rig)
    })
}

impl Rig {
    fn start(requests_per_connection: &str) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b, c) = (mesh.add_node("a")?, mesh.add_node("b")?, mesh.add_node("c")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = |node: &Node, name| node.add_pod(PodSpec::new(name, "shop", "cart", Capture::Enrolled));
        let (server_b, server_c) = (server(&b, "server-b")?, server(&c, "server-c")?);
        let gateway_b = b.add_pod(PodSpec::new("gateway-b", "edge", "gateway", Capture::Off))?;
        let gateway_c = c.add_pod(PodSpec::new("gateway-c", "edge", "gateway", Capture::Enrolled))?;
        let service = Service::new("cart", "shop", IpAddr::from(VIP), &[&server_b, &server_c]);
        let service = service.port(80, APP_PORT).network("net-a").subject_alt_name(SERVER);
        mesh.control_plane().update(|plane| {
            for (pod, network, gateway) in [
                (&client, "net-a", None),
                (&gateway_b, "net-b", None),
                (&gateway_c, "net-c", None),
                (&server_b, "net-b", Some(&gateway_b)),
                (&server_c, "net-c", Some(&gateway_c)),
            ] {
                let particulars = Particulars {
                    network: network.to_owned(),
                    cluster: Some(network.replace("net", "cluster")),
                    network_gateway: gateway.map(|pod| (format!("{network}/{}", pod.ip()), HBONE_PORT)),
                    ..Particulars::default()
                };
                plane.particulars.insert(pod.name().to_owned(), particulars);
            }
            plane.services.push(service);
        })?;
        let pod = server_b.ip().to_string();
        let values =
            [("POD", pod.as_str()), ("SERVICE", SERVICE), ("REQUESTS_PER_CONNECTION", requests_per_connection)];
        let envoy = Envoy::start(&gateway_b, CONFIG, GATEWAY, &values)?;
        let start = |node: &Node, network| -> Outcome<Ztunnel> {
            let zt = node.start_ztunnel(&ztunnel().env("NETWORK", network))?;
            zt.wait_ready(DEADLINE)?;
            Ok(zt)
        };
        let (zt, zt_b, zt_c) = (start(&a, "net-a")?, start(&b, "net-b")?, start(&c, "net-c")?);
        Ok(Self { envoy, zt, zt_b, zt_c, client, server_b, server_c, gateway_b, gateway_c, mesh, _a: a })
    }

    fn path(&self) -> Outcome<Path> {
        Ok(Path { from: self.client.clone(), to: vip(), app: self.server_b.clone() })
    }
}

fn vip() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// How many endpoints the service has by now.
fn endpoints(zt: &Ztunnel) -> Outcome<usize> {
    let dump: serde_json::Value = serde_json::from_str(&zt.http_get(15000, "/config_dump")?.body)?;
    Ok(dump["services"][0]["endpoints"].as_object().map_or(0, serde_json::Map::len))
}

fn every_hop(rig: Rig) -> Outcome {
    let _apps = (serve_http(&rig.server_b, APP_PORT)?, serve_http(&rig.server_c, APP_PORT)?);
    let _relay = Relay::start(&rig.gateway_c, APP_PORT, Manner::Carry(at(&rig.server_c, HBONE_PORT)))?;
    let mut pods = BTreeSet::new();
    eventually("both networks have answered", || {
        pods.extend(http_get(&rig.client, vip()).ok().and_then(|answer| answer.told("pod").map(str::to_owned)));
        pods.len() == 2
    })?;
    let gateway =
        format!("CONNECT {SERVICE} status=200 peer={CLIENT} own={GATEWAY} from={} network=-", rig.client.ip());
    eventually("Envoy has told", || rig.envoy.output().contains(&gateway))?;
    assert!(rig.envoy.output().contains("k8s.cluster.name=cluster-a,"), "{}", rig.envoy.output());
    for (net, gateway, zt) in [("b", &rig.gateway_b, &rig.zt_b), ("c", &rig.gateway_c, &rig.zt_c)] {
        let out = [
            format!("src.identity=\"{CLIENT}\""),
            format!("dst.addr={} dst.hbone_addr={SERVICE}", at(gateway, HBONE_PORT)),
            format!("dst.workload=\"server-{net}\" dst.namespace=\"shop\" dst.identity=\"{SERVER}\""),
            format!("dst.cluster=\"cluster-{net}\" direction=\"outbound\" bytes_sent="),
        ];
        eventually("the client's side has told", || crate::has_line(&rig.zt, &out))?;
        let inward = [
            "src.workload=\"client\"".to_owned(),
            format!("src.identity=\"{CLIENT}\" src.cluster=\"cluster-a\""),
            format!("dst.hbone_addr={SERVICE}"),
            format!("dst.identity=\"{SERVER}\" dst.cluster=\"cluster-{net}\" direction=\"inbound\" bytes_sent="),
        ];
        eventually("the server's side has told", || crate::has_line(zt, &inward))?;
    }
    Ok(())
}
