//! The table of causes: codes that tell causes apart, a page that agrees with it, and what is believed of a peer.

use std::collections::HashSet;

use super::*;

#[test]
fn every_cause_has_a_code_of_its_own_that_a_peer_would_take() {
    let codes: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.meaning().code).collect();
    assert_eq!(codes.len(), Cause::ALL.len());
    assert!(codes.iter().all(|code| peer_reason(code.as_bytes()) == Some(code)));
}

#[test]
fn every_cause_tells_what_to_do() {
    for cause in Cause::ALL {
        let Meaning { hint, wording, status, .. } = cause.meaning();
        assert!(hint.ends_with('.') && hint.starts_with(|first: char| first.is_uppercase()), "{cause:?}: {hint}");
        assert!(!wording.is_empty() && !wording.contains('|') && !hint.contains('|'), "{cause:?}");
        assert!((400..600).contains(&status), "{cause:?}");
    }
}

#[test]
fn of_a_peer_only_what_looks_like_a_code_is_repeated() {
    let rows: [(&[u8], bool); 8] = [
        (b"denied", true),
        (b"a-code-of-2030", true),
        (b"", false),
        (b"Denied", false),
        (b"denied by\npolicy", false),
        (b"a=b", false),
        (&[0xff], false),
        (&[b'a'; MAX_CODE + 1], false),
    ];
    for (header, believed) in rows {
        assert_eq!(peer_reason(header).is_some(), believed, "{header:?}");
    }
}

#[test]
fn the_page_for_operators_agrees_with_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/troubleshooting.md");
    let checked_in = std::fs::read_to_string(path).unwrap();
    assert!(checked_in == manual(), "docs/troubleshooting.md is out of date: run `cargo xtask generate`");
}

#[test]
fn what_a_gateway_does_is_told_apart_from_what_the_far_end_does() {
    for (cause, gateway, far, is_far) in [
        (Cause::TlsHandshake, Cause::GatewayTls, Cause::FarTls, true),
        (Cause::PeerRefused, Cause::GatewayRefused, Cause::PeerRefused, true),
        (Cause::Http2, Cause::GatewayLost, Cause::Http2, true),
        (Cause::TunnelLost, Cause::GatewayLost, Cause::TunnelLost, true),
        (Cause::DialTimedOut, Cause::DialTimedOut, Cause::DialTimedOut, false),
    ] {
        assert_eq!((cause.at_gateway(), cause.behind_gateway(), cause.is_far()), (gateway, far, is_far));
    }
    for cause in Cause::ALL {
        let (gateway, far) = (cause.at_gateway(), cause.behind_gateway());
        assert_eq!((gateway.at_gateway(), gateway.behind_gateway()), (gateway, gateway), "once told, it stays");
        assert_eq!(far.behind_gateway(), far);
        assert!(!gateway.is_far() || *cause == Cause::FarTls, "{gateway:?} is the gateway's or this side's");
    }
}
