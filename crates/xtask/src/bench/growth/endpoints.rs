//! What a service's endpoints cost those who connect to it, and what the change of one of them costs.
//!
//! All endpoints are healthy, and one program in one pod serves them all, under addresses that the pod has besides its
//! own. They take no tunnels: what is measured is the choice among them, not the handshakes with as many peers.

use std::net::SocketAddr;

use testkit::control_plane::resources::{ADDRESS, MEMBERS, Resources, plain_member, population, service_address};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, PodSpec};

use super::Plan;
use crate::bench::contender::Programs;
use crate::bench::load::{self, Load};
use crate::bench::pods::spec;
use crate::bench::process::precise_cpu_seconds;
use crate::bench::row::Row;
use crate::bench::scale::wait_for_answers;
use crate::bench::table::Table;
use crate::bench::{DEADLINE, Outcome};

/// Changes: an endpoint goes, and comes again.
const CHANGES: u32 = 1_000;
/// Connections at a time.
const LOAD: Load = Load::Connections { clients: 16 };

const PLAN: Plan<2> = Plan {
    of: "endpoints",
    sizes: &[1, 10, 100, 1_000, 10_000],
    costs: ["connection: CPU \u{b5}s at the source", "one comes or goes: CPU \u{b5}s"],
};

pub(super) fn table(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    PLAN.measure_each(row, programs, rounds, |program, count| {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "back", Capture::Off))?;
        server.own_network(MEMBERS.0, MEMBERS.1)?;
        let _servers = load::servers(&server, mesh.directory())?;
        let istiod = Istiod::start(&mesh)?;
        istiod.update(|behaviour| behaviour.extra = service_of(count).into())?;
        let ztunnel = a.start_ztunnel(&istiod.ztunnel(&a, &spec(program, programs))?)?;
        ztunnel.wait_ready(DEADLINE)?;

        let service = SocketAddr::new(service_address(0), 80);
        LOAD.run_at(&client, service, 1)?;
        let before = precise_cpu_seconds(ztunnel.pid())?;
        let done = LOAD.run_at(&client, service, seconds)?;
        let between = precise_cpu_seconds(ztunnel.pid())?;
        change(&istiod, count)?;
        let after = precise_cpu_seconds(ztunnel.pid())?;
        if let Some(refusal) = istiod.tally().refusals.first() {
            return Err(format!("ztunnel refused: {refusal}").into());
        }
        Ok([(between - before) / done.amount.max(1.0) * 1e6, (after - between) / f64::from(CHANGES) * 1e6])
    })
}

/// One service, and so many endpoints.
fn service_of(count: u32) -> Resources {
    let mut all = population(count, 1);
    all.extend((0..count).map(|i| plain_member(i, 1, 0)));
    all
}

/// Takes endpoints away and gives them back, one after the other.
fn change(istiod: &Istiod, count: u32) -> Outcome {
    let before = istiod.tally().accepted;
    for change in 0..CHANGES {
        // Far apart in the order of names.
        let ((_, name), resource) = plain_member((change / 2).wrapping_mul(7_919) % count, 1, 0);
        if change.is_multiple_of(2) {
            istiod.withdraw(ADDRESS, &name)
        } else {
            istiod.push(ADDRESS, &name, resource)
        }
        wait_for_answers(istiod, before + 1 + change as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_endpoints_are_in_the_network_that_the_server_has() {
        let all = service_of(300);
        assert_eq!(all.len(), 301);
        let inside = |alias: &&String| alias.starts_with("/11.");
        assert_eq!(all.values().flat_map(|resource| &resource.aliases).filter(inside).count(), 300);
    }
}
