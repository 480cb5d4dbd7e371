//! What the process needs of its surroundings, looked at before anything depends on it: `ztunnel check` prints it, and
//! a start logs what is amiss.
//!
//! Every finding is one line with a remedy. Looking changes nothing. Not looked at: whether the control plane answers,
//! which may come later and is told by the log and by metrics.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use redirect::presence::Presence;

use crate::config::{Config, ConfigError, Mode, Roots, ports};
use crate::net::netns::Netns;
use crate::net::redirection::leads_to;

/// Before this, in seconds since 1970, no clock of a machine with this program can be right: the end of 2024.
const EARLIEST: u64 = 1_735_689_600;
/// Descriptors with which a node proxy can be expected to do: each connection takes two, three if it is moved by a pipe.
const FEW_DESCRIPTORS: u64 = 16_384;

/// What findings about settings are called.
const SETTINGS: &str = "settings";

/// What a look came to, the better before the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// ztunnel runs, and something may be missing.
    Doubtful,
    /// ztunnel does not work like this.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it means.
    pub verdict: Verdict,
    what: &'static str,
    /// What was seen and, unless it is good, what to do.
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "BAD",
        };
        write!(f, "{verdict:<8}  {}: {}", self.what, self.text)
    }
}

/// What is wrong with settings that cannot be used, a finding each.
#[must_use]
pub fn settings(error: &ConfigError) -> Vec<Finding> {
    error.problems().iter().map(|problem| bad(SETTINGS, problem)).collect()
}

/// Findings for programs: `findings`, each with `verdict`, `what` and `text`, and the worst `verdict` of all.
#[must_use]
pub fn json(findings: &[Finding]) -> Value {
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    json!({ "findings": findings, "verdict": worst })
}

/// Looks at everything that this configuration depends on, and at what is odd in it.
#[must_use]
pub fn look(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config.warnings.iter().map(|warning| doubtful(SETTINGS, warning)).collect();
    findings.extend([clock(SystemTime::now()), descriptors(), transparency(config)]);
    if config.mode == Mode::Shared {
        findings.extend([privileges(), namespaces(), agent(&config.inpod_uds)]);
    }
    if matches!(config.mode, Mode::Dedicated(_)) && config.proxy {
        findings.push(redirection(leads_to(None, ports::OUTBOUND)));
    }
    findings.extend(config.packet_mark.map(marks));
    if config.xds_address.is_some() {
        findings.extend(roots("roots of the control plane", "XDS_ROOT_CA", &config.xds_roots));
    }
    if config.ca_address.is_some() {
        findings.extend(roots("roots of the CA", "CA_ROOT_CA", &config.ca_roots));
    }
    findings
}

fn good(what: &'static str, text: impl fmt::Display) -> Finding {
    Finding { verdict: Verdict::Good, what, text: text.to_string() }
}

fn doubtful(what: &'static str, text: impl fmt::Display) -> Finding {
    Finding { verdict: Verdict::Doubtful, what, text: text.to_string() }
}

fn bad(what: &'static str, text: impl fmt::Display) -> Finding {
    Finding { verdict: Verdict::Bad, what, text: text.to_string() }
}

fn clock(now: SystemTime) -> Finding {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    if seconds < EARLIEST {
        let text = format!("{seconds} s since 1970 is in the past: set the clock, or no certificate is valid yet");
        return bad("clock", text);
    }
    good("clock", format_args!("{seconds} s since 1970"))
}

fn descriptors() -> Finding {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most < FEW_DESCRIPTORS {
        return doubtful(
            "descriptors",
            format_args!("at most {most}: raise the hard limit (LimitNOFILE=, ulimit -Hn)"),
        );
    }
    good("descriptors", format_args!("up to {most}"))
}

fn privileges() -> Finding {
    let needed = [
        ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ];
    let held = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => return doubtful("capabilities", format_args!("cannot be read: {error}")),
    };
    let missing: Vec<&str> = needed.iter().filter(|(_, one)| !held.contains(*one)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return good("capabilities", "all that shared mode needs");
    }
    bad("capabilities", format_args!("{} missing: grant them to the container or unit", missing.join(", ")))
}

fn namespaces() -> Finding {
    match Netns::current().and_then(|own| own.run(|| ())) {
        Ok(()) => good("network namespaces", "can be entered"),
        Err(error) => {
            bad("network namespaces", format_args!("cannot be entered: {error}: shared mode needs CAP_SYS_ADMIN"))
        }
    }
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

fn marks(mark: u32) -> Finding {
    match socket().and_then(|socket| socket.set_mark(mark)) {
        Ok(()) => good("packet marks", format_args!("{mark} can be set")),
        Err(error) => bad(
            "packet marks",
            format_args!(
                "{mark} cannot be set: {error}: CAP_NET_ADMIN is needed, or our own traffic is captured again"
            ),
        ),
    }
}

fn transparency(config: &Config) -> Finding {
    let what = "transparent sockets";
    match (config.require_original_source, socket().and_then(|socket| socket.set_ip_transparent_v4(true))) {
        (Some(false), _) => good(what, "not wanted (ENABLE_ORIG_SRC=false)"),
        (_, Ok(())) => good(what, "apps see their clients' addresses"),
        (None, Err(error)) => {
            doubtful(what, format_args!("{error}: apps see ztunnel's address; grant CAP_NET_ADMIN if that matters"))
        }
        (Some(true), Err(error)) => {
            bad(what, format_args!("{error}: grant CAP_NET_ADMIN, or do without (ENABLE_ORIG_SRC=false)"))
        }
    }
}

fn redirection(seen: Presence) -> Finding {
    let (what, port) = ("redirection", ports::OUTBOUND);
    match seen {
        Presence::Yes => good(what, format_args!("packet rules lead to port {port}")),
        Presence::No => doubtful(
            what,
            format_args!("no packet rule leads to port {port}, so apps go past ztunnel: see `ztunnel redirect`"),
        ),
        Presence::Unknown(error) => {
            doubtful(what, format_args!("cannot be looked at: {error}; `ztunnel redirect show` as root tells"))
        }
    }
}

fn agent(path: &Path) -> Finding {
    let what = "node agent";
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(file) if file.file_type().is_socket() => good(what, format_args!("its socket is at {shown}")),
        Ok(_) => bad(what, format_args!("{shown} is no socket: set INPOD_UDS to that of istio-cni")),
        Err(error) => doubtful(
            what,
            format_args!("{shown}: {error}: is istio-cni running, and its folder mounted here? INPOD_UDS names it"),
        ),
    }
}

fn roots(what: &'static str, setting: &str, roots: &Roots) -> Option<Finding> {
    let Roots::File(path) = roots else { return None };
    let shown = path.display();
    Some(match std::fs::File::open(path) {
        Ok(_) => good(what, format_args!("in {shown}")),
        Err(error) => doubtful(what, format_args!("{shown}: {error}: mount them there, or set {setting}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_bad_and_says_what_to_do() {
        let finding = clock(UNIX_EPOCH + Duration::from_secs(3600));
        assert_eq!(finding.verdict, Verdict::Bad);
        assert_eq!(
            finding.to_string(),
            "BAD       clock: 3600 s since 1970 is in the past: set the clock, or no certificate is valid yet"
        );
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(EARLIEST)).verdict, Verdict::Good);
    }

    #[test]
    fn the_node_agent_s_socket_is_told_from_a_file_and_from_nothing() {
        let folder = std::env::temp_dir().join(format!("ztunnel-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, socket) = (folder.join("file"), folder.join("socket"));
        std::fs::write(&file, "").unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let verdicts = [&socket, &file, &folder.join("nothing")].map(|path| agent(path).verdict);
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(verdicts, [Verdict::Good, Verdict::Bad, Verdict::Doubtful]);
    }

    #[test]
    fn programs_are_told_every_finding_and_the_worst_verdict() {
        let findings = [good("clock", "is right"), bad("capabilities", "none"), doubtful("descriptors", "few")];
        let told = json(&findings);
        assert_eq!(told["verdict"], "bad");
        assert_eq!(told["findings"][2], json!({ "verdict": "doubtful", "what": "descriptors", "text": "few" }));
        assert_eq!(json(&[])["verdict"], "good");
    }

    #[test]
    fn every_finding_is_one_line() {
        for finding in [descriptors(), privileges(), namespaces(), marks(1337), redirection(Presence::No)] {
            assert_eq!(finding.to_string().lines().count(), 1, "{finding}");
        }
    }
}
