use std::time::Duration;

use mesh::authorize::{Decision, DryRunHit};
use mesh::policy::{Action, DryRun, Policy};
use mesh::{Cause, End, Outcome};

use super::fixtures::{inbound, logged, outbound, telemetry};
use super::*;

/// The log lines without their time, and the metrics' samples of a family.
fn told(logging: &Logging, output: &fixtures::Output) -> Vec<String> {
    logged(logging, output).lines().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect()
}

fn count(telemetry: &Telemetry, family: &str, label: &str) -> u64 {
    let text = telemetry.metrics().render();
    let samples = text.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(label));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_finished_connection_makes_one_record_with_its_bytes_and_duration() {
    let (telemetry, logging, output) = telemetry("info", PolicyLogging::Debug);
    let mut meter = telemetry.open(Arc::new(outbound()));
    meter.upstream(70);
    meter.upstream(7);
    meter.downstream(43);
    assert_eq!(count(&telemetry, "istio_tcp_received_bytes_total", "source"), 77, "bytes are counted as they flow");
    assert_eq!(count(&telemetry, "istio_tcp_connections_opened_total", "source"), 1);
    assert_eq!(count(&telemetry, "istio_tcp_connections_closed_total", ""), 0, "it is open");
    tokio::time::advance(Duration::from_millis(1_234)).await;
    meter.finish(Outcome::Complete);

    let lines = told(&logging, &output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("info\taccess\tconnection complete\tsrc.addr=10.1.0.2:39050 "), "{}", lines[0]);
    assert!(lines[0].ends_with(" bytes_sent=77 bytes_recv=43 duration=\"1234ms\""), "{}", lines[0]);
    assert_eq!(count(&telemetry, "istio_tcp_sent_bytes_total", "source"), 43);
    assert_eq!(count(&telemetry, "istio_tcp_connections_opened_total", "response_flags=\"-\""), 1);
    assert_eq!(count(&telemetry, "istio_tcp_connections_closed_total", "response_flags=\"-\""), 1);
    assert_eq!(count(&telemetry, "istio_tcp_connections_failed_total", ""), 0);
}

#[test]
fn a_meter_dropped_unfinished_records_that_the_connection_was_cut_once() {
    let (telemetry, logging, output) = telemetry("info", PolicyLogging::Debug);
    drop(telemetry.open(Arc::new(inbound())));
    let lines = told(&logging, &output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("error\taccess\tconnection complete\t"), "{}", lines[0]);
    assert!(lines[0].ends_with(" error=\"connection closed due to connection drain\""), "{}", lines[0]);
    assert_eq!(count(&telemetry, "istio_tcp_connections_closed_total", "response_flags=\"-\""), 1);
}

#[test]
fn a_panic_while_a_connection_is_open_leaves_its_record() {
    let (telemetry, logging, output) = telemetry("info", PolicyLogging::Debug);
    let meter = telemetry.open(Arc::new(inbound()));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _meter = meter;
        std::panic::resume_unwind(Box::new("a bug"));
    }));
    assert!(panicked.is_err());
    assert_eq!(told(&logging, &output).len(), 1);
}

#[test]
fn a_failure_is_counted_by_its_flag_as_closed_and_failed_and_a_reset_is_not_a_failure() {
    let (telemetry, ..) = telemetry("off", PolicyLogging::Debug);
    let open = || telemetry.open(Arc::new(inbound()));
    open().finish(Outcome::failed(Cause::Denied, "no".into()));
    open().finish(Outcome::Reset { by: End::Client });
    for family in ["istio_tcp_connections_closed_total", "istio_tcp_connections_failed_total"] {
        assert_eq!(count(&telemetry, family, "response_flags=\"DENY\""), 1);
    }
    assert_eq!(count(&telemetry, "istio_tcp_connections_closed_total", "response_flags=\"-\""), 1);
    assert_eq!(count(&telemetry, "istio_tcp_connections_failed_total", ""), 1);
}

#[test]
fn access_lines_follow_the_level_of_their_target() {
    let (telemetry, logging, output) = telemetry("off,access=debug", PolicyLogging::Debug);
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    let lines = told(&logging, &output);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("debug\taccess\tconnection opened\t"), "{lines:?}");
    logging.change(logging::Base::Current, logging::directives("access=error").unwrap());
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    telemetry.open(Arc::new(outbound())).finish(Outcome::Drained);
    let lines = told(&logging, &output);
    assert!(lines.len() == 3 && lines[2].starts_with("error\t"), "{lines:?}");
}

#[test]
fn an_early_denial_is_logged_and_counted() {
    let (telemetry, logging, output) = telemetry("info", PolicyLogging::Debug);
    let [source, destination] = ["10.0.0.1:5", "10.0.0.2:15008"].map(|address| address.parse().unwrap());
    let error = "tls handshake error: no certificate";
    telemetry.early_denial(source, destination, Direction::Inbound, Cause::TlsHandshake, error);
    assert_eq!(
        told(&logging, &output),
        ["warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:5 dst.addr=10.0.0.2:15008 direction=\"inbound\" \
          error=\"tls handshake error: no certificate\" reason=\"tls-handshake\" stage=\"tls\" side=\"peer\""]
    );
    let labels = "{reporter=\"destination\",response_flags=\"TLS_FAILURE\"}";
    assert_eq!(count(&telemetry, "istio_tcp_connections_denied_early_total", labels), 1);
    assert_eq!(count(&telemetry, "istio_tcp_connections_opened_total", ""), 0);
}

#[test]
fn sockets_are_counted_while_they_are_open() {
    let (telemetry, ..) = telemetry("off", PolicyLogging::Debug);
    let open = |reporter: &str| count(&telemetry, "istio_tcp_sockets_open", &format!("reporter=\"{reporter}\""));
    let pod = Arc::default();
    let guards = [Reporter::Source, Reporter::Destination, Reporter::Destination].map(|r| telemetry.socket(r, &pod));
    assert_eq!((open("source"), open("destination"), pod.open()), (1, 2, 3));
    drop(guards);
    assert_eq!((open("source"), open("destination"), pod.open()), (0, 0, 0));
}

fn deciding(name: &str) -> Deciding {
    let policy = Policy {
        key: format!("shop/{name}").as_str().into(),
        namespace: "shop".into(),
        name: name.into(),
        scope: mesh::policy::PolicyScope::Namespace,
        action: Action::Deny,
        dry_run: DryRun::Enforced,
        rules: Vec::new(),
    };
    Deciding { policy: Arc::new(policy), rule: 0 }
}

fn decide(decisions: PolicyLogging, directives: &str) -> Vec<String> {
    let (telemetry, logging, output) = telemetry(directives, decisions);
    let verdict = Verdict {
        decision: Decision::Denied(deciding("no-clients")),
        dry_run: vec![DryRunHit::Match(Action::Deny, deciding("someday")), DryRunHit::NoAllow],
        skipped: vec!["shop/ghost".into()],
    };
    tracing::subscriber::with_default(logging.subscriber(), || {
        telemetry.policy_decision(Some(&verdict));
        telemetry.policy_decision(None);
    });
    told(&logging, &output)
}

#[test]
fn decisions_of_policies_are_logged_at_the_level_that_was_asked_for() {
    let lines = |level: &str| {
        [
            "warn\tauthz\tskipping unknown policy shop/ghost\t".to_owned(),
            format!("{level}\tauthz\tdry-run: deny policy match\tpolicy=\"shop/someday\""),
            format!("{level}\tauthz\tdry-run: no allow policies match\t"),
            format!("{level}\tauthz\tdeny policy match\tpolicy=\"shop/no-clients\""),
        ]
    };
    assert_eq!(decide(PolicyLogging::Info, "info"), lines("info"));
    assert_eq!(decide(PolicyLogging::Debug, "debug"), lines("debug"));
    assert_eq!(decide(PolicyLogging::Debug, "info"), lines("info")[..1]);
}
