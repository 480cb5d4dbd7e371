use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Cause, Outcome};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use super::otlp::{AnyValue, ExportLogsServiceRequest, ExportLogsServiceResponse, Kind, LogRecord};
use super::*;
use crate::telemetry::fixtures::{example_time, log, metrics_config, outbound};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Config, Exporter, Telemetry};

/// Only a failing test waits for so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A collector's side of the call.
#[derive(Clone)]
struct Receiver {
    requests: mpsc::UnboundedSender<ExportLogsServiceRequest>,
}

impl UnaryService<ExportLogsServiceRequest> for Receiver {
    type Response = ExportLogsServiceResponse;
    type Future = BoxFuture<tonic::Response<Self::Response>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<ExportLogsServiceRequest>) -> Self::Future {
        let _ = self.requests.send(request.into_inner());
        Box::pin(async { Ok(tonic::Response::new(ExportLogsServiceResponse::default())) })
    }
}

/// Takes records at an address until it is dropped.
fn collect(listener: TcpListener) -> (mpsc::UnboundedReceiver<ExportLogsServiceRequest>, tokio::task::JoinHandle<()>) {
    let (requests, received) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let receiver = Receiver { requests: requests.clone() };
            let serve = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let receiver = receiver.clone();
                async move {
                    assert_eq!(request.uri().path(), otlp::EXPORT);
                    let codec = ProstCodec::<ExportLogsServiceResponse, ExportLogsServiceRequest>::default();
                    let request = request.map(tonic::body::Body::new);
                    Ok::<_, Infallible>(Grpc::new(codec).unary(receiver, request).await)
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), serve));
        }
    });
    (received, serving)
}

fn telemetry() -> (Telemetry, mpsc::Receiver<crate::telemetry::Exported>) {
    let logging = log(Default::default()).0;
    let metrics = Arc::new(Metrics::new(&metrics_config(), logging.clone()));
    let (exporter, records) = Exporter::new();
    (Telemetry::new(metrics, logging, Config { export: Some(exporter), ..Config::default() }), records)
}

fn sender() -> Sender {
    Sender { node: Some("n1".into()), cluster: "c1".into(), version: "1.2".into() }
}

fn value(record: &LogRecord, key: &str) -> Option<Kind> {
    let found = record.attributes.iter().find(|pair| pair.key == key)?;
    found.value.as_ref().and_then(|AnyValue { value }| value.clone())
}

async fn next(requests: &mut mpsc::UnboundedReceiver<ExportLogsServiceRequest>) -> ExportLogsServiceRequest {
    tokio::time::timeout(DEADLINE, requests.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn connections_reach_a_collector_with_the_fields_of_their_lines() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut requests, _serving) = collect(listener);
    let (telemetry, records) = telemetry();
    tokio::spawn(run(format!("http://{address}").parse().unwrap(), sender(), records));
    let mut meter = telemetry.open(Arc::new(outbound()));
    meter.upstream(77);
    meter.finish(Outcome::Complete);
    telemetry.open(Arc::new(outbound())).finish(Outcome::failed(Cause::Denied, "no".into()));

    let mut records = Vec::new();
    while records.len() < 2 {
        let logs = next(&mut requests).await.resource_logs.remove(0);
        let resource = logs.resource.unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        records.extend(logs.scope_logs.into_iter().flat_map(|scope| scope.log_records));
    }
    let [well, denied]: [LogRecord; 2] = records.try_into().unwrap();
    assert_eq!((well.severity_text.as_str(), denied.severity_text.as_str()), ("INFO", "ERROR"));
    assert_eq!(well.body.clone().unwrap().value, Some(Kind::Text("connection complete".into())));
    assert_eq!(value(&well, "bytes_sent"), Some(Kind::Number(77)));
    assert_eq!(value(&well, "src.addr"), Some(Kind::Text("10.1.0.2:39050".into())));
    assert_eq!(value(&denied, "reason"), Some(Kind::Text("denied".into())));
    assert_eq!(well.trace_id, 7_u128.to_be_bytes());
    assert!(well.time_unix_nano > nanoseconds(example_time()) / 2);
}

fn nanoseconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

#[tokio::test]
async fn a_collector_that_comes_late_gets_what_has_waited_for_it() {
    // An address at which nobody listens until somebody does.
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = held.local_addr().unwrap();
    drop(held);
    let (telemetry, records) = telemetry();
    tokio::spawn(run(format!("http://{address}").parse().unwrap(), sender(), records));
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    tokio::task::yield_now().await;
    let (mut requests, _serving) = collect(TcpListener::bind(address).await.unwrap());
    assert_eq!(next(&mut requests).await.resource_logs[0].scope_logs[0].log_records.len(), 1);
}

#[test]
fn a_collector_is_an_address_without_tls() {
    for (text, host, port) in
        [("http://otel:4317", "otel", 4317), ("http://otel", "otel", 4317), ("http://[::1]:9/", "::1", 9)]
    {
        let collector: Collector = text.parse().unwrap();
        assert_eq!((collector.host.as_str(), collector.port), (host, port), "{text}");
    }
    for text in ["", "otel:4317", "https://otel:4317", "http://", "http://u@otel", "http://otel/v1/logs"] {
        assert_eq!(text.parse::<Collector>(), Err(InvalidCollector), "{text}");
    }
}
