use std::sync::Arc;
use std::time::Duration;

use mesh::{Cause, End, Outcome, Tally};

use super::*;
use crate::telemetry::fixtures::{example_time, inbound, outbound, passthrough};

fn record(flow: Flow, outcome: Outcome) -> Record {
    let tally = Tally { upstream_bytes: 77, downstream_bytes: 43 };
    Record { flow: Arc::new(flow), tally, duration: Duration::from_micros(3_900), outcome, decided: None }
}

fn line(format: Format, record: &Record) -> String {
    let mut out = String::new();
    complete(&mut out, format, example_time(), record, &Closing::default());
    out
}

/// What is told at most of how a connection was carried and closed.
fn closing() -> Closing {
    let path = |micros, retransmits| Some(Path { round_trip: Duration::from_micros(micros), retransmits });
    let (app, peer) = (path(35, 0), path(1200, 7));
    Closing { closed_first: Some(End::Server), tls_group: Some("X25519MLKEM768".into()), app, peer }
}

#[test]
fn how_a_connection_was_carried_and_closed_is_told_last() {
    let mut line = String::new();
    complete(&mut line, Format::Text, example_time(), &record(outbound(), Outcome::Complete), &closing());
    let end = "duration=\"3ms\" closed_first=\"server\" tls_group=\"X25519MLKEM768\" app_rtt=\"35us\" \
               app_retransmits=0 peer_rtt=\"1200us\" peer_retransmits=7\n";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn an_outbound_connection_is_logged_as_the_reference_shows_it() {
    assert_eq!(
        line(Format::Text, &record(outbound(), Outcome::Complete)),
        "2026-11-21T02:38:35.803626Z\tinfo\taccess\tconnection complete\t\
         src.addr=10.1.0.2:39050 src.workload=\"client\" src.namespace=\"default\" \
         src.identity=\"spiffe://cluster.local/ns/default/sa/client-sa\" src.cluster=\"Kubernetes\" \
         dst.addr=10.2.0.2:15008 dst.hbone_addr=10.2.0.2:8080 dst.service=\"server.default.svc.cluster.local\" \
         dst.workload=\"server\" dst.namespace=\"default\" \
         dst.identity=\"spiffe://cluster.local/ns/default/sa/server-sa\" dst.cluster=\"Kubernetes\" \
         direction=\"outbound\" bytes_sent=77 bytes_recv=43 duration=\"3ms\"\n"
    );
}

#[test]
fn the_policy_that_decided_is_told_after_everything_else() {
    let decided = Some(mesh::Decided { policy: "default/clients".into(), rule: Some(2) });
    let line = line(Format::Text, &Record { decided, ..record(inbound(), Outcome::Complete) });
    assert!(line.ends_with("duration=\"3ms\" policy=\"default/clients\" rule=2\n"), "{line}");
}

#[test]
fn an_inbound_connection_counts_bytes_from_the_server_s_point_of_view() {
    let line = line(Format::Text, &record(inbound(), Outcome::Complete));
    assert!(line.ends_with("direction=\"inbound\" bytes_sent=43 bytes_recv=77 duration=\"3ms\"\n"), "{line}");
}

#[test]
fn what_is_not_known_is_absent() {
    assert_eq!(
        line(Format::Text, &record(passthrough(), Outcome::Complete)),
        "2026-11-21T02:38:35.803626Z\tinfo\taccess\tconnection complete\t\
         src.addr=10.1.0.2:39050 src.workload=\"client\" src.namespace=\"default\" src.cluster=\"Kubernetes\" \
         dst.addr=192.0.2.9:443 direction=\"outbound\" bytes_sent=77 bytes_recv=43 duration=\"3ms\"\n"
    );
}

#[test]
fn a_denied_connection_is_an_error_with_its_reason_last() {
    let error = "connection closed due to policy rejection: explicitly denied by: default/no-clients".to_owned();
    let line = line(Format::Text, &record(inbound(), Outcome::failed(Cause::Denied, error)));
    assert!(line.starts_with("2026-11-21T02:38:35.803626Z\terror\taccess\tconnection complete\tsrc.addr="), "{line}");
    let end = "duration=\"3ms\" error=\"connection closed due to policy rejection: explicitly denied by: \
               default/no-clients\" reason=\"denied\" stage=\"authz\" side=\"peer\"\n";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn a_reset_is_no_failure_and_says_whose_it_was() {
    let line = line(Format::Text, &record(outbound(), Outcome::Reset { by: End::Server }));
    assert!(line.contains("\tinfo\taccess\t") && line.ends_with(" duration=\"3ms\" reset_by=\"server\"\n"), "{line}");
}

#[test]
fn json_has_the_same_fields_with_numbers_as_numbers() {
    let error = "tls \"handshake\"\nfailed".to_owned();
    let (cause, peer_reason) = (Cause::PeerRefused, Some("app-unreachable".into()));
    let line = line(Format::Json, &record(outbound(), Outcome::Failed { cause, error, peer_reason }));
    assert_eq!(
        line,
        concat!(
            r#"{"level":"error","time":"2026-11-21T02:38:35.803626Z","scope":"access","message":"connection complete","#,
            r#""src.addr":"10.1.0.2:39050","src.workload":"client","src.namespace":"default","#,
            r#""src.identity":"spiffe://cluster.local/ns/default/sa/client-sa","src.cluster":"Kubernetes","#,
            r#""dst.addr":"10.2.0.2:15008","dst.hbone_addr":"10.2.0.2:8080","#,
            r#""dst.service":"server.default.svc.cluster.local","dst.workload":"server","dst.namespace":"default","#,
            r#""dst.identity":"spiffe://cluster.local/ns/default/sa/server-sa","dst.cluster":"Kubernetes","#,
            r#""direction":"outbound","bytes_sent":77,"bytes_recv":43,"duration":"3ms","#,
            r#""error":"tls \"handshake\"\nfailed","reason":"peer-refused","peer_reason":"app-unreachable","#,
            r#""stage":"h2","side":"peer"}"#,
            "\n"
        )
    );
    assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
}

#[test]
fn a_connection_that_opens_shows_its_parties_only() {
    let mut out = String::new();
    opened(&mut out, Format::Text, example_time(), &passthrough());
    assert_eq!(
        out,
        "2026-11-21T02:38:35.803626Z\tdebug\taccess\tconnection opened\t\
         src.addr=10.1.0.2:39050 src.workload=\"client\" src.namespace=\"default\" src.cluster=\"Kubernetes\" \
         dst.addr=192.0.2.9:443 direction=\"outbound\"\n"
    );
}

#[test]
fn an_early_denial_shows_addresses_direction_and_error() {
    let denial = Denial {
        source: "10.1.0.2:39050".parse().unwrap(),
        destination: "[2001:db8::1]:80".parse().unwrap(),
        direction: Direction::Outbound,
        cause: Cause::NoHealthyUpstream,
        error: "no healthy upstream: [2001:db8::1]:80",
    };
    let mut out = String::new();
    denial.write(&mut out, Format::Text, example_time());
    assert_eq!(
        out,
        "2026-11-21T02:38:35.803626Z\twarn\taccess\tconnection failed\tsrc.addr=10.1.0.2:39050 \
         dst.addr=[2001:db8::1]:80 direction=\"outbound\" error=\"no healthy upstream: [2001:db8::1]:80\" \
         reason=\"no-healthy-upstream\" stage=\"route\" side=\"local\"\n"
    );
}

#[test]
fn the_fields_are_those_of_the_table_in_its_order() {
    let mut failure = record(outbound(), Outcome::failed(Cause::PeerRefused, "e".into()));
    let Outcome::Failed { peer_reason, .. } = &mut failure.outcome else { unreachable!() };
    *peer_reason = Some("denied".into());
    failure.decided = Some(mesh::Decided { policy: "ns/allow".into(), rule: Some(0) });
    let keys = |line: &str| {
        let fields = line.trim_end().rsplit('\t').next().unwrap().to_owned();
        fields.split(' ').map(|field| field.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut told = String::new();
    complete(&mut told, Format::Text, example_time(), &failure, &closing());
    let failed = keys(&told);
    let reset = keys(&line(Format::Text, &record(outbound(), Outcome::Reset { by: End::Client })));
    let table: Vec<&str> = manual::FIELDS.iter().map(|(name, _)| *name).collect();
    let position = |key: &String| table.iter().position(|known| known == key);
    for keys in [&failed, &reset] {
        let positions: Vec<usize> =
            keys.iter().map(|key| position(key).expect("every field is in the table")).collect();
        assert!(positions.is_sorted(), "{keys:?}");
    }
    assert_eq!(failed.len() + 1, table.len(), "only who reset it is missing: {failed:?}");
}
