//! The DNS proxy with the resolvers that apps have, and with the servers that it stands before.

mod load;
mod message;
mod resolvers;
mod upstreams;

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::control_plane::Service;
use testkit::harness::Test;
use testkit::mesh::{Capture, Families, Mesh, Node, Pod, PodSpec};
use testkit::redirect::DnsCapture;
use testkit::ztunnel::Ztunnel;

use crate::{DEADLINE, Outcome, eventually, ztunnel};

/// Where names are served.
const DOMAIN_PORT: u16 = 53;

pub fn tests() -> Vec<Test> {
    let mut tests = resolvers::tests();
    tests.extend(upstreams::tests());
    tests.extend(load::tests());
    tests
}

/// A mesh whose names are known, with a pod that asks and two outside the mesh where servers may run.
struct Named {
    // Processes end before the namespaces they live in.
    ztunnel: Ztunnel,
    asker: Pod,
    servers: [Pod; 2],
    /// Behind the services of the mesh.
    backends: [Pod; 2],
    _node: Node,
    _mesh: Mesh,
}

impl Named {
    fn start() -> Outcome<Self> {
        let mesh = Mesh::with(Families::Dual)?;
        let node = mesh.add_node("a")?;
        let backend = |name| node.add_pod(PodSpec::new(name, "shop", "db", Capture::Off));
        let backends = [backend("db-0")?, backend("db-1")?];
        let server = |name| node.add_pod(PodSpec::new(name, "legacy", "old", Capture::Off));
        let servers = [server("server-0")?, server("server-1")?];
        mesh.control_plane().update(|plane| plane.services.extend(services(&backends)))?;
        let ztunnel = node.start_ztunnel(&ztunnel().env("ISTIO_META_DNS_CAPTURE", "true"))?;
        ztunnel.wait_ready(DEADLINE)?;
        let asker = node.add_pod(PodSpec::new("asker", "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
        let named = Self { ztunnel, asker, servers, backends, _node: node, _mesh: mesh };
        let nobody = SocketAddr::new([192, 0, 2, 53].into(), DOMAIN_PORT);
        let query = message::Query::plain("cart.shop.svc.cluster.local", message::A);
        eventually("the mesh answers", || query.ask(&named.asker, nobody).is_ok_and(|answer| answer.rcode() == 0))?;
        Ok(named)
    }

    /// The sum of all samples of a metric whose labels contain `label`.
    fn metric(&self, name: &str, label: &str) -> Outcome<u64> {
        let text = self.ztunnel.http_get(15020, "/metrics")?.body;
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

/// One of every kind: with addresses, without, of another namespace, of hosts elsewhere, with a wildcard.
fn services(backends: &[Pod; 2]) -> [Service; 6] {
    let all = [&backends[0], &backends[1]];
    [
        Service::new("cart", "shop", [10, 96, 0, 1], &all).vip(v6(1)).port(80, 8080),
        Service::new("db", "shop", [10, 96, 0, 9], &all).headless().port(80, 8080),
        Service::new("four", "shop", [10, 96, 0, 2], &all).port(80, 8080),
        Service::new("web", "other", [10, 96, 0, 3], &all).vip(v6(3)).port(80, 8080),
        Service::new("entry", "shop", [10, 96, 0, 4], &all).host("entry.elsewhere.example").port(80, 8080),
        Service::new("wild", "shop", [10, 96, 0, 5], &all).host("*.wild.example").port(80, 8080),
    ]
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, last)
}

/// A process that serves until it is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Outcome<Self> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log)?;
        Ok(Self(command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended: then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program writes.
fn output(mut command: Command) -> Outcome<String> {
    let said = command.stdin(Stdio::null()).output()?;
    let (text, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if !said.status.success() {
        return Err(format!("{command:?} failed ({}): {text}{errors}", said.status).into());
    }
    Ok(text.into_owned())
}

/// Of the sandbox's own `/run`, which goes with it.
fn unused_folder() -> Outcome<PathBuf> {
    static USED: AtomicUsize = AtomicUsize::new(0);
    let folder = PathBuf::from(format!("/run/names/{}", USED.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
