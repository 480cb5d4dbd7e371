//! The resolver configuration of this process: whom to ask what the mesh does not know (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh::lookup::Families;
use serde_json::{Value, json};

use super::hosts::MOST_HOSTS;

/// Servers that are used; as many as systems' own resolvers use.
const MOST_SERVERS: usize = 3;
/// Search domains that are used: as many as the Kubernetes API allows.
const MOST_SEARCH: usize = 32;
/// How long a server may take where nothing is said: a client waits for five seconds as a rule, and somebody else is to
/// be asked in that time.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Times that each server is asked.
const ATTEMPTS: u32 = 2;
const PORT: u16 = 53;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Whom to ask, first come first asked.
    pub servers: Vec<SocketAddr>,
    /// What resolvers append to names: in lower case, without final dots.
    pub search: Vec<Box<str>>,
    /// Dots that a name has if it is tried as it is before any search domain.
    pub ndots: usize,
    /// How long one server may take.
    pub timeout: Duration,
    /// Times that each is asked.
    pub attempts: u32,
    /// Who is asked first.
    pub order: Order,
}

/// Who of several servers is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first, whenever it answers.
    Fixed,
    /// Each in turn (`options rotate`).
    InTurn,
}

impl Default for ResolvConf {
    fn default() -> Self {
        let (servers, search) = (Vec::new(), Vec::new());
        Self { servers, search, ndots: 1, timeout: TIMEOUT, attempts: ATTEMPTS, order: Order::Fixed }
    }
}

impl ResolvConf {
    /// Reads what it can; lines that make no sense are skipped, as resolvers do.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MOST_SERVERS => {
                    // A scope means an interface, which is not the same in another namespace.
                    let ip = words.next().and_then(|text| text.parse::<IpAddr>().ok());
                    conf.servers.extend(ip.map(|ip| SocketAddr::new(ip.to_canonical(), PORT)));
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    let domains = words.map(|word| Box::<str>::from(word.trim_end_matches('.').to_ascii_lowercase()));
                    conf.search = domains.filter(|domain| !domain.is_empty()).take(MOST_SEARCH).collect();
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        match (name, value.parse::<u32>()) {
            // The bounds of glibc.
            ("timeout", Ok(seconds)) => self.timeout = Duration::from_secs(seconds.clamp(1, 30).into()),
            ("ndots", Ok(dots)) => self.ndots = dots.min(15) as usize,
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, 5),
            ("rotate", _) => self.order = Order::InTurn,
            _ => {}
        }
    }

    /// `dnsResolverCfg` of the configuration dump (spec configuration 7).
    #[must_use]
    pub fn dump(&self) -> Value {
        let connection = |server: &SocketAddr, protocol| json!({ "port": server.port(), "protocol": { "type": protocol }, "bind_addr": null });
        let server = |server: &SocketAddr| {
            json!({
                "ip": server.ip(),
                "trust_negative_responses": true,
                "connections": [connection(server, "udp"), connection(server, "tcp")],
            })
        };
        let servers: Vec<Value> = self.servers.iter().map(server).collect();
        json!({ "domain": null, "search": self.search, "name_servers": servers })
    }

    /// `dnsResolverOpts` of the configuration dump: how host names of endpoints are looked up.
    #[must_use]
    pub fn options_dump(&self, families: Families) -> Value {
        json!({
            "ndots": self.ndots,
            "timeout": self.timeout.as_secs_f64(),
            "attempts": self.attempts,
            "edns0": false,
            "ip_strategy": if families == Families::Dual { "Ipv4AndIpv6" } else { "Ipv4Only" },
            "cache_size": MOST_HOSTS,
            "use_hosts_file": "Always",
            "num_concurrent_reqs": self.servers.len(),
        })
    }

    /// Whether all servers are this machine: systemd-resolved's stub or the like, which nobody reaches from another
    /// network namespace.
    #[must_use]
    pub fn is_stub(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| server.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        ResolvConf::parse(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_search_domains_and_options_are_read() {
        let conf = ResolvConf::parse(
            "# made by kubelet\nsearch Default.svc.cluster.local svc.cluster.local. .\nnameserver 10.96.0.10\n\
             nameserver fd00::a ; another\noptions ndots:5 timeout:3 attempts:4 rotate\n",
        );
        assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        assert_eq!(conf.search, ["default.svc.cluster.local".into(), Box::<str>::from("svc.cluster.local")]);
        assert_eq!((conf.timeout, conf.attempts, conf.order), (Duration::from_secs(3), 4, Order::InTurn));
        assert_eq!((conf.ndots, ResolvConf::default().ndots, ResolvConf::parse("options ndots:99").ndots), (5, 1, 15));
    }

    #[test]
    fn what_makes_no_sense_is_skipped_and_numbers_are_bounded() {
        assert_eq!(
            servers("nameserver\nnameserver nobody\nnameserver fe80::1%eth0\nnameserver 1.1.1.1"),
            ["1.1.1.1:53"]
        );
        assert_eq!(servers("nameserver 1.1.1.1\n".repeat(9).as_str()).len(), 3);
        let conf = ResolvConf::parse("options timeout:99999 attempts:0 timeout:x rotated\nsearch a\ndomain b");
        assert_eq!((conf.timeout, conf.attempts, conf.order), (Duration::from_secs(30), 1, Order::Fixed));
        assert_eq!(conf.search, [Box::<str>::from("b")]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }

    #[test]
    fn the_dump_says_whom_and_how() {
        let conf = ResolvConf::parse("nameserver 10.96.0.10\nsearch corp\noptions ndots:5");
        let dump = conf.dump();
        assert_eq!((&dump["search"][0], &dump["name_servers"][0]["ip"]), (&json!("corp"), &json!("10.96.0.10")));
        let connections = &dump["name_servers"][0]["connections"];
        assert_eq!((&connections[0]["protocol"]["type"], &connections[1]["port"]), (&json!("udp"), &json!(53)));
        let options = conf.options_dump(Families::Ipv4);
        assert_eq!((&options["ndots"], &options["cache_size"]), (&json!(5), &json!(4096)));
        assert_eq!((&options["timeout"], &options["ip_strategy"]), (&json!(1.5), &json!("Ipv4Only")));
    }

    #[test]
    fn a_stub_on_this_machine_is_told_from_servers_elsewhere() {
        assert!(ResolvConf::parse("nameserver 127.0.0.53\nnameserver ::1").is_stub());
        assert!(!ResolvConf::parse("nameserver 127.0.0.53\nnameserver 10.0.0.1").is_stub());
        assert!(!ResolvConf::default().is_stub());
    }
}
