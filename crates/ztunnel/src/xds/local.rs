//! Static state: workloads, services and policies from a file instead of, or beside, a control plane (spec
//! configuration 5).
//!
//! A document is taken as a whole or not at all, and an error names the object, the key, the line where it is known, and
//! what to do. Reading the file and reloading it are the driver's. Besides the documented format, port keys may be
//! quoted and string matches written as maps, so that JSON works too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use mesh::Change;

pub mod shape;

use shape::{Endpoint, StaticConfig};

/// A document that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalError {
    /// The object at fault, for example `workload cart-0`.
    object: Option<String>,
    /// Where it is, counted from 1.
    line: Option<usize>,
    /// What is wrong, with the key.
    problem: String,
    /// What to do about it.
    remedy: &'static str,
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid static state")?;
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for LocalError {}

/// Reads a document; an empty one is valid.
pub fn parse(text: &str) -> Result<StaticConfig, LocalError> {
    match serde_yaml_ng::from_str::<Option<StaticConfig>>(text) {
        Ok(config) => Ok(config.unwrap_or_default()),
        Err(error) => Err(syntax(text, &error)),
    }
}

/// Reads a document and makes of it what is to be applied.
pub fn decode(text: &str) -> Result<Vec<Change>, LocalError> {
    assemble(parse(text)?)
}

/// What is to be applied: workloads, then policies, then services.
pub fn assemble(config: StaticConfig) -> Result<Vec<Change>, LocalError> {
    let StaticConfig { mut workloads, policies, services } = config;
    unique(
        "workload",
        workloads.iter().map(|w| (w.uid.clone(), w.name.to_string())),
        "give each workload its own uid",
    )?;
    let key = |namespace: &str, name: &str| format!("{namespace}/{name}");
    let names = services.iter().map(|s| key(&s.namespace, &s.hostname));
    unique("service", names.map(|name| (name.clone(), name)), "keep one service of each namespace and hostname")?;
    let names = policies.iter().map(|p| key(&p.namespace, &p.name));
    unique("policy", names.map(|name| (name.clone(), name)), "keep one policy of each namespace and name")?;

    let index: HashMap<_, _> = workloads.iter().enumerate().map(|(index, w)| (w.uid.clone(), index)).collect();
    for service in &services {
        let name = key(&service.namespace, &service.hostname);
        for endpoint in service.endpoints.values() {
            let workload = index.get(&endpoint.workload_uid).and_then(|index| workloads.get_mut(*index));
            join(&name, endpoint, workload)?;
        }
    }
    let workloads = workloads.into_iter().map(|workload| Change::from(mesh::Workload::from(workload)));
    let policies = policies.into_iter().map(|policy| Change::from(mesh::Policy::from(policy)));
    let services = services.into_iter().map(|service| Change::from(mesh::Service::from(service)));
    Ok(workloads.chain(policies).chain(services).collect())
}

/// Makes a workload an endpoint of the service that lists it; what the workload itself says of the service goes first.
fn join(service: &str, endpoint: &Endpoint, workload: Option<&mut shape::StaticWorkload>) -> Result<(), LocalError> {
    let wrong = |problem: &str, remedy| LocalError {
        object: Some(format!("service {service}")),
        line: None,
        problem: format!("endpoints: {} {problem}", endpoint.workload_uid),
        remedy,
    };
    let workload = workload.ok_or_else(|| wrong("is no workload of this document", "add it to workloads"))?;
    if workload.status != endpoint.status {
        return Err(wrong("has another status as a workload", "set status on the workload only"));
    }
    let Ok(service) = service.parse() else {
        return Err(wrong("belongs to a service without a valid name", "give the service a hostname"));
    };
    workload.services.entry(shape::ServiceKey(service)).or_insert_with(|| endpoint.port.clone());
    Ok(())
}

/// Refuses two objects of one key, of which the later would silently replace the other.
fn unique<K: Eq + Hash + fmt::Display>(
    kind: &str,
    keys: impl Iterator<Item = (K, String)>,
    remedy: &'static str,
) -> Result<(), LocalError> {
    let mut seen = HashSet::new();
    for (key, name) in keys {
        let problem = format!("another {kind} has the same key `{key}`");
        if !seen.insert(key) {
            return Err(LocalError { object: Some(format!("{kind} {name}")), line: None, problem, remedy });
        }
    }
    Ok(())
}

/// Finds the object that an error of the parser is about, and a remedy.
fn syntax(text: &str, error: &serde_yaml_ng::Error) -> LocalError {
    let line = error.location().map(|location| location.line());
    let mut problem = error.to_string();
    if let Some(end) = problem.rfind(" at line ") {
        problem.truncate(end);
    }
    let remedy = if problem.contains("unknown field") {
        "remove the key or correct its spelling"
    } else if problem.contains("missing field") {
        "add the key"
    } else if problem.contains("duplicate") {
        "keep one of the two"
    } else {
        "correct the value"
    };
    LocalError { object: object(text, &problem), line, problem, remedy }
}

/// The object that a path like `workloads[3].waypoint` is about, by name.
fn object(text: &str, path: &str) -> Option<String> {
    let (list, rest) = path.split_once('[')?;
    let index: usize = rest.split_once(']')?.0.parse().ok()?;
    let kind = match list {
        "workloads" => "workload",
        "services" => "service",
        "policies" => "policy",
        _ => return None,
    };
    let document: BTreeMap<String, serde_yaml_ng::Value> = serde_yaml_ng::from_str(text).ok()?;
    let object = document.get(list)?.get(index)?;
    let name =
        ["name", "hostname", "uid"].iter().find_map(|key| object.get(key)?.as_str().filter(|n| !n.is_empty()))?;
    Some(format!("{kind} {name}"))
}

#[cfg(test)]
mod tests;
