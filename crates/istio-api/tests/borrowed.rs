//! Messages read where they lie mean what the generated code makes of them, and are refused where it refuses them.

use istio_api::borrowed;
use istio_api::discovery::resource::CacheControl;
use istio_api::discovery::{Payload, Resource};
use istio_api::workload::address::Type;
use istio_api::workload::gateway_address::Destination;
use istio_api::workload::{
    Address, ApplicationTunnel, Extension, GatewayAddress, Locality, NetworkAddress, Port, PortList, Service, Workload,
};
use prost::Message;

fn workload() -> Workload {
    let ip = NetworkAddress { network: "net".into(), address: vec![10, 0, 0, 9], length: Some(32) };
    let gateway = |port| GatewayAddress { destination: Some(Destination::Address(ip.clone())), hbone_mtls_port: port };
    let port = |from, to| Port { service_port: from, target_port: to, app_protocol: 4 };
    let ports = |all: &[(u32, u32)]| PortList { ports: all.iter().map(|(from, to)| port(*from, *to)).collect() };
    Workload {
        name: "web-1".into(),
        namespace: "shop".into(),
        addresses: vec![vec![10, 0, 0, 1], vec![0; 16], vec![]],
        network: "net".into(),
        tunnel_protocol: 1,
        trust_domain: "td".into(),
        service_account: "sa".into(),
        waypoint: Some(gateway(15008)),
        node: "node".into(),
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        workload_type: 2,
        workload_name: "web".into(),
        native_tunnel: true,
        authorization_policies: vec!["shop/a".into(), "shop/b".into()],
        status: 1,
        cluster_id: "c".into(),
        network_gateway: Some(gateway(15443)),
        uid: "c//v1/Pod/shop/web-1".into(),
        hostname: "web.example".into(),
        services: [("shop/web".into(), ports(&[(80, 8080), (1 << 31, 0)])), ("a/b".into(), ports(&[]))].into(),
        application_tunnel: Some(ApplicationTunnel { protocol: 1, port: 15088 }),
        locality: Some(Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() }),
        network_mode: 77,
        extensions: vec![Extension { name: "e".into(), config: None }],
        capacity: Some(3),
    }
}

/// What was read, as the generated code would hold it; extensions are not kept.
fn owned(w: &borrowed::Workload<'_>) -> Workload {
    let port = |(service_port, target_port)| Port { service_port, target_port, app_protocol: 0 };
    let services = w.services.iter().map(|membership| {
        (membership.service.to_owned(), PortList { ports: membership.ports.iter().map(port).collect() })
    });
    Workload {
        name: w.name.to_owned(),
        namespace: w.namespace.to_owned(),
        addresses: w.addresses.iter().map(|ip| ip.to_vec()).collect(),
        network: w.network.to_owned(),
        tunnel_protocol: w.tunnel_protocol,
        trust_domain: w.trust_domain.to_owned(),
        service_account: w.service_account.to_owned(),
        waypoint: w.waypoint.clone(),
        node: w.node.to_owned(),
        canonical_name: w.canonical_name.to_owned(),
        canonical_revision: w.canonical_revision.to_owned(),
        workload_type: w.workload_type,
        workload_name: w.workload_name.to_owned(),
        native_tunnel: w.native_tunnel,
        authorization_policies: w.authorization_policies.iter().map(|name| (*name).to_owned()).collect(),
        status: w.status,
        cluster_id: w.cluster_id.to_owned(),
        network_gateway: w.network_gateway.clone(),
        uid: w.uid.to_owned(),
        hostname: w.hostname.to_owned(),
        services: services.collect(),
        application_tunnel: w.application_tunnel,
        locality: Some(Locality { region: w.region.into(), zone: w.zone.into(), subzone: w.subzone.into() }),
        network_mode: w.network_mode,
        extensions: vec![],
        capacity: w.capacity,
    }
}

/// The same without what is not kept.
fn kept(mut workload: Workload) -> Workload {
    workload.extensions.clear();
    workload.locality.get_or_insert_default();
    workload.services.values_mut().flat_map(|list| &mut list.ports).for_each(|port| port.app_protocol = 0);
    workload
}

/// Whether the map's field may be there by another type than it has: the generated code does not look.
fn has_odd_map(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|key| key[1] == 1 && key[0] & 0xf8 == 0xb0 && key[0] != 0xb2)
}

fn compare_addresses(bytes: &[u8]) {
    if has_odd_map(bytes) {
        let _ = borrowed::Address::read(bytes); // whatever it is, it does not panic
        return;
    }
    let expected = Address::decode(bytes).ok().map(|address| address.r#type);
    let read = borrowed::Address::read(bytes).ok().map(|address| {
        address.map(|address| match address {
            borrowed::Address::Workload(workload) => Type::Workload(owned(&workload)),
            borrowed::Address::Service(service) => Type::Service(*service),
        })
    });
    let expected = expected.map(|expected| {
        expected
            .map(|r#type| if let Type::Workload(workload) = r#type { Type::Workload(kept(workload)) } else { r#type })
    });
    assert_eq!(read, expected, "{bytes:?}");
}

fn compare_resources(bytes: &[u8]) {
    let expected = Resource::decode(bytes).ok();
    let read = borrowed::Resource::read(bytes).ok();
    let read = read.map(|r| {
        let aliases: Vec<String> = r.aliases.iter().map(|alias| (*alias).to_owned()).collect();
        (r.version.to_owned(), r.name.to_owned(), aliases, r.payload.map(<[u8]>::to_vec))
    });
    let expected = expected.map(|r| (r.version, r.name, r.aliases, r.resource.map(|payload| payload.value.to_vec())));
    assert_eq!(read, expected, "{bytes:?}");
}

/// The message whole, cut at each byte, with each byte changed in several ways, and with a piece of itself again.
fn variants(message: &[u8], mut compare: impl FnMut(&[u8])) {
    compare(message);
    compare(&[message, message].concat());
    for at in 0..message.len() {
        compare(&message[..at]);
        compare(&message[at..]);
        compare(&[message, &message[at..]].concat());
        for change in [0x01, 0x02, 0x03, 0x04, 0x07, 0x08, 0x10, 0x80, 0xff] {
            let mut changed = message.to_vec();
            changed[at] ^= change;
            compare(&changed);
        }
        // A group, a number of ten bytes, and one that is too long.
        for piece in
            [&[0xfb, 1, 0x08, 5, 0xfc, 1][..], &[0x28, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], &[0xff; 11]]
        {
            compare(&[&message[..at], piece, &message[at..]].concat());
        }
    }
}

#[test]
fn workloads_and_services_are_what_the_generated_code_makes_of_them() {
    let with_workload = Address { r#type: Some(Type::Workload(workload())) }.encode_to_vec();
    let service = Service { name: "web".into(), hostname: "web.example".into(), ..Service::default() };
    let with_service = Address { r#type: Some(Type::Service(service)) }.encode_to_vec();
    variants(&with_workload, compare_addresses);
    variants(&with_service, compare_addresses);
    variants(&[&with_service[..], &with_workload].concat(), compare_addresses);
    let bare = Workload { uid: "u".into(), ..Workload::default() };
    let bare = Address { r#type: Some(Type::Workload(bare)) }.encode_to_vec();
    compare_addresses(&[&with_workload[..], &bare, &with_workload].concat());
    compare_addresses(&[]);
}

#[test]
fn resources_are_what_the_generated_code_makes_of_them() {
    let resource = Resource {
        version: "v1".into(),
        resource: Some(Payload { type_url: "a.b/C".into(), value: vec![1, 2, 3].into() }),
        name: "ns/name".into(),
        aliases: vec!["one".into(), "two".into()],
        ttl: Some(prost_types::Duration { seconds: 7, nanos: 8 }),
        cache_control: Some(CacheControl { do_not_cache: true }),
    };
    variants(&resource.encode_to_vec(), compare_resources);
    compare_resources(&[]);
}
