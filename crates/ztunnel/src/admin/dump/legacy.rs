//! `/config_dump?format=legacy`: the shape of earlier dumps, for tools and articles that know only that.
//!
//! Made from what the present dump is made of. What earlier ztunnels had and this one has not is `null` or empty.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh::view::Endpoint;
use mesh::{GatewayAddress, Service, View, Workload};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Sources, objects};

/// The dump in that shape.
pub(super) struct Legacy<'a>(pub(super) &'a Sources);

/// Keys of `config`, each with the one that the present dump has.
const CONFIG: [(&str, &str); 24] = [
    ("admin_addr", "adminAddr"),
    ("ca_address", "caAddress"),
    ("ca_root_cert", "caRootCert"),
    ("cluster_id", "clusterId"),
    ("connection_window_size", "connectionWindowSize"),
    ("enable_original_source", "requireOriginalSource"),
    ("fake_ca", "fakeCa"),
    ("frame_size", "frameSize"),
    ("inbound_addr", "inboundAddr"),
    ("inbound_plaintext_addr", "inboundPlaintextAddr"),
    ("local_node", "localNode"),
    ("num_worker_threads", "numWorkerThreads"),
    ("outbound_addr", "outboundAddr"),
    ("proxy_args", "proxyArgs"),
    ("proxy_metadata", "proxyMetadata"),
    ("proxy_mode", "proxyMode"),
    ("readiness_addr", "readinessAddr"),
    ("socks5_addr", "socks5Addr"),
    ("stats_addr", "statsAddr"),
    ("termination_grace_period", "selfTerminationDeadline"),
    ("window_size", "windowSize"),
    ("xds_address", "xdsAddress"),
    ("xds_on_demand", "xdsOnDemand"),
    ("xds_root_cert", "xdsRootCert"),
];

impl Serialize for Legacy<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(sources) = self;
        let now = sources.views.current();
        let (view, settings) = (&now.view, (sources.config)());
        let mut dump = serializer.serialize_map(None)?;
        dump.serialize_entry("certificates", &certificates(&(sources.certificates)()))?;
        dump.serialize_entry("config", &config(&settings, &sources.local_ip))?;
        dump.serialize_entry("local_node", &settings["localNode"])?;
        dump.serialize_entry("policies", &policies(view))?;
        dump.serialize_entry("policies_by_namespace", &policies_by_namespace(view))?;
        dump.serialize_entry("proxy_mode", &settings["proxyMode"])?;
        dump.serialize_entry("static_config", &(sources.static_config)())?;
        dump.serialize_entry("version", &(sources.version)())?;
        dump.serialize_entry("vips", &vips(view))?;
        dump.serialize_entry("workload_to_vip", &workload_to_vip(view))?;
        dump.serialize_entry("workloads", &Workloads(view))?;
        dump.end()
    }
}

fn certificates(present: &Value) -> Value {
    let certificate = |present: &Value| {
        json!({
            "expiration_time": present["expirationTime"],
            "pem": present["pem"],
            "serial_number": present["serialNumber"],
            "valid_from": present["validFrom"],
        })
    };
    let row = |present: &Value| {
        let chain = present["certChain"].as_array().map(Vec::as_slice).unwrap_or_default();
        json!({
            "ca_cert": chain.first().map(certificate),
            "cert_chain": chain.iter().skip(1).map(certificate).collect::<Value>(),
            "identity": present["identity"],
            "state": present["state"],
        })
    };
    present.as_array().into_iter().flatten().map(row).collect()
}

fn config(present: &Value, local_ip: &str) -> Value {
    let mut config: serde_json::Map<String, Value> =
        CONFIG.iter().map(|(key, now)| ((*key).to_owned(), present[*now].clone())).collect();
    config.insert("local_ip".to_owned(), json!(local_ip));
    Value::Object(config)
}

fn policies(view: &View) -> BTreeMap<String, Value> {
    let policy = |policy: objects::DumpedPolicy| {
        let key = format!("{}/{}", policy.namespace, policy.name);
        let mut shape = serde_json::to_value(&policy).unwrap_or_default();
        if let Value::Object(fields) = &mut shape {
            let rules = fields.remove("rules").unwrap_or_default();
            fields.insert("groups".to_owned(), rules);
            fields.remove("dryRun");
        }
        (key, shape)
    };
    objects::policies(view).map(policy).collect()
}

fn policies_by_namespace(view: &View) -> BTreeMap<String, Vec<String>> {
    let mut by_namespace = BTreeMap::<String, Vec<String>>::new();
    for policy in objects::policies(view) {
        let key = format!("{}/{}", policy.namespace, policy.name);
        by_namespace.entry(policy.namespace.to_string()).or_default().push(key);
    }
    by_namespace
}

/// Each pair of a service's virtual address and port with each of its endpoints' addresses and ports.
fn pairs(view: &View) -> impl Iterator<Item = (String, u16, IpAddr, u16)> {
    let of_service = |service: &std::sync::Arc<Service>| {
        let key = service.key();
        let mut pairs = Vec::new();
        for Endpoint { workload, ports, .. } in view.endpoints(&key) {
            for (service_port, target) in ports.iter() {
                for (vip, ip) in service.vips.iter().flat_map(|vip| workload.addresses.iter().map(move |ip| (vip, ip)))
                {
                    pairs.push((
                        std::net::SocketAddr::new(vip.ip, service_port).to_string(),
                        service_port,
                        *ip,
                        target,
                    ));
                }
            }
        }
        pairs
    };
    view.services().flat_map(of_service).collect::<Vec<_>>().into_iter()
}

fn vips(view: &View) -> BTreeMap<String, Vec<(IpAddr, u16)>> {
    let mut vips = BTreeMap::<String, Vec<(IpAddr, u16)>>::new();
    for (vip, _, ip, port) in pairs(view) {
        vips.entry(vip).or_default().push((ip, port));
    }
    vips.values_mut().for_each(|endpoints| endpoints.sort_unstable());
    vips
}

fn workload_to_vip(view: &View) -> BTreeMap<IpAddr, Vec<(String, u16)>> {
    let mut by_workload = BTreeMap::<IpAddr, Vec<(String, u16)>>::new();
    for (vip, _, ip, port) in pairs(view) {
        by_workload.entry(ip).or_default().push((vip, port));
    }
    by_workload.values_mut().for_each(|vips| vips.sort_unstable());
    by_workload
}

/// Workloads by address.
struct Workloads<'a>(&'a View);

impl Serialize for Workloads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let by_address: BTreeMap<IpAddr, &Workload> =
            self.0.workloads().flat_map(|one| one.addresses.iter().map(move |ip| (*ip, &**one))).collect();
        serializer.collect_map(by_address.into_iter().map(|(ip, one)| (ip, workload(ip, one))))
    }
}

fn workload(ip: IpAddr, workload: &Workload) -> Value {
    let deployment = &workload.deployment;
    let address = |gateway: &GatewayAddress| match &gateway.destination {
        mesh::workload::GatewayDestination::Address(address) => address.ip.to_string(),
        mesh::workload::GatewayDestination::Hostname(name) => name.hostname.as_str().to_owned(),
    };
    json!({
        "authorizationPolicies": workload.authorization_policies.iter().map(|key| key.as_str()).collect::<Vec<_>>(),
        "canonicalName": &*deployment.canonical_name,
        "canonicalRevision": &*deployment.canonical_revision,
        "clusterId": deployment.cluster_id.as_str(),
        "gatewayAddress": workload.network_gateway.as_deref().map(address),
        "name": &*workload.name,
        "namespace": workload.namespace.as_str(),
        "nativeHbone": workload.native_tunnel,
        "node": workload.node.as_str(),
        "protocol": workload.protocol.to_string(),
        "serviceAccount": workload.service_account.as_str(),
        "status": match workload.status {
            mesh::workload::Health::Healthy => "Healthy",
            mesh::workload::Health::Unhealthy => "Unhealthy",
        },
        "trustDomain": deployment.trust_domain.as_str(),
        "waypointAddresses": workload.waypoint.as_deref().map(address).into_iter().collect::<Vec<_>>(),
        "workloadIp": ip,
        "workloadName": &*deployment.workload_name,
        "workloadType": deployment.workload_type.as_str(),
    })
}
