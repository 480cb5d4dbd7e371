//! Documents load as documented, and broken ones are refused with words that help.

use std::sync::Arc;

use mesh::policy::StringMatch;
use mesh::service::{HealthPolicy, IpFamilies, Mode, Scope, Visibility};
use mesh::workload::{GatewayDestination, Health, Protocol, WorkloadType};
use mesh::{Change, Policy, Service, State, Workload};

use super::*;

/// The example of spec configuration 5.
const EXAMPLE: &str = include_str!("tests/example.yaml");

fn workloads(text: &str) -> Vec<Workload> {
    let changes = decode(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    changes
        .into_iter()
        .filter_map(|c| if let Change::Workload(w) = c { Some(Arc::unwrap_or_clone(w)) } else { None })
        .collect()
}

fn services(text: &str) -> Vec<Service> {
    let changes = decode(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    changes
        .into_iter()
        .filter_map(|c| if let Change::Service(s) = c { Some(Arc::unwrap_or_clone(s)) } else { None })
        .collect()
}

fn policies(text: &str) -> Vec<Policy> {
    let changes = decode(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    changes
        .into_iter()
        .filter_map(|c| if let Change::Policy(p) = c { Some(Arc::unwrap_or_clone(p)) } else { None })
        .collect()
}

fn error(text: &str) -> String {
    decode(text).expect_err(text).to_string()
}

/// A document of one workload with more keys.
fn workload(keys: &str) -> String {
    format!("workloads:\n- {{name: w, namespace: ns, workloadIps: [], {keys}}}\n")
}

/// A document of one service with more keys.
fn service(keys: &str) -> String {
    format!("services:\n- {{name: s, namespace: ns, hostname: s.example, vips: [], ports: {{}}, {keys}}}\n")
}

/// A document of one policy with one match.
fn policy(keys: &str) -> String {
    format!(
        "policies:\n- name: p\n  namespace: ns\n  scope: Global\n  action: Deny\n  dryRun: false\n  \
         rules: [[[{{{keys}}}]]]\n"
    )
}

#[test]
fn the_workloads_of_the_example_load() {
    let all = workloads(EXAMPLE);
    let [cart, legacy] = &all[..] else { panic!("{all:?}") };
    assert_eq!(cart.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!((cart.uid.as_str(), cart.node.as_str(), cart.capacity), ("c1//v1/Pod/shop/cart-0", "worker-a", 2));
    assert_eq!(*cart.addresses, ["10.20.0.5".parse::<std::net::IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
    assert_eq!((cart.protocol, cart.status), (Protocol::Hbone, Health::Healthy));
    assert_eq!((&*cart.locality.region, &*cart.locality.zone, &*cart.locality.subzone), ("eu", "eu-1", ""));
    assert_eq!(*cart.authorization_policies, ["shop/only-front".into()]);
    let ports = cart.ports_for(&"shop/cart.shop.svc.cluster.local".parse().unwrap()).unwrap();
    assert_eq!(ports.iter().collect::<Vec<_>>(), [(80, 8080), (9090, 9090)]);
    assert_eq!(legacy.hostname.as_str(), "legacy.example.net.");
    assert!(legacy.addresses.is_empty());
}

#[test]
fn the_services_of_the_example_load() {
    let all = services(EXAMPLE);
    let [cart, legacy, range] = &all[..] else { panic!("{all:?}") };
    assert_eq!(cart.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["net1/10.96.1.10", "net1/fd00:96::10"]);
    assert_eq!(cart.ports.iter().collect::<Vec<_>>(), [(80, 8080), (9090, 0)]);
    assert_eq!((cart.ip_families, cart.canonical, cart.visibility), (IpFamilies::Dual, true, Visibility::Public));
    let lb = cart.extras.load_balancer.as_ref().unwrap();
    assert_eq!((lb.mode, lb.health), (Mode::Failover, HealthPolicy::OnlyHealthy));
    assert_eq!(lb.preferences, [Scope::Network, Scope::Region, Scope::Zone]);
    let waypoint = cart.extras.waypoint.as_ref().unwrap();
    assert_eq!(waypoint.destination.to_string(), "shop/waypoint.shop.svc.cluster.local");
    assert_eq!(waypoint.hbone_port, 15008);
    assert_eq!(legacy.visibility, Visibility::Namespace);
    assert_eq!(range.extras.cidr_vips[0].cidr.to_string(), "10.200.0.0/16");
    assert_eq!(range.extras.cidr_vips[0].network.as_str(), "net1");
}

#[test]
fn the_policy_of_the_example_loads() {
    let all = policies(EXAMPLE);
    let [policy] = &all[..] else { panic!("{all:?}") };
    assert_eq!(policy.key.as_str(), "shop/only-front");
    let one = &policy.rules[0].clauses[0].matches[0];
    assert_eq!(
        one.principals.any.elements,
        [
            StringMatch::Exact("cluster.local/ns/shop/sa/front".into()),
            StringMatch::Prefix("cluster.local/ns/ops/".into())
        ]
    );
    assert_eq!(one.destination_ports.any.elements, [8080]);
    assert!(one.namespaces.is_empty() && one.source_ips.is_empty());
}

#[test]
fn what_is_not_given_is_what_the_control_plane_would_take_it_for() {
    let all = workloads("workloads: [{namespace: ns, workloadIps: [10.0.0.1]}]");
    let expected = Workload {
        namespace: "ns".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()].into(),
        ..Workload::new("".into())
    };
    assert_eq!(all, [expected]);
    assert_eq!(all[0].identity().to_string(), "spiffe://cluster.local/ns/ns/sa/default");
}

#[test]
fn an_empty_document_is_valid() {
    for text in ["", "# nothing\n", "{}", "workloads: []", "---\n"] {
        assert_eq!(decode(text), Ok(vec![]), "{text:?}");
    }
}

#[test]
fn references_are_addresses_or_names() {
    for (text, address) in [("net1/10.0.0.1", true), ("/fd00::1", true), ("ns/host", false), ("ns/10.0.0.1.nip", false)]
    {
        let all = workloads(&workload(&format!("waypoint: {{destination: {text:?}, hboneMtlsPort: 15008}}")));
        let destination = &all[0].waypoint.as_ref().unwrap().destination;
        assert_eq!(matches!(destination, GatewayDestination::Address(_)), address, "{text}");
        assert_eq!(destination.to_string(), text);
    }
}

#[test]
fn port_keys_may_be_quoted() {
    let quoted = services(&service("canonical: true").replace("ports: {}", "ports: {\"80\": 8080, '90': 0}"));
    assert_eq!(quoted[0].ports.iter().collect::<Vec<_>>(), [(80, 8080), (90, 0)]);
}

#[test]
fn string_matches_may_be_tags_or_maps() {
    let tags = policies(&policy("principals: [!Exact a, !Prefix b, !Suffix c, !Presence []]"));
    let maps = policies(&policy("principals: [{Exact: a}, {Prefix: b}, {Suffix: c}, {Presence: []}]"));
    let quoted = policies(&policy("principals: [!Exact \"a\", {Prefix: \"b\"}, !Suffix 'c', Presence]"));
    let elements = &tags[0].rules[0].clauses[0].matches[0].principals.any.elements;
    assert_eq!(elements.len(), 4);
    assert_eq!(elements[3], StringMatch::Presence);
    assert_eq!(tags, maps);
    assert_eq!(tags, quoted);
}

#[test]
fn a_document_may_be_json() {
    let json = serde_json::to_string(&parse(EXAMPLE).unwrap()).unwrap();
    assert_eq!(parse(&json).unwrap(), parse(EXAMPLE).unwrap());
}

#[test]
fn the_kind_of_owner_is_read_in_any_case_and_unknown_kinds_are_deployments() {
    for (text, kind) in
        [("cronjob", WorkloadType::CronJob), ("POD", WorkloadType::Pod), ("x", WorkloadType::Deployment)]
    {
        assert_eq!(workloads(&workload(&format!("workloadType: {text}")))[0].deployment.workload_type, kind);
    }
}

#[test]
fn endpoints_listed_by_a_service_join_it() {
    let text = "
workloads:
- {uid: u1, name: a, namespace: ns, workloadIps: [10.0.0.1]}
- {uid: u2, name: b, namespace: ns, workloadIps: [10.0.0.2], services: {ns/s.example: {80: 1}}}
services:
- name: s
  namespace: ns
  hostname: s.example
  vips: [/10.1.0.1]
  ports: {80: 8080}
  endpoints:
    u1: {workloadUid: u1, port: {80: 9000}}
    u2: {workloadUid: u2, port: {80: 9000}, status: Healthy}
";
    let mut state = State::new(None);
    let _ = state.apply(decode(text).unwrap());
    let view = state.view();
    let service = "ns/s.example".parse().unwrap();
    let port = |uid: &str| view.endpoint(&service, &uid.into()).unwrap().ports.get(80);
    assert_eq!(port("u1"), Some(9000));
    assert_eq!(port("u2"), Some(1), "what the workload itself says goes first");
}

#[test]
fn errors_name_the_object_the_key_the_line_and_a_remedy() {
    for (text, parts) in [
        ("workloads: 3", &["workloads", "line 1", "correct the value"][..]),
        ("wrkloads: []", &["unknown field `wrkloads`", "line 1", "remove the key or correct its spelling"]),
        (": : :", &["line 1", "correct the value"]),
        ("workloads:\n- name: cart\n", &["workload cart", "line 2", "missing field `namespace`", "add the key"]),
        (&workload("protocol: SCTP"), &["workload w", "protocol", "`SCTP`", "`TCP`"]),
        (&workload("workloadIp: []"), &["workload w", "unknown field `workloadIp`", "remove the key"]),
        (&workload("locality: {region: a}"), &["workload w", "missing field"]),
        (&workload("services: {plain: {80: 80}}"), &["workload w", "failed to parse namespaced hostname: plain"]),
        (&workload("services: {ns/h: {70000: 80}}"), &["workload w", "70000", "a port from 0 to 65535"]),
        (&workload("services: {ns/h: {80: 1, \"80\": 2}}"), &["duplicate service port 80", "keep one of the two"]),
        (&workload("applicationTunnel: {protocol: NONE, prt: 1}"), &["unknown field `prt`"]),
        (&workload("waypoint: {destination: nonsense, hboneMtlsPort: 1}"), &["workloads[0].waypoint", "nonsense"]),
        (&workload("").replace("workloadIps: []", "workloadIps: [10.0.0]"), &["workload w", "workloadIps[0]"]),
        (&service("").replace("vips: []", "vips: [10.0.0.1]"), &["service s", "vips: ", "network/ip"]),
        (&service("loadBalancer: {mode: Strict}"), &["service s", "missing field"]),
        (&service("cidrVips: [{network: a, cidr: 10.0.0.0/33}]"), &["service s", "cidrVips[0]"]),
        (
            &service("endpoints: {u: {workloadUid: u, port: {}}}"),
            &["service ns/s.example", "u is no workload", "add it"],
        ),
        (&policy("principals: [!Exakt a]"), &["policy p", "Exakt", "Exact"]),
        (&policy("principals: [!Exact ~]"), &["policy p", "text to compare with is missing"]),
        (&policy("principals: [plain]"), &["policy p", "`!Exact text`"]),
        (&policy("principals: [{Exact: a, Prefix: b}]"), &["policy p", "more than one thing"]),
        (&policy("sourceIps: [10.0.0.1]"), &["policy p", "sourceIps[0]"]),
        (&policy("principal: [!Exact a]"), &["policy p", "unknown field `principal`"]),
        (&policy("").replace("scope: Global\n  ", ""), &["policy p", "missing field `scope`", "add the key"]),
    ] {
        let message = error(text);
        assert!(message.starts_with("invalid static state"), "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` in: {message}");
        }
        assert!(!message.contains('\n'), "one line: {message}");
    }
}

#[test]
fn two_objects_of_one_key_are_refused() {
    for (text, message) in [
        (
            "workloads: [{name: a, namespace: n, workloadIps: []}, {name: b, namespace: n, workloadIps: []}]",
            "invalid static state, workload b: another workload has the same key ``; give each workload its own uid",
        ),
        (
            "services: [{name: a, namespace: n, hostname: h, vips: [], ports: {}}, \
             {name: b, namespace: n, hostname: h, vips: [], ports: {}}]",
            "invalid static state, service n/h: another service has the same key `n/h`; keep one service of each \
             namespace and hostname",
        ),
    ] {
        assert_eq!(error(text), message);
    }
}

#[test]
fn an_endpoint_with_a_status_of_its_own_is_refused() {
    let text = "
workloads: [{uid: u1, name: a, namespace: ns, workloadIps: [], status: Unhealthy}]
services:
- {name: s, namespace: ns, hostname: h, vips: [], ports: {}, endpoints: {u1: {workloadUid: u1, port: {}}}}
";
    assert!(error(text).contains("set status on the workload only"), "{}", error(text));
}

#[test]
fn keys_that_mean_nothing_are_ignored_where_they_always_were() {
    let all = workloads(&workload("locality: {region: a, zone: b, subzone: c, planet: earth}"));
    assert_eq!(&*all[0].locality.region, "a");
    assert_eq!(services(&service("cidrVips: [{network: a, cidr: 10.0.0.0/8, note: x}]"))[0].extras.cidr_vips.len(), 1);
}
