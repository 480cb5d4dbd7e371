//! What a large mesh costs: the time until a ztunnel is ready, its memory, and the CPU of a single change.
//!
//! The control plane is testkit's, in this process. The one large push is encoded before the clock starts; sending it is
//! told apart.

use std::time::{Duration, Instant};

use testkit::control_plane::resources::{ADDRESS, member, population};
use testkit::istiod::Istiod;
use testkit::mesh::Mesh;
use testkit::ztunnel::ZtunnelSpec;

use super::contender::Programs;
use super::process::{cpu_seconds, peak_kib, precise_cpu_seconds, resident_kib};
use super::row::Row;
use super::table::{Table, by_build};
use super::{Outcome, READY};

/// Responses at the start: one for each type that is asked for.
const PUSHES: usize = 2;
/// As large as meshes are said to be.
pub(super) const LARGE: Size = Size { workloads: 100_000, services: 10_000 };
/// Changes of one workload each, one after the other.
const UPDATES: u32 = 2_000;
/// Longest wait for the answer to one change.
const ANSWER: Duration = Duration::from_secs(5);
/// After this, whatever the start needed for itself has been given back.
const SETTLE: Duration = Duration::from_secs(3);

/// Changes of a storm that may be unanswered at one time.
const OUTSTANDING: u32 = 64;

const COLUMNS: [&str; 10] = [
    "ready, s",
    "since it asked, s",
    "CPU s until ready",
    "control plane's CPU s",
    "resident, MiB",
    "peak, MiB",
    "resident without a mesh, MiB",
    "change: CPU \u{b5}s",
    "change: time \u{b5}s",
    "change in a storm: CPU \u{b5}s",
];

/// How large a mesh is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) workloads: u32,
    pub(super) services: u32,
}

/// What a mesh cost one ztunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Seconds from the start.
    ready: f64,
    /// Seconds from the first question.
    asked: f64,
    /// Seconds of CPU until ready.
    pub(super) cpu: f64,
    /// Of the control plane, meanwhile.
    own: f64,
    /// MiB.
    pub(super) resident: f64,
    /// MiB.
    peak: f64,
    /// MiB of one that hears of no mesh.
    pub(super) base: f64,
    /// Microseconds of CPU.
    pub(super) change: f64,
    /// Microseconds until the answer.
    time: f64,
    /// Microseconds of CPU, with many unanswered.
    pub(super) storm: f64,
}

/// A ztunnel with and without the mesh.
pub(super) fn table(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    by_build(row, programs, rounds, COLUMNS, |program| {
        let spec = ZtunnelSpec::new(program).env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
        let Cost { ready, asked, cpu, own, resident, peak, base, change, time, storm } = once(&spec, LARGE)?;
        Ok([ready, asked, cpu, own, resident, peak, base, change, time, storm])
    })
}

/// Has a ztunnel hear of a mesh of that size, and then of changes.
pub(super) fn once(spec: &ZtunnelSpec, size: Size) -> Outcome<Cost> {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let istiod = Istiod::start(&mesh)?;
    let spec = istiod.ztunnel(&node, spec)?;

    let empty = node.start_ztunnel(&spec)?;
    empty.wait_ready(READY)?;
    std::thread::sleep(SETTLE);
    let base = resident_kib(empty.pid())? / 1024.0;
    empty.stop(READY)?;

    istiod.update(|behaviour| behaviour.extra = population(size.workloads, size.services).into())?;
    istiod.prepare();
    let answers = istiod.tally().accepted;
    let (start, own) = (Instant::now(), precise_cpu_seconds(std::process::id())?);
    let ztunnel = node.start_ztunnel(&spec)?;
    if !istiod.wait_for(READY, |tally| tally.accepted >= answers + PUSHES) {
        return Err("the mesh was not accepted".into());
    }
    ztunnel.wait_ready(READY)?;
    let (ready, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds(ztunnel.pid())?);
    let own = precise_cpu_seconds(std::process::id())? - own;
    let asked = istiod.tally().asked.filter(|asked| *asked > start).ok_or("nobody asked for anything")?;
    let asked = ready - asked.duration_since(start).as_secs_f64();
    std::thread::sleep(SETTLE);
    let (resident, peak) = (resident_kib(ztunnel.pid())? / 1024.0, peak_kib(ztunnel.pid())? / 1024.0);

    let each = |whole: f64| whole / f64::from(UPDATES) * 1e6;
    let (before, cpu_before) = (Instant::now(), precise_cpu_seconds(ztunnel.pid())?);
    change_all(&istiod, size, 1, 1)?;
    let cpu_after = precise_cpu_seconds(ztunnel.pid())?;
    let (time, change) = (each(before.elapsed().as_secs_f64()), each(cpu_after - cpu_before));
    change_all(&istiod, size, 1 + UPDATES, OUTSTANDING)?;
    let storm = each(precise_cpu_seconds(ztunnel.pid())? - cpu_after);
    if istiod.tally().refusals.is_empty() {
        return Ok(Cost { ready, asked, cpu, own, resident, peak, base, change, time, storm });
    }
    Err(format!("ztunnel refused: {}", istiod.tally().refusals[0]).into())
}

/// Changes workloads, each in a push of its own, with at most so many pushes unanswered; revisions begin at `first`.
fn change_all(istiod: &Istiod, size: Size, first: u32, outstanding: u32) -> Outcome<()> {
    let before = istiod.tally().accepted;
    for update in 0..UPDATES {
        // Far apart in the order of names. Where there are fewer than changes, each becomes something new every time.
        let (which, revision) = (update.wrapping_mul(7_919) % size.workloads, first + update / size.workloads);
        let ((_, name), resource) = member(which, size.services, revision);
        istiod.push(ADDRESS, &name, resource);
        let owed = (update + 1).saturating_sub(outstanding - 1);
        wait_for_answers(istiod, before + owed as usize)?;
    }
    wait_for_answers(istiod, before + UPDATES as usize)
}

/// Waits until so many responses have been accepted in all.
pub(super) fn wait_for_answers(istiod: &Istiod, accepted: usize) -> Outcome<()> {
    match istiod.wait_for(ANSWER, |tally| tally.accepted >= accepted) {
        true => Ok(()),
        false => Err("a change was not answered".into()),
    }
}

#[cfg(test)]
mod tests {
    use testkit::control_plane::resources::Resources;

    use super::*;

    #[test]
    fn a_population_has_as_many_resources_as_it_should_and_no_two_alike() {
        let all: Resources = population(1_000, 100);
        assert_eq!(all.len(), 1_100);
        let payloads: std::collections::HashSet<_> = all.values().map(|resource| resource.payload.clone()).collect();
        assert_eq!(payloads.len(), 1_100);
        let (key, resource) = member(7, 100, 0);
        assert_eq!(all.get(&key), Some(&resource));
        assert_ne!(member(7, 100, 1).1.version(), resource.version());
    }
}
