//! `cargo demo`: two nodes, four pods, a real ztunnel on each node run by a stand-in for istiod, and what that does, step
//! by step.
//!
//! Every step checks what it says; the exit status is 0 only if all of it held. The demo runs in a sandbox of its own
//! and leaves nothing behind, however it ends.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::apps::{Server, http_get, resolve, serve_http};
use testkit::control_plane::{Action, Match, Policy, Scope, Service, StringMatch};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::redirect::DnsCapture;
use testkit::sandbox;
use testkit::tap::Tap;
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

/// What happens to the mesh after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes.
    Leave,
    /// It stays until Ctrl-C.
    Keep,
}

/// What runs the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Governance {
    /// A stand-in for istiod: discovery and certificates over TLS, with tokens.
    Istiod,
    /// A file, and the built-in CA.
    File,
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for a loaded machine; only a failing step waits for it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(20);
const VIP: &str = "10.96.0.1:80";
/// What the client takes for its resolver: queries are redirected before they get there.
const NOBODY: &str = "10.96.0.10:53";
/// Requests to the service; that all of them go to one of two endpoints by chance is one in a trillion.
const SPREAD: usize = 40;

/// Runs the demo. The first call builds the release binary and executes this program anew inside a sandbox.
///
/// # Errors
/// What did not hold, or could not be set up.
pub fn run(workspace: &Path, governance: Governance, afterwards: Afterwards) -> Outcome {
    let ztunnel = release_binary()?;
    if sandbox::outer_pid().is_none() {
        say("Building ztunnel (release profile; the first time takes some minutes)");
        let mut build = Command::new("cargo");
        build.current_dir(workspace).args(["build", "--release", "--package", "ztunnel", "--bin", "ztunnel"]);
        if !build.status()?.success() {
            return Err("the build failed".into());
        }
    }
    let inside = sandbox::enter()?;
    let demo = Demo::start(&ztunnel, governance)?;
    demo.control_plane()?;
    demo.request()?;
    demo.names()?;
    demo.service()?;
    demo.outside()?;
    demo.policy()?;
    demo.log_and_metrics()?;
    println!("\nEverything held.");
    if afterwards == Afterwards::Keep {
        demo.keep(inside.outer_pid());
    }
    Ok(())
}

/// Where cargo puts the release binary: beside the folder that this program runs from.
fn release_binary() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    Ok(target.join("release/ztunnel"))
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn told(text: &str) {
    println!("   {text}");
}

/// Fails with what was expected.
fn holds(what: &str, condition: bool) -> Outcome {
    if condition {
        told(&format!("[ok] {what}"));
        Ok(())
    } else {
        Err(format!("this did not hold: {what}").into())
    }
}

fn eventually(what: &str, mut ask: impl FnMut() -> bool) -> Outcome {
    let start = Instant::now();
    while !ask() {
        if start.elapsed() > DEADLINE {
            return holds(what, false);
        }
        std::thread::sleep(PAUSE);
    }
    holds(what, true)
}

struct Demo {
    // Processes end before the namespaces they live in.
    ztunnel_a: Ztunnel,
    ztunnel_b: Ztunnel,
    tap: Tap,
    _apps: Vec<Server>,
    client: Pod,
    backend_1: Pod,
    backend_2: Pod,
    legacy: Pod,
    istiod: Option<Istiod>,
    mesh: Mesh,
}

impl Demo {
    fn start(ztunnel: &Path, governance: Governance) -> Outcome<Self> {
        say("Two nodes, four pods, one ztunnel process per node");
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("node-a")?, mesh.add_node("node-b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
        let backend_1 = b.add_pod(PodSpec::new("backend-1", "shop", "back", Capture::Enrolled))?;
        let backend_2 = b.add_pod(PodSpec::new("backend-2", "shop", "back", Capture::Enrolled))?;
        let legacy = a.add_pod(PodSpec::new("legacy", "other", "old", Capture::Off))?;
        let service = Service::new("backend", "shop", [10, 96, 0, 1], &[&backend_1, &backend_2]).port(80, 8080);
        mesh.control_plane().update(|plane| plane.services.push(service))?;
        let spec = ZtunnelSpec::new(ztunnel).env("ISTIO_META_DNS_CAPTURE", "true");
        let istiod = match governance {
            Governance::Istiod => Some(Istiod::start(&mesh)?),
            Governance::File => None,
        };
        let spec_on = |node: &Node| -> Outcome<ZtunnelSpec> {
            Ok(istiod.as_ref().map_or_else(|| Ok(spec.clone()), |istiod| istiod.ztunnel(node, &spec))?)
        };
        let (ztunnel_a, ztunnel_b) = (a.start_ztunnel(&spec_on(&a)?)?, b.start_ztunnel(&spec_on(&b)?)?);
        ztunnel_a.wait_ready(DEADLINE)?;
        ztunnel_b.wait_ready(DEADLINE)?;
        let apps = vec![serve_http(&backend_1, 8080)?, serve_http(&backend_2, 8080)?];
        for pod in [&client, &backend_1, &backend_2] {
            told(&format!("{:<10} {:<10} on {}, in the mesh", pod.name(), pod.ip(), pod.node().name()));
        }
        told(&format!("{:<10} {:<10} on {}, outside the mesh", legacy.name(), legacy.ip(), legacy.node().name()));
        told("both ztunnels are ready: each node's agent has handed over the pods' network namespaces");
        let tap = mesh.tap()?;
        Ok(Self { ztunnel_a, ztunnel_b, tap, _apps: apps, client, backend_1, backend_2, legacy, istiod, mesh })
    }

    fn control_plane(&self) -> Outcome {
        say("Who runs the mesh");
        let Some(istiod) = &self.istiod else {
            told("a file with workloads, services and policies, and the built-in CA whose key everybody knows");
            return Ok(());
        };
        told("a stand-in for istiod: delta discovery and the mesh CA over TLS, with service account tokens");
        eventually("both ztunnels have accepted what it told, and refused nothing", || {
            let tally = istiod.tally();
            tally.streams >= 2 && tally.accepted >= 4 && tally.refusals.is_empty()
        })?;
        eventually("it has signed a certificate for each identity of each node, before any connection", || {
            istiod.tally().certificates >= 2
        })
    }

    fn request(&self) -> Outcome {
        say("A request from pod to pod");
        let answer = http_get(&self.client, SocketAddr::new(self.backend_1.ip(), 8080))?;
        told(&format!("client asked {}:8080 and got:", self.backend_1.ip()));
        answer.body.lines().for_each(|line| told(&format!("  | {line}")));
        holds("the right pod answered", answer.told("pod") == Some("backend-1"))?;
        let peer = answer.told("peer").unwrap_or_default();
        let kept = peer.starts_with(&format!("{}:", self.client.ip()));
        holds("the server saw the client's own address, not a proxy's", kept)?;

        say("What crossed the wire between the nodes");
        holds("TLS application data", self.tap.saw_tls_application_data())?;
        holds("connections to port 15008 (HBONE)", self.tap.saw_tcp_port(15008))?;
        let clear = self.tap.contains(b"GET / HTTP/1.1") || self.tap.contains(b"pod: backend-1");
        holds("neither the request nor the answer in the clear", !clear && self.tap.is_complete())?;

        say("Who they proved to be");
        let line = self.ztunnel_b.wait_for_log("connection complete", DEADLINE)?;
        for (field, identity) in [
            ("src.identity", "spiffe://cluster.local/ns/shop/sa/front"),
            ("dst.identity", "spiffe://cluster.local/ns/shop/sa/back"),
        ] {
            holds(&format!("{field} is {identity}"), line.contains(&format!("{field}=\"{identity}\"")))?;
        }
        Ok(())
    }

    fn names(&self) -> Outcome {
        say(&format!("The service by its names, asked of a resolver at {NOBODY} that is not there"));
        let vip: SocketAddr = VIP.parse()?;
        for name in ["backend", "backend.shop", "backend.shop.svc.cluster.local"] {
            let found = resolve(&self.client, NOBODY.parse()?, name)?;
            holds(&format!("{name} is {}", vip.ip()), found == [vip.ip()])?;
        }
        Ok(())
    }

    fn service(&self) -> Outcome {
        say(&format!("A service at {VIP} with two endpoints"));
        let mut answers = BTreeMap::<String, usize>::new();
        for _ in 0..SPREAD {
            let answer = http_get(&self.client, VIP.parse()?)?;
            *answers.entry(answer.told("pod").unwrap_or("nobody").to_owned()).or_default() += 1;
        }
        answers.iter().for_each(|(pod, count)| told(&format!("{pod} answered {count} of {SPREAD} requests")));
        let both = [&self.backend_1, &self.backend_2].iter().all(|pod| answers.contains_key(pod.name()));
        holds("both endpoints answered, and nobody else", both && answers.len() == 2)
    }

    fn outside(&self) -> Outcome {
        say("A client outside the mesh");
        let answer = http_get(&self.legacy, SocketAddr::new(self.backend_2.ip(), 8080))?;
        let peer = answer.told("peer").unwrap_or_default();
        let kept = peer.starts_with(&format!("{}:", self.legacy.ip()));
        holds("it is served in plain TCP, and the server sees its address too", kept)
    }

    fn policy(&self) -> Outcome {
        say("A policy, applied while everything runs: only identities of the mesh may talk to shop");
        let (member, stranger) = (
            || http_get(&self.client, VIP.parse().ok()?).ok(),
            || http_get(&self.legacy, SocketAddr::new(self.backend_1.ip(), 8080)).ok(),
        );
        holds("before: both clients are served", member().is_some() && stranger().is_some())?;
        let members_only = Policy {
            name: "members-only".into(),
            namespace: "shop".into(),
            scope: Scope::Namespace,
            action: Action::Allow,
            dry_run: false,
            rules: vec![vec![vec![Match {
                principals: vec![StringMatch::Prefix("cluster.local/".into())],
                ..Match::default()
            }]]],
        };
        self.mesh.control_plane().update(|plane| plane.policies.push(members_only))?;
        eventually("after: the client without an identity is turned away", || stranger().is_none())?;
        holds("after: it stays so, and the client in the mesh is served", stranger().is_none() && member().is_some())?;
        let reason = "allow policies exist, but none allowed";
        holds("the log says why", self.ztunnel_b.wait_for_log(reason, DEADLINE).is_ok())?;

        let no_front = Policy {
            name: "no-front".into(),
            namespace: "shop".into(),
            scope: Scope::Namespace,
            action: Action::Deny,
            dry_run: false,
            rules: vec![vec![vec![Match {
                principals: vec![StringMatch::Exact("cluster.local/ns/shop/sa/front".into())],
                ..Match::default()
            }]]],
        };
        self.mesh.control_plane().update(|plane| plane.policies = vec![no_front])?;
        eventually("another policy denies the client by its identity", || member().is_none())?;
        holds("it stays so, and the client outside the mesh passes", member().is_none() && stranger().is_some())?;
        let reason = "explicitly denied by: shop/no-front";
        holds("the log names the policy", self.ztunnel_b.wait_for_log(reason, DEADLINE).is_ok())?;
        self.mesh.control_plane().update(|plane| plane.policies.clear())?;
        eventually("without policies everybody is served again", || member().is_some() && stranger().is_some())
    }

    fn log_and_metrics(&self) -> Outcome {
        say("What the operator sees");
        let lines = self.ztunnel_a.logs();
        let of_service = |line: &&str| line.contains("\taccess\tconnection complete") && line.contains("dst.service");
        let line = lines.lines().find(of_service).ok_or("no access-log line of the service")?;
        told("an access-log line of the client's node:");
        told(&format!("  | {}", line.replace('\t', " ")));
        let metrics = self.ztunnel_a.http_get(15020, "/metrics")?.body;
        let count = |name: &str| -> u64 {
            let samples = metrics.lines().filter(|line| {
                line.starts_with(&format!("{name}{{reporter=\"source\""))
                    && line.contains("destination_service_name=\"backend\"")
            });
            samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        told("its metrics for the service:");
        for name in [
            "istio_tcp_connections_opened_total",
            "istio_tcp_connections_closed_total",
            "istio_tcp_received_bytes_total",
            "istio_tcp_sent_bytes_total",
        ] {
            told(&format!("  | {name} {}", count(name)));
        }
        holds("every request to the service is counted", count("istio_tcp_connections_opened_total") >= SPREAD as u64)
    }

    /// Leaves the mesh up until this process is interrupted.
    fn keep(&self, outer_pid: Option<u32>) {
        say("The mesh stays up until Ctrl-C. Things to try from another terminal:");
        let Some(pid) = outer_pid else {
            return told("(this place has no /proc of its own, so that the mesh cannot be entered from outside)");
        };
        let user = if sandbox::is_unprivileged() { " -U --preserve-credentials" } else { "" };
        let directory = self.mesh.directory().join("netns");
        let inside = |namespace: &str, command: &str| {
            println!("   nsenter -t {pid}{user} -m -p nsenter --net={}/{namespace} {command}", directory.display());
        };
        told("a request from a pod, to a pod and to the service:");
        inside("client", &format!("curl -s http://{}:8080/", self.backend_1.ip()));
        inside("client", &format!("curl -s http://{VIP}/"));
        told("what the client's ztunnel knows, counts and says of itself:");
        inside("ztunnel-node-a", "curl -s http://127.0.0.1:15000/config_dump");
        inside("ztunnel-node-a", "curl -s http://127.0.0.1:15020/metrics");
        inside("ztunnel-node-a", "curl -s http://127.0.0.1:15021/healthz/ready");
        told(match self.istiod {
            None => "its log, and the state of the mesh, which may be edited:",
            Some(_) => "its log, and the token and the root that the control plane is approached with:",
        });
        println!("   nsenter -t {pid}{user} -m cat {}/node-a/ztunnel-node-a.log", self.mesh.directory().display());
        match &self.istiod {
            None => println!("   nsenter -t {pid}{user} -m cat {}", self.mesh.control_plane().path().display()),
            Some(istiod) => println!("   nsenter -t {pid}{user} -m ls {}", istiod.directory().display()),
        }
        loop {
            std::thread::park();
        }
    }
}
