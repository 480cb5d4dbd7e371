use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Cause, Direction, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use super::otlp::{AnyValue, ExportResponse, Kind, LogRecord, Logs, Signal, Span, Spans, Status};
use super::*;
use crate::crypto::{self, KeyExchange, Versions};
use crate::telemetry::fixtures::{example_time, inbound, log, metrics_config, outbound};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Config, Exporter, Exporters, Telemetry};

/// Only a failing test waits for so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A collector's side of the calls.
struct Receiver<S: Signal>(mpsc::UnboundedSender<S::Request>);

impl<S: Signal> UnaryService<S::Request> for Receiver<S> {
    type Response = ExportResponse;
    type Future = BoxFuture<tonic::Response<Self::Response>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<S::Request>) -> Self::Future {
        let _ = self.0.send(request.into_inner());
        Box::pin(async { Ok(tonic::Response::new(ExportResponse::default())) })
    }
}

/// Takes one connection at an address, with TLS if there is something to prove a name with, until it is dropped.
fn collect<S: Signal + 'static>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> (mpsc::UnboundedReceiver<S::Request>, tokio::task::JoinHandle<()>) {
    let (requests, received) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => serve::<S>(stream, requests.clone()),
                // A client that does not trust us has left.
                Some(tls) => tls.accept(stream).await.into_iter().for_each(|it| serve::<S>(it, requests.clone())),
            }
        }
    });
    (received, serving)
}

fn serve<S: Signal + 'static>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    requests: mpsc::UnboundedSender<S::Request>,
) {
    let serve = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let receiver = Receiver::<S>(requests.clone());
        async move {
            assert_eq!(request.uri().path(), S::EXPORT);
            let codec = ProstCodec::<ExportResponse, S::Request>::default();
            let request = request.map(tonic::body::Body::new);
            Ok::<_, Infallible>(Grpc::new(codec).unary(receiver, request).await)
        }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(http.serve_connection(TokioIo::new(io), serve));
}

/// Telemetry that exports, and the records that are to be sent.
fn telemetry() -> (Telemetry, mpsc::Receiver<crate::telemetry::Exported>) {
    let logging = log(Default::default()).0;
    let metrics = Arc::new(Metrics::new(&metrics_config(), logging.clone()));
    let (exporter, records) = Exporter::new();
    let export = Exporters { logs: Some(exporter), spans: None };
    (Telemetry::new(metrics, logging, Config { export, ..Config::default() }), records)
}

fn sender() -> Sender {
    Sender { node: Some("n1".into()), cluster: "c1".into(), version: "1.2".into() }
}

fn config(collector: &str, roots: Roots) -> super::Config {
    let crypto = crypto::Config { versions: Versions::Tls13, key_exchange: KeyExchange::HybridPreferred };
    super::Config { collector: collector.parse().unwrap(), roots, crypto: Crypto::new(crypto).unwrap() }
}

fn plain(address: SocketAddr) -> super::Config {
    config(&format!("http://{address}"), Roots::System)
}

fn value(record: &LogRecord, key: &str) -> Option<Kind> {
    let found = record.attributes.iter().find(|pair| pair.key == key)?;
    found.value.as_ref().and_then(|AnyValue { value }| value.clone())
}

async fn next<T>(requests: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(DEADLINE, requests.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn connections_reach_a_collector_with_the_fields_of_their_lines() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut requests, _serving) = collect::<Logs>(listener, None);
    let (telemetry, records) = telemetry();
    tokio::spawn(logs(plain(address), sender(), records));
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
    tokio::spawn(logs(plain(address), sender(), records));
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    tokio::task::yield_now().await;
    let (mut requests, _serving) = collect::<Logs>(TcpListener::bind(address).await.unwrap(), None);
    assert_eq!(next(&mut requests).await.resource_logs[0].scope_logs[0].log_records.len(), 1);
}

#[tokio::test]
async fn a_connection_is_one_trace_of_two_spans_of_which_the_one_in_belongs_to_the_one_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut requests, _serving) = collect::<Spans>(listener, None);
    let (telemetry, records) = telemetry();
    tokio::spawn(spans(plain(address), sender(), records));
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    telemetry.open(Arc::new(inbound())).finish(Outcome::failed(Cause::Denied, "no".into()));
    // Of what ended before it was known who talks to whom there is no span.
    let [source, destination] = ["10.0.0.1:5", "10.0.0.2:80"].map(|address| address.parse().unwrap());
    telemetry.early_denial(source, destination, Direction::Outbound, Cause::NoHealthyUpstream, "nobody");

    let mut told = Vec::new();
    while told.len() < 2 {
        let spans = next(&mut requests).await.resource_spans.remove(0);
        assert_eq!(spans.resource.unwrap().attributes[0].key, "service.name");
        told.extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    let [out, into]: [Span; 2] = told.try_into().unwrap();
    assert_eq!((&out.trace_id, &into.trace_id), (&7_u128.to_be_bytes().to_vec(), &out.trace_id));
    assert_eq!((&out.span_id, out.parent_span_id.len()), (&8_u64.to_be_bytes().to_vec(), 0));
    assert_eq!((&into.parent_span_id, into.span_id.len()), (&out.span_id, 8));
    assert_ne!(into.span_id, into.parent_span_id);
    assert_eq!([out.kind, into.kind], [3, 2], "client and server");
    assert!(out.status.is_none() && out.start_time_unix_nano <= out.end_time_unix_nano);
    assert_eq!(into.status, Some(Status { message: "no".into(), code: 2 }));
    assert!(into.attributes.iter().any(|pair| pair.key == "reason"));
}

#[tokio::test]
async fn a_collector_with_tls_is_given_records_if_it_proves_its_name() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut requests, _serving) = collect::<Spans>(listener, Some(Arc::new(tls).into()));

    // By its address, which it cannot prove, and by its name.
    let roots = Roots::Text(certificate.pem());
    let (stranger, records) = telemetry();
    tokio::spawn(spans(config(&format!("https://127.0.0.1:{port}"), roots.clone()), sender(), records));
    stranger.open(Arc::new(inbound())).finish(Outcome::Complete);
    let (telemetry, records) = telemetry();
    tokio::spawn(spans(config(&format!("https://localhost:{port}"), roots), sender(), records));
    telemetry.open(Arc::new(outbound())).finish(Outcome::Complete);
    let told = next(&mut requests).await.resource_spans.remove(0).scope_spans.remove(0).spans;
    assert_eq!((told.len(), &*told[0].name), (1, "outbound connection"));
}

#[test]
fn a_collector_is_an_address_with_or_without_tls() {
    for (text, host, port) in [
        ("http://otel:4317", "otel", 4317),
        ("http://otel", "otel", 4317),
        ("http://[::1]:9/", "::1", 9),
        ("https://otel:4317", "otel", 4317),
    ] {
        let collector: Collector = text.parse().unwrap();
        assert_eq!((collector.host.as_str(), collector.port), (host, port), "{text}");
        assert_eq!(collector.security == Security::Tls, text.starts_with("https"), "{text}");
    }
    for text in ["", "otel:4317", "ftp://otel:4317", "http://", "http://u@otel", "http://otel/v1/logs"] {
        assert_eq!(text.parse::<Collector>(), Err(InvalidCollector), "{text}");
    }
}
