//! OpenSSL's `s_client` and `s_server`, an implementation of TLS that is not rustls, at the other end.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use testkit::apps::connect;
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};

use super::credentials::{self, Files};
use super::{APP_PORT, Build, DEADLINE, HBONE_PORT, Outcome};

const IDENTITY: &str = "spiffe://cluster.local/ns/edge/sa/openssl";
/// The end of the header of a first SETTINGS frame: its type, no flags, stream 0 (RFC 9113 §6.5). A server sends it when
/// it has accepted the client's certificate.
const SETTINGS: &[u8] = &[4, 0, 0, 0, 0, 0];
/// What an HTTP/2 client says first (RFC 9113 §3.4), when it has accepted the server's certificate.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// A way to be another kind of peer.
#[derive(Debug, Clone, Copy)]
struct Peer {
    arguments: &'static [&'static str],
    suite: &'static str,
}

const TLS13: Peer = Peer { arguments: &["-tls1_3"], suite: "TLS_AES_256_GCM_SHA384" };
const TLS13_128: Peer =
    Peer { arguments: &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], suite: "TLS_AES_128_GCM_SHA256" };
const P384: Peer = Peer { arguments: &["-tls1_3", "-groups", "P-384"], suite: "TLS_AES_256_GCM_SHA384" };
const TLS12: Peer = Peer { arguments: &["-tls1_2"], suite: "ECDHE-ECDSA-AES256-GCM-SHA384" };
const CHACHA: &[&str] = &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"];

pub fn tests(build: &Build) -> Vec<Test> {
    let mut tests = Vec::new();
    for (what, peer) in [("TLS 1.3", TLS13), ("AES-128", TLS13_128), ("P-384", P384), ("TLS 1.2", TLS12)] {
        let (server, client) = (build.clone(), build.clone());
        tests.push(test(&format!("{} is a server for s_client: {what}", build.name), move || serves(&server, peer)));
        tests.push(test(&format!("{} is a client of s_server: {what}", build.name), move || dials(&client, peer)));
    }
    for (what, arguments) in [("TLS 1.2 unless told to", TLS12.arguments), ("ChaCha20 ever", CHACHA)] {
        let build = build.clone();
        tests.push(test(&format!("{} does not speak {what}", build.name), move || refuses(&build, arguments)));
    }
    tests
}

fn environment(peer: Peer) -> (&'static str, &'static str) {
    ("TLS12_ENABLED", if peer.arguments.contains(&"-tls1_2") { "true" } else { "false" })
}

fn serves(build: &Build, peer: Peer) -> Outcome {
    let (name, value) = environment(peer);
    with_server(build, (name, value), peer.arguments, |client| {
        client.wait_for(b"ALPN protocol: h2")?;
        client.wait_for(format!("Cipher is {}", peer.suite).as_bytes())?;
        client.wait_for(b"Verify return code: 0 (ok)")?;
        client.wait_for(SETTINGS)
    })
}

fn refuses(build: &Build, arguments: &[&str]) -> Outcome {
    with_server(build, ("TLS12_ENABLED", "false"), arguments, |client| {
        client.wait_for(b" alert ")?;
        client.wait_for(b"Cipher is (NONE)")
    })
}

/// Lets `s_client` connect to a pod of the build's.
fn with_server(
    build: &Build,
    (name, value): (&str, &str),
    arguments: &[&str],
    check: impl FnOnce(&mut Openssl) -> Outcome,
) -> Outcome {
    let mesh = Mesh::new()?;
    let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
    let from = a.add_pod(PodSpec::new("openssl", "edge", "openssl", Capture::Off))?;
    let to = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
    let zt = b.start_ztunnel(&build.spec().env(name, value))?;
    zt.wait_ready(DEADLINE)?;
    let files = credentials::files(IDENTITY, mesh.directory())?;
    let address = SocketAddr::new(to.ip(), HBONE_PORT).to_string();
    let mut command = openssl(&from, "s_client", &files);
    command.args(["-connect", &address, "-verify_return_error"]).args(arguments);
    check(&mut Openssl::start(command)?)
}

/// Lets the build connect to a pod in which `s_server` speaks HBONE's TLS, and no more.
fn dials(build: &Build, peer: Peer) -> Outcome {
    let mesh = Mesh::new()?;
    let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
    let from = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
    // Known to the mesh as a workload that speaks HBONE itself.
    let to = b.add_pod(PodSpec::new("openssl", "edge", "openssl", Capture::Dedicated))?;
    let files = credentials::files(IDENTITY, mesh.directory())?;
    let mut command = openssl(&to, "s_server", &files);
    command.args(["-accept", &HBONE_PORT.to_string(), "-Verify", "3", "-verify_return_error"]).args(peer.arguments);
    let mut server = Openssl::start(command)?;
    server.wait_for(b"ACCEPT")?;
    let (name, value) = environment(peer);
    let zt = a.start_ztunnel(&build.spec().env(name, value))?;
    zt.wait_ready(DEADLINE)?;
    let _waiting = connect(&from, SocketAddr::new(to.ip(), APP_PORT))?;
    server.wait_for(format!("CIPHER is {}", peer.suite).as_bytes())?;
    server.wait_for(b"ALPN protocols selected: h2")?;
    server.wait_for(PREFACE)
}

fn openssl(pod: &Pod, program: &str, files: &Files) -> Command {
    let mut command = pod.command("openssl");
    command.arg(program).args(["-alpn", "h2"]);
    command.arg("-cert").arg(&files.chain).arg("-key").arg(&files.key).arg("-CAfile").arg(&files.root);
    command
}

/// A running program and what it has said.
struct Openssl {
    process: Child,
    said: Vec<u8>,
    more: mpsc::Receiver<Vec<u8>>,
}

impl Openssl {
    /// Its input stays open: at its end the program would end too.
    fn start(mut command: Command) -> Outcome<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (teller, more) = mpsc::channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            process.stdout.take().map(|output| Box::new(output) as _),
            process.stderr.take().map(|output| Box::new(output) as _),
        ];
        for mut output in outputs.into_iter().flatten() {
            let teller = teller.clone();
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut room) {
                    if teller.send(room[..length].to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { process, said: Vec::new(), more })
    }

    /// Waits until it has said `text`, at whatever time.
    fn wait_for(&mut self, text: &[u8]) -> Outcome {
        let start = Instant::now();
        while !self.said.windows(text.len()).any(|window| window == text) {
            let Ok(more) = self.more.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) else {
                let (text, said) = (String::from_utf8_lossy(text), String::from_utf8_lossy(&self.said));
                return Err(format!("openssl did not say {text:?}, but:\n{said}").into());
            };
            self.said.extend_from_slice(&more);
        }
        Ok(())
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // Already ended: then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
