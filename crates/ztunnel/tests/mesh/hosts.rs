//! Endpoints that are known by a host name only: it is looked up, and whichever address answers is used.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use testkit::apps::{exchange, serve_echo};
use testkit::control_plane::Service;
use testkit::harness::{Test, test};
use testkit::ztunnel::Ztunnel;

use super::dns::upstream::Upstream;
use super::{Outcome, TwoNodes, access_lines, eventually, metric, spec};

const APP_PORT: u16 = 8080;
/// Where the service is.
const VIP: [u8; 4] = [10, 96, 0, 7];
/// Enough that the address that does not answer is drawn first by some of them.
const CONNECTIONS: usize = 8;

fn v4(ip: IpAddr) -> Outcome<Ipv4Addr> {
    match ip {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err("a mesh of IPv4 has such an address".into()),
    }
}

/// A mesh with a service whose one endpoint is the host `db.example`, which ztunnel asks the first pod outside the mesh for.
fn mesh() -> Outcome<(TwoNodes, SocketAddr)> {
    let mesh = TwoNodes::start_on(|mesh, _| {
        let path = mesh.directory().join("resolv.conf");
        Ok(spec().env("RESOLV_CONF", &path.display().to_string()))
    })?;
    let file = mesh.mesh.directory().join("resolv.conf");
    fs::write(&file, format!("nameserver {}\n", mesh.outside_a.ip()))?;
    let service = Service::new("db", "shop", VIP, &[]).elsewhere("db.example").port(80, APP_PORT);
    mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
    eventually("the endpoint is known", || knows(&mesh.zt_a).unwrap_or(false))?;
    Ok((mesh, SocketAddr::from((VIP, 80))))
}

/// Whether a ztunnel has been told of the host; what its file says by now does not count.
fn knows(ztunnel: &Ztunnel) -> Outcome<bool> {
    let dump: serde_json::Value = serde_json::from_str(&ztunnel.http_get(15000, "/config_dump")?.body)?;
    let workloads = dump["workloads"].as_array().ok_or("the dump has no workloads")?;
    Ok(workloads.iter().any(|workload| workload["name"] == "db.example"))
}

pub fn tests() -> Vec<Test> {
    vec![
        test("an endpoint with a host name is reached at the address that answers, and asked for once", || {
            let (mesh, service) = mesh()?;
            // Nobody has the first address, and nobody says so.
            let [_, second, third, _] = v4(mesh.outside_b.ip())?.octets();
            let nobody = Ipv4Addr::new(10, second, third, 250);
            let upstream = Upstream::telling(&mesh.outside_a, &[nobody, v4(mesh.outside_b.ip())?])?;
            let _echo = serve_echo(&mesh.outside_b, APP_PORT)?;
            for _ in 0..CONNECTIONS {
                assert_eq!(exchange(&mesh.client, service, b"hello")?, b"hello");
            }
            assert_eq!(upstream.queries(), 2, "one for each family");
            let labels = ["source_workload=\"client\"", "hostname=\"db.example\""];
            assert_eq!(metric(&mesh.zt_a, "istio_on_demand_dns_total", &labels)?, CONNECTIONS as u64);
            let reached = format!("dst.addr={}:{APP_PORT}", mesh.outside_b.ip());
            eventually("every record says which address it was", || {
                access_lines(&mesh.zt_a, &[&reached, "connection complete"]).len() == CONNECTIONS
            })
        }),
        test("connections that want one host name at the same time share one look-up", || {
            let (mesh, service) = mesh()?;
            let upstream = Upstream::telling(&mesh.outside_a, &[v4(mesh.outside_b.ip())?])?;
            let _echo = serve_echo(&mesh.outside_b, APP_PORT)?;
            std::thread::scope(|scope| -> Outcome {
                let all: Vec<_> = (0..CONNECTIONS)
                    .map(|_| scope.spawn(|| exchange(&mesh.client, service, b"hello").map_err(|e| e.to_string())))
                    .collect();
                for one in all {
                    assert_eq!(one.join().map_err(|_| "a client panicked")??, b"hello");
                }
                Ok(())
            })?;
            assert_eq!(upstream.queries(), 2);
            Ok(())
        }),
        test("a host name that nobody knows refuses the connection and says why", || {
            let (mesh, service) = mesh()?;
            assert!(exchange(&mesh.client, service, b"hello").is_err());
            eventually("the log says so", || mesh.zt_a.logs().contains("no ip addresses were resolved for workload"))
        }),
    ]
}
