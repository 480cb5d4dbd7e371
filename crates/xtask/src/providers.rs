//! `cargo xtask providers`: what ztunnel is with each cryptography library that it can be built with.
//!
//! Every build is tested, is looked into for a second library that should not be there, and has to talk to every other
//! build and to OpenSSL's own programs (`crates/ztunnel/tests/providers`). What the libraries are built with is
//! installed from Debian's packages where it is missing and this is root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library to build with.
struct Row {
    /// The feature of `ztunnel`, and what the build calls itself.
    name: &'static str,
    /// The feature of `hbone`.
    records: &'static str,
    /// The crate that brings the library, and no other of [`LIBRARIES`].
    library: &'static str,
    /// Debian's packages besides a C compiler that it takes to build it.
    packages: &'static [&'static str],
}

const ROWS: [Row; 5] = [
    Row { name: "tls-aws-lc", records: "aws-lc", library: "aws-lc-sys", packages: &[] },
    Row { name: "tls-ring", records: "ring", library: "ring", packages: &[] },
    Row {
        name: "tls-boring",
        records: "boring",
        library: "boring-sys",
        packages: &["cmake", "g++", "libclang-dev", "git"],
    },
    Row { name: "tls-openssl", records: "openssl", library: "openssl-sys", packages: &["libssl-dev", "pkg-config"] },
    Row {
        name: "tls-aws-lc-fips",
        records: "aws-lc-fips",
        library: "aws-lc-fips-sys",
        packages: &["cmake", "g++", "perl", "golang-go"],
    },
];

const LIBRARIES: [&str; 5] = ["aws-lc-sys", "aws-lc-fips-sys", "boring-sys", "openssl-sys", "ring"];
/// What the symbols of `aws-lc-sys` begin with; those of the validated edition begin with `aws_lc_fips_`.
const AWS_LC_SYMBOL: &[u8] = b"aws_lc_0_";

/// Tests the builds called `names`, or all.
///
/// # Errors
/// A name that is none, or the first thing that does not hold.
pub fn run(workspace: &Path, names: &[String]) -> io::Result<()> {
    let known = |name: &String| ROWS.iter().any(|row| row.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(io::Error::other(format!("{unknown} is none of {}", all.join(", "))));
    }
    let mut builds = Vec::new();
    for row in ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)) {
        row.packages.iter().try_for_each(|package| need(package))?;
        let build = build(workspace, row)?;
        alone(workspace, row, &build)?;
        test(workspace, row)?;
        builds.push(format!("{}={}", row.name, build.display()));
    }
    need("openssl")?;
    let mut talk = cargo(workspace, &["test", "--package", "ztunnel", "--test", "providers"]);
    succeed(talk.env("ZTUNNEL_BUILDS", builds.join(",")))
}

/// No library but its own is in what is shipped.
fn alone(workspace: &Path, row: &Row, program: &Path) -> io::Result<()> {
    let mut tree = cargo(workspace, &["tree", "--package", "ztunnel", "--edges", "normal", "--prefix", "none"]);
    let output = tree.args(["--format", "{p}", "--no-default-features", "--features", row.name]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let within = |library: &&str| text.lines().any(|line| line.split(' ').next() == Some(library));
    let mut found: Vec<_> = LIBRARIES.into_iter().filter(|library| within(library)).collect();
    // rustls names AWS-LC in front of its validated edition; what counts is whether it has been linked.
    if !fs::read(program)?.windows(AWS_LC_SYMBOL.len()).any(|window| window == AWS_LC_SYMBOL) {
        found.retain(|library| *library != "aws-lc-sys");
    }
    if output.status.success() && found == [row.library] {
        return Ok(());
    }
    Err(io::Error::other(format!("a build with {} contains {}, not {} alone", row.name, found.join(", "), row.library)))
}

fn test(workspace: &Path, row: &Row) -> io::Result<()> {
    let features = format!("ztunnel/{},hbone/{}", row.name, row.records);
    let mut test = cargo(workspace, &["test", "--package", "hbone", "--package", "ztunnel", "--no-default-features"]);
    succeed(test.args(["--features", &features]))
}

/// Builds the program and puts it where the next build does not overwrite it.
fn build(workspace: &Path, row: &Row) -> io::Result<PathBuf> {
    let mut build = cargo(workspace, &["build", "--package", "ztunnel", "--bin", "ztunnel", "--no-default-features"]);
    succeed(build.args(["--features", row.name]))?;
    let own = std::env::current_exe()?;
    let profile = own.parent().ok_or_else(|| io::Error::other("this program is not in a target folder"))?;
    let folder = profile.join("providers");
    fs::create_dir_all(&folder)?;
    let program = folder.join(row.name);
    fs::copy(profile.join("ztunnel"), &program)?;
    Ok(program)
}

fn cargo(workspace: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace).args(arguments).arg("--locked");
    cargo
}

/// Sees to it that a package is there, where Debian's packages are used at all.
fn need(package: &str) -> io::Result<()> {
    let known = Command::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Status}", package]).output();
    let Ok(status) = known else { return Ok(()) };
    // Programs that came in another way do as well.
    let there = status.stdout == b"installed" || ["cmake", "perl"].contains(&package) && runs(package, "--version");
    if there || package == "golang-go" && runs("go", "version") {
        return Ok(());
    }
    succeed(Command::new("apt-get").args(["update", "-qq"]))?;
    succeed(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", package]))
}

fn runs(program: &str, version: &str) -> bool {
    Command::new(program).arg(version).output().is_ok()
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().display().to_string();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(io::Error::other(format!("{program} failed ({status})"))),
        Err(error) => Err(io::Error::other(format!("{program} cannot be started ({error})"))),
    }
}
