//! Connections that are open: `/debug/connections`, and those of each pod in the configuration dump.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mesh::{Authority, Flow, LocalWorkload, Reporter, SecurityPolicy};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Question, Side, Way, limit, parameter};
use crate::telemetry::{Connection, Seen, Telemetry};

/// Connections that are listed at most; the rest is in the total.
const MOST: usize = 10_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connections {
    connections: Vec<Row>,
    /// Those that the request is about, listed or not.
    total: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_path: Option<Way>,
    bytes_received: u64,
    bytes_sent: u64,
    destination: Side,
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hbone_address: Option<String>,
    id: String,
    original_destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_path: Option<Way>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    source: Side,
    stage: &'static str,
}

/// Open connections, the oldest first, with what was `seen` of their sockets; `namespace` and `workload` are of either side.
pub(super) fn tell(telemetry: &Telemetry, query: &str, seen: &Seen) -> Result<Connections, Question> {
    let limit = limit(query, MOST)?;
    let [direction, namespace, workload] = ["direction", "namespace", "workload"].map(|name| parameter(query, name));
    let mut open = telemetry.connections();
    open.sort_by_key(|connection| connection.opened());
    let (namespace, workload) = (namespace.as_deref(), workload.as_deref());
    let mut found = Connections { connections: Vec::new(), total: 0 };
    for row in open.iter().map(|connection| row(connection, seen)) {
        let wanted = direction.as_deref().is_none_or(|direction| direction == row.direction)
            && (row.source.is_of(namespace, workload) || row.destination.is_of(namespace, workload));
        found.total += usize::from(wanted);
        if wanted && found.connections.len() < limit {
            found.connections.push(row);
        }
    }
    Ok(found)
}

fn row(connection: &Arc<Connection>, seen: &Seen) -> Row {
    let paths = seen.of(connection).unwrap_or_default();
    let (flow, tally) = (connection.flow(), connection.tally());
    // As in the access log: from the local workload's view.
    let (bytes_sent, bytes_received) = match flow.reporter {
        Reporter::Source => (tally.upstream_bytes, tally.downstream_bytes),
        Reporter::Destination => (tally.downstream_bytes, tally.upstream_bytes),
    };
    Row {
        age_ms: u64::try_from(connection.opened().elapsed().as_millis()).unwrap_or(u64::MAX),
        app_path: paths.app.map(Way::from),
        bytes_received,
        bytes_sent,
        destination: Side::of(flow, &flow.destination, flow.destination_address),
        direction: flow.reporter.direction().as_str(),
        hbone_address: flow.hbone_authority.as_ref().map(ToString::to_string),
        id: format!("{:032x}", flow.trace.0),
        original_destination: flow.original_destination.to_string(),
        peer_path: paths.peer.map(Way::from),
        protocol: protocol(flow),
        service: flow.service.as_ref().map(|service| service.hostname.to_string()),
        source: Side::of(flow, &flow.source, flow.source_address),
        stage: connection.progress().as_str(),
    }
}

fn protocol(flow: &Flow) -> &'static str {
    match flow.security {
        SecurityPolicy::MutualTls => "HBONE",
        SecurityPolicy::Unknown => "TCP",
    }
}

/// The `connections` of each pod in the configuration dump: equal ones appear once (spec admin-and-telemetry 2).
pub fn of_pods(telemetry: &Telemetry) -> impl Fn(&LocalWorkload) -> Value + use<> {
    let mut pods: HashMap<(String, String), [BTreeMap<String, Value>; 2]> = HashMap::new();
    for connection in telemetry.connections() {
        let flow = connection.flow();
        let (local, list) = match flow.reporter {
            Reporter::Destination => (&flow.destination, 0),
            Reporter::Source => (&flow.source, 1),
        };
        let (Some(namespace), Some(name)) = (&local.namespace, &local.pod) else { continue };
        let shown = match flow.reporter {
            Reporter::Destination => inbound(flow),
            Reporter::Source => outbound(flow),
        };
        let pod = pods.entry((namespace.to_string(), name.to_string())).or_default();
        pod[list].insert(shown.to_string(), shown);
    }
    move |who| {
        let key = (who.namespace.as_str().to_owned(), who.name.to_string());
        let [inbound, outbound] = pods.get(&key).cloned().unwrap_or_default();
        let list = |connections: BTreeMap<String, Value>| -> Value { connections.into_values().collect() };
        json!({ "inbound": list(inbound), "outbound": list(outbound) })
    }
}

fn inbound(flow: &Flow) -> Value {
    let asked = match &flow.hbone_authority {
        Some(Authority::Address(address)) => *address,
        Some(Authority::Host { .. }) | None => flow.destination_address,
    };
    json!({
        "actualDst": asked.to_string(),
        "originalDst": flow.service.as_ref().map(|service| &*service.hostname),
        "protocol": protocol(flow),
        "src": flow.source_address.to_string(),
    })
}

fn outbound(flow: &Flow) -> Value {
    json!({
        "actualDst": flow.destination_address.to_string(),
        "originalDst": flow.original_destination.to_string(),
        "protocol": protocol(flow),
        "src": flow.source_address.to_string(),
    })
}

/// How many connections are open: inbound, outbound.
pub(super) fn counts(telemetry: &Telemetry) -> [usize; 2] {
    let open = telemetry.connections();
    let outbound = open.iter().filter(|connection| connection.flow().reporter == Reporter::Source).count();
    [open.len() - outbound, outbound]
}

/// How many connections are open through tunnels of that identity to that next hop.
pub(super) fn between(telemetry: &Telemetry, source: &mesh::Identity, next: std::net::SocketAddr) -> usize {
    let open = telemetry.connections();
    let shares = |connection: &&std::sync::Arc<Connection>| {
        let flow = connection.flow();
        flow.reporter == Reporter::Source
            && flow.security == SecurityPolicy::MutualTls
            && flow.destination_address == next
            && flow.proven(&flow.source) == Some(source)
    };
    open.iter().filter(shares).count()
}
