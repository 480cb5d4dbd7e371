use mesh::workload::Protocol;
use mesh::{Change, State, Workload};

use super::*;
use crate::proxy::tunnel::Mailbox;

/// A tunnel with that many connections.
fn tunnel(streams: u32) -> (Handle, Mailbox) {
    let (handle, mailbox) = Handle::new(100);
    (0..streams).for_each(|_| mailbox.load.take());
    (handle, mailbox)
}

#[test]
fn tunnels_that_are_busy_are_passed_over_until_there_are_enough() {
    let all: Vec<(Handle, Mailbox)> = [7, 3, 5, 1, 2].into_iter().map(tunnel).collect();
    let handles: Vec<Handle> = all.iter().map(|(handle, _)| handle.clone()).collect();
    let streams = |handles: &[Handle]| -> Vec<u32> { in_order(handles, 1).iter().map(|h| h.streams()).collect() };
    assert_eq!(
        streams(&handles),
        [7, 3, 5, 1, 2],
        "in the order in which they were dialled, so that late ones fall idle"
    );
    all[0].1.load.set_busy(true);
    all[1].1.load.set_busy(true);
    all[2].1.load.set_busy(true);
    assert_eq!(streams(&handles), [1, 2]);
    assert_eq!(streams(&handles[..3]), [0; 0], "three that are busy: a fourth is dialled");
    all[3].1.load.set_busy(true);
    assert_eq!(streams(&handles), [2, 1, 3, 5, 7], "enough are busy: the least loaded comes next");
    assert_eq!(streams(&handles[..4]), [1, 3, 5, 7]);
    let shared: Vec<u32> = in_order(&handles, 2).iter().map(|handle| handle.streams()).collect();
    assert_eq!(shared, [1, 2, 3, 5, 7], "of several that are wanted the least loaded comes first, busy or not");
}

#[test]
fn a_tunnel_is_outdated_once_its_next_hop_has_gone_or_moved() {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let key = |uid: Option<&str>| PoolKey {
        source: identity.clone(),
        next: "10.0.0.7:15008".parse().unwrap(),
        expect: Arc::new([identity.clone()]),
        uid: uid.map(Uid::from),
    };
    let pod = |uid: &str, addresses: &[&str], hostname: &str| Workload {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        hostname: hostname.into(),
        protocol: Protocol::Hbone,
        ..Workload::new(uid.into())
    };
    let mut state = State::new(None);
    let mut view = |change: Change| {
        let _ = state.apply([change]);
        state.view()
    };
    let there = view(pod("a", &["10.0.0.6", "10.0.0.7"], "").into());
    assert!(key(Some("a")).is_current(&there));
    assert!(!key(Some("b")).is_current(&there), "another had the address");
    assert!(key(None).is_current(&there), "nobody that the mesh knows was ever there");
    assert!(!key(Some("a")).is_current(&view(pod("a", &["10.0.0.6"], "").into())), "it has moved");
    assert!(key(Some("a")).is_current(&view(pod("a", &[], "a.example").into())), "a name may lead anywhere");
    assert!(!key(Some("a")).is_current(&view(Change::RemoveWorkload("a".into()))), "it has gone");
    assert_ne!(key(Some("a")), key(Some("b")), "whoever has the address now does not get the other's tunnel");
}
