//! `/debug/…`: what goes on at the moment, and why. Connections that are open, those that failed, what would become of one
//! that somebody thinks of, and the whole at a glance.
//!
//! All of it is read: nothing here changes anything, or waits for anything but, where sockets are asked for, the tunnels.

mod connections;
pub mod explain;
mod failures;
mod summary;

use std::net::SocketAddr;

use hyper::StatusCode;
use mesh::{AdmitSettings, RouteSettings};
use serde::Serialize;

use super::ready::Ready;
use crate::identity::Identities;
use crate::state::Views;
use crate::telemetry::{Path, Seen, Telemetry};

pub use connections::of_pods;

/// Where the answers come from.
#[derive(Debug)]
pub struct Sources {
    /// The state of the mesh.
    pub views: Views,
    /// Connections and failures.
    pub telemetry: Telemetry,
    /// Certificates.
    pub identities: Identities,
    /// Readiness.
    pub ready: Ready,
    /// How connections are routed.
    pub route: RouteSettings,
    /// How connections are admitted.
    pub admit: AdmitSettings,
    /// The domain of host names such as `web.shop.svc`.
    pub cluster_domain: String,
    /// The node that this is, if it is known.
    pub node: Option<String>,
}

/// A page of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Connections,
    Failures,
    Explain,
    Summary,
}

/// An answer.
#[derive(Debug)]
pub(super) enum Told {
    Json(Vec<u8>),
    Words(String),
}

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Question {
    #[error("{0}")]
    Unclear(String),
    #[error("{0}")]
    Unknown(String),
    #[error("cannot be printed: {0}")]
    Unprintable(#[from] serde_json::Error),
}

impl Question {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unclear(_) => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Unprintable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Page {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/debug/connections" => Some(Self::Connections),
            "/debug/failures" => Some(Self::Failures),
            "/debug/explain" => Some(Self::Explain),
            "/debug/summary" => Some(Self::Summary),
            _ => None,
        }
    }
}

impl Sources {
    /// What the answer to a request needs of the data plane: nothing, unless sockets of connections are asked for.
    pub(super) async fn look(&self, page: Page, query: &str) -> Seen {
        match (page, parameter(query, "tcp").as_deref()) {
            (Page::Connections, Some("true")) => self.telemetry.look().await,
            _ => Seen::default(),
        }
    }

    pub(super) fn tell(&self, page: Page, query: &str, seen: &Seen) -> Result<Told, Question> {
        match page {
            Page::Connections => json(&connections::tell(&self.telemetry, query, seen)?),
            Page::Failures => json(&failures::tell(&self.telemetry, query)?),
            Page::Summary => json(&summary::tell(self)),
            Page::Explain => {
                let explanation = explain::explain(self, query)?;
                match parameter(query, "format").as_deref() {
                    Some("text") => Ok(Told::Words(explanation.words.join("\n") + "\n")),
                    _ => json(&explanation),
                }
            }
        }
    }
}

fn json(value: &impl Serialize) -> Result<Told, Question> {
    Ok(Told::Json(serde_json::to_vec_pretty(value)?))
}

/// The value of a parameter of a request.
fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// How many rows are wanted.
fn limit(query: &str, most: usize) -> Result<usize, Question> {
    let Some(text) = parameter(query, "limit") else { return Ok(most) };
    let limit: Option<usize> = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| Question::Unclear(format!("invalid limit {text:?}; it has to be from 1 to {most}")))
}

/// The way to the other end of a socket, as its TCP knows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    retransmits: u32,
    round_trip_us: u64,
}

impl From<Path> for Way {
    fn from(path: Path) -> Self {
        let round_trip_us = u64::try_from(path.round_trip.as_micros()).unwrap_or(u64::MAX);
        Self { retransmits: path.retransmits, round_trip_us }
    }
}

/// One side of a connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
}

impl Side {
    fn of(flow: &mesh::Flow, party: &mesh::Party, address: SocketAddr) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            address,
            cluster: text(&party.cluster),
            identity: flow.proven(party).map(ToString::to_string),
            namespace: text(&party.namespace),
            workload: party.pod.as_deref().map(str::to_owned),
        }
    }

    fn unknown(address: SocketAddr) -> Self {
        Self { address, cluster: None, identity: None, namespace: None, workload: None }
    }

    fn is_of(&self, namespace: Option<&str>, workload: Option<&str>) -> bool {
        namespace.is_none_or(|wanted| self.namespace.as_deref() == Some(wanted))
            && workload.is_none_or(|wanted| self.workload.as_deref() == Some(wanted))
    }
}

#[cfg(test)]
pub(super) mod tests;
