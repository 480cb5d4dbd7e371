//! The table of refusals: wording, status and flag are what operators and peers know (spec data-plane 6.5, 19.1, 19.3).

use std::collections::HashSet;

use super::*;
use crate::fixture::{gateway, ip, pod, socket};

/// One of each, with its wording and status.
fn all() -> Vec<(Refusal, &'static str, u16)> {
    let local = pod("a", &[]).local();
    let explicit = Denial::Explicit { namespace: "ns".into(), name: "p".into(), rule: 2 };
    vec![
        (Refusal::Recursion, "attempted recursive call to ourselves", 503),
        (Refusal::UnknownLocalWorkload(local), "failed to fetch information about local workload: a.ns (a)", 503),
        (Refusal::NoHealthyUpstream(socket("10.0.0.1:80")), "no healthy upstream: 10.0.0.1:80", 503),
        (Refusal::NoService(socket("[fd00::1]:80")), "no service for target address: [fd00::1]:80", 503),
        (
            Refusal::no_routing_destination(&pod("a", &[])),
            "no valid routing destination for workload: Workload{a with uid c//v1/Pod/ns/a (HBONE)}",
            503,
        ),
        (
            Refusal::UnknownWaypoint(Gateway(gateway("ns/way.example", 1))),
            "unknown waypoint: waypoint way.example not found",
            503,
        ),
        (
            Refusal::UnknownNetworkGateway(Gateway(gateway("net1/10.0.0.1", 1))),
            "unknown network gateway: network gateway net1/10.0.0.1:1 not found",
            503,
        ),
        (Refusal::Unresolved("u".into()), "no ip addresses were resolved for workload: u", 503),
        (
            Refusal::NoAddressRecords("u".into()),
            "ip addresses were resolved for workload u, but valid dns response had no A/AAAA records",
            503,
        ),
        (Refusal::NotConnect("GET".into()), "expected method CONNECT, got GET", 400),
        (InvalidAuthority("x".into()).into(), "no valid authority pseudo header: x", 400),
        (
            Refusal::IpMismatch { local: ip("10.0.0.1"), requested: ip("fd00::1") },
            "ip mismatch: 10.0.0.1 != fd00::1",
            400,
        ),
        (Refusal::UnknownHostname("h".into()), "no service or workload for hostname: h", 503),
        (
            Refusal::UnresolvablePort("h:80".parse().unwrap()),
            "requested service h:80 found, but cannot resolve port",
            503,
        ),
        (Refusal::NoVip("h".into()), "requested service h found, but has no IP addresses", 503),
        (
            Refusal::Denied(explicit.clone()),
            "connection closed due to policy rejection: explicitly denied by: ns/p",
            401,
        ),
        (
            Refusal::Denied(Denial::NotAllowed),
            "connection closed due to policy rejection: allow policies exist, but none allowed",
            401,
        ),
        (Refusal::NoLongerAllowed(explicit), "connection closed due to policy change", 401),
    ]
}

#[test]
fn wordings_and_statuses_are_the_known_ones() {
    for (refusal, wording, status) in all() {
        assert_eq!((refusal.to_string().as_str(), refusal.status()), (wording, status));
        let known = refusal.cause().meaning().wording;
        let mut rest = wording;
        for part in known.split('…') {
            let found = rest.find(part).unwrap_or_else(|| panic!("{wording} is not worded as the table says: {known}"));
            rest = &rest[found + part.len()..];
        }
    }
}

#[test]
fn only_policies_deny() {
    for (refusal, wording, status) in all() {
        let expected = if status == 401 { ResponseFlag::Deny } else { ResponseFlag::Connect };
        assert_eq!((refusal.flag(), refusal.denial().is_some()), (expected, status == 401), "{wording}");
    }
}

#[test]
fn every_kind_has_a_cause_of_its_own() {
    let kinds: HashSet<_> = all().iter().map(|(refusal, ..)| std::mem::discriminant(refusal)).collect();
    let causes: HashSet<_> = all().iter().map(|(refusal, ..)| refusal.cause()).collect();
    assert_eq!(causes.len(), kinds.len());
}

#[test]
fn flags_print_as_the_label() {
    use ResponseFlag::*;
    let all = [None, Deny, Connect, TlsFailure, H2HandshakeFailure, NetworkPolicy, IdentityError, CertRevoked];
    let labels = all.map(ResponseFlag::as_str);
    assert_eq!(
        labels,
        [
            "-",
            "DENY",
            "CONNECT",
            "TLS_FAILURE",
            "H2_HANDSHAKE_FAILURE",
            "NETWORK_POLICY",
            "IDENTITY_ERROR",
            "CERT_REVOKED"
        ]
    );
}

#[test]
fn a_reference_prints_as_it_is_written() {
    for text in ["ns/way.example", "net1/10.0.0.1"] {
        assert_eq!(gateway(text, 1).destination.to_string(), text);
    }
}

#[test]
fn what_a_peer_sent_is_repeated_only_so_far() {
    assert_eq!(excerpt("short"), "short");
    assert_eq!(excerpt(&"é".repeat(1000)), "é".repeat(MAX_EXCERPT / 2));
    assert_eq!(excerpt(&format!("a{}", "é".repeat(1000))).len(), MAX_EXCERPT - 1);
}
