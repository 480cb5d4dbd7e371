//! Records of connections, sent to a collector: OTLP logs over gRPC (`ACCESS_LOG_OTLP`), besides the lines on standard
//! output.
//!
//! Records wait in a bounded queue and are sent in batches. A collector that is slow or gone costs records, which are
//! counted, and never holds up traffic. The fields of a record are those of its line, under the same names.

mod driver;
mod otlp;

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

pub use driver::run;

/// Port of collectors where none is given (OTLP specification, "OTLP/gRPC Default Port").
const PORT: u16 = 4317;

/// Where the collector is: `http://HOST:PORT`.
///
/// Without TLS: a collector stands on the same node or in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    host: String,
    port: u16,
    origin: Uri,
}

/// Text that is no address of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://HOST:PORT of a collector that takes OTLP over gRPC")]
pub struct InvalidCollector;

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| InvalidCollector)?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(InvalidCollector)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.scheme_str() != Some("http") || host.is_empty() || !matches!(uri.path(), "" | "/") {
            return Err(InvalidCollector);
        }
        let port = authority.port_u16().unwrap_or(PORT);
        let origin =
            Uri::builder().scheme("http").authority(format!("{}:{port}", authority.host())).path_and_query("/");
        Ok(Self { host, port, origin: origin.build().map_err(|_| InvalidCollector)? })
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
