//! What decisions cost as the mesh grows: nanoseconds each, the least of several rounds. Run with
//! `cargo run --profile quick -p mesh --example costs`; figures of one run compare with each other only.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::ask::Learnt;
use mesh::permit::Standing;
use mesh::policy::{Action, Clause, DryRun, Group, Match, Policy, PolicyScope, Rule, StringMatch};
use mesh::retry::{Others, PickRole};
use mesh::service::{HealthPolicy, LoadBalancer, Mode, Scope};
use mesh::workload::{Membership, Protocol};
use mesh::{
    AdmitSettings, Change, Draw, Failures, HboneRequest, NamespacedHostname, NetworkAddress, Outbound, Past, Permit,
    Pick, RouteSettings, Service, State, UnknownPolicy, View, Workload, admit_hbone, authorize, evaluate, route,
};

/// Rounds of which the least counts: what disturbs makes others longer.
const ROUNDS: u32 = 7;
/// How long one round takes.
const ROUND: Duration = Duration::from_millis(40);
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 250, 0, 1));
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), 40_000);

fn main() {
    println!("routing a connection to a service, by endpoints");
    for mode in [Mode::Standard, Mode::Failover, Mode::Strict] {
        let costs = [1, 100, 10_000].map(|count| routing(&endpoints(count, mode), 0));
        println!("  {mode:?}: 1: {} ns, 100: {} ns, 10000: {} ns", costs[0], costs[1], costs[2]);
    }
    let costs = [3, 100, 10_000].map(|count| routing(&endpoints(count, Mode::Standard), 1));
    println!("  one that fails: 3: {} ns, 100: {} ns, 10000: {} ns", costs[0], costs[1], costs[2]);
    let costs = [100, 10_000].map(|count| routing(&endpoints(count, Mode::Standard), 40));
    println!("  forty that fail: 100: {} ns, 10000: {} ns", costs[0], costs[1]);

    for (whose, scope) in
        [("of its namespace", PolicyScope::Namespace), ("that select its destination", PolicyScope::WorkloadSelector)]
    {
        println!("authorizing a connection, by policies {whose}");
        for (what, pattern) in PATTERNS {
            let costs = [10, 100, 1_000, 10_000].map(|count| deciding(&policies(count, scope, *pattern)));
            println!(
                "  {what}: 10: {} ns, 100: {} ns, 1000: {} ns, 10000: {} ns",
                costs[0], costs[1], costs[2], costs[3]
            );
        }
    }
    let view = policies(1_000, PolicyScope::Namespace, PATTERNS[0].1);
    let permits: Vec<Standing> = (0..10_000).filter_map(|_| permit(&view).standing()).collect();
    let start = Instant::now();
    permits.iter().for_each(|permit| drop(black_box(permit.recheck(&view))));
    println!("checking 10,000 connections again, with 1,000 policies: {:?}", start.elapsed());
}

/// What one decision costs, in nanoseconds.
fn cost(mut decide: impl FnMut()) -> u128 {
    let mut least = u128::MAX;
    for _ in 0..ROUNDS {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            (0..16).for_each(|_| decide());
            count += 16;
        }
        least = least.min(start.elapsed().as_nanos() / u128::from(count));
    }
    least
}

fn pod(number: usize) -> Workload {
    let [_, a, b, c] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    Workload {
        name: format!("pod-{number}").into(),
        namespace: "shop".into(),
        service_account: format!("account-{number}").as_str().into(),
        addresses: vec![Ipv4Addr::new(10, a, b, c).into()].into(),
        protocol: Protocol::Hbone,
        ..Workload::new(format!("k//v1/Pod/shop/pod-{number}").as_str().into())
    }
}

fn view(changes: impl IntoIterator<Item = Change>) -> View {
    let mut state = State::new(None);
    let _ = state.apply(changes);
    state.view()
}

/// A service of that many endpoints, and a client.
fn endpoints(count: usize, mode: Mode) -> View {
    let key: NamespacedHostname = "shop/cart.shop.svc.cluster.local".parse().expect("a key");
    let network_address = NetworkAddress::new("".into(), VIP);
    let service = Service {
        vips: [network_address].into(),
        ports: [(80, 8080)].into_iter().collect(),
        ..Service::new(key.clone())
    };
    let preferences = vec![Scope::Network, Scope::Node];
    let balancer = LoadBalancer { preferences, mode, health: HealthPolicy::default() };
    let service = service.with(|extra| extra.load_balancer = Some(balancer));
    let of = |number| {
        let services = [Membership { service: key.clone(), ports: [(80, 8080)].into_iter().collect() }];
        Workload { services: services.into_iter().collect(), ..pod(number) }.into()
    };
    view((1..=count).map(of).chain([service.into(), Workload { addresses: vec![CLIENT.ip()].into(), ..pod(0) }.into()]))
}

/// A small generator: what matters is that it costs nothing.
struct Chance(u64);

impl Draw for Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn routing(view: &View, failing: usize) -> u128 {
    let source = view.workload(&pod(0).uid).expect("the client is there").clone();
    let settings =
        RouteSettings { network: "".into(), hbone_port: 15008, illegal_ports: vec![15001], on_demand: false };
    let (learnt, now, mut failures) = (Learnt::default(), Instant::now(), Failures::default());
    let service: NamespacedHostname = "shop/cart.shop.svc.cluster.local".parse().expect("a key");
    for number in 1..=failing {
        let (uid, role, others) = (pod(number).uid, PickRole::Endpoint, Others::Left);
        failures.failed(&Pick { service: service.clone(), port: 80, uid, role, others }, now);
    }
    let mut chance = Chance(1);
    cost(|| {
        let past = Past { failures: &failures, tried: &[], now };
        let target = SocketAddr::new(VIP, 80);
        let outbound =
            Outbound { view, source: &source, client: CLIENT, target, learnt: &learnt, settings: &settings, past };
        assert!(black_box(route(&outbound, &mut chance)).is_ok());
    })
}

/// What a policy says of who may, by its number.
type Pattern = fn(usize) -> Match;

const PATTERNS: &[(&str, Pattern)] = &[
    ("by principal", |n| who(StringMatch::Exact(format!("cluster.local/ns/other/sa/account-{n}").into()))),
    ("by the beginning of a principal", |n| who(StringMatch::Prefix(format!("cluster.local/ns/other-{n}/").into()))),
    ("by source address", |n| {
        let [_, a, b, c] = u32::try_from(n).unwrap_or_default().to_be_bytes();
        let net = ipnet::IpNet::from(IpAddr::from([11, a, b, c]));
        Match { source_ips: Group { any: vec![net].into(), ..Group::default() }, ..Match::default() }
    }),
    ("by what it must not be", |n| {
        let not = StringMatch::Exact(format!("cluster.local/ns/other/sa/account-{n}").into());
        let ports = Group { any: vec![80].into(), ..Group::default() };
        let principals = Group { none: vec![not].into(), ..Group::default() };
        Match { principals, destination_ports: ports, ..Match::default() }
    }),
];

fn who(pattern: StringMatch) -> Match {
    Match { principals: Group { any: vec![pattern].into(), ..Group::default() }, ..Match::default() }
}

/// A workload to which that many DENY policies apply, none of which matches.
fn policies(count: usize, scope: PolicyScope, pattern: Pattern) -> View {
    let policy = |n| {
        let name = format!("policy-{n}");
        Policy {
            key: format!("shop/{name}").as_str().into(),
            name: name.into(),
            namespace: "shop".into(),
            scope,
            action: Action::Deny,
            dry_run: DryRun::Enforced,
            rules: vec![Rule { clauses: vec![Clause { matches: vec![pattern(n)] }] }],
        }
    };
    let policies: Vec<_> = (0..count).map(policy).collect();
    let selects = scope == PolicyScope::WorkloadSelector;
    let authorization_policies = policies.iter().filter(|_| selects).map(|policy| policy.key.clone()).collect();
    let destination = Workload { authorization_policies, ..pod(0) };
    view(policies.into_iter().map(Change::from).chain([destination.into()]))
}

fn permit(view: &View) -> Permit {
    let destination = view.workload(&pod(0).uid).expect("it is there");
    let identity = pod(1).identity();
    let request = HboneRequest {
        peer: CLIENT,
        local: "10.0.0.0:15008".parse().expect("an address"),
        identity: Some(&identity),
        method: "CONNECT",
        authority: "10.0.0.0:8080",
        baggage: &[],
        forwarded: None,
        forwarded_network: None,
    };
    let settings = AdmitSettings {
        network: "".into(),
        illegal_ports: vec![15001],
        preserve_source: true,
        localhost_app_tunnel: true,
        baggage: true,
        unknown_policy: UnknownPolicy::Deny,
        on_demand: false,
    };
    let admission = admit_hbone(view, destination, &request, &Learnt::default(), &settings).expect("it is for us");
    authorize(view, admission).expect("it may")
}

fn deciding(view: &View) -> u128 {
    let destination: &Arc<Workload> = view.workload(&pod(0).uid).expect("it is there");
    let permit = permit(view);
    let mesh::permit::Grant::Inbound(admission, _) = permit.grant() else { return 0 };
    let tuple = admission.tuple();
    cost(|| drop(black_box(evaluate(view, destination, black_box(tuple), UnknownPolicy::Deny))))
}
