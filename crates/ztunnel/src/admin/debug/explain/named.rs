//! What the two ends that somebody asks about are: by address, by name or by key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::{Hostname, NetworkAddress, NetworkId, Service, View, Workload};

use super::Question;

/// A workload by its address, `namespace/name` or key.
pub(super) fn workload<'a>(view: &'a View, network: &NetworkId, text: &str) -> Option<&'a Arc<Workload>> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return view.workload_at(&NetworkAddress::new(network.clone(), ip));
    }
    if let Some(found) = view.workload(&text.into()) {
        return Some(found);
    }
    let (namespace, name) = text.split_once('/')?;
    view.workloads().find(|one| one.namespace.as_str() == namespace && &*one.name == name)
}

/// The address and port that an app of `source` would dial for `text`: `host:port`, where the host is an address, a host
/// name as the pod would say it, `namespace/name` of a workload, or a workload's key.
pub(super) fn target(view: &View, source: &Workload, domain: &str, text: &str) -> Result<SocketAddr, Question> {
    if let Ok(address) = text.parse() {
        return Ok(mesh::canonical(address));
    }
    let unclear = || Question::Unclear(format!("{text:?} is no destination; write host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(unclear)?;
    let port: u16 = port.parse().map_err(|_| unclear())?;
    let ip = service(view, source, domain, host)
        .and_then(|service| address_of(view, source, service))
        .or_else(|| workload(view, &source.network, host).and_then(|one| one.addresses.first().copied()));
    let unknown = || Question::Unknown(format!("no service or workload is known as {host:?}"));
    Ok(SocketAddr::new(ip.ok_or_else(unknown)?, port))
}

/// The service that a pod means by a name.
fn service<'a>(view: &'a View, source: &Workload, domain: &str, host: &str) -> Option<&'a Arc<Service>> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let namespace = source.namespace.as_str();
    let full = [
        host.clone(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    full.iter().find_map(|name| view.service_named(&Hostname::from(name.as_str()), &source.namespace))
}

/// Where the service is dialled: at an address of its own, or at that of its first endpoint.
fn address_of(view: &View, source: &Workload, service: &Service) -> Option<IpAddr> {
    let own = service.vips.iter().find(|vip| vip.network == source.network).or(service.vips.first());
    let key = service.key();
    let endpoint = || view.endpoints(&key).find_map(|endpoint| endpoint.workload.addresses.first().copied());
    own.map(|vip| vip.ip).or_else(endpoint)
}
