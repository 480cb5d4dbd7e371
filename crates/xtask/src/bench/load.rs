//! What is asked of the contenders: iperf3 and wrk, with iperf3 and nginx as their servers, as Debian has them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::mesh::Pod;

use super::process::{Running, output};
use super::{DEADLINE, Outcome};

/// iperf3's own.
const BULK_PORT: u16 = 5201;
const WEB_PORT: u16 = 8080;
/// A program that loads for some seconds gets this much longer to begin and to end.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks whether a server listens.
const PAUSE: Duration = Duration::from_millis(20);

/// The programs that have to be installed, with the Debian package that has them.
pub(super) const NEEDED: [(&str, &str); 4] =
    [("iperf3", "iperf3"), ("wrk", "wrk"), ("nginx", "nginx-light"), ("dnsperf", "dnsperf")];

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Bytes from client to server.
    Upload {
        /// Connections at a time.
        streams: u32,
    },
    /// Bytes from server to client.
    Download {
        /// Connections at a time.
        streams: u32,
    },
    /// Small HTTP requests on connections that stay open.
    Requests {
        /// Connections, one request on each at a time.
        clients: u32,
    },
    /// Small HTTP requests, each on a connection of its own.
    Connections {
        /// At a time.
        clients: u32,
    },
}

/// What was moved or answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Bytes, requests or connections.
    pub(super) amount: f64,
    pub(super) seconds: f64,
}

impl Load {
    pub(super) fn run(self, from: &Pod, to: &Pod, seconds: u32) -> Outcome<Done> {
        match self {
            Load::Upload { streams } => iperf(from, to, seconds, &["-P", &streams.to_string()]),
            Load::Download { streams } => iperf(from, to, seconds, &["-R", "-P", &streams.to_string()]),
            Load::Requests { .. } | Load::Connections { .. } => {
                self.run_at(from, SocketAddr::new(to.ip(), WEB_PORT), seconds)
            }
        }
    }

    /// Asks a web server at `to`.
    ///
    /// # Errors
    /// Bytes are not for web servers.
    pub(super) fn run_at(self, from: &Pod, to: SocketAddr, seconds: u32) -> Outcome<Done> {
        match self {
            Load::Requests { clients } => wrk(from, to, seconds, clients, &[]),
            Load::Connections { clients } => wrk(from, to, seconds, clients, &["-H", "Connection: close"]),
            Load::Upload { .. } | Load::Download { .. } => Err("a web server takes requests only".into()),
        }
    }
}

fn iperf(from: &Pod, to: &Pod, seconds: u32, more: &[&str]) -> Outcome<Done> {
    let mut command = from.command("iperf3");
    command.args(["-J", "-c", &to.ip().to_string(), "-t", &seconds.to_string()]).args(more);
    let report: serde_json::Value = serde_json::from_str(&output(command, patience(seconds))?)?;
    let received = &report["end"]["sum_received"];
    let (bytes, time) = (received["bytes"].as_f64(), received["seconds"].as_f64());
    let (amount, seconds) = bytes.zip(time).ok_or_else(|| format!("iperf3 says: {}", report["error"]))?;
    Ok(Done { amount, seconds })
}

fn wrk(from: &Pod, to: SocketAddr, seconds: u32, clients: u32, more: &[&str]) -> Outcome<Done> {
    let mut command = from.command("wrk");
    command.args(["-t", "1", "-c", &clients.to_string(), "-d", &format!("{seconds}s")]).args(more);
    command.arg(format!("http://{to}/"));
    let text = output(command, patience(seconds))?;
    if let Some(errors) = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        // With `Connection: close` wrk counts the end of each answer's connection as nothing unusual.
        return Err(format!("wrk says:{errors}").into());
    }
    let line = text.lines().find(|line| line.contains(" requests in ")).ok_or("wrk did not say how much it did")?;
    let (amount, rest) = line.trim().split_once(" requests in ").ok_or("wrk speaks another language")?;
    let time = rest.split(',').next().and_then(in_seconds).ok_or("wrk measured no time")?;
    Ok(Done { amount: amount.parse()?, seconds: time })
}

/// What wrk means by `900.12ms`, `3.00s` or `1.02m`.
fn in_seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

fn patience(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + GRACE
}

/// Starts an iperf3 and a web server in a pod.
pub(super) fn servers(pod: &Pod, directory: &Path) -> Outcome<Vec<Running>> {
    let folder = directory.join(format!("nginx-{}", pod.name()));
    fs::create_dir_all(&folder)?;
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, nginx_configuration(&folder))?;
    let folder = folder.display().to_string();
    let nginx = ["-p", &folder, "-e", "stderr", "-c", &configuration.display().to_string()].map(str::to_owned);
    let iperf = ["-s".to_owned()];
    let running = vec![
        Running::start(pod, Path::new("iperf3"), &iperf)?,
        Running::start(pod, Path::new("/usr/sbin/nginx"), &nginx)?,
    ];
    for port in [BULK_PORT, WEB_PORT] {
        await_listener(pod, port)?;
    }
    Ok(running)
}

/// Waits until a port of a pod is listened at. Looks into the kernel's table, since iperf3 would take a connection for a client.
pub(super) fn await_listener(pod: &Pod, port: u16) -> Outcome {
    let start = Instant::now();
    let wanted = format!(":{port:04X} ");
    loop {
        let tables = pod.run(|| {
            ["tcp", "tcp6"]
                .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default())
        })?;
        // Columns: number, local address, remote address, state; 0A is "listening".
        let listens = |line: &str| line.contains(&wanted) && line.split_whitespace().nth(3) == Some("0A");
        if tables.iter().any(|table| table.lines().any(listens)) {
            return Ok(());
        }
        if start.elapsed() > DEADLINE {
            return Err(format!("nothing listens at port {port} of {}", pod.name()).into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Answers with two bytes out of memory, without a log and without a limit to the requests of a connection.
fn nginx_configuration(folder: &Path) -> String {
    let at = folder.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {at}/pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 600s;\n\
         client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/fastcgi;\n\
         uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n\
         server {{ listen {WEB_PORT} backlog=4096; location / {{ return 200 \"ok\"; }} }}\n}}\n"
    )
}
