//! A ztunnel that has an identity of its own, so that others of the mesh reach its ports as they reach those of a pod.

use std::net::{IpAddr, SocketAddr};

use testkit::apps::exchange;
use testkit::control_plane::Particulars;
use testkit::harness::{Test, test};
use testkit::ztunnel::Ztunnel;

use super::loops::ztunnel;
use super::{DEADLINE, Outcome, TwoNodes, eventually, spec};

/// Whom the ztunnels take themselves for; the mesh says the same of that of node b.
const OWN: [(&str, &str); 3] = [("POD_NAME", "outside-b"), ("POD_NAMESPACE", "legacy"), ("SERVICE_ACCOUNT", "old")];
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: ztunnel\r\nConnection: close\r\n\r\n";

pub fn tests() -> Vec<Test> {
    vec![test("the metrics of a ztunnel with an identity of its own are read through mutual TLS", || {
        let own = OWN.iter().fold(spec(), |spec, (name, value)| spec.env(name, value));
        let mesh = TwoNodes::start_with(&own)?;
        let address = ztunnel(&mesh.b);
        let metrics = SocketAddr::new(address, 15020);
        let of_process = || Particulars { process: Some(address), ..Particulars::default() };
        mesh.mesh.control_plane().update(|plane| drop(plane.particulars.insert("outside-b".into(), of_process())))?;
        for zt in [&mesh.zt_a, &mesh.zt_b] {
            eventually("both ztunnels know of it", || speaks_hbone(zt, address).unwrap_or(false))?;
        }
        let answer = exchange(&mesh.client, metrics, REQUEST)?;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("istio_build{"), "{answer}");

        let line = mesh.zt_b.wait_for_log(&format!("dst.hbone_addr={metrics}"), DEADLINE)?;
        let said = |field: String| assert!(line.contains(&field), "{field} in {line}");
        said(format!("dst.addr={address}:15008"));
        said("src.identity=\"spiffe://cluster.local/ns/shop/sa/front\"".to_owned());
        said("dst.identity=\"spiffe://cluster.local/ns/legacy/sa/old\"".to_owned());
        said("direction=\"inbound\"".to_owned());
        Ok(())
    })]
}

/// Whether a ztunnel has been told that HBONE is spoken at an address.
fn speaks_hbone(zt: &Ztunnel, address: IpAddr) -> Outcome<bool> {
    let dump: serde_json::Value = serde_json::from_str(&zt.http_get(15000, "/config_dump")?.body)?;
    let workloads = dump["workloads"].as_array().ok_or("the dump has no workloads")?;
    let is_it = |w: &serde_json::Value| w["workloadIps"][0] == address.to_string() && w["protocol"] == "HBONE";
    Ok(workloads.iter().any(is_it))
}
