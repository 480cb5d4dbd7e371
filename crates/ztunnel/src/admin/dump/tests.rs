use mesh::{State, View};
use serde_json::json;

use super::*;
use crate::xds::local;

/// A document with something of each kind, and an endpoint of a service that is not known.
const MESH: &str = "
workloads:
- uid: cluster1//v1/Pod/shop/web
  name: web
  namespace: shop
  serviceAccount: web
  workloadIps: [10.0.0.1]
  protocol: HBONE
  services:
    shop/web.shop.svc.cluster.local: { 80: 8080 }
    shop/ghost.shop.svc.cluster.local: { 80: 8080 }
services:
- name: web
  namespace: shop
  hostname: web.shop.svc.cluster.local
  vips: [/10.1.0.1]
  ports: { 80: 8080 }
policies:
- name: nobody
  namespace: shop
  scope: Namespace
  action: Deny
  dryRun: false
  rules: []
";

fn view() -> View {
    let mut state = State::new(None);
    assert_eq!(state.apply(local::decode(MESH).unwrap()).workloads, 1);
    state.view()
}

pub(in crate::admin) fn sources(pods: Option<Part>) -> Sources {
    Sources {
        views: Views::new(view()),
        certificates: Box::new(|| json!([{ "state": "Available", "identity": "spiffe://a/ns/b/sa/c" }])),
        config: Box::new(|| json!({ "windowSize": 1, "adminAddr": { "Localhost": [true, 15000] } })),
        version: Box::new(|| json!({ "version": "1", "buildProfile": "release" })),
        pods,
        static_config: Box::new(StaticConfig::default),
        rejected: Box::new(|| json!([])),
        local_ip: "10.9.9.9".into(),
    }
}

fn text(pods: Option<Part>) -> String {
    asked(pods, "")
}

fn asked(pods: Option<Part>, query: &str) -> String {
    let mut text = Vec::new();
    sources(pods).print(&Shape::of(query).unwrap(), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn keys_are_in_alphabetical_order_at_every_level() {
    let pods: Part = Box::new(|| json!({ "uid": { "state": "Up", "info": { "namespace": "n", "name": "p" } } }));
    let text = text(Some(pods));
    // What is read becomes sorted maps.
    let sorted: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text, serde_json::to_string_pretty(&sorted).unwrap());
    assert!(text.starts_with("{\n  \"certificates\": [\n    {\n      \"identity\": "), "{text}");
}

#[test]
fn every_kind_of_object_is_under_its_key() {
    let dump: Value = serde_json::from_str(&text(None)).unwrap();
    let expected = [
        "certificates",
        "config",
        "policies",
        "rejectedResources",
        "services",
        "stagedServices",
        "staticConfig",
        "version",
        "workloads",
    ];
    assert_eq!(keys(&dump), expected, "dedicated mode has no workloadState");
    assert_eq!(dump["workloads"][0]["uid"], "cluster1//v1/Pod/shop/web");
    assert_eq!(dump["services"][0]["hostname"], "web.shop.svc.cluster.local");
    assert_eq!(dump["policies"][0]["name"], "nobody");
    assert_eq!(keys(&dump["stagedServices"]), ["shop/ghost.shop.svc.cluster.local"]);
    assert_eq!(dump["staticConfig"], json!({ "policies": [], "services": [], "workloads": [] }));
    assert_eq!(dump["version"]["version"], "1");
}

#[test]
fn a_part_of_the_dump_can_be_asked_for() {
    let dump = |query: &str| serde_json::from_str::<Value>(&asked(None, query)).unwrap();
    assert_eq!(keys(&dump("resource=workloads,version&resource=Policies")), ["policies", "version", "workloads"]);
    assert_eq!(dump("namespace=shop&name=web")["workloads"].as_array().unwrap().len(), 1);
    assert_eq!(dump("namespace=shop&name=web")["policies"], json!([]));
    assert_eq!(dump("name=web.shop.svc.cluster.local")["services"].as_array().unwrap().len(), 1);
    assert_eq!(dump("node=elsewhere")["workloads"], json!([]));
    let error = Shape::of("resource=pods").unwrap_err().to_string();
    assert!(error.starts_with("there is no resource pods; there are certificates, config,"), "{error}");
}

#[test]
fn earlier_tools_get_the_dump_that_they_know() {
    let text = asked(None, "format=legacy");
    let dump: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text, serde_json::to_string_pretty(&dump).unwrap(), "keys are in alphabetical order");
    let expected = [
        "certificates",
        "config",
        "local_node",
        "policies",
        "policies_by_namespace",
        "proxy_mode",
        "static_config",
        "version",
        "vips",
        "workload_to_vip",
        "workloads",
    ];
    assert_eq!(keys(&dump), expected);
    assert_eq!(dump["vips"], json!({ "10.1.0.1:80": [["10.0.0.1", 8080]] }));
    assert_eq!(dump["workload_to_vip"], json!({ "10.0.0.1": [["10.1.0.1:80", 8080]] }));
    assert_eq!(dump["policies_by_namespace"], json!({ "shop": ["shop/nobody"] }));
    assert_eq!(keys(&dump["policies"]["shop/nobody"]), ["action", "groups", "name", "namespace", "scope"]);
    assert_eq!(keys(&dump["certificates"][0]), ["ca_cert", "cert_chain", "identity", "state"]);
    let workload = &dump["workloads"]["10.0.0.1"];
    let expected = [
        "authorizationPolicies",
        "canonicalName",
        "canonicalRevision",
        "clusterId",
        "gatewayAddress",
        "name",
        "namespace",
        "nativeHbone",
        "node",
        "protocol",
        "serviceAccount",
        "status",
        "trustDomain",
        "waypointAddresses",
        "workloadIp",
        "workloadName",
        "workloadType",
    ];
    assert_eq!(keys(workload), expected);
    assert_eq!((&workload["workloadIp"], &workload["nativeHbone"]), (&json!("10.0.0.1"), &json!(false)));
    let expected = [
        "admin_addr",
        "ca_address",
        "ca_root_cert",
        "cluster_id",
        "connection_window_size",
        "enable_original_source",
        "fake_ca",
        "frame_size",
        "inbound_addr",
        "inbound_plaintext_addr",
        "local_ip",
        "local_node",
        "num_worker_threads",
        "outbound_addr",
        "proxy_args",
        "proxy_metadata",
        "proxy_mode",
        "readiness_addr",
        "socks5_addr",
        "stats_addr",
        "termination_grace_period",
        "window_size",
        "xds_address",
        "xds_on_demand",
        "xds_root_cert",
    ];
    assert_eq!(keys(&dump["config"]), expected);
}
