//! A node agent that says anything in any order: packets of ZDS, and what they do to pods.

use std::collections::BTreeSet;
use std::rc::Rc;

use ztunnel::inpod::pods::{Added, Pods};
use ztunnel::inpod::zds::{self, Message};

use crate::{Bytes, Choices};

/// A namespace, of which there are few, by a descriptor that is counted.
#[derive(Clone)]
struct Descriptor {
    netns: u8,
    _open: Rc<()>,
}

impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        self.netns == other.netns
    }
}

/// Each step is a byte that says what happens, and what that takes: a packet of so many bytes with so many descriptors, or
/// a connection that ends and begins again. Some pods fail to start.
///
/// Proxies are numbers: each that was started runs, or was given back to be stopped, exactly once; and what the machine
/// lets go of leaves no descriptor open.
pub fn agent(data: &[u8]) {
    let mut bytes = Bytes(data);
    let open = Rc::new(());
    let mut pods = Pods::<Descriptor, u32>::new();
    let (mut running, mut started) = (BTreeSet::<u32>::new(), 0_u32);
    while let Some(step) = bytes.next() {
        if step == u8::MAX {
            pods.disconnected();
            pods.connected();
        } else {
            let descriptors = (0..step % 4).map(|_| Descriptor { netns: step >> 5, _open: Rc::clone(&open) }).collect();
            let length = bytes.below(256);
            let packet = bytes.take(length).to_vec();
            let Ok(message) = zds::parse(&packet, descriptors) else { continue };
            let stopped = carry_out(&mut pods, message, step & 4 != 0, &mut started, &mut running);
            for proxy in &stopped {
                assert!(running.remove(proxy), "a proxy is stopped once");
            }
        }
        assert_eq!(pods.running().len(), running.len(), "a proxy that was not given back runs");
        for (uid, _) in pods.pending() {
            assert!(
                pods.knows(uid) && !pods.running().any(|(other, _)| other == uid),
                "a pod runs or waits, never both"
            );
        }
        let held = pods.running().len() + pods.pending().len();
        assert_eq!(Rc::strong_count(&open), held + 1, "a descriptor per pod is open, and no other");
    }
    assert_eq!(pods.into_running().count(), running.len());
    assert_eq!(Rc::strong_count(&open), 1);
}

/// As the driver does; yields the proxies to be stopped.
fn carry_out(
    pods: &mut Pods<Descriptor, u32>,
    message: Message<Descriptor>,
    fails: bool,
    started: &mut u32,
    running: &mut BTreeSet<u32>,
) -> Vec<u32> {
    match message {
        Message::Add(uid, who, netns) => {
            let (Ok(()), Some(who)) = (pods.mention(&uid), who) else { return Vec::new() };
            let Added::Start { replaces } = pods.add(&uid, &netns) else { return Vec::new() };
            if fails {
                pods.failed(uid, who, netns);
            } else {
                *started += 1;
                running.insert(*started);
                pods.started(uid, who, netns, *started);
            }
            replaces.into_iter().collect()
        }
        Message::Keep(uid) => {
            let _ = pods.keep(&uid); // refused or not, it stops nothing
            Vec::new()
        }
        Message::Del(uid) => pods.del(&uid).ok().flatten().into_iter().collect(),
        Message::SnapshotSent => {
            let gone = pods.snapshot_sent().unwrap_or_default();
            gone.into_iter().map(|(_, proxy)| proxy).collect()
        }
    }
}
