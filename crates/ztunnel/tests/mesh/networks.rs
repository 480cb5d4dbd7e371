//! Three networks: a client in one, and a service with an endpoint in each of two others, behind a gateway each.
//!
//! A gateway is a pod whose ztunnel ends the outer tunnel; its app, a [`Relay`], takes what is inside to the ztunnel of the
//! endpoint, or does something worse with it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use testkit::apps::{PATIENCE, Server, connect, exchange, http_get, serve_echo, serve_http};
use testkit::control_plane::{Particulars, Service};
use testkit::gateway::{Manner, Relay};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::{DEADLINE, Outcome, access_lines, at, eventually, knows, metric, spec};

/// The service, in the client's network.
const VIP: [u8; 4] = [10, 250, 0, 1];
const HOST: &str = "cart.shop.svc.cluster.local:80";
/// Where its endpoints serve, and so where a gateway's ztunnel takes what is for them.
const APP_PORT: u16 = 9000;
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/front";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const GATEWAY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";
/// Ways to be dead that take time have to take less of it than a test should.
const DEADLINE_OF_RETRIES: &str = "3s";

pub fn tests() -> Vec<Test> {
    vec![
        test("a service in two other networks is reached, and every hop knows who is who", every_hop),
        near("much data passes both ways through a tunnel in a tunnel, unharmed", |far| {
            let _app = serve_echo(&far.net_b.server, APP_PORT)?;
            let _relay = far.net_b.carry()?;
            let sent: Vec<u8> = (0..6_000_000_u32).map(|i| (i % 251) as u8).collect();
            assert!(exchange(&far.client, vip(), &sent)? == sent, "what comes back is what was sent");
            Ok(())
        }),
        near("either side may end first, and still hears the other", |far| {
            let _relay = far.net_b.carry()?;
            let (mut client, mut server) = far.pair()?;
            client.write_all(b"question")?;
            client.shutdown(Shutdown::Write)?;
            assert_eq!(all_of(&mut server)?, b"question");
            server.write_all(b"answer")?;
            drop(server);
            assert_eq!(all_of(&mut client)?, b"answer");

            let (mut client, mut server) = far.pair()?;
            client.write_all(b"?")?;
            server.read_exact(&mut [0])?;
            server.write_all(b"greeting")?;
            server.shutdown(Shutdown::Write)?;
            assert_eq!(all_of(&mut client)?, b"greeting");
            client.write_all(b"reply")?;
            drop(client);
            assert_eq!(all_of(&mut server)?, b"reply");
            eventually("nothing is left of either tunnel's streams", || far.open_streams() == Some(0))
        }),
        near("a reset on either side is a reset on the other, through both tunnels", |far| {
            let _relay = far.net_b.carry()?;
            for (from, log) in [(0, "reset_by=\"client\""), (1, "reset_by=\"server\"")] {
                let (mut client, mut server) = far.pair()?;
                client.write_all(b"x")?;
                server.read_exact(&mut [0])?;
                let (resetting, mut other) = if from == 0 { (client, server) } else { (server, client) };
                SockRef::from(&resetting).set_linger(Some(Duration::ZERO))?;
                drop(resetting);
                assert_eq!(all_of(&mut other).unwrap_err().kind(), ErrorKind::ConnectionReset);
                far.zt.wait_for_log(log, DEADLINE)?;
            }
            eventually("nothing is left of either tunnel's streams", || far.open_streams() == Some(0))
        }),
        near("a gateway that asks its peers to leave loses no connection", leaving),
        near("a gateway may be a service, and is then asked at that service's port", |far| {
            let gateways = Service::new("gateway", "edge", [10, 250, 0, 9], &[&far.net_b.gateway]).port(15009, 15008);
            far.mesh.control_plane().update(|plane| {
                plane.services.push(gateways);
                let server = plane.particulars.entry("server-b".to_owned()).or_default();
                server.network_gateway = Some(("edge/gateway.edge.svc.cluster.local".to_owned(), 15009));
            })?;
            let (_app, _relay) = (serve_http(&far.net_b.server, APP_PORT)?, far.net_b.carry()?);
            eventually("the gateway's service is known", || knows_services(&far.zt, 2).unwrap_or(false))?;
            assert_eq!(answers(&far).as_deref(), Some("server-b"));
            let gateway = format!("dst.addr={}", at(&far.net_b.gateway, 15008));
            let line = ["connection complete", &gateway, SERVER];
            eventually("it is on record", || !access_lines(&far.zt, &line).is_empty())
        }),
        near("what a gateway refuses is told apart from what the far end refuses", |far| {
            let relay = far.net_b.carry()?;
            far.fails("error=\"http status: 503 Service Unavailable\" reason=\"peer-refused\" peer_reason=\"app-unreachable\"")?;
            drop(relay);
            far.fails("error=\"http status: 503 Service Unavailable\" reason=\"gateway-refused\" peer_reason=\"app-unreachable\"")
        }),
        near("a far end of another identity is not talked to", |far| {
            let thief = far.net_b.node.add_pod(PodSpec::new("thief", "shop", "thief", Capture::Enrolled))?;
            eventually("the pod is known", || knows(&far.net_b.zt, &thief).unwrap_or(false))?;
            let app = serve_echo(&thief, APP_PORT)?;
            let _relay = Relay::start(&far.net_b.gateway, APP_PORT, Manner::Carry(at(&thief, 15008)))?;
            far.fails("reason=\"far-tls\"")?;
            far.fails("peer did not present the expected SAN (spiffe://cluster.local/ns/shop/sa/cart)")?;
            assert!(app.peers().is_empty());
            Ok(())
        }),
        near("a gateway of another identity is not talked to", |far| {
            // What listens at the address that is said to be the gateway's is some other pod.
            let other = far.net_b.node.add_pod(PodSpec::new("other", "edge", "other", Capture::Dedicated))?;
            eventually("the pod is known", || knows(&far.zt, &other).unwrap_or(false))?;
            let _relay = Relay::start(&other, 15008, Manner::Carry(at(&far.net_b.gateway, 15008)))?;
            let address = other.ip();
            far.mesh.control_plane().update(|plane| {
                let server = plane.particulars.entry("server-b".to_owned()).or_default();
                server.network_gateway = Some((format!("/{address}"), 15008));
            })?;
            eventually("the other gateway is told of", || {
                exchange(&far.client, vip(), b"hello").is_err() && far.zt.logs().contains("reason=\"gateway-tls\"")
            })
        }),
        near("a gateway that takes a request and does not answer it is not waited for without end", |far| {
            // Its ztunnel waits for a policy that nobody announces, longer than the client's does for an answer.
            far.mesh.control_plane().update(|plane| {
                plane.selections.insert("gateway-b".to_owned(), vec!["edge/unheard-of".to_owned()]);
            })?;
            let silent = "error=\"io error: the network gateway did not answer in time\" reason=\"gateway-lost\"";
            eventually("the gateway waits", || {
                exchange(&far.client, vip(), b"hello").is_err() && far.zt.logs().contains(silent)
            })?;
            eventually("nothing is left of it", || far.open_streams() == Some(0))
        }),
        near("a connection to another network is cut when its pod goes, and said to be", |far| {
            let _relay = far.net_b.carry()?;
            let (mut client, mut server) = far.pair()?;
            client.write_all(b"x")?;
            server.read_exact(&mut [0])?;
            far.a.remove_pod(&far.client)?;
            assert_eq!(all_of(&mut server).unwrap_err().kind(), ErrorKind::ConnectionReset);
            far.zt.wait_for_log("error=\"connection closed due to connection drain\"", DEADLINE)?;
            Ok(())
        }),
        test("where a gateway that is a service has gone, its endpoints are passed over as well", || {
            let far = Far::start(&["b", "c"])?;
            let gateways = Service::new("gateway", "edge", [10, 250, 0, 9], &[&far.net_b.gateway]).port(15009, 15010);
            far.mesh.control_plane().update(|plane| {
                plane.services.push(gateways);
                let server = plane.particulars.entry("server-b".to_owned()).or_default();
                server.network_gateway = Some(("edge/gateway.edge.svc.cluster.local".to_owned(), 15009));
            })?;
            eventually("the gateway's service is known", || knows_services(&far.zt, 2).unwrap_or(false))?;
            let _app = serve_http(&far.net_c.server, APP_PORT)?;
            let _good = far.net_c.carry()?;
            for i in 0..8 {
                assert_eq!(answers(&far).as_deref(), Some("server-c"), "connection {i}");
            }
            Ok(())
        }),
        near("whatever a gateway does, a connection ends, and its record says why", hostile),
        test("a gateway that does not carry connections is passed over for one that does", passed_over),
    ]
}

/// A network of which only the gateway is reached.
struct Network {
    zt: Ztunnel,
    gateway: Pod,
    server: Pod,
    node: Node,
}

/// The client's network, and the others.
struct Far {
    zt: Ztunnel,
    client: Pod,
    net_b: Network,
    net_c: Network,
    mesh: Mesh,
    a: Node,
}

impl Far {
    /// With endpoints of the service in the networks named.
    fn start(endpoints: &[&str]) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b, c) = (mesh.add_node("a")?, mesh.add_node("b")?, mesh.add_node("c")?);
        mesh.control_plane().update(|plane| {
            for net in ["a", "b", "c"] {
                for pod in ["client", "server", "gateway"] {
                    let (network, cluster) = (format!("net-{net}"), Some(format!("cluster-{net}")));
                    let particulars = Particulars { network, cluster, ..Particulars::default() };
                    plane.particulars.insert(format!("{pod}-{net}"), particulars);
                }
            }
        })?;
        let client = a.add_pod(PodSpec::new("client-a", "shop", "front", Capture::Enrolled))?;
        let zt = a.start_ztunnel(&settings("net-a"))?;
        let (net_b, net_c) = (Network::start(b, "b")?, Network::start(c, "c")?);
        zt.wait_ready(DEADLINE)?;
        let all = [("b", &net_b), ("c", &net_c)];
        let serving: Vec<&Pod> =
            all.iter().filter(|(net, _)| endpoints.contains(net)).map(|(_, network)| &network.server).collect();
        let service = Service::new("cart", "shop", IpAddr::from(VIP), &serving).port(80, APP_PORT).network("net-a");
        mesh.control_plane().update(|plane| {
            for (net, network) in all {
                let server = plane.particulars.entry(format!("server-{net}")).or_default();
                server.network_gateway = Some((format!("net-{net}/{}", network.gateway.ip()), 15008));
            }
            plane.services.push(service.subject_alt_name(SERVER));
        })?;
        let far = Self { zt, client, net_b, net_c, mesh, a };
        for zt in [&far.zt, &far.net_b.zt, &far.net_c.zt] {
            eventually("the service is known", || knows_services(zt, 1).unwrap_or(false))?;
        }
        Ok(far)
    }

    /// Both ends of a connection to the endpoint in the second network.
    fn pair(&self) -> Outcome<(TcpStream, TcpStream)> {
        let listener = self.net_b.server.run(|| TcpListener::bind(("0.0.0.0", APP_PORT)))??;
        let client = connect(&self.client, vip())?;
        let (server, _) = listener.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        Ok((client, server))
    }

    /// A connection is reset, and the log of the client's ztunnel says why.
    fn fails(&self, log: &str) -> Outcome {
        let outcome = exchange(&self.client, vip(), b"hello");
        assert!(outcome.is_err(), "{outcome:?}");
        self.zt.wait_for_log(log, DEADLINE)?;
        Ok(())
    }

    /// Streams that the client's ztunnel has open.
    fn open_streams(&self) -> Option<u64> {
        metric(&self.zt, "istio_hbone_streams_open", &["reporter=\"source\""]).ok()
    }
}

impl Network {
    fn start(node: Node, net: &str) -> Outcome<Self> {
        let gateway = node.add_pod(PodSpec::new(&format!("gateway-{net}"), "edge", "gateway", Capture::Enrolled))?;
        let server = node.add_pod(PodSpec::new(&format!("server-{net}"), "shop", "cart", Capture::Enrolled))?;
        let zt = node.start_ztunnel(&settings(&format!("net-{net}")))?;
        zt.wait_ready(DEADLINE)?;
        Ok(Self { zt, gateway, server, node })
    }

    /// Has the gateway do as it should.
    fn carry(&self) -> Outcome<Relay> {
        Ok(Relay::start(&self.gateway, APP_PORT, Manner::Carry(at(&self.server, 15008)))?)
    }
}

/// A test with an endpoint in the second network only.
fn near(name: &str, run: impl FnOnce(Far) -> Outcome + Send + 'static) -> Test {
    test(name, move || run(Far::start(&["b"])?))
}

fn settings(network: &str) -> testkit::ztunnel::ZtunnelSpec {
    spec().env("NETWORK", network).env("ENDPOINT_RETRY_DEADLINE", DEADLINE_OF_RETRIES)
}

fn knows_services(zt: &Ztunnel, count: usize) -> Outcome<bool> {
    let dump: serde_json::Value = serde_json::from_str(&zt.http_get(15000, "/config_dump")?.body)?;
    Ok(dump["services"].as_array().is_some_and(|services| services.len() == count))
}

fn vip() -> SocketAddr {
    SocketAddr::from((VIP, 80))
}

/// Which pod answers a request to the service, if one does.
fn answers(far: &Far) -> Option<String> {
    http_get(&far.client, vip()).ok().and_then(|answer| answer.told("pod").map(str::to_owned))
}

fn all_of(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

fn every_hop() -> Outcome {
    let far = Far::start(&["b", "c"])?;
    let _relays = (far.net_b.carry()?, far.net_c.carry()?);
    let apps: Vec<Server> = [&far.net_b.server, &far.net_c.server]
        .into_iter()
        .map(|server| serve_http(server, APP_PORT))
        .collect::<Result<_, _>>()?;
    let mut pods = BTreeSet::new();
    eventually("both networks have answered", || {
        pods.extend(answers(&far));
        pods.len() == apps.len()
    })?;
    for (net, network) in [("b", &far.net_b), ("c", &far.net_c)] {
        let gateway = format!("dst.addr={}", at(&network.gateway, 15008));
        let quoted = |key: &str, value: &str| format!("{key}=\"{value}\"");
        let source = [
            "connection complete",
            "direction=\"outbound\"",
            &quoted("src.identity", CLIENT),
            &gateway,
            &format!("dst.hbone_addr={HOST}"),
            "dst.service=\"cart.shop.svc.cluster.local\"",
            &quoted("dst.workload", &format!("server-{net}")),
            &quoted("dst.cluster", &format!("cluster-{net}")),
            &quoted("dst.identity", SERVER),
        ];
        eventually("the client's side has told", || !access_lines(&far.zt, &source).is_empty())?;
        let at_gateway = ["direction=\"inbound\"", &quoted("src.identity", CLIENT), &quoted("dst.identity", GATEWAY)];
        eventually("the gateway has told", || !access_lines(&network.zt, &at_gateway).is_empty())?;
        let at_server = [
            "connection complete",
            "direction=\"inbound\"",
            &quoted("src.workload", "client-a"),
            &quoted("src.cluster", "cluster-a"),
            &quoted("src.identity", CLIENT),
            &format!("dst.hbone_addr={HOST}"),
            &quoted("dst.identity", SERVER),
        ];
        eventually("the server's side has told", || !access_lines(&network.zt, &at_server).is_empty())?;
        let labels = [
            "reporter=\"source\"",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/front\"",
            "destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\"",
            &format!("destination_cluster=\"cluster-{net}\""),
            "connection_security_policy=\"mutual_tls\"",
        ];
        assert!(metric(&far.zt, "istio_tcp_connections_opened_total", &labels)? > 0);
    }
    Ok(())
}

/// A gateway's pod becomes unhealthy: its ztunnel sends GOAWAY to its peers.
fn leaving(far: Far) -> Outcome {
    let _relay = far.net_b.carry()?;
    let (mut client, mut server) = far.pair()?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0])?;
    far.mesh.control_plane().update(|plane| _ = plane.unhealthy.insert("gateway-b".to_owned()))?;
    far.net_b.zt.wait_for_log("asking peers to leave", DEADLINE)?;
    let _app = serve_echo(&far.net_b.server, APP_PORT)?;
    for i in 0..10 {
        assert_eq!(exchange(&far.client, vip(), b"new")?, b"new", "connection {i}");
        client.write_all(b"old")?;
        server.read_exact(&mut [0; 3])?;
        server.write_all(b"yes")?;
        client.read_exact(&mut [0; 3])?;
    }
    drop(client);
    assert_eq!(all_of(&mut server)?, b"");
    Ok(())
}

fn hostile(far: Far) -> Outcome {
    let server = at(&far.net_b.server, 15008);
    let _app = serve_echo(&far.net_b.server, APP_PORT)?;
    for (manner, log) in [
        (Manner::End, "error=\"io error: peer closed the connection\" reason=\"tunnel-lost\""),
        (Manner::Reset, "error=\"h2 failed: stream reset by peer: CONNECT_ERROR\" reason=\"gateway-lost\""),
        (Manner::Babble, "error=\"io error: received corrupt message"),
        (Manner::CarryOnly(server, 40), "error=\"io error: peer closed the connection\" reason=\"tunnel-lost\""),
        (Manner::CarryOnly(server, 600), "error=\"io error: peer closed the connection\" reason=\"tunnel-lost\""),
        (Manner::Silence, "error=\"io error: TLS handshake not complete in time\" reason=\"far-tls\""),
    ] {
        let relay = Relay::start(&far.net_b.gateway, APP_PORT, manner)?;
        far.fails(log).map_err(|error| format!("{manner:?}: {error}"))?;
        assert!(relay.accepted() > 0, "{manner:?}");
        drop(relay);
    }
    eventually("nothing is left of it", || far.open_streams() == Some(0))?;
    let _relay = far.net_b.carry()?;
    assert_eq!(exchange(&far.client, vip(), b"hello")?, b"hello");
    Ok(())
}

fn passed_over() -> Outcome {
    let far = Far::start(&["b", "c"])?;
    let _apps = (serve_echo(&far.net_b.server, APP_PORT)?, serve_echo(&far.net_c.server, APP_PORT)?);
    let _good = far.net_c.carry()?;
    let bad = |manner| Relay::start(&far.net_b.gateway, APP_PORT, manner);
    for manner in [None, Some(Manner::End), Some(Manner::Reset), Some(Manner::Babble), Some(Manner::Silence)] {
        let _bad = manner.map(bad).transpose()?;
        for i in 0..4 {
            let answer = exchange(&far.client, vip(), b"hello").map_err(|error| format!("{manner:?}, {i}: {error}"))?;
            assert_eq!(answer, b"hello");
        }
    }
    let records = access_lines(&far.zt, &["connection complete", "error="]);
    assert!(records.is_empty(), "{records:?}");
    Ok(())
}
