//! What a node's pods cost before they have connections: memory, descriptors, and CPU while nothing happens.

use std::time::{Duration, Instant};

use testkit::mesh::{Capture, Mesh, PodSpec};
use testkit::redirect::DnsCapture;

use super::{Costs, Plan, SETTLE};
use crate::bench::contender::Programs;
use crate::bench::pods::spec;
use crate::bench::process::{precise_cpu_seconds, resident_kib};
use crate::bench::row::Row;
use crate::bench::table::Table;
use crate::bench::{DEADLINE, Outcome};

/// For which nothing happens.
const REST: Duration = Duration::from_secs(5);

const PLAN: Plan<3> = Plan {
    of: "pods",
    sizes: &[1, 10, 50, 250],
    costs: ["resident above none, MiB", "descriptors above none", "at rest: CPU \u{b5}s per second"],
};

/// All sizes in one process: pods come to those that are there.
pub(super) fn table(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    PLAN.measure(row, programs, rounds, |program| {
        let mesh = Mesh::new()?;
        let node = mesh.add_node("a")?;
        let ztunnel = node.start_ztunnel(&spec(program, programs).env("ISTIO_META_DNS_CAPTURE", "true"))?;
        ztunnel.wait_ready(DEADLINE)?;
        let add = |name: &str| {
            node.add_pod(PodSpec::new(name, "shop", "front", Capture::Enrolled).dns(DnsCapture::On)).map(drop)
        };
        // The first one pays for what all share, and is none of those that count.
        add("first")?;
        std::thread::sleep(SETTLE);
        let (resident, open) = (resident_kib(ztunnel.pid())?, ztunnel.open_fds()?);
        let (mut there, mut costs) = (0, Costs::new());
        for &size in PLAN.sizes {
            (there..size).try_for_each(|n| add(&format!("pod-{n}")))?;
            there = size;
            std::thread::sleep(SETTLE);
            let (start, cpu) = (Instant::now(), precise_cpu_seconds(ztunnel.pid())?);
            std::thread::sleep(REST);
            let rest = (precise_cpu_seconds(ztunnel.pid())? - cpu) / start.elapsed().as_secs_f64();
            let opened = ztunnel.open_fds()?.saturating_sub(open);
            costs.push([(resident_kib(ztunnel.pid())? - resident) / 1024.0, opened as f64, rest * 1e6]);
        }
        Ok(costs)
    })
}
