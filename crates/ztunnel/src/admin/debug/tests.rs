use std::sync::Arc;

use mesh::{Cause, Outcome};
use serde_json::{Value, json};

use super::*;
use crate::admin::dump::tests::sources as dump_sources;
use crate::identity::{Counts, FakeCa};
use crate::telemetry::PolicyLogging;
use crate::telemetry::fixtures::{inbound, outbound, telemetry};

pub(in crate::admin) fn sources() -> Sources {
    let (identities, _driver) = crate::identity::new(
        crate::identity::Config::default(),
        FakeCa::new(),
        Counts::register(&mut prometheus_client::registry::Registry::default()),
    );
    let ports = vec![15001, 15006, 15008];
    Sources {
        views: dump_sources(None).views,
        telemetry: telemetry("info", PolicyLogging::Debug).0,
        identities,
        ready: Ready::default(),
        route: RouteSettings { network: "".into(), hbone_port: 15008, illegal_ports: ports.clone(), on_demand: false },
        admit: AdmitSettings {
            network: "".into(),
            illegal_ports: ports,
            preserve_source: true,
            localhost_app_tunnel: true,
            baggage: true,
            unknown_policy: mesh::UnknownPolicy::Deny,
            on_demand: false,
        },
        cluster_domain: "cluster.local".into(),
        node: Some("here".into()),
    }
}

fn told(sources: &Sources, page: Page, query: &str) -> Value {
    match sources.tell(page, query, &Seen::default()).unwrap() {
        Told::Json(json) => serde_json::from_slice(&json).unwrap(),
        Told::Words(words) => words.into(),
    }
}

#[test]
fn an_open_connection_is_listed_with_what_it_carries() {
    let sources = sources();
    let mut meter = sources.telemetry.open(Arc::new(outbound()));
    meter.connected();
    meter.upstream(77);
    let _other = sources.telemetry.open(Arc::new(inbound()));
    let all = told(&sources, Page::Connections, "");
    assert_eq!((&all["total"], all["connections"].as_array().unwrap().len()), (&json!(2), 2));
    let mut row = told(&sources, Page::Connections, "direction=outbound&workload=client")["connections"][0].clone();
    row.as_object_mut().unwrap().remove("ageMs");
    let side = |name: &str, address: &str| {
        json!({
            "address": address, "cluster": "Kubernetes", "namespace": "default", "workload": name,
            "identity": format!("spiffe://cluster.local/ns/default/sa/{name}-sa"),
        })
    };
    let expected = json!({
        "bytesReceived": 0, "bytesSent": 77, "direction": "outbound", "hboneAddress": "10.2.0.2:8080",
        "id": format!("{:032x}", 7), "originalDestination": "10.3.0.1:80", "protocol": "HBONE",
        "service": "server.default.svc.cluster.local", "stage": "open",
        "source": side("client", "10.1.0.2:39050"), "destination": side("server", "10.2.0.2:15008"),
    });
    assert_eq!(row, expected);
    assert_eq!(told(&sources, Page::Connections, "namespace=elsewhere")["total"], 0);
    assert_eq!(told(&sources, Page::Connections, "limit=1")["total"], 2);
    assert!(sources.tell(Page::Connections, "limit=0", &Seen::default()).is_err());
}

#[test]
fn a_failure_is_listed_with_what_to_do_about_it() {
    let sources = sources();
    let outcome = Outcome::Failed {
        cause: Cause::PeerRefused,
        error: "http status: 401 Unauthorized".into(),
        peer_reason: Some("denied".into()),
    };
    sources.telemetry.open(Arc::new(outbound())).finish(outcome);
    let all = told(&sources, Page::Failures, "code=peer-refused&workload=server");
    assert_eq!(all["seen"], 1);
    let row = &all["failures"][0];
    let told: Vec<&Value> = ["code", "stage", "side", "peerReason", "originalDestination"].map(|key| &row[key]).into();
    assert_eq!(json!(told), json!(["peer-refused", "h2", "peer", "denied", "10.3.0.1:80"]));
    assert_eq!(row["hint"], Cause::PeerRefused.meaning().hint);
}

#[test]
fn pods_have_their_connections_in_the_dump_and_equal_ones_once() {
    let sources = sources();
    let _open = [inbound(), inbound(), outbound()].map(|flow| sources.telemetry.open(Arc::new(flow)));
    let of = of_pods(&sources.telemetry);
    let who = |name: &str| mesh::LocalWorkload {
        name: name.into(),
        namespace: "default".into(),
        service_account: "any".into(),
    };
    let src = "10.1.0.2:39050";
    let inbound = json!({
        "actualDst": "10.2.0.2:8080", "originalDst": "server.default.svc.cluster.local", "protocol": "HBONE", "src": src,
    });
    let outbound =
        json!({ "actualDst": "10.2.0.2:15008", "originalDst": "10.3.0.1:80", "protocol": "HBONE", "src": src });
    assert_eq!(of(&who("server")), json!({ "inbound": [inbound], "outbound": [] }));
    assert_eq!(of(&who("client")), json!({ "inbound": [], "outbound": [outbound] }));
    assert_eq!(of(&who("other")), json!({ "inbound": [], "outbound": [] }));
}

#[test]
fn a_connection_is_explained_before_it_is_made() {
    let sources = sources();
    // The one policy of the mesh denies nobody: it has no rules.
    let told_as_json = told(&sources, Page::Explain, "src=shop/web&dst=web:80");
    assert_eq!(told_as_json["route"]["kind"], "hbone");
    assert_eq!(told_as_json["route"]["next"], "10.0.0.1:15008");
    assert_eq!(told_as_json["destination"]["service"], "shop/web.shop.svc.cluster.local");
    assert_eq!(told_as_json["endpoints"][0]["port"], 8080);
    assert_eq!(told_as_json["policy"]["decision"], "no allow policies, allow");
    assert_eq!(told_as_json["certificate"]["state"], "Unknown");
    assert_eq!(told_as_json["verdict"], "allowed");
    let words = told(&sources, Page::Explain, "src=10.0.0.1&dst=10.1.0.1:80&format=text");
    let words = words.as_str().unwrap();
    assert!(words.contains("It would go by hbone to 10.0.0.1:15008"), "{words}");
}

#[test]
fn what_would_fail_is_named_by_the_code_that_the_log_would_have() {
    let sources = sources();
    let told = told(&sources, Page::Explain, "src=shop/web&dst=web.shop:81");
    let expected = json!(["no-healthy-upstream", "route", "local", "no healthy upstream: 10.1.0.1:81"]);
    let failure = &told["failure"];
    let said: Vec<&Value> = ["code", "stage", "side", "error"].map(|key| &failure[key]).into();
    assert_eq!(json!(said), expected);
    assert_eq!((&told["verdict"], &told["route"]["kind"]), (&json!("refused"), &json!("refused")));
}

#[test]
fn questions_that_cannot_be_answered_say_why() {
    let sources = sources();
    let error = |query: &str| {
        let error = sources.tell(Page::Explain, query, &Seen::default()).unwrap_err();
        (error.status().as_u16(), error.to_string())
    };
    assert_eq!(error("dst=web:80").0, 400);
    assert_eq!(error("src=shop/web&dst=web").0, 400);
    assert_eq!(error("src=shop/nobody&dst=web:80").0, 404);
    assert_eq!(error("src=shop/web&dst=nobody:80"), (404, "no service or workload is known as \"nobody\"".into()));
}

#[test]
fn the_summary_adds_up() {
    let sources = sources();
    let mut meter = sources.telemetry.open(Arc::new(outbound()));
    meter.upstream(5);
    sources.telemetry.open(Arc::new(inbound())).finish(Outcome::failed(Cause::Denied, "no".into()));
    let summary = told(&sources, Page::Summary, "");
    assert_eq!(summary["connections"], json!({ "inbound": 0, "outbound": 1 }));
    assert_eq!(summary["failures"], json!({ "byCode": { "denied": 1 }, "seen": 1 }));
    assert_eq!(summary["totals"], json!({ "bytesFromClients": 5, "bytesFromServers": 0, "opened": 2 }));
    assert_eq!((&summary["state"], &summary["mesh"]["workloads"]), (&json!("ready"), &json!(1)));
}
