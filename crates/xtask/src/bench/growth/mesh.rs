//! What a ztunnel pays for every workload that it hears of, and for a change among many.

use testkit::ztunnel::ZtunnelSpec;

use super::Plan;
use crate::bench::Outcome;
use crate::bench::contender::Programs;
use crate::bench::row::Row;
use crate::bench::scale::{self, Size};
use crate::bench::table::Table;

/// Workloads of a service.
const MEMBERS: u32 = 10;

const PLAN: Plan<4> = Plan {
    of: "workloads",
    sizes: &[1_000, 10_000, 100_000],
    costs: ["resident above none, MiB", "CPU s until ready", "change: CPU \u{b5}s", "change in a storm: CPU \u{b5}s"],
};

pub(super) fn table(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    PLAN.measure_each(row, programs, rounds, |program, workloads| {
        let spec = ZtunnelSpec::new(program).env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
        let mesh = scale::once(&spec, Size { workloads, services: workloads / MEMBERS })?;
        Ok([mesh.resident - mesh.base, mesh.cpu, mesh.change, mesh.storm])
    })
}
