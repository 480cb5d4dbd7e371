//! Connections that are made to fail, each in its own way: the client's log has the right code, stage and side,
//! `/debug/failures` the same with what to do about it, and `/debug/explain` said so before the attempt.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use testkit::apps::{connect, exchange, serve_echo};
use testkit::control_plane::{Action, Match, Policy, Scope};
use testkit::harness::{Test, test};
use testkit::istiod::Fault;
use testkit::mesh::{Capture, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::policy::policy;
use super::{Governed, Outcome, TwoNodes, access_lines, at, eventually, spec};

/// What becomes of a connection.
struct Case {
    what: &'static str,
    target: SocketAddr,
    /// The code of the client's ztunnel, and that which the server's gave it, if it was that one that refused.
    code: (&'static str, Option<&'static str>),
    /// What is said before the attempt: a code, or that it is not known in advance.
    before: Option<&'static str>,
}

fn case(
    what: &'static str,
    target: SocketAddr,
    code: (&'static str, Option<&'static str>),
    before: Option<&'static str>,
) -> Case {
    Case { what, target, code, before }
}

/// The address of the n-th service of [`extra`].
fn vip(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 9, n], port))
}

/// Services, each broken in its own way, and the endpoints that they have; `closed` is a host where nobody listens,
/// `plain` one whose port 15008 is no ztunnel's, `server` a pod of the mesh, `walled` one that answers nothing.
fn extra([closed, plain, server, walled]: [IpAddr; 4]) -> String {
    let gateway = |destination: &str| format!("{{ destination: {destination}, hboneMtlsPort: 15008 }}");
    let waypoint = format!("waypoint: {}", gateway("/10.96.9.250"));
    let named = format!("waypoint: {}", gateway("shop/nowhere.shop.svc.cluster.local"));
    let network_gateway = format!("network: far, networkGateway: {}", gateway("far/10.96.9.251"));
    let hosted = |ip: IpAddr| format!("workloadIps: [{ip}], networkMode: HostNetwork");
    // Number of the service, what is special about it, and about its endpoint if it has one.
    let broken: [(u8, &str, Option<String>); 12] = [
        (1, "", None),
        (2, "", Some("workloadIps: [10.97.0.2], status: Unhealthy".into())),
        (3, &waypoint, None),
        (4, &named, None),
        (5, "", Some(format!("workloadIps: [10.97.0.5], {network_gateway}"))),
        (6, "", Some("workloadIps: [10.97.0.6], network: far".into())),
        (7, "", Some("workloadIps: []".into())),
        (8, "", Some("workloadIps: [], hostname: nowhere.invalid".into())),
        (9, "", Some(hosted(closed))),
        (10, "", Some(hosted(plain))),
        (11, "", Some(hosted(server))),
        (12, "", Some(hosted(walled))),
    ];
    let (mut services, mut workloads) = (String::from("services:\n"), String::from("workloads:\n"));
    for (n, service, endpoint) in broken {
        let hostname = format!("broken-{n}.shop.svc.cluster.local");
        let special = if service.is_empty() { String::new() } else { format!(", {service}") };
        let _ = writeln!(
            services,
            "- {{ name: broken-{n}, namespace: shop, hostname: {hostname}, vips: [/{}], ports: {{ 80: 8080 }}{special} }}",
            vip(n, 80).ip()
        );
        if let Some(endpoint) = endpoint {
            let _ = writeln!(
                workloads,
                "- {{ uid: broken-{n}, name: broken-{n}, namespace: shop, serviceAccount: thief, protocol: HBONE, \
                 {endpoint}, services: {{ shop/{hostname}: {{ 80: 8080 }} }} }}"
            );
        }
    }
    services + &workloads
}

/// A policy for the pods that refer to it.
fn selected(name: &str, action: Action, port: u16) -> Policy {
    let on = Match { destination_ports: vec![port], ..Match::default() };
    Policy { scope: Scope::WorkloadSelector, rules: vec![vec![vec![on]]], ..policy(name, action) }
}

pub fn tests() -> Vec<Test> {
    vec![
        test("connections that fail say why, to the client's log as to whoever asks before and after", broken_services),
        test("a pod that has no certificate, or that nobody knows, is told apart before and after", without_identity),
    ]
}

fn broken_services() -> Outcome {
    let mesh = TwoNodes::start_on(|mesh, node| {
        let documents = mesh.directory().display().to_string();
        let once = spec().env("LOCAL_XDS_PATH", &documents).env("ENDPOINT_RETRY", "false");
        // Only the client's loses patience: with both at it, the server's could be first.
        Ok(if node.name() == "a" { once.env("HALF_CLOSED_TIMEOUT", "1s") } else { once })
    })?;
    let strict = mesh.enrol(&mesh.b, "strict", "strict")?;
    let orphan = mesh.enrol(&mesh.b, "orphan", "orphan")?;
    let _servers =
        (serve_echo(&mesh.server, 9000)?, serve_echo(&mesh.server, 7001)?, serve_echo(&mesh.outside_b, 15008)?);
    mesh.mesh.control_plane().update(|plane| {
        plane.policies = vec![selected("closed", Action::Deny, 7001), selected("open", Action::Allow, 1)];
        plane.selections.insert("server".into(), vec!["shop/closed".into()]);
        plane.selections.insert("strict".into(), vec!["shop/open".into()]);
        plane.selections.insert("orphan".into(), vec!["shop/ghost".into()]);
    })?;
    let closed = mesh.b.gateway();
    let walled = &mesh.outside_a;
    wall_off(walled, mesh.client.ip())?;
    let hosts = [closed, mesh.outside_b.ip(), mesh.server.ip(), walled.ip()];
    std::fs::write(mesh.mesh.directory().join("more.yaml"), extra(hosts))?;
    for zt in [&mesh.zt_a, &mesh.zt_b] {
        eventually("the mesh is known", || {
            json(zt, "/debug/summary").is_ok_and(|told| {
                let mesh = &told["mesh"];
                mesh["services"].as_u64() == Some(12) && mesh["policies"].as_u64() == Some(2)
            })
        })?;
    }
    let refused = |reason: &'static str| ("peer-refused", Some(reason));
    let unhealthy = Some("no-healthy-upstream");
    let cases = [
        case("a service without endpoints", vip(1, 80), ("no-healthy-upstream", None), unhealthy),
        case("a service without healthy endpoints", vip(2, 80), ("no-healthy-upstream", None), unhealthy),
        case("a port that the service does not have", vip(9, 81), ("no-healthy-upstream", None), unhealthy),
        case("a waypoint that is not there", vip(3, 80), ("unknown-waypoint", None), Some("unknown-waypoint")),
        case("a waypoint whose name means nothing", vip(4, 80), ("unknown-waypoint", None), Some("unknown-waypoint")),
        case("a gateway that is not there", vip(5, 80), ("unknown-gateway", None), Some("unknown-gateway")),
        case("another network without a gateway", vip(6, 80), ("no-destination", None), Some("no-destination")),
        case("an endpoint without an address", vip(7, 80), ("no-healthy-upstream", None), unhealthy),
        case("an endpoint whose name cannot be resolved", vip(8, 80), ("unresolved", None), None),
        case("nobody at port 15008", vip(9, 80), ("dial-failed", None), None),
        case("a wall around port 15008", vip(12, 80), ("dial-timed-out", None), None),
        case("something else at port 15008", vip(10, 80), ("tls-handshake", None), None),
        case("a peer of another identity", vip(11, 80), ("tls-handshake", None), None),
        case("nobody at the port of the pod", at(&mesh.server, 9), refused("app-unreachable"), None),
        case("a port of ztunnel itself", at(&mesh.server, 15006), refused("recursion"), Some("recursion")),
        case("a policy that denies", at(&mesh.server, 7001), refused("denied"), Some("denied")),
        case("policies none of which allows", at(&strict, 9000), refused("denied"), Some("denied")),
        case("a policy that is not known", at(&orphan, 9000), refused("denied"), Some("denied")),
        case("nobody at a port outside of the mesh", at(&mesh.outside_b, 9), ("dial-failed", None), None),
    ];
    let mut complaints = Vec::new();
    for case in &cases {
        if let Err(complaint) = provoke(&mesh, case) {
            complaints.push(format!("{}: {complaint}", case.what));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    unfinished(&mesh)?;
    lost(mesh)
}

/// What a pod would answer does not reach that address any more, as behind a NetworkPolicy that drops packets.
fn wall_off(pod: &Pod, from: IpAddr) -> Outcome {
    let status = pod.command("ip").args(["route", "add", "blackhole", &from.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err("ip cannot add a route".into()) }
}

/// The client has said all that it will, and the server neither answers nor ends.
fn unfinished(mesh: &TwoNodes) -> Outcome {
    let listener = mesh.server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9001)))??;
    let open = connect(&mesh.client, at(&mesh.server, 9001))?;
    let _silent = listener.accept()?;
    open.shutdown(Shutdown::Write)?;
    let wanted = "reason=\"half-closed\" stage=\"copy\" side=\"app\" closed_first=\"client\"";
    eventually("the log says that half a connection timed out", || !access_lines(&mesh.zt_a, &[wanted]).is_empty())
}

/// The other ztunnel dies while a connection is open.
fn lost(mesh: TwoNodes) -> Outcome {
    let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
    open.write_all(b"x")?;
    open.read_exact(&mut [0])?;
    mesh.zt_b.kill()?;
    assert!(open.read(&mut [0]).is_err(), "the connection is reset");
    let wanted = "reason=\"tunnel-lost\" stage=\"copy\" side=\"peer\"";
    eventually("the log says that the tunnel is lost", || !access_lines(&mesh.zt_a, &[wanted]).is_empty())
}

fn without_identity() -> Outcome {
    let day = Duration::from_secs(24 * 3600);
    let governed = Governed::start(day, &[("UNKNOWN_WORKLOAD_TIMEOUT", "50ms")])?;
    let _echo = serve_echo(&governed.mesh.server, 9000)?;
    let (zt, target) = (&governed.mesh.zt_a, at(&governed.mesh.server, 9000));
    let faults =
        [("refused", Fault::Refuse), ("other", Fault::WrongSan), ("old", Fault::Expired), ("odd", Fault::Garbage)];
    for (name, fault) in faults {
        governed.istiod.update(|behaviour| behaviour.ca = fault)?;
        let pod = governed.mesh.a.add_pod(PodSpec::new(name, "shop", name, Capture::Enrolled))?;
        eventually("it is known that there is no certificate", || {
            explained(zt, name, target).is_ok_and(|told| told["failure"]["code"] == "no-certificate")
        })?;
        assert!(fails(&pod, target), "it cannot connect");
        let query = format!("/debug/failures?code=no-certificate&workload={name}");
        eventually("the failure is told", || {
            json(zt, &query)
                .is_ok_and(|told| told["failures"][0]["stage"] == "tls" && told["failures"][0]["side"] == "local")
        })?;
        let wanted = "reason=\"no-certificate\" stage=\"tls\" side=\"local\"";
        let of_pod = format!("src.workload=\"{name}\"");
        eventually("the log says so", || !access_lines(zt, &[&of_pod, wanted]).is_empty())?;
    }
    let stranger = governed.mesh.a.prepare_pod(PodSpec::new("stranger", "shop", "front", Capture::Enrolled))?;
    stranger.enrol()?;
    let told = explained(zt, "stranger", target).unwrap_err().to_string();
    assert!(told.starts_with("no workload is known as"), "{told}");
    assert!(fails(&stranger, target), "nobody knows who it is");
    let wanted = "reason=\"unknown-local-workload\" stage=\"route\" side=\"local\"";
    eventually("the log says so", || !access_lines(zt, &[wanted]).is_empty())
}

/// Asks, tries, and looks what is told.
fn provoke(mesh: &TwoNodes, case: &Case) -> Outcome {
    let zt = &mesh.zt_a;
    let told = explained(zt, "client", case.target)?;
    if told["failure"]["code"].as_str() != case.before {
        return Err(format!("before: {}", told["words"]).into());
    }
    let seen = |told: &Value| told["seen"].as_u64();
    let before = seen(&json(zt, "/debug/failures?limit=1")?);
    if !fails(&mesh.client, case.target) {
        return Err("the connection did not fail".into());
    }
    let mut row = Value::Null;
    eventually("the failure is told", || match json(zt, "/debug/failures?limit=1") {
        Ok(told) if seen(&told) > before => {
            row = told["failures"][0].clone();
            true
        }
        _ => false,
    })?;
    let (code, peer) = case.code;
    let text = |key: &str| row[key].as_str();
    if (text("code"), text("peerReason")) != (Some(code), peer) {
        return Err(format!("after: {row:#}").into());
    }
    if text("hint").is_none_or(str::is_empty) {
        return Err("there is no hint".into());
    }
    let pattern = format!("reason=\"{code}\"");
    let peer = peer.map(|peer| format!(" peer_reason=\"{peer}\"")).unwrap_or_default();
    let (stage, side) = (text("stage").unwrap_or_default(), text("side").unwrap_or_default());
    let wanted = format!("{pattern}{peer} stage=\"{stage}\" side=\"{side}\"");
    eventually("the log says so", || zt.logs().contains(&wanted))
}

/// Whether a connection comes to nothing.
fn fails(from: &Pod, target: SocketAddr) -> bool {
    exchange(from, target, b"x").is_err()
}

fn explained(zt: &Ztunnel, who: &str, target: SocketAddr) -> Outcome<Value> {
    json(zt, &format!("/debug/explain?src=shop/{who}&dst={target}"))
}

fn json(zt: &Ztunnel, path: &str) -> Outcome<Value> {
    let answer = zt.http_get(15000, path)?;
    serde_json::from_str(&answer.body).map_err(|_| answer.body.into())
}
