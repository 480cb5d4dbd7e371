//! What a ztunnel pays for every workload or service that it hears of, and for a change among many.

use testkit::ztunnel::ZtunnelSpec;

use super::Plan;
use crate::bench::Outcome;
use crate::bench::contender::Programs;
use crate::bench::row::Row;
use crate::bench::scale::{self, Size};
use crate::bench::table::Table;

/// Workloads of a service.
const MEMBERS: u32 = 10;

/// Workloads beside services that grow.
const FEW: u32 = 1_000;

const fn plan(of: &'static str) -> Plan<4> {
    let costs =
        ["resident above none, MiB", "CPU s until ready", "change: CPU \u{b5}s", "change in a storm: CPU \u{b5}s"];
    Plan { of, sizes: &[1_000, 10_000, 100_000], costs }
}

/// By workloads, with services in proportion.
pub(super) fn workloads(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    measure(&plan("workloads"), row, programs, rounds, |workloads| Size { workloads, services: workloads / MEMBERS })
}

/// By services, with as many workloads each time.
pub(super) fn services(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    measure(&plan("services"), row, programs, rounds, |services| Size { workloads: FEW, services })
}

fn measure(plan: &Plan<4>, row: &Row, programs: &Programs, rounds: u32, size: impl Fn(u32) -> Size) -> Outcome<Table> {
    plan.measure_each(row, programs, rounds, |program, number| {
        let spec = ZtunnelSpec::new(program).env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
        let mesh = scale::once(&spec, size(number))?;
        Ok([mesh.resident - mesh.base, mesh.cpu, mesh.change, mesh.storm])
    })
}
