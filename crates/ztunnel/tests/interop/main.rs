//! The real process with implementations that are not ours: the conformance suite h2spec, Envoy at either end, resolvers and
//! name servers.
//!
//! Not part of `cargo test`, since it needs their programs: `cargo xtask interop` gets them and runs this with
//! `H2SPEC` and `ENVOY` saying where they are; those for names are where the system has its programs.

mod credentials;
mod envoy;
mod front;
mod h2spec;
mod names;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use testkit::harness;
use testkit::mesh::Pod;
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);
/// Where HBONE is spoken.
const HBONE_PORT: u16 = 15008;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut tests = h2spec::tests();
    tests.extend(envoy::tests());
    tests.extend(names::tests());
    harness::main(tests)
}

fn ztunnel() -> ZtunnelSpec {
    ZtunnelSpec::new(env!("CARGO_BIN_EXE_ztunnel")).env("RUST_LOG", "info,access=debug")
}

/// A program that is not ours, named by an environment variable.
fn program(variable: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os(variable).ok_or_else(|| format!("{variable} is not set: run `cargo xtask interop`"))?;
    Ok(path.into())
}

fn at(pod: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(pod.ip(), port)
}

/// Asks until the answer is yes.
fn eventually(what: &str, mut ask: impl FnMut() -> bool) -> Outcome {
    let start = Instant::now();
    while !ask() {
        if start.elapsed() > DEADLINE {
            return Err(format!("did not happen within {DEADLINE:?}: {what}").into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether a ztunnel has logged a line with all these parts.
fn has_line(ztunnel: &Ztunnel, parts: &[String]) -> bool {
    ztunnel.logs().lines().any(|line| parts.iter().all(|part| line.contains(part.as_str())))
}
