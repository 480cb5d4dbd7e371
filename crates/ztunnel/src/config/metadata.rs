//! Proxy metadata and the ProxyConfig object: the mesh configuration file, then `PROXY_CONFIG`, then variables (spec
//! configuration 2).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::environment::Environment;
use super::reader::Reader;

/// Mesh configuration file, relative to the working directory.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";
const ADMIN_PORT: u16 = 15000;
const STATS_PORT: u16 = 15020;
const META: &str = "ISTIO_META_";
const META_JSON: &str = "ISTIO_METAJSON_";

/// The part of Istio's ProxyConfig that concerns us; everything else is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    proxy_admin_port: Option<u16>,
    stats_port: Option<u16>,
    pub(super) concurrency: Option<u16>,
    #[serde(default)]
    proxy_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MeshConfig {
    default_config: Option<ProxyConfig>,
}

impl ProxyConfig {
    /// Reads the file and the variable; the variable wins.
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mut merged = Self::default();
        match reader.environment.file(Path::new(MESH_CONFIG)) {
            Ok(Some(text)) if !text.trim().is_empty() => match serde_yaml_ng::from_str::<MeshConfig>(&text) {
                Ok(mesh) => merged.merge(mesh.default_config.unwrap_or_default()),
                Err(cause) => reader.problem(format!(
                    "error parsing proxy config: failed parsing mesh config file {MESH_CONFIG}: {cause}"
                )),
            },
            Ok(_) => {}
            Err(cause) => reader
                .problem(format!("error parsing proxy config: failed parsing mesh config file {MESH_CONFIG}: {cause}")),
        }
        match reader.environment.get("PROXY_CONFIG") {
            Some(text) if !text.trim().is_empty() => match serde_yaml_ng::from_str(text) {
                Ok(config) => merged.merge(config),
                Err(cause) => {
                    reader.problem(format!("error parsing proxy config: failed parsing proxy config env: {cause}"));
                }
            },
            _ => {}
        }
        merged
    }

    fn merge(&mut self, later: Self) {
        self.discovery_address = later.discovery_address.or(self.discovery_address.take());
        self.proxy_admin_port = later.proxy_admin_port.or(self.proxy_admin_port);
        self.stats_port = later.stats_port.or(self.stats_port);
        self.concurrency = later.concurrency.or(self.concurrency);
        self.proxy_metadata.extend(later.proxy_metadata);
    }

    pub(super) fn admin_port(&self, reader: &mut Reader<'_>) -> Option<u16> {
        port(reader, "proxyAdminPort", self.proxy_admin_port.unwrap_or(ADMIN_PORT))
    }

    pub(super) fn stats_port(&self, reader: &mut Reader<'_>) -> Option<u16> {
        port(reader, "statsPort", self.stats_port.unwrap_or(STATS_PORT))
    }
}

fn port(reader: &mut Reader<'_>, key: &str, port: u16) -> Option<u16> {
    if port == 0 {
        reader.problem(format!("error parsing proxy config: {key} must not be 0"));
    }
    Some(port).filter(|port| *port != 0)
}

/// What the control plane is told and some settings are read from: keys of the ProxyConfig without their prefix, then
/// variables, which win.
pub(super) fn proxy_metadata(config: &ProxyConfig, environment: &Environment) -> BTreeMap<String, String> {
    let bare = |name: &str| name.strip_prefix(META).unwrap_or(name).to_owned();
    let mut metadata: BTreeMap<String, String> =
        config.proxy_metadata.iter().map(|(name, value)| (bare(name), value.clone())).collect();
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(META)) {
        metadata.insert(name.trim_start_matches(META).to_owned(), value.to_owned());
    }
    metadata
}

/// Metadata of any form, from `ISTIO_METAJSON_<KEY>`. What is no JSON is skipped with a warning (spec wire-protocols 6.3).
pub(super) fn structured(environment: &Environment, warnings: &mut Vec<String>) -> BTreeMap<String, serde_json::Value> {
    let mut metadata = BTreeMap::new();
    for (variable, text) in environment.iter() {
        let Some(key) = variable.strip_prefix(META_JSON) else { continue };
        match serde_json::from_str(text) {
            Ok(value) => drop(metadata.insert(key.to_owned(), value)),
            Err(cause) => warnings.push(format!("{variable} is no JSON and is left out: {cause}")),
        }
    }
    metadata
}

/// `ISTIO_META_CLUSTER_ID` wins over `CLUSTER_ID`.
pub(super) fn cluster_id(reader: &mut Reader<'_>) -> Option<String> {
    let own = reader.text("CLUSTER_ID");
    reader.environment.get("ISTIO_META_CLUSTER_ID").map(str::to_owned).or(own)
}

/// Extra metadata for requests: variables with `prefix`, which is not part of the name.
pub(super) fn headers(reader: &mut Reader<'_>, prefix: &str) -> Vec<(String, String)> {
    let given: Vec<(String, String)> = reader.environment.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut headers = BTreeMap::new();
    for (variable, value) in given {
        let Some(name) = variable.strip_prefix(prefix) else { continue };
        let name = name.to_lowercase();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(legal) || name.ends_with("-bin") {
            reader.problem(format!("failed to parse header key: {variable}"));
        } else if !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            // The value may be a secret: it is not repeated.
            reader.problem(format!("failed to parse header value: the value of {variable} is not printable ASCII"));
        } else {
            headers.insert(name, value);
        }
    }
    headers.into_iter().collect()
}
