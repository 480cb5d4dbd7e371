//! Scripts in `scripts/`: a mesh, questions, and the answers that they are to have.
//!
//! A line each: `service` and `pod` make the mesh, `set` changes what the operator set, `reset` starts over, and
//! `namespace? name kind -> answer` asks. Addresses are told in order, since they are shuffled later.

use super::*;
use crate::fixture::{NETWORK, key, pod, view};
use crate::name::ClusterId;
use crate::service::{HealthPolicy, IpFamilies, LoadBalancer, Mode, Visibility};
use crate::view::Change;
use crate::workload::{Deployment, Health};

struct Script {
    changes: Vec<Change>,
    settings: LookupSettings,
    lookup: Lookup,
}

impl Script {
    fn new() -> Self {
        let settings = LookupSettings {
            domain: "cluster.local".into(),
            search: Search::OfPod,
            preferred: None,
            families: Families::Dual,
            on_demand: false,
        };
        Self { changes: Vec::new(), settings, lookup: Lookup::default() }
    }

    fn run(text: &str) {
        let mut script = Self::new();
        let mut asked = 0;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some((question, wanted)) = line.split_once("->") {
                asked += 1;
                assert_eq!(script.ask(question.trim()), wanted.trim(), "line {}: {line}", number + 1);
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["reset"] => script = Self::new(),
                ["set", rest @ ..] => script.set(rest),
                ["service", key, rest @ ..] => script.changes.push(service(key, rest).into()),
                ["pod", name, rest @ ..] => script.changes.push(workload(name, rest).into()),
                _ => panic!("line {}: {line}", number + 1),
            }
        }
        assert!(asked > 0);
    }

    fn set(&mut self, words: &[&str]) {
        match words {
            ["domain", domain] => self.settings.domain = (*domain).into(),
            ["search", domains @ ..] => {
                self.settings.search = Search::These(domains.iter().map(|d| (*d).into()).collect());
            }
            ["preferred", namespace] => self.settings.preferred = Some((*namespace).into()),
            ["ipv6", "off"] => self.settings.families = Families::Ipv4,
            ["on-demand"] => self.settings.on_demand = true,
            _ => panic!("{words:?}"),
        }
    }

    /// Asks from a pod of that namespace, in the network of all tests.
    fn ask(&mut self, question: &str) -> String {
        let words: Vec<&str> = question.split_whitespace().collect();
        let [namespace, name, kind] = words[..] else { panic!("{question}") };
        let client = Workload { namespace: namespace.trim_end_matches('?').into(), ..pod("client", &["10.9.9.9"]) };
        let kind = match kind {
            "A" => Kind::A,
            "AAAA" => Kind::Aaaa,
            "PTR" => Kind::Ptr,
            _ => Kind::Other,
        };
        let view = view(self.changes.clone());
        let mut learnt = Learnt::default();
        let mut needed = String::new();
        loop {
            let name = if name == "." { "" } else { name };
            let question =
                Question { view: &view, client: &client, name, kind, learnt: &learnt, settings: &self.settings };
            let found = match self.lookup.find(&question) {
                Found::Need(need) => {
                    let Need::Host(host) = &need else { panic!("{need:?}") };
                    needed += &format!("ask for {host}, then ");
                    learnt.asked(need);
                    continue;
                }
                found => found,
            };
            let mut addresses: Vec<String> = self.lookup.addresses().iter().map(ToString::to_string).collect();
            assert_eq!(self.lookup.addresses_mut().len(), addresses.len(), "all of them can be shuffled");
            addresses.sort();
            let addresses = addresses.join(" ");
            return needed
                + &match found {
                    Found::Addresses { canonical: None } => addresses,
                    Found::Addresses { canonical: Some(name) } => format!("{name} {addresses}"),
                    Found::Name(name) => name,
                    Found::NoData => "nodata".into(),
                    Found::NoName => "nxdomain".into(),
                    Found::Forward(Standing::Stranger) => "forward".into(),
                    Found::Forward(Standing::Exists) => "forward, it exists".into(),
                    Found::Need(_) => unreachable!("asked for above"),
                };
        }
    }
}

fn service(name: &str, words: &[&str]) -> Service {
    let (mut service, mut vips) = (Service::new(key(name)), Vec::new());
    for word in words {
        match *word {
            "canonical" => service.canonical = true,
            "private" => service.visibility = Visibility::Namespace,
            "ipv4-only" => service.ip_families = IpFamilies::Ipv4Only,
            "ipv6-only" => service.ip_families = IpFamilies::Ipv6Only,
            "all-endpoints" => {
                let health = HealthPolicy::AllowAll;
                let balancer = LoadBalancer { preferences: Vec::new(), mode: Mode::Standard, health };
                service.extras.load_balancer = Some(balancer);
            }
            range if range.matches('/').count() == 2 => {
                let (network, cidr) = range.split_once('/').unwrap();
                let cidr = cidr.parse().unwrap();
                service.extras.cidr_vips.push(crate::service::NetworkCidr { network: network.into(), cidr });
            }
            vip if vip.contains('/') => vips.push(vip.parse().unwrap()),
            vip => vips.push(format!("{NETWORK}/{vip}").parse().unwrap()),
        }
    }
    Service { vips: vips.into_iter().collect(), ..service }
}

fn workload(name: &str, words: &[&str]) -> Workload {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut workload = pod(name, &[]);
    let mut cluster = ClusterId::from("c");
    workload.namespace = namespace.into();
    for word in words {
        match *word {
            "unhealthy" => workload.status = Health::Unhealthy,
            "abroad" => workload.network = "net2".into(),
            "elsewhere" => cluster = "d".into(),
            service if service.contains('/') => workload = workload.of(service, &[]),
            ip => {
                let all = workload.addresses.iter().copied();
                workload.addresses = all.chain([crate::fixture::ip(ip)]).collect();
            }
        }
    }
    workload.uid = format!("{cluster}//Pod/{namespace}/{name}").into();
    workload.deployment = Deployment { cluster_id: cluster, ..Deployment::default() }.into();
    workload
}

#[test]
fn services_are_found_by_all_their_names() {
    Script::run(include_str!("scripts/services.txt"));
}

#[test]
fn the_service_that_a_client_means_is_visible_to_it_and_nearest() {
    Script::run(include_str!("scripts/ranking.txt"));
}

#[test]
fn wildcards_cover_what_is_below_them() {
    Script::run(include_str!("scripts/wildcards.txt"));
}

#[test]
fn headless_services_have_their_endpoints_and_endpoints_their_names() {
    Script::run(include_str!("scripts/headless.txt"));
}

#[test]
fn families_and_networks_decide_which_addresses_are_told() {
    Script::run(include_str!("scripts/families.txt"));
}

#[test]
fn addresses_have_names() {
    Script::run(include_str!("scripts/reverse.txt"));
}

#[test]
fn names_that_mean_the_same_everywhere_are_never_forwarded() {
    Script::run(include_str!("scripts/special.txt"));
}

#[test]
fn a_service_that_is_not_known_is_asked_for_if_the_name_says_where() {
    Script::run(include_str!("scripts/on_demand.txt"));
}

#[test]
fn the_longest_name_is_found_and_what_would_be_longer_is_none() {
    let mut script = Script::new();
    let below = ".ns1.svc.cluster.local";
    let longest = "a".repeat(MAX_NAME - below.len());
    let longer = longest.clone() + "a";
    script.changes.extend([&longest, &longer].map(|name| service(&format!("ns1/{name}{below}"), &["10.0.0.1"]).into()));
    assert_eq!(script.ask(&format!("ns1? {longest} A")), "10.0.0.1");
    assert_eq!(script.ask(&format!("ns1? {longer} A")), "forward");
}

#[test]
fn no_name_is_too_long_or_too_odd_to_be_looked_up() {
    let mut script = Script::new();
    script.changes.push(service("nämespace/x.nämespace.svc.cluster.local", &["10.0.0.1"]).into());
    script.set(&["on-demand"]);
    let labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    let many = vec!["a"; 127].join(".");
    for name in [&labels, &many, "*", "*.*", "svc.cluster.local", "cluster.local", "x.svc.cluster.local"] {
        for namespace in ["ns1", "nämespace", "", "."] {
            let client = Workload { namespace: namespace.into(), ..pod("client", &[]) };
            let view = view(script.changes.clone());
            let mut learnt = Learnt::default();
            for _ in 0..2 {
                for kind in [Kind::A, Kind::Aaaa, Kind::Ptr, Kind::Other] {
                    let (view, client, learnt, settings) = (&view, &client, &learnt, &script.settings);
                    let found = script.lookup.find(&Question { view, client, name, kind, learnt, settings });
                    assert!(matches!(found, Found::Forward(Standing::Stranger) | Found::Need(_)), "{name}: {found:?}");
                }
                learnt = Learnt::default();
            }
        }
    }
}
