//! The walls, each as a table and a function from sources to breaches.

use super::Breach;
use super::tree::Source;

/// What crates without a runtime, a socket or a clock may not mention (invariant 1).
const IMPURE: [&str; 27] = [
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::collections::hash_map::RandomState",
    "std::hash::RandomState",
    "std::sync::Barrier",
    "std::sync::Condvar",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "libc",
    "rustix",
    "socket2",
    "tokio",
    "tracing",
];
/// Methods that read the clock behind a value's back.
const IMPURE_METHODS: [&str; 1] = ["elapsed"];
/// Macros that write to the terminal.
const IMPURE_MACROS: [&str; 5] = ["dbg", "eprint", "eprintln", "print", "println"];

/// The layers of the daemon, lowest first. Who stands in one imports only from those below.
const LAYERS: [&[&str]; 6] = [
    &["net", "telemetry", "drain", "state", "files", "crypto", "memory"],
    &["control"],
    &["identity", "export"],
    &["proxy", "dns", "xds"],
    &["inpod", "admin"],
    &["main", "app", "cli", "config"],
];
/// What all may import: it only holds what was known when the binary was built.
const GROUND: [&str; 1] = ["version"];

/// The environment of the process.
const ENVIRONMENT: [&str; 8] = [
    "std::env::args",
    "std::env::args_os",
    "std::env::remove_var",
    "std::env::set_var",
    "std::env::var",
    "std::env::var_os",
    "std::env::vars",
    "std::env::vars_os",
];
/// Who may read it.
const READS_ENVIRONMENT: &str = "config";

/// What gets hold of something outside the process, or starts something that lives on inside it. Types of what others
/// have got hold of may be mentioned anywhere.
const OUTSIDE: [&str; 46] = [
    "rustix::fs::open",
    "rustix::fs::openat",
    "rustix::net::accept",
    "rustix::net::acceptfrom",
    "rustix::net::bind",
    "rustix::net::connect",
    "rustix::net::listen",
    "rustix::net::socket",
    "rustix::net::socket_with",
    "rustix::net::socketpair",
    "rustix::pipe",
    "rustix::thread::move_into_link_name_space",
    "socket2::Socket::new",
    "socket2::Socket::pair",
    "std::fs::File::create",
    "std::fs::File::open",
    "std::fs::OpenOptions",
    "std::fs::create_dir",
    "std::fs::create_dir_all",
    "std::fs::metadata",
    "std::fs::read",
    "std::fs::read_dir",
    "std::fs::read_link",
    "std::fs::read_to_string",
    "std::fs::remove_dir_all",
    "std::fs::remove_file",
    "std::fs::rename",
    "std::fs::write",
    "std::net::TcpListener::bind",
    "std::net::TcpStream::connect",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket::bind",
    "std::os::unix::net",
    "std::process::Command",
    "std::thread::Builder",
    "std::thread::spawn",
    "tokio::fs",
    "tokio::net::TcpListener::bind",
    "tokio::net::TcpSocket",
    "tokio::net::TcpStream::connect",
    "tokio::net::UdpSocket::bind",
    "tokio::net::lookup_host",
    "tokio::process",
    "tokio::signal",
    "tokio::spawn",
    "tokio::task::spawn_blocking",
];
/// Who may, besides files named `driver.rs`.
const GETS_OUTSIDE: [&[&str]; 9] = [
    &["net"],
    &["files"],
    &["telemetry"],
    &["state"],
    &["main"],
    &["app"],
    // Settings name files.
    &["config"],
    // Signals say that the process ends.
    &["drain"],
    // The threads of the data plane.
    &["proxy", "worker"],
];

/// rustls's connections, in both of its interfaces.
const TLS_CONNECTIONS: [&str; 9] = [
    "ClientConnection",
    "Connection",
    "ConnectionCommon",
    "ServerConnection",
    "Stream",
    "StreamOwned",
    "UnbufferedClientConnection",
    "UnbufferedConnectionCommon",
    "UnbufferedServerConnection",
];

/// No I/O, no clock, no randomness, no locks.
pub(super) fn pure(source: &Source) -> Vec<Breach> {
    let says = &source.mentions;
    let paths = denied(source, &IMPURE);
    let methods = says.members.iter().filter(|(name, _)| IMPURE_METHODS.contains(&name.as_str()));
    let macros = says.macros.iter().filter(|(name, _)| IMPURE_MACROS.contains(&name.as_str()));
    let named = methods.chain(macros).map(|(name, line)| (name.clone(), *line));
    let told = |(name, line)| Breach::at(source, line, format!("{name} in a crate without I/O, clock and locks"));
    paths.chain(named).map(told).collect()
}

/// Imports of the daemon go down only.
pub(super) fn layers(source: &Source) -> Vec<Breach> {
    let Some(own) = source.top() else { return Vec::new() };
    let Some(own_layer) = layer(own) else {
        return vec![Breach::at(source, 1, format!("module {own} has no place in the layers"))];
    };
    let inside = |path: &[String]| path[0] == "crate" || path[0] == source.package;
    let imported = source.mentions.paths.iter().filter(|(path, _)| inside(path));
    let up = imported.filter_map(|(path, line)| {
        let other = path.get(1)?;
        let what = match layer(other) {
            None => format!("{other}, which has no place in the layers"),
            // The top is where the parts meet.
            Some(layer) if other == own || layer < own_layer || own_layer == LAYERS.len() => return None,
            Some(layer) if layer == own_layer => format!("{other} beside it"),
            Some(_) => format!("{other} above it"),
        };
        Some(Breach::at(source, *line, format!("{own} imports {what}")))
    });
    up.collect()
}

/// From 1; what is on the ground is 0.
fn layer(module: &str) -> Option<usize> {
    if GROUND.contains(&module) {
        return Some(0);
    }
    LAYERS.iter().position(|layer| layer.contains(&module)).map(|below| below + 1)
}

/// Only `config` reads the environment.
pub(super) fn environment(source: &Source) -> Vec<Breach> {
    if source.top() == Some(READS_ENVIRONMENT) {
        return Vec::new();
    }
    let told =
        |(path, line)| Breach::at(source, line, format!("{path}: only {READS_ENVIRONMENT} reads the environment"));
    denied(source, &ENVIRONMENT).map(told).collect()
}

/// Only some get hold of what is outside.
pub(super) fn outside(source: &Source) -> Vec<Breach> {
    let is_driver = source.module.iter().any(|segment| segment == "driver");
    let allowed =
        |prefix: &&[&str]| source.module.iter().zip(prefix.iter()).filter(|(a, b)| a == b).count() == prefix.len();
    if is_driver || GETS_OUTSIDE.iter().any(allowed) {
        return Vec::new();
    }
    let told =
        |(path, line)| Breach::at(source, line, format!("{path}: that is for driver.rs, net, telemetry or app to do"));
    denied(source, &OUTSIDE).map(told).collect()
}

/// Exactly one file names rustls's connections.
pub(super) fn one_file_of_tls(sources: &[Source]) -> Vec<Breach> {
    let names = |source: &Source| {
        let of_rustls = source.mentions.paths.iter().filter(|(path, _)| path[0] == "rustls");
        let mut connections =
            of_rustls.filter(|(path, _)| path.iter().any(|segment| TLS_CONNECTIONS.contains(&segment.as_str())));
        connections.next().map(|(_, line)| *line)
    };
    let found: Vec<_> = sources.iter().filter_map(|source| Some((source, names(source)?))).collect();
    if found.len() == 1 {
        return Vec::new();
    }
    if found.is_empty() {
        return vec![Breach { place: "crates".to_owned(), what: "no file names rustls's connections".to_owned() }];
    }
    let told =
        |(source, line)| Breach::at(source, line, "one of several files that name rustls's connections".to_owned());
    found.into_iter().map(told).collect()
}

/// Mentions of something in `table`, or of something below it.
fn denied<'a>(source: &'a Source, table: &'a [&'a str]) -> impl Iterator<Item = (String, usize)> + 'a {
    let paths = source.mentions.paths.iter();
    let hit = |path: &[String]| table.iter().any(|denied| covers(path, denied));
    paths.filter(move |(path, _)| hit(path)).map(|(path, line)| (path.join("::"), *line))
}

/// Whether `path` is `denied` or below it, or a glob that brings it in.
fn covers(path: &[String], denied: &str) -> bool {
    let same = path.iter().zip(denied.split("::")).take_while(|(a, b)| a == b).count();
    same == denied.split("::").count() || path.get(same).is_some_and(|rest| rest == "*")
}
