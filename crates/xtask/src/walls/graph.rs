//! Walls between crates, read from what `cargo metadata` says about dependencies.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Breach;

/// The platform whose dependencies count; the daemon runs on Linux only.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Crates that hold the machines.
pub(super) const MACHINES: [&str; 2] = ["hbone", "mesh"];

/// What each crate of ours may depend on among ours.
const OURS: [(&str, &[&str]); 5] = [
    ("hbone", &[]),
    ("mesh", &[]),
    ("istio-api", &[]),
    ("redirect", &[]),
    ("ztunnel", &["hbone", "mesh", "istio-api", "redirect"]),
];

/// Runtimes, sockets, clocks, locks, randomness: nothing a machine may bring along, however indirectly.
const IMPURE: [&str; 42] = [
    "actix-rt",
    "async-executor",
    "async-io",
    "async-net",
    "async-std",
    "chrono",
    "coarsetime",
    "crossbeam",
    "crossbeam-channel",
    "crossbeam-utils",
    "dashmap",
    "fastrand",
    "flume",
    "futures",
    "futures-executor",
    "futures-util",
    "glommio",
    "h2",
    "hyper",
    "hyper-util",
    "io-uring",
    "jiff",
    "mio",
    "monoio",
    "nix",
    "parking_lot",
    "parking_lot_core",
    "polling",
    "quanta",
    "rand",
    "rayon",
    "rustix",
    "smol",
    "socket2",
    "spin",
    "time",
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "tonic",
    "tower",
    "tracing",
];

/// The packages of the workspace and what they depend on to run: no tests, no builds.
pub(super) struct Graph {
    /// Dependencies of each package, both by name.
    dependencies: BTreeMap<String, Vec<String>>,
}

impl Graph {
    /// Asks cargo.
    pub(super) fn of(workspace: &Path) -> io::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["metadata", "--format-version", "1", "--filter-platform", PLATFORM];
        let output = Command::new(cargo).args(arguments).current_dir(workspace).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Self::read(&serde_json::from_slice(&output.stdout)?)
            .ok_or_else(|| io::Error::other("cargo metadata says nothing about dependencies"))
    }

    /// Reads what cargo printed.
    pub(super) fn read(metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?;
        let names: BTreeMap<&str, &str> =
            packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
        let mut dependencies = BTreeMap::<String, Vec<String>>::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let needed = node["deps"].as_array()?.iter().filter(|dependency| runs(dependency));
            let needed = needed.filter_map(|dependency| names.get(dependency["pkg"].as_str()?));
            let package = names.get(node["id"].as_str()?)?;
            // Versions of one package count as one.
            dependencies.entry((*package).to_owned()).or_default().extend(needed.map(|name| (*name).to_owned()));
        }
        Some(Self { dependencies })
    }

    /// Everything `package` brings along, each with the way to it.
    fn reach(&self, package: &str) -> BTreeMap<&str, String> {
        let mut found = BTreeMap::new();
        let mut open = VecDeque::from([(package, package.to_owned())]);
        while let Some((name, way)) = open.pop_front() {
            for dependency in self.dependencies.get(name).into_iter().flatten() {
                if !found.contains_key(dependency.as_str()) {
                    let way = format!("{way} -> {dependency}");
                    found.insert(dependency.as_str(), way.clone());
                    open.push_back((dependency, way));
                }
            }
        }
        found
    }
}

/// Whether a dependency is there when the package runs, rather than when it is built or tested.
fn runs(dependency: &Value) -> bool {
    dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

/// The machines bring along no runtime, socket or clock.
pub(super) fn machines(graph: &Graph) -> Vec<Breach> {
    let reached = MACHINES.into_iter().flat_map(|machine| graph.reach(machine).into_iter().map(move |r| (machine, r)));
    let impure = reached.filter(|(_, (name, _))| IMPURE.contains(name));
    impure
        .map(|(machine, (_, way))| Breach { place: manifest(machine), what: format!("{way}: not for a machine") })
        .collect()
}

/// Crates of ours keep to their places.
pub(super) fn ours(graph: &Graph) -> Vec<Breach> {
    let members = ["hbone", "mesh", "istio-api", "redirect", "ztunnel", "testkit", "xtask"];
    let mut breaches = Vec::new();
    for (package, allowed) in OURS {
        let Some(dependencies) = graph.dependencies.get(package) else {
            breaches.push(Breach { place: manifest(package), what: format!("there is no crate {package}") });
            continue;
        };
        let ours = dependencies.iter().filter(|name| members.contains(&name.as_str()));
        let wrong = ours.filter(|name| !allowed.contains(&name.as_str()));
        breaches.extend(wrong.map(|name| Breach { place: manifest(package), what: format!("{package} knows {name}") }));
    }
    breaches
}

fn manifest(package: &str) -> String {
    format!("crates/{package}/Cargo.toml")
}
