//! Sends records to the collector: connects, batches, tries again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request, Response};
use tonic_prost::ProstCodec;

use super::otlp::{ExportResponse, Signal};
use super::{Config, Security, Sender};
use crate::control::tls;
use crate::telemetry::Exported;

/// Records that are sent at once.
const BATCH: usize = 512;
/// How long a record may wait for others to be sent with.
const LINGER: Duration = Duration::from_secs(1);
/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts: at first, and at most. Records that come meanwhile wait in the queue, as long as it has room.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Between pings of a connection that is in use, so that one that leads nowhere is noticed.
const PING: Duration = Duration::from_secs(30);

/// Sends what comes out of `records` until its other end is gone and everything has been sent or given up.
pub(super) async fn run<S: Signal>(config: Config, sender: Sender, mut records: mpsc::Receiver<Exported>) {
    let collector = &config.collector;
    let mut channel = None;
    let mut complained = false;
    while let Some(batch) = next(&mut records).await {
        let request = S::request(&sender, &batch);
        let mut pause = PAUSES.0;
        loop {
            let sent = timeout(PATIENCE, send::<S>(&config, &mut channel, request.clone())).await;
            let error = match sent {
                Ok(Ok(())) => {
                    if std::mem::take(&mut complained) {
                        tracing::info!(%collector, "the collector takes records again");
                    }
                    break;
                }
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            };
            channel = None;
            if !std::mem::replace(&mut complained, true) {
                tracing::warn!(%collector, error, "records cannot be sent; trying again until they can");
            }
            if records.is_closed() {
                return; // the process ends, and nobody waits for the collector
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// As many records as are there, at most [`BATCH`]; waits for the first, and a moment for others.
async fn next(records: &mut mpsc::Receiver<Exported>) -> Option<Vec<Exported>> {
    let mut batch = vec![records.recv().await?];
    let more = async {
        while batch.len() < BATCH {
            match records.recv().await {
                Some(record) => batch.push(record),
                None => break,
            }
        }
    };
    let _ = timeout(LINGER, more).await; // then it is what it is
    Some(batch)
}

async fn send<S: Signal>(config: &Config, channel: &mut Option<Channel>, request: S::Request) -> Result<(), String> {
    let collector = &config.collector;
    let channel = match channel {
        Some(channel) if !channel.0.is_closed() => channel,
        none => none.insert(connect(config).await?),
    };
    let mut grpc = Grpc::with_origin(channel.clone(), collector.origin.clone());
    grpc.ready().await.map_err(|error| error.to_string())?;
    let codec = ProstCodec::<S::Request, ExportResponse>::default();
    let path = PathAndQuery::from_static(S::EXPORT);
    let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
    let answer = answer.map_err(|status| format!("{}: {}", status.code(), status.message()))?;
    if let Some(partial) = answer.into_inner().partial_success
        && partial.rejected > 0
    {
        let (count, error) = (partial.rejected, partial.error_message);
        tracing::warn!(%collector, count, error, "the collector did not take all records");
    }
    Ok(())
}

async fn connect(config: &Config) -> Result<Channel, String> {
    let (host, port) = (config.collector.host.as_str(), config.collector.port);
    let socket = TcpStream::connect((host, port)).await.map_err(|e| e.to_string())?;
    let _ = socket.set_nodelay(true); // matters for speed only
    match config.collector.security {
        Security::Plain => speak_http(socket).await,
        Security::Tls => {
            // The roots of this moment: a file that has been replaced counts from the next connection on.
            let tls = tls::client(&config.crypto, &config.roots, None).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let secure = TlsConnector::from(Arc::new(tls)).connect(name, socket).await;
            speak_http(secure.map_err(|error| format!("TLS: {error} (OTLP_ROOT_CA names whom to trust)"))?).await
        }
    }
}

async fn speak_http(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Channel, String> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PATIENCE);
    let (send, connection) = http.handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the collector ended");
        }
    });
    Ok(Channel(send))
}

/// A connection that calls can be made on.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
