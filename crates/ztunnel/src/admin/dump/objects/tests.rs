//! What the dump shows is what was loaded, under the agreed keys, sorted.

use mesh::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::xds::local;

/// The example of spec configuration 5.
const EXAMPLE: &str = include_str!("../../../xds/local/tests/example.yaml");

fn view(text: &str) -> View {
    let mut state = State::new(None);
    let _ = state.apply(local::decode(text).unwrap());
    state.view()
}

fn dump(shapes: impl Iterator<Item = impl Serialize>) -> Value {
    serde_json::to_value(shapes.collect::<Vec<_>>()).unwrap()
}

#[test]
fn the_workloads_of_the_example_are_dumped() {
    assert_eq!(
        dump(workloads(&view(EXAMPLE))),
        json!([
            {
                "authorizationPolicies": ["shop/only-front"],
                "capacity": 2,
                "clusterId": "Kubernetes",
                "locality": {"region": "eu", "subzone": "", "zone": "eu-1"},
                "name": "cart-0",
                "namespace": "shop",
                "network": "net1",
                "networkMode": "Standard",
                "node": "worker-a",
                "protocol": "HBONE",
                "serviceAccount": "cart",
                "services": ["shop/cart.shop.svc.cluster.local"],
                "status": "Healthy",
                "trustDomain": "cluster.local",
                "uid": "c1//v1/Pod/shop/cart-0",
                "workloadIps": ["10.20.0.5", "fd00::5"],
                "workloadType": "deployment"
            },
            {
                "capacity": 1,
                "clusterId": "Kubernetes",
                "hostname": "legacy.example.net.",
                "name": "legacy",
                "namespace": "shop",
                "network": "net1",
                "networkMode": "Standard",
                "protocol": "TCP",
                "serviceAccount": "default",
                "services": ["shop/legacy.example.net"],
                "status": "Healthy",
                "trustDomain": "cluster.local",
                "uid": "c1/ServiceEntry/shop/legacy",
                "workloadIps": [],
                "workloadType": "deployment"
            }
        ])
    );
}

#[test]
fn the_services_of_the_example_are_dumped() {
    assert_eq!(
        dump(services(&view(EXAMPLE))),
        json!([
            {
                "canonical": true,
                "endpoints": {
                    "c1//v1/Pod/shop/cart-0": {
                        "port": {"80": 8080, "9090": 9090},
                        "status": "Healthy",
                        "workloadUid": "c1//v1/Pod/shop/cart-0"
                    }
                },
                "hostname": "cart.shop.svc.cluster.local",
                "ipFamilies": "Dual",
                "loadBalancer": {
                    "healthPolicy": "OnlyHealthy",
                    "mode": "Failover",
                    "routingPreferences": ["Network", "Region", "Zone"]
                },
                "name": "cart",
                "namespace": "shop",
                "ports": {"80": 8080, "9090": 0},
                "subjectAltNames": [],
                "vips": ["net1/10.96.1.10", "net1/fd00:96::10"],
                "visibility": "Public",
                "waypoint": {"destination": "shop/waypoint.shop.svc.cluster.local", "hboneMtlsPort": 15008}
            },
            {
                "canonical": false,
                "endpoints": {
                    "c1/ServiceEntry/shop/legacy": {
                        "port": {"443": 443},
                        "status": "Healthy",
                        "workloadUid": "c1/ServiceEntry/shop/legacy"
                    }
                },
                "hostname": "legacy.example.net",
                "name": "legacy",
                "namespace": "shop",
                "ports": {"443": 443},
                "subjectAltNames": [],
                "vips": ["net1/240.240.0.1"],
                "visibility": "Namespace"
            },
            {
                "canonical": false,
                "cidrVips": [{"cidr": "10.200.0.0/16", "network": "net1"}],
                "endpoints": {},
                "hostname": "range.example.net",
                "name": "range",
                "namespace": "shop",
                "ports": {"80": 80},
                "subjectAltNames": [],
                "vips": [],
                "visibility": "Public"
            }
        ])
    );
}

#[test]
fn the_policy_of_the_example_is_dumped() {
    assert_eq!(
        dump(policies(&view(EXAMPLE))),
        json!([{
            "action": "Allow",
            "dryRun": false,
            "name": "only-front",
            "namespace": "shop",
            "rules": [[[{
                "destinationPorts": [8080],
                "principals": [{"Exact": "cluster.local/ns/shop/sa/front"}, {"Prefix": "cluster.local/ns/ops/"}]
            }]]],
            "scope": "WorkloadSelector"
        }])
    );
}

#[test]
fn every_key_of_a_match_is_dumped_under_its_own_name() {
    let text = "
policies:
- name: p
  namespace: ns
  scope: Global
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [!Suffix a]
        notNamespaces: [!Presence []]
        principals: [!Exact b]
        notPrincipals: [!Exact c]
        serviceAccounts: [{namespace: d, serviceAccount: e}]
        notServiceAccounts: [{namespace: f, serviceAccount: g}]
        sourceIps: [10.0.0.0/8]
        notSourceIps: [10.1.0.0/16]
        destinationIps: [fd00::/8]
        notDestinationIps: [fd01::/16]
        destinationPorts: [1]
        notDestinationPorts: [2]
";
    assert_eq!(
        dump(policies(&view(text)))[0]["rules"][0][0][0],
        json!({
            "destinationIps": ["fd00::/8"],
            "destinationPorts": [1],
            "namespaces": [{"Suffix": "a"}],
            "notDestinationIps": ["fd01::/16"],
            "notDestinationPorts": [2],
            "notNamespaces": [{"Presence": []}],
            "notPrincipals": [{"Exact": "c"}],
            "notServiceAccounts": [{"namespace": "f", "serviceAccount": "g"}],
            "notSourceIps": ["10.1.0.0/16"],
            "principals": [{"Exact": "b"}],
            "serviceAccounts": [{"namespace": "d", "serviceAccount": "e"}],
            "sourceIps": ["10.0.0.0/8"]
        })
    );
}

#[test]
fn gateways_and_tunnels_are_dumped() {
    let text = "
workloads:
- name: w
  namespace: ns
  workloadIps: []
  nativeTunnel: true
  networkMode: HostNetwork
  waypoint: {destination: ns/host, hboneMtlsPort: 15008}
  networkGateway: {destination: net2/10.9.0.1, hboneMtlsPort: 15009}
  applicationTunnel: {protocol: PROXY}
services:
- name: s
  namespace: ns
  hostname: h
  vips: []
  ports: {}
  weightedWaypoints: [{destination: {destination: /10.0.0.1, hboneMtlsPort: 1}, weight: 3}]
";
    let workload = &dump(workloads(&view(text)))[0];
    assert_eq!(workload["networkMode"], "HostNetwork");
    assert_eq!(workload["nativeTunnel"], true);
    assert_eq!(workload["waypoint"], json!({"destination": "ns/host", "hboneMtlsPort": 15008}));
    assert_eq!(workload["networkGateway"], json!({"destination": "net2/10.9.0.1", "hboneMtlsPort": 15009}));
    assert_eq!(workload["applicationTunnel"], json!({"port": null, "protocol": "PROXY"}));
    assert_eq!(
        dump(services(&view(text)))[0]["weightedWaypoints"],
        json!([{"destination": {"destination": "/10.0.0.1", "hboneMtlsPort": 1}, "weight": 3}])
    );
}

#[test]
fn endpoints_of_unknown_services_are_staged() {
    let text = "workloads: [{uid: u, name: w, namespace: ns, workloadIps: [], services: {ns/h: {80: 1}}}]";
    assert_eq!(
        serde_json::to_value(staged_services(&view(text))).unwrap(),
        json!({"ns/h": {"u": {"port": {"80": 1}, "status": "Healthy", "workloadUid": "u"}}})
    );
    assert!(staged_services(&view(EXAMPLE)).is_empty());
}

#[test]
fn a_static_document_is_dumped_as_it_was_written() {
    let document = serde_json::to_value(local::parse(EXAMPLE).unwrap()).unwrap();
    assert_eq!(document.as_object().unwrap().keys().collect::<Vec<_>>(), ["policies", "services", "workloads"]);
    let cart = &document["workloads"][0];
    assert_eq!(cart["services"], json!({"shop/cart.shop.svc.cluster.local": {"80": 8080, "9090": 9090}}));
    assert_eq!(document["workloads"][1].get("trustDomain"), None, "defaults are not written into it");
}

/// Whether every object of a serialized text has its keys in alphabetical order, as they are written.
fn assert_sorted(text: &str) {
    let mut open: Vec<Option<String>> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some((key, _)) = line.strip_prefix('"').and_then(|rest| rest.split_once("\":")) {
            let last = open.last_mut().expect("a key is within an object");
            if let Some(last) = last {
                // Port numbers are keys as well; they are in numerical order.
                let numeric = last.parse::<u16>().is_ok() && key.parse::<u16>().is_ok();
                assert!(numeric || last.as_str() < key, "`{last}` before `{key}` in\n{text}");
            }
            *last = Some(key.to_owned());
        }
        if line.ends_with(['{', '[']) {
            open.push(None);
        } else if line.starts_with(['}', ']']) {
            open.pop();
        }
    }
}

#[test]
fn keys_are_in_alphabetical_order_at_every_level() {
    let view = view(EXAMPLE);
    assert_sorted(&serde_json::to_string_pretty(&workloads(&view).collect::<Vec<_>>()).unwrap());
    assert_sorted(&serde_json::to_string_pretty(&services(&view).collect::<Vec<_>>()).unwrap());
    assert_sorted(&serde_json::to_string_pretty(&policies(&view).collect::<Vec<_>>()).unwrap());
    assert_sorted(&serde_json::to_string_pretty(&local::parse(EXAMPLE).unwrap()).unwrap());
}
