//! unbound and dnsmasq behind the proxy: what they say has to come through byte by byte.
//!
//! Each query goes to the server twice: from a pod outside the mesh, and from one whose names are captured. The zones are
//! signed, one with NSEC and one with NSEC3.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::message::{A, Query, Way};
use super::{DOMAIN_PORT, Named, Process, output, unused_folder};
use crate::{Outcome, eventually};

const ZONE: &str = include_str!("zone.txt");
/// Names of the zone, and one that is not in it.
const NAMES: [&str; 21] = [
    "",
    "ns.",
    "host.",
    "alias.",
    "far.",
    "mail.",
    "many.",
    "long.",
    "_xmpp._tcp.",
    "_443._tcp.",
    "phone.",
    "svc.",
    "web.",
    "1.rev.",
    "cert.",
    "child.",
    "ns.child.",
    "any.wildcard.",
    "brief.",
    "absent.",
    "absent.host.",
];
/// Types of records: all of the zone's, those that signing adds, one that nobody has, and all at once.
const KINDS: [u16; 32] = [
    1, 2, 5, 6, 12, 13, 15, 16, 17, 28, 29, 33, 35, 37, 39, 43, 44, 46, 47, 48, 50, 51, 52, 59, 60, 64, 65, 99, 255,
    257, 65_280, 65_534,
];
/// What dnsmasq knows by itself. What it knows from before it would tell with less around it: it has no cache.
const DNSMASQ: [&str; 18] = [
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--user=root",
    "--pid-file=",
    "--log-facility=-",
    "--no-resolv",
    "--no-hosts",
    "--cache-size=0",
    "--proxy-dnssec",
    "--host-record=host.own.example,192.0.2.1,fd00:96::2001",
    "--cname=alias.own.example,host.own.example",
    "--mx-host=own.example,host.own.example,10",
    "--txt-record=own.example,first part,second part",
    "--srv-host=_xmpp._tcp.own.example,host.own.example,5269,5,1",
    "--naptr-record=phone.own.example,100,10,u,E2U+sip,!^.*$!sip:info@example.com!",
    "--caa-record=own.example,0,issue,ca.example",
    "--ptr-record=1.rev.own.example,host.own.example",
    "--dns-rr=odd.own.example,65534,00:c0:0c:ff",
];
/// "DNSSEC OK" (RFC 4035 §3.2.1).
const DNSSEC: u16 = 0x8000;

/// A program that answers for names, which can be killed and started again.
pub struct Server {
    pod: Pod,
    program: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    /// A name that it has an address for.
    known: &'static str,
    process: Option<Process>,
}

impl Server {
    /// An unbound with the zones `nsec.example` and `nsec3.example`, which knows of nothing else.
    pub fn unbound(pod: &Pod) -> Outcome<Self> {
        let folder = unused_folder()?;
        let (mut known, mut zones) = (String::new(), String::new());
        for (name, denial) in [("nsec.example", &[][..]), ("nsec3.example", &["-3", "-"])] {
            let file = sign(&folder, name, denial)?;
            writeln!(known, "  local-zone: \"{name}.\" transparent")?;
            writeln!(zones, "auth-zone:\n  name: \"{name}.\"\n  zonefile: \"{}\"", file.display())?;
        }
        let text = format!(
            "server:\n  interface: 0.0.0.0\n  access-control: 0.0.0.0/0 allow\n  chroot: \"\"\n  username: \"\"\n  \
             directory: \"{}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  module-config: \"iterator\"\n  \
             rrset-roundrobin: no\n  minimal-responses: no\n  num-threads: 1\n  \
             local-zone: \".\" static\n{known}remote-control:\n  control-enable: no\n{zones}",
            folder.display()
        );
        let file = folder.join("unbound.conf");
        fs::write(&file, text)?;
        let arguments = ["-d".to_owned(), "-c".to_owned(), file.display().to_string()];
        Self::start(pod, "unbound", arguments.to_vec(), "host.nsec3.example")
    }

    /// A dnsmasq that answers what its command line says, and asks `upstream` for the rest.
    pub fn dnsmasq(pod: &Pod, upstream: SocketAddr) -> Outcome<Self> {
        let asks = format!("--server={}", upstream.ip());
        let arguments = DNSMASQ.into_iter().chain([asks.as_str()]).map(str::to_owned).collect();
        Self::start(pod, "dnsmasq", arguments, "host.own.example")
    }

    fn start(pod: &Pod, program: &'static str, arguments: Vec<String>, known: &'static str) -> Outcome<Self> {
        let log = unused_folder()?.join("log");
        let mut server = Self { pod: pod.clone(), program, arguments, log, known, process: None };
        server.restart()?;
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.ip(), DOMAIN_PORT)
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, and waits until it serves.
    pub fn restart(&mut self) -> Outcome {
        let mut command = self.pod.command(self.program);
        command.args(&self.arguments);
        self.process = Some(Process::start(command, &self.log)?);
        let query = Query::plain(self.known, A);
        let serves = || query.ask(&self.pod, self.address()).is_ok_and(|answer| answer.rcode() == 0);
        eventually(&format!("{} serves", self.program), serves)
            .map_err(|error| format!("{error}: {}", fs::read_to_string(&self.log).unwrap_or_default()).into())
    }
}

/// Signs the zone under a name; the file.
fn sign(folder: &std::path::Path, name: &str, denial: &[&str]) -> Outcome<PathBuf> {
    let (plain, signed) = (folder.join(name), folder.join(format!("{name}.signed")));
    fs::write(&plain, format!("$ORIGIN {name}.\n{ZONE}"))?;
    for key in [&["-f", "KSK"][..], &[]] {
        let mut keygen = Command::new("dnssec-keygen");
        keygen.args(["-q", "-a", "ECDSAP256SHA256", "-K"]).arg(folder).args(key).arg(name);
        output(keygen)?;
    }
    let mut signer = Command::new("dnssec-signzone");
    signer.args(["-q", "-S", "-o", name, "-K"]).arg(folder).arg("-d").arg(folder).args(denial).arg("-f").arg(&signed);
    signer.arg(&plain);
    output(signer)?;
    Ok(signed)
}

/// All ways to ask for a type of a name.
fn ways(name: &str, kind: u16) -> [Query; 5] {
    let query = || Query::plain(name, kind);
    [
        query(),
        query().way(Way::Tcp),
        query().edns(1232, 0),
        query().edns(4096, DNSSEC),
        query().edns(1232, DNSSEC).way(Way::Tcp),
    ]
}

/// Asks directly and through the proxy; how many answers had records, and how many were cut off.
fn compare(mesh: &Named, server: SocketAddr, names: &[String]) -> Outcome<(u32, u32)> {
    let (mut answered, mut truncated) = (0, 0);
    for name in names {
        for kind in KINDS {
            for query in ways(name, kind) {
                let ask = |pod| query.ask(pod, server).map_err(|e| format!("type {kind} of {name}, {query:?}: {e}"));
                let (direct, carried) = (ask(&mesh.backends[0])?, ask(&mesh.asker)?);
                assert_eq!(direct, carried, "type {kind} of {name}, {query:?}");
                answered += u32::from(!direct.kinds().is_empty());
                truncated += u32::from(direct.is_truncated());
            }
        }
    }
    Ok((answered, truncated))
}

pub fn tests() -> Vec<Test> {
    vec![
        test("every record of unbound's zones comes through as it is, with its signatures", || {
            let mesh = Named::start()?;
            let unbound = Server::unbound(&mesh.servers[0])?;
            for zone in ["nsec.example", "nsec3.example"] {
                let names: Vec<String> = NAMES.iter().map(|name| format!("{name}{zone}")).collect();
                let (answered, truncated) = compare(&mesh, unbound.address(), &names)?;
                assert!(answered > 500 && truncated > 0, "{answered} answers, {truncated} cut off");
                let denied = Query::plain(&format!("absent.{zone}"), A).edns(4096, DNSSEC);
                let proof = denied.ask(&mesh.asker, unbound.address())?;
                let kinds: Vec<u16> = proof.records()[1].iter().map(|record| record.1).collect();
                assert!(proof.rcode() == 3 && kinds.contains(&46) && kinds.iter().any(|kind| [47, 50].contains(kind)));
            }
            assert!(mesh.metric("istio_dns_answers_total", "forwarded")? > 1000);
            assert_eq!(mesh.metric("istio_dns_answers_total", "failed")?, 0);
            Ok(())
        }),
        test("every record of dnsmasq comes through as it is, its own and those that it asks for", || {
            let mesh = Named::start()?;
            let unbound = Server::unbound(&mesh.servers[0])?;
            let dnsmasq = Server::dnsmasq(&mesh.servers[1], unbound.address())?;
            let own = ["", "host.", "alias.", "_xmpp._tcp.", "phone.", "1.rev.", "odd."];
            let own: Vec<String> = own.iter().map(|name| format!("{name}own.example")).collect();
            let (answered, _) = compare(&mesh, dnsmasq.address(), &own)?;
            assert!(answered > 50, "{answered} answers");
            let carried: Vec<String> = NAMES.iter().map(|name| format!("{name}nsec.example")).collect();
            let (answered, truncated) = compare(&mesh, dnsmasq.address(), &carried)?;
            assert!(answered > 500 && truncated > 0, "{answered} answers, {truncated} cut off");
            Ok(())
        }),
    ]
}
