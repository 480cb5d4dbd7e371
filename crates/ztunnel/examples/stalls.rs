//! How long who looks at the mesh is held up by whoever changes it. Run with
//! `cargo run --profile quick -p ztunnel --example stalls`.
//!
//! One thread looks up addresses and services all the time, while another brings in a large mesh, changes it and takes
//! it away. Time is that of the reader's own work: what the machine takes away from it for other programs does not
//! count, and what it would wait for on a lock shows as waits.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mesh::workload::{Membership, Protocol};
use mesh::{Change, NamespacedHostname, NetworkAddress, PortMap, Service, State, View, Workload};
use rustix::time::{ClockId, clock_gettime};
use ztunnel::state::Views;

const WORKLOADS: u32 = 100_000;
const SERVICES: u32 = 10_000;
/// Changes that come one by one, and changes of a push in a storm.
const CHANGES: u32 = 5_000;
const BATCH: u32 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut state, views) = (State::new(None), Views::new(View::default()));
    let mut apply = |changes: Vec<Change>| {
        let _ = state.apply(changes);
        views.publish(state.view());
    };
    let all = |revision| (0..WORKLOADS).map(move |i| workload(i, revision).into());
    let services = (0..SERVICES).map(|i| service(i).into());
    let scattered = |i: u32| i.wrapping_mul(7_919) % WORKLOADS;

    println!("{:<34}{:>12}{:>18}{:>8}", "meanwhile", "look-ups", "longest, \u{b5}s", "waits");
    watch("a mesh of 100,000 workloads comes", &views, || apply(services.chain(all(0)).collect()))?;
    watch("one workload changes, 5,000 times", &views, || {
        (0..CHANGES).for_each(|i| apply(vec![workload(scattered(i), 1).into()]));
    })?;
    watch("500 workloads change, ten times", &views, || {
        (0..CHANGES / BATCH)
            .for_each(|n| apply((0..BATCH).map(|i| workload(scattered(n * BATCH + i), 2).into()).collect()));
    })?;
    watch("every workload changes at once", &views, || apply(all(3).collect()))?;
    let gone = |i| Change::RemoveWorkload(workload(i, 0).uid);
    watch("every workload goes at once", &views, || apply((0..WORKLOADS).map(gone).collect()))
}

/// Does something while another thread looks things up, and prints how that thread fared.
fn watch(meanwhile: &str, views: &Views, change: impl FnOnce()) -> Result<(), Box<dyn Error>> {
    let (views, over) = (views.clone(), Arc::new(AtomicBool::new(false)));
    let reader = thread::spawn({
        let over = over.clone();
        move || read(&views, &over)
    });
    change();
    over.store(true, Ordering::Relaxed);
    let (lookups, longest, waits) = reader.join().map_err(|_| "the reader panicked")??;
    println!("{meanwhile:<34}{lookups:>12}{:>18.1}{waits:>8}", longest.as_secs_f64() * 1e6);
    Ok(())
}

/// Looks up until it is over: how often, how long the longest took, and how often it had to wait for somebody.
fn read(views: &Views, over: &AtomicBool) -> Result<(u64, Duration, u64), std::io::Error> {
    let (mut lookups, mut longest) = (0, Duration::ZERO);
    let waits = waits()?;
    // One view is kept until the next is at hand, so that each is given up by the reader.
    let mut current = views.current();
    while !over.load(Ordering::Relaxed) {
        let i = u32::try_from(lookups % u64::from(WORKLOADS)).unwrap_or_default();
        let (pod, vip, service) = (address(0x0B00_0000 + i), address(0x0A60_0000 + i % SERVICES), key(i % SERVICES));
        let before = own_time();
        current = views.current();
        black_box(current.view.workload_at(&pod));
        black_box(current.view.service_at(&vip, None));
        black_box(current.view.endpoints(&service).next().is_some());
        longest = longest.max(own_time() - before);
        lookups += 1;
    }
    drop(current);
    Ok((lookups, longest, self::waits()? - waits))
}

/// Time that this thread has spent on a core.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How often this thread has given up its core to wait for something.
fn waits() -> Result<u64, std::io::Error> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).ok_or_else(|| std::io::Error::other("no count of waits"))
}

fn address(bits: u32) -> NetworkAddress {
    NetworkAddress::new("".into(), IpAddr::V4(Ipv4Addr::from_bits(bits)))
}

fn key(i: u32) -> NamespacedHostname {
    let namespace = format!("namespace-{}", i % 200);
    NamespacedHostname {
        hostname: format!("service-{i}.{namespace}.svc.cluster.local").into(),
        namespace: namespace.into(),
    }
}

fn ports() -> PortMap {
    [(80, 8080)].into_iter().collect()
}

fn service(i: u32) -> Service {
    Service { vips: [address(0x0A60_0000 + i)].into(), ports: ports(), ..Service::new(key(i)) }
}

fn workload(i: u32, revision: u32) -> Workload {
    let of = key(i % SERVICES);
    let name = format!("service-{}-{i:05x}", i % SERVICES);
    Workload {
        namespace: of.namespace.clone(),
        addresses: vec![address(0x0B00_0000 + i).ip].into(),
        protocol: Protocol::Hbone,
        node: format!("node-{}-{revision}", i % 1_000).into(),
        services: [Membership { service: of.clone(), ports: ports() }].into_iter().collect(),
        ..Workload::new(format!("Kubernetes//Pod/{}/{name}", of.namespace).into())
    }
}
