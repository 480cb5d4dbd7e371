//! Builds with different cryptography libraries talk to one another, and each of them to OpenSSL's own programs.
//!
//! Not part of `cargo test`, since it needs several builds: `cargo xtask providers` makes them and runs this with
//! `ZTUNNEL_BUILDS` saying where they are, as `NAME=PATH` with commas between.

mod credentials;
mod openssl;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use testkit::apps::{Server, http_get, serve_http};
use testkit::harness::{self, Test, test};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Where HBONE is spoken.
const HBONE_PORT: u16 = 15008;
/// Where apps listen.
const APP_PORT: u16 = 8080;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A program with one of the libraries.
#[derive(Debug, Clone)]
struct Build {
    name: String,
    program: PathBuf,
}

fn main() -> ExitCode {
    let builds = match builds() {
        Ok(builds) => builds,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut tests = Vec::new();
    for build in &builds {
        tests.extend(builds.iter().map(|server| pair(build, server)));
        tests.push(post_quantum_only(build));
        tests.extend(openssl::tests(build));
    }
    harness::main(tests)
}

fn builds() -> Outcome<Vec<Build>> {
    let text = std::env::var("ZTUNNEL_BUILDS").map_err(|_| "ZTUNNEL_BUILDS is not set: run `cargo xtask providers`")?;
    let build = |entry: &str| {
        let (name, path) = entry.split_once('=')?;
        Some(Build { name: name.to_owned(), program: path.into() })
    };
    let builds: Option<Vec<Build>> = text.split(',').map(build).collect();
    Ok(builds.ok_or("ZTUNNEL_BUILDS is a list of NAME=PATH with commas between")?)
}

impl Build {
    fn spec(&self) -> ZtunnelSpec {
        ZtunnelSpec::new(&self.program).env("RUST_LOG", "info,access=debug").env("ZTUNNEL_WORKER_THREADS", "1")
    }
}

fn pair(client: &Build, server: &Build) -> Test {
    let name = format!("{} to {}: a request passes, and each proves who it is", client.name, server.name);
    let (client, server) = (client.clone(), server.clone());
    test(&name, move || {
        let nodes = Nodes::start(&client.spec(), &server.spec())?;
        nodes.request()?;
        for (zt, build) in [(&nodes.zt_a, &client), (&nodes.zt_b, &server)] {
            let dump = zt.http_get(15000, "/config_dump")?.body;
            assert!(
                dump.contains(&format!("\"cryptoProvider\": \"{}\"", build.name)),
                "{} is another build",
                build.name
            );
        }
        Ok(())
    })
}

fn post_quantum_only(build: &Build) -> Test {
    let name = format!("{} under COMPLIANCE_POLICY=pqc does what it says or refuses to start", build.name);
    let build = build.clone();
    test(&name, move || {
        let spec = build.spec().env("COMPLIANCE_POLICY", "pqc");
        match Nodes::start(&spec, &spec) {
            Ok(nodes) => nodes.request(),
            Err(_) => refuses(&build, &spec),
        }
    })
}

/// Whether the process ends with an error that names the setting and the library.
fn refuses(build: &Build, spec: &ZtunnelSpec) -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let mut zt = node.start_ztunnel(spec)?;
    let status = zt.wait(DEADLINE)?;
    let log = zt.logs();
    assert!(!status.success(), "{log}");
    assert!(log.contains("COMPLIANCE_POLICY=pqc") && log.contains(&format!("({})", build.name)), "{log}");
    Ok(())
}

/// A client on one node, a server on another.
struct Nodes {
    // Processes end before the namespaces they live in.
    zt_a: Ztunnel,
    zt_b: Ztunnel,
    _app: Server,
    client: Pod,
    server: Pod,
    _nodes: [Node; 2],
    _mesh: Mesh,
}

impl Nodes {
    fn start(on_a: &ZtunnelSpec, on_b: &ZtunnelSpec) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
        let app = serve_http(&server, APP_PORT)?;
        let (zt_a, zt_b) = (a.start_ztunnel(on_a)?, b.start_ztunnel(on_b)?);
        zt_a.wait_ready(DEADLINE)?;
        zt_b.wait_ready(DEADLINE)?;
        Ok(Self { zt_a, zt_b, _app: app, client, server, _nodes: [a, b], _mesh: mesh })
    }

    fn request(&self) -> Outcome {
        let answer = http_get(&self.client, SocketAddr::new(self.server.ip(), APP_PORT))?;
        assert_eq!(answer.told("pod"), Some("server"));
        let (line_a, line_b) = (complete(&self.zt_a)?, complete(&self.zt_b)?);
        assert!(line_a.contains("dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\""), "{line_a}");
        assert!(line_b.contains("src.identity=\"spiffe://cluster.local/ns/shop/sa/front\""), "{line_b}");
        Ok(())
    }
}

fn complete(zt: &Ztunnel) -> Outcome<String> {
    Ok(zt.wait_for_log("connection complete", DEADLINE)?)
}
