//! Two pods of one node, with and without a tunnel between them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};

use testkit::apps::{connect, exchange, serve_echo};
use testkit::control_plane::{Action, Match, Policy, Scope, Service, StringMatch};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{DEADLINE, Outcome, TwoNodes, access_lines, at, eventually, metric, spec};

const PORT: u16 = 9000;

pub fn tests() -> Vec<Test> {
    vec![
        direct("a connection within a node needs no tunnel, and is told by both sides as through one", |mesh, pod| {
            let app = serve_echo(&pod, PORT)?;
            let said: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
            assert!(exchange(&mesh.client, at(&pod, PORT), &said)? == said);
            assert_eq!(app.peers().iter().map(|peer| peer.ip()).collect::<Vec<_>>(), [mesh.client.ip()]);
            assert_eq!(tunnels(&mesh)?, 0);
            for direction in ["outbound", "inbound"] {
                let bytes = "bytes_sent=4000000 bytes_recv=4000000";
                let direction = format!("direction=\"{direction}\"");
                eventually("both sides are on record", || records(&mesh, &[&direction, bytes]).len() == 1)?;
                let line = records(&mesh, &[&direction]).remove(0);
                for part in ["/ns/shop/sa/front\"", "/ns/shop/sa/near\"", "dst.hbone_addr=", "src.workload=\"client\""]
                {
                    assert!(line.contains(part), "{part} is not in {line}");
                }
            }
            for reporter in ["source", "destination"] {
                let labels = [&format!("reporter=\"{reporter}\"")[..], "connection_security_policy=\"mutual_tls\""];
                assert_eq!(metric(&mesh.zt_a, "istio_tcp_connections_closed_total", &labels)?, 1, "{reporter}");
                assert_eq!(metric(&mesh.zt_a, "istio_tcp_received_bytes_total", &labels)?, 4_000_000, "{reporter}");
            }
            Ok(())
        }),
        direct("the destination's policies are asked about the source's identity", |mesh, pod| {
            let _app = serve_echo(&pod, PORT)?;
            deny_front(&mesh)?;
            eventually("the client is denied", || exchange(&mesh.client, at(&pod, PORT), b"hello").is_err())?;
            // The first may have been cut while it was open; this one is turned away at the door.
            assert!(exchange(&mesh.client, at(&pod, PORT), b"hello").is_err());
            let told = || records(&mesh, &["direction=\"outbound\"", "http status: 401", "peer_reason=\"denied\""]);
            eventually("the client's side says why", || !told().is_empty())?;
            assert!(!records(&mesh, &["direction=\"inbound\"", "reason=\"denied\""]).is_empty());
            let other = mesh.enrol(&mesh.a, "other", "other")?;
            assert_eq!(exchange(&other, at(&pod, PORT), b"hello")?, b"hello");
            assert_eq!(tunnels(&mesh)?, 0);
            Ok(())
        }),
        direct("a policy cuts what is open", |mesh, pod| {
            let _app = serve_echo(&pod, PORT)?;
            let open = open(&mesh, &pod)?;
            deny_front(&mesh)?;
            assert_cut(open)?;
            let changed = || records(&mesh, &["direction=\"inbound\"", "reason=\"no-longer-allowed\""]);
            eventually("the destination says why", || changed().len() == 1)?;
            assert_eq!(records(&mesh, &["direction=\"outbound\"", "reset_by=\"server\""]).len(), 1);
            Ok(())
        }),
        direct("the end of either pod ends what is open between them", |mesh, pod| {
            let _app = serve_echo(&pod, PORT)?;
            let first = open(&mesh, &pod)?;
            mesh.a.remove_pod(&mesh.client)?;
            eventually("it is on record", || records(&mesh, &["direction=\"inbound\""]).len() == 1)?;
            drop(first);
            let other = mesh.enrol(&mesh.a, "other", "other")?;
            let mut second = connect(&other, at(&pod, PORT))?;
            greet(&mut second)?;
            mesh.a.remove_pod(&pod)?;
            eventually("so is the other", || records(&mesh, &["direction=\"outbound\"", "other"]).len() == 1)?;
            Ok(())
        }),
        direct("an app that refuses makes the connection go to the service's other endpoint", |mesh, pod| {
            let _app = serve_echo(&mesh.server, PORT)?;
            let service =
                Service::new("cart", "shop", IpAddr::from([10, 96, 0, 1]), &[&pod, &mesh.server]).port(80, PORT);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            let ask =
                || exchange(&mesh.client, ([10, 96, 0, 1], 80).into(), b"hello").is_ok_and(|heard| heard == b"hello");
            eventually("the service is known", ask)?;
            for _ in 0..10 {
                assert!(ask(), "{}", mesh.zt_a.logs());
            }
            Ok(())
        }),
        direct("the limits of the destination hold, and what exceeds them is refused", |mesh, pod| {
            let _app = serve_echo(&pod, PORT)?;
            let held = (0..3).map(|_| open(&mesh, &pod)).collect::<Outcome<Vec<TcpStream>>>()?;
            let other = mesh.enrol(&mesh.a, "other", "other")?;
            assert!(exchange(&other, at(&pod, PORT), b"one more").is_err());
            assert!(metric(&mesh.zt_a, "istio_pod_limit_reached_total", &["connections"])? > 0);
            drop(held);
            eventually("there is room again", || {
                exchange(&other, at(&pod, PORT), b"again").is_ok_and(|heard| heard == b"again")
            })
        }),
        test("unless it is asked for, a connection within a node goes through a tunnel", || {
            let mesh = TwoNodes::start()?;
            let pod = mesh.enrol(&mesh.a, "near", "near")?;
            let _app = serve_echo(&pod, PORT)?;
            assert_eq!(exchange(&mesh.client, at(&pod, PORT), b"hello")?, b"hello");
            assert!(tunnels(&mesh)? > 0);
            Ok(())
        }),
    ]
}

fn direct(name: &str, run: impl FnOnce(TwoNodes, Pod) -> Outcome + Send + 'static) -> Test {
    let limited = name.starts_with("the limits");
    test(name, move || {
        let mut spec = spec().env("SAME_NODE_DIRECT", "true").env("ENDPOINT_RETRY_DEADLINE", "3s");
        if limited {
            spec = spec.env("POD_MAX_CONNECTIONS", "3");
        }
        let mesh = TwoNodes::start_with(&spec)?;
        let pod = mesh.enrol(&mesh.a, "near", "near")?;
        run(mesh, pod)
    })
}

/// Tunnels that the first node's ztunnel has or had.
fn tunnels(mesh: &TwoNodes) -> Outcome<u64> {
    let open = metric(&mesh.zt_a, "istio_hbone_tunnels_open", &[])?;
    Ok(open + metric(&mesh.zt_a, "istio_hbone_streams_ended_total", &[])?)
}

fn records(mesh: &TwoNodes, parts: &[&str]) -> Vec<String> {
    access_lines(&mesh.zt_a, &[&["connection complete"], parts].concat())
}

fn open(mesh: &TwoNodes, pod: &Pod) -> Outcome<TcpStream> {
    let mut stream = connect(&mesh.client, at(pod, PORT))?;
    greet(&mut stream)?;
    Ok(stream)
}

fn greet(stream: &mut TcpStream) -> Outcome {
    stream.write_all(b"hello")?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    Ok(())
}

fn assert_cut(mut stream: TcpStream) -> Outcome {
    stream.set_read_timeout(Some(DEADLINE))?;
    assert_eq!(stream.read(&mut [0; 8]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    Ok(())
}

fn deny_front(mesh: &TwoNodes) -> Outcome {
    let who = StringMatch::Exact("cluster.local/ns/shop/sa/front".into());
    let policy = Policy {
        name: "no-front".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        rules: vec![vec![vec![Match { principals: vec![who], ..Match::default() }]]],
    };
    Ok(mesh.mesh.control_plane().update(|plane| plane.policies.push(policy))?)
}
