//! Things that tests of telemetry, and of what shows it, share.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::connect::TraceId;
use mesh::{Flow, Locality, Party, Reporter, SecurityPolicy, ServiceLabels};

use super::logging::{self, Flushed, Logging};
use super::metrics::{self, Histograms, Metrics, PodMetrics, Settings};
use super::{Config, Exporters, PolicyLogging, Telemetry};

/// The moment of the behaviour reference's examples: 2026-11-21T02:38:35.803626Z.
pub(crate) fn example_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_795_228_715_803_626)
}

/// An output that keeps what is written to it, and can be made to stall.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<(Mutex<Sink>, Condvar)>);

#[derive(Default)]
struct Sink {
    written: Vec<u8>,
    stalled: bool,
    /// Somebody is stuck in a write.
    stuck: bool,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
    }

    pub(crate) fn stall(&self) {
        self.0.0.lock().unwrap().stalled = true;
    }

    pub(crate) fn resume(&self) {
        self.0.0.lock().unwrap().stalled = false;
        self.0.1.notify_all();
    }

    /// Returns once a write has begun that does not come back.
    pub(crate) fn wait_until_stuck(&self) {
        let (sink, changed) = &*self.0;
        drop(changed.wait_while(sink.lock().unwrap(), |sink| !sink.stuck).unwrap());
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (sink, changed) = &*self.0;
        let mut sink = sink.lock().unwrap();
        while sink.stalled {
            sink.stuck = true;
            changed.notify_all();
            sink = changed.wait(sink).unwrap();
        }
        sink.stuck = false;
        sink.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A log and where it goes.
pub(crate) fn log(config: logging::Config) -> (Logging, Output) {
    let output = Output::default();
    (logging::start(config, output.clone()).unwrap(), output)
}

/// What a log has written so far.
pub(crate) fn logged(logging: &Logging, output: &Output) -> String {
    assert_eq!(logging.flush(), Flushed::Complete);
    output.text()
}

pub(crate) fn metrics_config() -> metrics::Config {
    metrics::Config {
        istio_version: "1.30.0".into(),
        pods: PodMetrics::Shown,
        allowance: hbone::h2::Allowance::new(1000),
        traffic: Settings::default(),
        histograms: Histograms::Absent,
        export: Exporters::default(),
    }
}

/// Telemetry that logs what `directives` say.
pub(crate) fn telemetry(directives: &str, policies: PolicyLogging) -> (Telemetry, Logging, Output) {
    let (logging, output) = log(logging::Config { directives: directives.into(), ..Default::default() });
    let metrics = Arc::new(Metrics::new(&metrics_config(), logging.clone()));
    let config = Config { policies, ..Config::default() };
    (Telemetry::new(metrics, logging.clone(), config), logging, output)
}

/// The connection of the behaviour reference's example: through HBONE from a client to a service's endpoint.
pub(crate) fn outbound() -> Flow {
    Flow {
        reporter: Reporter::Source,
        source_address: "10.1.0.2:39050".parse().unwrap(),
        destination_address: "10.2.0.2:15008".parse().unwrap(),
        original_destination: "10.3.0.1:80".parse().unwrap(),
        hbone_authority: Some("10.2.0.2:8080".parse().unwrap()),
        source: workload("client"),
        destination: workload("server"),
        service: Some(ServiceLabels {
            hostname: "server.default.svc.cluster.local".into(),
            namespace: "default".into(),
            name: "server".into(),
        }),
        security: SecurityPolicy::MutualTls,
        trace: TraceId(7),
        hop: 8,
    }
}

/// The same connection at its other end.
pub(crate) fn inbound() -> Flow {
    Flow { reporter: Reporter::Destination, ..outbound() }
}

/// A connection to somewhere that nobody knows, past the mesh.
pub(crate) fn passthrough() -> Flow {
    let source = Party { principal: None, ..workload("client") };
    Flow {
        source,
        destination_address: "192.0.2.9:443".parse().unwrap(),
        hbone_authority: None,
        destination: Party::default(),
        service: None,
        security: SecurityPolicy::Unknown,
        ..outbound()
    }
}

fn workload(name: &str) -> Party {
    let identity: mesh::Identity = format!("spiffe://cluster.local/ns/default/sa/{name}-sa").parse().unwrap();
    Party {
        pod: Some(name.into()),
        workload: Some(format!("{name}-deployment").into()),
        canonical_service: Some(format!("{name}-canonical").into()),
        canonical_revision: Some("v1".into()),
        namespace: Some("default".into()),
        principal: Some(identity),
        app: Some(format!("{name}-canonical").into()),
        version: Some("v1".into()),
        cluster: Some("Kubernetes".into()),
        locality: Some(Locality { region: "r1".into(), ..Locality::default() }.into()),
    }
}
