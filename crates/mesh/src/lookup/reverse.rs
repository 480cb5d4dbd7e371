//! Names of addresses (RFC 1035 §3.5, RFC 3596 §2.5).
//!
//! An address of the mesh has the name of the service whose it is, or that of an endpoint of a headless service; all
//! others are the cluster's own resolver's to name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Found, Question, Standing};
use crate::address::NetworkAddress;
use crate::workload::Workload;

pub(super) fn find<'a>(question: &Question<'a>) -> Found<'a> {
    let Some(ip) = parse(question.name) else { return Found::Forward(Standing::Stranger) };
    if ip.is_loopback() {
        return Found::Name("localhost".to_owned());
    }
    let address = NetworkAddress::new(question.client.network.clone(), ip);
    let (view, client) = (question.view, &question.client.namespace);
    // A range of addresses is no address of the service.
    let service = view.service_at(&address, Some(client)).filter(|service| service.vips.contains(&address));
    if let Some(service) = service.filter(|service| !service.hostname.as_str().starts_with('*')) {
        return Found::Name(service.hostname.undotted().to_owned());
    }
    let name = view.workload_at(&address).and_then(|workload| of_endpoint(question, workload, ip));
    name.map_or(Found::Forward(Standing::Stranger), Found::Name)
}

/// The name of a workload as an endpoint of a headless service, which leads back to its address.
fn of_endpoint(question: &Question<'_>, workload: &Workload, ip: IpAddr) -> Option<String> {
    let services = workload.services.iter().filter_map(|membership| question.view.service(&membership.service));
    let mut headless = services.filter(|service| {
        let hostname = service.hostname.undotted();
        service.vips.is_empty()
            && question.below_services(hostname).is_some_and(|labels| labels.split('.').count() == 2)
            && question.may_tell(service)
    });
    let service = headless.next()?.hostname.undotted();
    let label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_label = !workload.name.is_empty() && workload.name.len() < 64 && workload.name.bytes().all(label);
    if is_label {
        return Some(format!("{}.{service}", workload.name.to_ascii_lowercase()));
    }
    let dashed = ip.to_string().replace(['.', ':'], "-");
    Some(format!("{dashed}.{service}"))
}

/// The address that a name in a reverse zone stands for.
fn parse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = labels.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
            *octet = part.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut parts = labels.split('.');
    for nibble in 0..32 {
        let part = parts.next().filter(|part| part.len() == 1)?;
        bits |= u128::from(u8::from_str_radix(part, 16).ok()?) << (4 * nibble);
    }
    parts.next().is_none().then(|| IpAddr::from(Ipv6Addr::from(bits)).to_canonical())
}
