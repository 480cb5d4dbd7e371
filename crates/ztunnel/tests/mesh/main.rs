//! The real process in a real mesh: nodes and pods in network namespaces, redirection rules, the node agent's socket.

mod arrivals;
mod bulk;
mod certificates;
mod discovery;
mod dns;
mod early;
mod ends;
mod handover;
mod handshakes;
mod hosts;
mod lifecycle;
mod limits;
mod live;
mod loops;
mod matrix;
mod networks;
mod observe;
mod own;
mod policy;
mod provoked;
mod redirect;
mod requests;
mod retry;
mod same_node;
mod socks;
mod traffic;
mod tunnels;
mod waypoints;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::harness::{self, test};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut tests = Vec::new();
    tests.extend(traffic::tests());
    tests.extend(waypoints::tests());
    tests.extend(arrivals::tests());
    tests.extend(bulk::tests());
    tests.extend(early::tests());
    tests.extend(ends::tests());
    tests.extend(limits::tests());
    tests.extend(live::tests());
    tests.extend(loops::tests());
    tests.extend(matrix::tests());
    tests.extend(networks::tests());
    tests.extend(observe::tests());
    tests.extend(own::tests());
    tests.extend(policy::tests());
    tests.extend(redirect::tests());
    tests.extend(provoked::tests());
    tests.extend(requests::tests());
    tests.extend(retry::tests());
    tests.extend(same_node::tests());
    tests.extend(socks::tests());
    tests.extend(tunnels::tests());
    tests.extend(lifecycle::tests());
    tests.extend(discovery::tests());
    tests.extend(dns::tests());
    tests.extend(hosts::tests());
    tests.extend(certificates::tests());
    tests.extend(handshakes::tests());
    tests.extend(handover::tests());
    harness::main(tests)
}

/// Two nodes with a ztunnel each; a client on the first, a server on the second, and one pod outside the mesh on each.
struct TwoNodes {
    // Processes end before the namespaces they live in.
    zt_a: Ztunnel,
    zt_b: Ztunnel,
    client: Pod,
    server: Pod,
    outside_a: Pod,
    outside_b: Pod,
    a: Node,
    b: Node,
    mesh: Mesh,
}

fn spec() -> ZtunnelSpec {
    ZtunnelSpec::new(env!("CARGO_BIN_EXE_ztunnel"))
        .env("RUST_LOG", "info,access=debug")
        .env("ZTUNNEL_WORKER_THREADS", "2")
}

impl TwoNodes {
    fn start() -> Outcome<Self> {
        Self::start_with(&spec())
    }

    fn start_with(spec: &ZtunnelSpec) -> Outcome<Self> {
        Self::start_on(|_, _| Ok(spec.clone()))
    }

    fn start_on(mut spec: impl FnMut(&Mesh, &Node) -> Outcome<ZtunnelSpec>) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
        let outside_a = a.add_pod(PodSpec::new("outside-a", "legacy", "old", Capture::Off))?;
        let outside_b = b.add_pod(PodSpec::new("outside-b", "legacy", "old", Capture::Off))?;
        let (zt_a, zt_b) = (a.start_ztunnel(&spec(&mesh, &a)?)?, b.start_ztunnel(&spec(&mesh, &b)?)?);
        zt_a.wait_ready(DEADLINE)?;
        zt_b.wait_ready(DEADLINE)?;
        Ok(Self { zt_a, zt_b, client, server, outside_a, outside_b, a, b, mesh })
    }
}

/// Two nodes that are run by an istiod. The mesh is told by discovery alone, and the CA signs.
struct Governed {
    mesh: TwoNodes,
    istiod: Istiod,
}

impl Governed {
    /// With certificates of at most that lifetime, and settings for the ztunnels.
    fn start(ttl: Duration, settings: &[(&str, &str)]) -> Outcome<Self> {
        let mut istiod = None;
        let mesh = TwoNodes::start_on(|mesh, node| {
            let istiod = match &mut istiod {
                Some(istiod) => istiod,
                none => {
                    let fresh = Istiod::start(mesh)?;
                    fresh.update(|behaviour| behaviour.ttl = ttl)?;
                    none.insert(fresh)
                }
            };
            let spec = settings.iter().fold(spec(), |spec, (name, value)| spec.env(name, value));
            Ok(istiod.ztunnel(node, &spec)?)
        })?;
        Ok(Self { mesh, istiod: istiod.ok_or("no node asked for a control plane")? })
    }
}

impl TwoNodes {
    /// Adds a pod to the mesh and waits until both ztunnels have heard of it.
    fn enrol(&self, node: &Node, name: &str, service_account: &str) -> Outcome<Pod> {
        let pod = node.add_pod(PodSpec::new(name, "shop", service_account, Capture::Enrolled))?;
        for zt in [&self.zt_a, &self.zt_b] {
            eventually("the pod is known", || knows(zt, &pod).unwrap_or(false))?;
        }
        Ok(pod)
    }
}

/// Whether a ztunnel has been told of a pod; what its file says by now does not count.
fn knows(ztunnel: &Ztunnel, pod: &Pod) -> Outcome<bool> {
    let dump: serde_json::Value = serde_json::from_str(&ztunnel.http_get(15000, "/config_dump")?.body)?;
    let workloads = dump["workloads"].as_array().ok_or("the dump has no workloads")?;
    Ok(workloads.iter().any(|workload| workload["uid"] == pod.workload_uid().as_str()))
}

fn at(pod: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(pod.ip(), port)
}

/// Asks until the answer is yes.
fn eventually(what: &str, ask: impl FnMut() -> bool) -> Outcome {
    within(DEADLINE, what, ask)
}

/// The same of something that takes longer than most.
fn within(deadline: Duration, what: &str, mut ask: impl FnMut() -> bool) -> Outcome {
    let start = Instant::now();
    while !ask() {
        if start.elapsed() > deadline {
            return Err(format!("did not happen within {deadline:?}: {what}").into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The sum of all samples of a metric whose labels contain `labels`.
fn metric(ztunnel: &Ztunnel, name: &str, labels: &[&str]) -> Outcome<u64> {
    let text = ztunnel.http_get(15020, "/metrics")?.body;
    let samples = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|l| line.contains(l))
    });
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

/// Lines of the access log that contain all of `parts`.
fn access_lines(ztunnel: &Ztunnel, parts: &[&str]) -> Vec<String> {
    let wanted = |line: &&str| line.contains("\taccess\t") && parts.iter().all(|part| line.contains(part));
    ztunnel.logs().lines().filter(wanted).map(str::to_owned).collect()
}

/// A test of [`TwoNodes`].
fn two_nodes(name: &str, run: impl FnOnce(TwoNodes) -> Outcome + Send + 'static) -> harness::Test {
    test(name, move || run(TwoNodes::start()?))
}
