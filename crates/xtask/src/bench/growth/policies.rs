//! What policies cost the connections that they are asked about: at their destination, and in all.
//!
//! They name callers in all the ways there are; none of them but the first has anything to say of the client that
//! connects.

use std::path::Path;

use testkit::control_plane::{Action, Match, Policy, Scope, StringMatch};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::{Plan, SETTLE};
use crate::bench::contender::Programs;
use crate::bench::load::{self, Load};
use crate::bench::pods::spec;
use crate::bench::process::{Ends, Running, resident_kib};
use crate::bench::row::Row;
use crate::bench::table::Table;
use crate::bench::{DEADLINE, Outcome};

/// Whom the policies of the namespace bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Mix {
    /// A third select the destination, a third are for the whole namespace, and a third select others there.
    Thirds,
    /// All are for the whole namespace.
    Wide,
    /// All select the destination.
    Selecting,
}

/// Whom one policy binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binds {
    Destination,
    Namespace,
    Others,
}

impl Mix {
    fn binds(self, i: u32) -> Binds {
        match (self, i % 3) {
            (Mix::Wide, _) | (Mix::Thirds, 1) => Binds::Namespace,
            (Mix::Selecting, _) | (Mix::Thirds, 0) => Binds::Destination,
            (Mix::Thirds, _) => Binds::Others,
        }
    }
}

/// Connections at a time.
const LOAD: Load = Load::Connections { clients: 16 };

const PLAN: Plan<4> = Plan {
    of: "policies",
    sizes: &[10, 100, 1_000, 10_000],
    costs: [
        "connection: CPU \u{b5}s at the destination",
        "connection: CPU \u{b5}s at the source",
        "connection: CPU \u{b5}s of both",
        "resident at the destination, MiB",
    ],
};

pub(super) fn table(mix: Mix, row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    PLAN.measure_each(row, programs, rounds, |program, size| {
        let stage = Stage::set(program, programs, mix, size)?;
        let before = Ends::now(&stage.near, &stage.far)?;
        let done = LOAD.run(&stage.client, &stage.server, seconds)?;
        let [near, far] = Ends::now(&stage.near, &stage.far)?.each(before, done.amount);
        Ok([far, near, near + far, stage.resident / 1024.0])
    })
}

struct Stage {
    // Processes end before the namespaces they live in.
    near: Ztunnel,
    far: Ztunnel,
    _servers: Vec<Running>,
    client: Pod,
    server: Pod,
    /// KiB of the far ztunnel before it has connections.
    resident: f64,
    _istiod: Istiod,
    _mesh: Mesh,
}

impl Stage {
    fn set(program: &Path, programs: &Programs, mix: Mix, count: u32) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "back", Capture::Enrolled))?;
        let (istiod, spec) = (Istiod::start(&mesh)?, spec(program, programs));
        mesh.control_plane().update(|plane| {
            plane.policies = (0..count).map(|i| policy(i, mix.binds(i))).collect();
            let selecting = (0..count).filter(|i| mix.binds(*i) == Binds::Destination);
            let names = selecting.map(|i| format!("shop/{}", name(i))).collect();
            plane.selections.insert("server".to_owned(), names);
        })?;
        let near = a.start_ztunnel(&istiod.ztunnel(&a, &spec)?)?;
        let far = b.start_ztunnel(&istiod.ztunnel(&b, &spec)?)?;
        near.wait_ready(DEADLINE)?;
        far.wait_ready(DEADLINE)?;
        std::thread::sleep(SETTLE);
        let resident = resident_kib(far.pid())?;
        let servers = load::servers(&server, mesh.directory())?;
        // Tunnels and certificates are there before anything counts.
        LOAD.run(&client, &server, 1)?;
        Ok(Self { near, far, _servers: servers, client, server, resident, _istiod: istiod, _mesh: mesh })
    }
}

fn name(i: u32) -> String {
    format!("policy-{i}")
}

/// The `i`-th policy.
fn policy(i: u32, binds: Binds) -> Policy {
    let scope = if binds == Binds::Namespace { Scope::Namespace } else { Scope::WorkloadSelector };
    let action = if i.is_multiple_of(2) { Action::Allow } else { Action::Deny };
    let rules = vec![vec![vec![if i == 0 { client() } else { somebody(i) }]]];
    Policy { name: name(i), namespace: "shop".to_owned(), scope, action, dry_run: false, rules }
}

fn client() -> Match {
    let principals = vec![StringMatch::Exact("cluster.local/ns/shop/sa/front".to_owned())];
    Match { principals, ..Match::default() }
}

/// Somebody else by number, named in one of the ways there are.
fn somebody(i: u32) -> Match {
    let exactly = |text: String| vec![StringMatch::Exact(text)];
    let account = format!("cluster.local/ns/other-{i}/sa/account-{i}");
    // Three kinds of policies and two actions repeat every six: ways change after that, so that all meet all.
    match i / 6 % 6 {
        0 => Match { principals: exactly(account), ..Match::default() },
        1 => Match { namespaces: exactly(format!("other-{i}")), ..Match::default() },
        2 => {
            let begins = vec![StringMatch::Prefix(format!("cluster.local/ns/other-{i}/"))];
            Match { principals: begins, ..Match::default() }
        }
        3 => {
            let ends = vec![StringMatch::Suffix(format!("/sa/account-{i}"))];
            Match { principals: ends, ..Match::default() }
        }
        4 => {
            let [_, a, b, c] = i.to_be_bytes();
            Match { source_ips: vec![format!("11.{a}.{b}.{c}/32")], ..Match::default() }
        }
        // Anybody else, at a port that nobody connects to.
        _ => Match { not_principals: exactly(account), destination_ports: vec![9], ..Match::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_policy_names_callers_in_every_way() {
        let binds = |i| Mix::Thirds.binds(i) as u8;
        let ways: std::collections::BTreeSet<_> = (0..36).map(|i| (binds(i), i % 2, i / 6 % 6)).collect();
        assert_eq!(ways.len(), 36);
    }

    #[test]
    fn only_the_first_policy_is_about_the_client() {
        let says = |i| format!("{:?}", policy(i, Binds::Namespace).rules);
        assert!(says(0).contains("ns/shop/sa/front"));
        assert!((1..100).all(|i| !says(i).contains("ns/shop")));
    }
}
