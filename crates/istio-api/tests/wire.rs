//! The messages are the ones that control planes and node agents send: every field has the number that the behaviour
//! reference gives it (spec wire-protocols 2 to 7), independently of our proto files.

use std::collections::BTreeMap;

use istio_api::{ca, discovery, security, workload, zds};
use prost::Message;

/// A value that is written, other than what is left out of messages.
trait Written {
    fn written() -> Self;
}

macro_rules! written {
    ($($type:ty = $value:expr),*) => { $(impl Written for $type { fn written() -> Self { $value } })* };
}

written!(String = "x".to_owned(), bool = true, i32 = 1, u32 = 1, i64 = 1);

impl<T: Default> Written for Vec<T> {
    fn written() -> Self {
        vec![T::default()]
    }
}

impl<T: Default> Written for Option<T> {
    fn written() -> Self {
        Some(T::default())
    }
}

impl<K: Default + Ord, V: Default> Written for BTreeMap<K, V> {
    fn written() -> Self {
        Self::from([(K::default(), V::default())])
    }
}

/// The number of the first field of a message.
fn number(message: &impl Message) -> u64 {
    let bytes = message.encode_to_vec();
    prost::encoding::decode_varint(&mut &bytes[..]).unwrap() >> 3
}

macro_rules! assert_numbers {
    ($message:path { $($field:ident = $number:literal),* $(,)? }) => {{
        $(
            let mut message = <$message>::default();
            message.$field = Written::written();
            assert_eq!(number(&message), $number, "{}.{}", stringify!($message), stringify!($field));
        )*
        // Names every field, so that none is forgotten here.
        #[allow(clippy::no_effect_underscore_binding, unused_variables)]
        {
            use $message as M;
            let M { $($field),* } = M::default();
        }
    }};
    ($message:path { $($field:ident = $number:literal),* ; $oneof:ident }) => {{
        $(
            let mut message = <$message>::default();
            message.$field = Written::written();
            assert_eq!(number(&message), $number, "{}.{}", stringify!($message), stringify!($field));
        )*
        let _ = <$message>::default().$oneof;
    }};
}

/// The numbers of the members of a oneof.
macro_rules! assert_members {
    ($message:path, $oneof:ident: $type:path { $($member:ident = $number:literal),* $(,)? }) => {{
        use $message as M;
        use $type as T;
        $(
            let mut message = M::default();
            message.$oneof = Some(T::$member(Default::default()));
            assert_eq!(number(&message), $number, "{}.{}", stringify!($message), stringify!($member));
        )*
    }};
}

/// The numbers of the values of an enum, from 0.
macro_rules! assert_values {
    ($type:path: $($value:ident),* $(,)?) => {{
        use $type as T;
        let values = [$(T::$value as i32),*];
        let expected: Vec<i32> = (0..).take(values.len()).collect();
        assert_eq!(values.as_slice(), expected, "{}", stringify!($type));
        assert!(T::try_from(expected.len() as i32).is_err(), "{} has more values", stringify!($type));
    }};
}

#[test]
fn node_agent_messages_have_their_numbers() {
    assert_numbers!(zds::ZdsHello { version = 1 });
    assert_numbers!(zds::WorkloadInfo { name = 1, namespace = 2, service_account = 3 });
    assert_numbers!(zds::AddWorkload { uid = 1, workload_info = 2 });
    assert_numbers!(zds::KeepWorkload { uid = 1 });
    assert_numbers!(zds::DelWorkload { uid = 2 });
    assert_numbers!(zds::Ack { error = 1 });
    assert_members!(zds::WorkloadRequest, payload: zds::workload_request::Payload { Add = 1, Del = 2, SnapshotSent = 3, Keep = 5 });
    assert_members!(zds::WorkloadResponse, payload: zds::workload_response::Payload { Ack = 1 });
    assert_values!(zds::Version: NotUsed, V1);
}

#[test]
fn node_agent_messages_are_the_bytes_that_were_seen() {
    use zds::workload_request::Payload;
    let hello = zds::ZdsHello { version: zds::Version::V1.into() };
    assert_eq!(hello.encode_to_vec(), [0x08, 0x01]);
    let success = zds::WorkloadResponse { payload: Some(zds::workload_response::Payload::Ack(zds::Ack::default())) };
    assert_eq!(success.encode_to_vec(), [0x0a, 0x00]);
    let snapshot = zds::WorkloadRequest { payload: Some(Payload::SnapshotSent(zds::SnapshotSent {})) };
    assert_eq!(snapshot.encode_to_vec(), [0x1a, 0x00]);
    let gone = zds::WorkloadRequest { payload: Some(Payload::Del(zds::DelWorkload { uid: "u".to_owned() })) };
    assert_eq!(gone.encode_to_vec(), [0x12, 0x03, 0x12, 0x01, b'u']);
}

#[test]
fn workloads_have_their_numbers() {
    assert_members!(workload::Address, r#type: workload::address::Type { Workload = 1, Service = 2 });
    assert_numbers!(workload::Workload {
        name = 1,
        namespace = 2,
        addresses = 3,
        network = 4,
        tunnel_protocol = 5,
        trust_domain = 6,
        service_account = 7,
        waypoint = 8,
        node = 9,
        canonical_name = 10,
        canonical_revision = 11,
        workload_type = 12,
        workload_name = 13,
        native_tunnel = 14,
        authorization_policies = 16,
        status = 17,
        cluster_id = 18,
        network_gateway = 19,
        uid = 20,
        hostname = 21,
        services = 22,
        application_tunnel = 23,
        locality = 24,
        network_mode = 25,
        extensions = 26,
        capacity = 27,
    });
    assert_numbers!(workload::ApplicationTunnel { protocol = 1, port = 2 });
    assert_numbers!(workload::Locality { region = 1, zone = 2, subzone = 3 });
    assert_numbers!(workload::Extension { name = 1, config = 2 });
    assert_values!(workload::NetworkMode: Standard, HostNetwork);
    assert_values!(workload::WorkloadStatus: Healthy, Unhealthy);
    assert_values!(workload::WorkloadType: Deployment, Cronjob, Pod, Job);
    assert_values!(workload::TunnelProtocol: None, Hbone, LegacyIstioMtls);
    assert_values!(workload::application_tunnel::Protocol: None, Proxy);
}

#[test]
fn services_have_their_numbers() {
    assert_numbers!(workload::Service {
        name = 1,
        namespace = 2,
        hostname = 3,
        addresses = 4,
        ports = 5,
        subject_alt_names = 6,
        waypoint = 7,
        load_balancing = 8,
        ip_families = 9,
        extensions = 10,
        canonical = 11,
        ingress_use_waypoint = 12,
        weighted_waypoints = 13,
        visibility = 14,
    });
    assert_numbers!(workload::LoadBalancing { routing_preference = 1, mode = 2, health_policy = 3 });
    assert_numbers!(workload::PortList { ports = 1 });
    assert_numbers!(workload::Port { service_port = 1, target_port = 2, app_protocol = 3 });
    assert_values!(workload::service::Visibility: Public, Namespace);
    assert_values!(workload::load_balancing::Scope: UnspecifiedScope, Region, Zone, Subzone, Node, Cluster, Network);
    assert_values!(workload::load_balancing::Mode: UnspecifiedMode, Strict, Failover, Passthrough);
    assert_values!(workload::load_balancing::HealthPolicy: OnlyHealthy, AllowAll);
    assert_values!(workload::IpFamilies: Automatic, Ipv4Only, Ipv6Only, Dual);
    assert_values!(workload::AppProtocol: Unknown, Http11, Http2, Grpc, Tcp, Tls);
}

#[test]
fn gateways_have_their_numbers() {
    assert_numbers!(workload::GatewayAddress { hbone_mtls_port = 3; destination });
    assert_members!(workload::GatewayAddress, destination: workload::gateway_address::Destination { Hostname = 1, Address = 2 });
    assert_numbers!(workload::WeightedWaypoint { destination = 1, weight = 2 });
    assert_numbers!(workload::NetworkAddress { network = 1, address = 2, length = 3 });
    assert_numbers!(workload::NamespacedHostname { namespace = 1, hostname = 2 });
}

#[test]
fn policies_have_their_numbers() {
    assert_numbers!(security::Authorization {
        name = 1,
        namespace = 2,
        scope = 3,
        action = 4,
        rules = 5,
        dry_run = 6,
        extensions = 7,
    });
    assert_numbers!(security::Rule { clauses = 1 });
    assert_numbers!(security::Clause { matches = 2 });
    assert_numbers!(security::Match {
        namespaces = 1,
        not_namespaces = 2,
        principals = 3,
        not_principals = 4,
        source_ips = 5,
        not_source_ips = 6,
        destination_ips = 7,
        not_destination_ips = 8,
        destination_ports = 9,
        not_destination_ports = 10,
        service_accounts = 11,
        not_service_accounts = 12,
        extensions = 13,
    });
    assert_numbers!(security::Address { address = 1, length = 2 });
    assert_numbers!(security::ServiceAccountMatch { namespace = 1, service_account = 2 });
    assert_members!(security::StringMatch, match_type: security::string_match::MatchType { Exact = 1, Prefix = 2, Suffix = 3, Presence = 4 });
    assert_values!(security::Scope: Global, Namespace, WorkloadSelector);
    assert_values!(security::Action: Allow, Deny);
}

#[test]
fn certificate_messages_have_their_numbers() {
    assert_numbers!(ca::IstioCertificateRequest { csr = 1, validity_duration = 3, metadata = 4 });
    assert_numbers!(ca::IstioCertificateResponse { cert_chain = 1 });
}

#[test]
fn discovery_messages_have_their_numbers() {
    assert_numbers!(discovery::Status { code = 1, message = 2, details = 3 });
    assert_numbers!(discovery::Node { id = 1, cluster = 2, metadata = 3, build_version = 5 });
    assert_numbers!(discovery::DeltaDiscoveryRequest {
        node = 1,
        type_url = 2,
        resource_names_subscribe = 3,
        resource_names_unsubscribe = 4,
        initial_resource_versions = 5,
        response_nonce = 6,
        error_detail = 7,
    });
    assert_numbers!(discovery::DeltaDiscoveryResponse {
        system_version_info = 1,
        resources = 2,
        type_url = 4,
        nonce = 5,
        removed_resources = 6,
    });
    assert_numbers!(discovery::Resource {
        version = 1,
        resource = 2,
        name = 3,
        aliases = 4,
        ttl = 6,
        cache_control = 7,
    });
    assert_numbers!(discovery::resource::CacheControl { do_not_cache = 1 });
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    // Field 99, a string, before a name.
    let bytes = [0x9a, 0x06, 0x02, b'h', b'i', 0x0a, 0x03, b'w', b'e', b'b'];
    assert_eq!(workload::Workload::decode(&bytes[..]).unwrap().name, "web");
}
