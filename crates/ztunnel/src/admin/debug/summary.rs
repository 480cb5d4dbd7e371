//! The whole at a glance: `/debug/summary`, which the dashboard and `ztunnel top` ask for again and again.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Sources, connections};
use crate::admin::ready::{Readiness, TaskName};
use crate::identity::certificate::rfc3339;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    certificates: Vec<Certificate>,
    connections: Connections,
    failures: Failures,
    /// The level of the log.
    log: String,
    mesh: Mesh,
    node: Option<String>,
    /// What readiness waits for.
    pending: Vec<&'static str>,
    state: &'static str,
    time_ms: u64,
    totals: Totals,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    expires: Option<String>,
    identity: String,
    remaining_seconds: Option<u64>,
    state: String,
}

#[derive(Debug, Serialize)]
struct Connections {
    inbound: usize,
    outbound: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failures {
    /// Of those that are kept.
    by_code: BTreeMap<&'static str, usize>,
    seen: u64,
}

#[derive(Debug, Serialize)]
struct Mesh {
    policies: usize,
    services: usize,
    version: u64,
    workloads: usize,
}

/// Since the start of the process.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    bytes_from_clients: u64,
    bytes_from_servers: u64,
    opened: u64,
}

pub(super) fn tell(sources: &Sources) -> Summary {
    let now = sources.views.current();
    let [inbound, outbound] = connections::counts(&sources.telemetry);
    let (last, seen) = sources.telemetry.failures();
    let mut by_code = BTreeMap::new();
    for failure in &last {
        *by_code.entry(failure.cause.meaning().code).or_default() += 1;
    }
    let (state, pending) = match sources.ready.readiness() {
        Readiness::Ready => ("ready", Vec::new()),
        Readiness::Draining => ("draining", Vec::new()),
        Readiness::Pending(tasks) => ("pending", tasks.into_iter().map(TaskName::as_str).collect()),
    };
    let totals = sources.telemetry.metrics().totals();
    let (time, view) = (SystemTime::now(), &now.view);
    Summary {
        certificates: certificates(sources, time),
        connections: Connections { inbound, outbound },
        failures: Failures { by_code, seen },
        log: sources.telemetry.log_filter(),
        mesh: Mesh {
            policies: view.policies().len(),
            services: view.services().len(),
            version: now.version,
            workloads: view.workloads().len(),
        },
        node: sources.node.clone(),
        pending,
        state,
        time_ms: time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
        totals: Totals { bytes_from_clients: totals.received, bytes_from_servers: totals.sent, opened: totals.opened },
    }
}

/// Those that end first come first, behind those that are not there.
fn certificates(sources: &Sources, now: SystemTime) -> Vec<Certificate> {
    let mut all = sources.identities.states();
    all.sort_by_key(|(identity, _, until)| (*until, identity.to_string()));
    let shown = all.into_iter().map(|(identity, state, until)| Certificate {
        expires: until.map(rfc3339),
        identity: identity.to_string(),
        remaining_seconds: until.map(|until| until.duration_since(now).map_or(0, |left| left.as_secs())),
        state,
    });
    shown.collect()
}
