//! Records of connections, sent to collectors by OTLP over gRPC: as logs (`ACCESS_LOG_OTLP`), besides the lines on standard
//! output, and as spans (`SPANS_OTLP`), which a trace of the W3C's brings together from both ends of a connection.
//!
//! Records wait in a bounded queue and are sent in batches. A collector that is slow or gone costs records, which are
//! counted, and never holds up traffic. The fields of a record are those of its line, under the same names.

mod driver;
mod otlp;

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

use tokio::sync::mpsc;

use crate::control::Roots;
use crate::crypto::Crypto;
use crate::telemetry::Exported;

/// Port of collectors where none is given (OTLP specification, "OTLP/gRPC Default Port").
const PORT: u16 = 4317;

/// Where records go, and how it is known that they go there.
#[derive(Clone, Debug)]
pub struct Config {
    /// See [`Collector`].
    pub collector: Collector,
    /// Whom a collector with TLS must have its certificate from (`OTLP_ROOT_CA`).
    pub roots: Roots,
    /// The cryptography of all TLS.
    pub crypto: Crypto,
}

/// Sends records as logs, until their other end is gone.
pub async fn logs(config: Config, sender: Sender, records: mpsc::Receiver<Exported>) {
    driver::run::<otlp::Logs>(config, sender, records).await;
}

/// Sends records as spans, until their other end is gone.
pub async fn spans(config: Config, sender: Sender, records: mpsc::Receiver<Exported>) {
    driver::run::<otlp::Spans>(config, sender, records).await;
}

/// Where a collector is: `http://HOST:PORT` or, with TLS, `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    host: String,
    port: u16,
    security: Security,
    origin: Uri,
}

/// Whether a collector is spoken to through TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    /// It stands on the same node or in the mesh.
    Plain,
    /// It proves its name.
    Tls,
}

/// Text that is no address of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://HOST:PORT or https://HOST:PORT of a collector that takes OTLP over gRPC")]
pub struct InvalidCollector;

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| InvalidCollector)?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(InvalidCollector)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (scheme, security) = match uri.scheme_str() {
            Some("http") => ("http", Security::Plain),
            Some("https") => ("https", Security::Tls),
            _ => return Err(InvalidCollector),
        };
        if host.is_empty() || !matches!(uri.path(), "" | "/") {
            return Err(InvalidCollector);
        }
        let port = authority.port_u16().unwrap_or(PORT);
        let origin =
            Uri::builder().scheme(scheme).authority(format!("{}:{port}", authority.host())).path_and_query("/");
        Ok(Self { host, port, security, origin: origin.build().map_err(|_| InvalidCollector)? })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

/// Who sends: attributes of the resource that records are of.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The node.
    pub node: Option<String>,
    /// The cluster.
    pub cluster: String,
    /// Version of this build.
    pub version: String,
}

#[cfg(test)]
mod tests;
