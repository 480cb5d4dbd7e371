use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

fn open(path: &str) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// A namespace that nobody else is in, or `None` where the tests may not make one.
#[allow(unsafe_code, reason = "rustix offers no safe way to leave a namespace")]
fn fresh(test: &str) -> Option<Netns> {
    let made = thread::spawn(|| {
        // SAFETY: only sharing of file descriptors between threads could be unsound to end, and it goes on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map(|()| Netns::current().unwrap())
    });
    match made.join().unwrap() {
        Ok(netns) => Some(netns),
        Err(error) => {
            eprintln!("NOT TESTED: {test}: a network namespace needs CAP_SYS_ADMIN ({error})");
            None
        }
    }
}

#[test]
fn descriptors_of_one_namespace_have_one_identity() {
    let (one, other) = (Netns::new(open(OWN)).unwrap(), Netns::current().unwrap());
    assert_eq!(one.id(), other.id());
}

#[test]
fn what_is_not_a_network_namespace_is_refused() {
    let memfd = memfd_create("not-a-namespace", MemfdFlags::CLOEXEC).unwrap();
    for (name, fd) in [
        ("a file in memory", memfd),
        ("another kind of namespace", open("/proc/self/ns/mnt")),
        ("a directory", open("/proc/self/ns")),
        ("a device", open("/dev/null")),
    ] {
        let refused = Netns::new(fd).map(|netns| netns.id()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn a_visit_happens_in_the_namespace_and_ends_where_it_began() {
    let Some(pod) = fresh("a_visit_happens_in_the_namespace_and_ends_where_it_began") else { return };
    let before = Netns::current().unwrap().id();
    let during = pod.run(|| Netns::current().unwrap().id()).unwrap();
    assert_eq!(during, pod.id());
    assert_ne!(during, before);
    assert_eq!(Netns::current().unwrap().id(), before);
}

#[test]
fn a_visit_that_panics_ends_where_it_began_too() {
    let Some(pod) = fresh("a_visit_that_panics_ends_where_it_began_too") else { return };
    let before = Netns::current().unwrap().id();
    let visit = catch_unwind(AssertUnwindSafe(|| pod.run(|| panic!("as a test")))).is_err();
    assert!(visit);
    assert_eq!(Netns::current().unwrap().id(), before);
}
