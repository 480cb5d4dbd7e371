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
    }
}

fn text(pods: Option<Part>) -> String {
    String::from_utf8(sources(pods).print().unwrap()).unwrap()
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
