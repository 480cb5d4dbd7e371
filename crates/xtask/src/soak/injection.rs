//! How each fault is brought about and undone.
//!
//! Invariant: when it is undone, the mesh is as it was before; a fault that cannot be undone fails the soak.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use testkit::control_plane::{Action, Match, Policy, Scope, Service};
use testkit::istiod::{Authority, Fault};
use testkit::mesh::Pod;

use super::dice::Dice;
use super::faults::Kind;
use super::judge::Judge;
use super::life::Life;
use super::seat::Seat;
use super::stage::{IDENTITIES, Stage, eventually, pod};
use super::traffic;
use super::{DEADLINE, Outcome};

/// Half a period of a control plane that flaps, and how long one that is replaced is away.
const FLAP: Duration = Duration::from_millis(500);
/// Between two closings of the node agent's connections: ztunnel comes back within this, most of the time.
const HANG_UP: Duration = Duration::from_secs(1);
/// Between two changes of what the control plane tells.
const CHANGE: Duration = Duration::from_millis(20);
/// Services and policies that come and go.
const FLAPPING: usize = 10;
/// Pods that come and go at a time.
const CHURNED: usize = 4;

/// Has it happen for so long.
pub(super) fn happen(stage: &Stage, kind: Kind, lasts: Duration, dice: &mut Dice) -> Outcome {
    let istiod = &stage.istiod;
    match kind {
        Kind::ControlPlaneRestarts => {
            istiod.down()?;
            std::thread::sleep(lasts);
            Ok(istiod.up()?)
        }
        Kind::ControlPlaneFlaps => repeat(lasts, Duration::ZERO, || replace(stage, Fault::None)),
        Kind::ControlPlaneSilent => {
            replace(stage, Fault::Silent)?;
            std::thread::sleep(lasts);
            replace(stage, Fault::None)
        }
        Kind::CaRefuses => ca(stage, Fault::Refuse, lasts),
        Kind::CaHangs => ca(stage, Fault::Silent, lasts),
        Kind::RootRotates => rotate(stage),
        Kind::PodsChurn => repeat(lasts, Duration::ZERO, || churn(stage, dice)),
        Kind::AppDies => {
            stage.app.die()?;
            std::thread::sleep(lasts);
            Ok(stage.app.revive()?)
        }
        Kind::LinkCut => {
            let node = &either(stage, dice).node;
            node.cut_off()?;
            std::thread::sleep(lasts);
            Ok(node.reconnect()?)
        }
        Kind::ZtunnelKilled => kill(stage, lasts, dice),
        Kind::AgentHangsUp => {
            let seats = stage.seats();
            repeat(lasts, HANG_UP, || {
                seats.into_iter().for_each(|seat| seat.node.cni().hang_up());
                Ok(())
            })?;
            let taken = seats.map(|seat| seat.node.cni().snapshots());
            seats.into_iter().for_each(|seat| seat.node.cni().hang_up());
            seats
                .into_iter()
                .zip(taken)
                .try_for_each(|(seat, taken)| Ok(seat.node.cni().wait_synced(taken + 1, DEADLINE)?))
        }
        Kind::ResourcesFlap => flap(stage, lasts),
    }
}

fn repeat(lasts: Duration, pause: Duration, mut act: impl FnMut() -> Outcome) -> Outcome {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        act()?;
        std::thread::sleep(pause);
    }
    Ok(())
}

fn either<'a>(stage: &'a Stage, dice: &mut Dice) -> &'a Seat {
    stage.seats()[dice.below(2)]
}

/// Another istiod takes the place of the one there is.
fn replace(stage: &Stage, discovery: Fault) -> Outcome {
    stage.istiod.update(|behaviour| (behaviour.up, behaviour.discovery) = (false, discovery))?;
    std::thread::sleep(FLAP);
    stage.istiod.up()?;
    std::thread::sleep(FLAP);
    Ok(())
}

fn ca(stage: &Stage, fault: Fault, lasts: Duration) -> Outcome {
    stage.istiod.update(|behaviour| behaviour.ca = fault)?;
    std::thread::sleep(lasts);
    Ok(stage.istiod.update(|behaviour| behaviour.ca = Fault::None)?)
}

/// From the root that signs to another by way of both, each step when all have taken the one before.
fn rotate(stage: &Stage) -> Outcome {
    let istiod = &stage.istiod;
    let fresh = Arc::new(Authority::new("the next mesh root")?);
    let added = fresh.clone();
    istiod.update(|behaviour| behaviour.roots.push(added))?;
    renewed(stage)?;
    let signing = fresh.clone();
    istiod.update(|behaviour| behaviour.signer = signing)?;
    renewed(stage)?;
    Ok(istiod.update(|behaviour| behaviour.roots = vec![fresh])?)
}

/// Waits until everybody has another certificate.
fn renewed(stage: &Stage) -> Outcome {
    let since = SystemTime::now();
    eventually("all certificates are renewed", || {
        let issued = stage.istiod.tally().issued;
        let has = |identity: &&str| issued.iter().rev().any(|one| one.identity == **identity && one.at > since);
        Ok(IDENTITIES.iter().all(has))
    })
}

fn kill(stage: &Stage, lasts: Duration, dice: &mut Dice) -> Outcome {
    let seat = either(stage, dice);
    let in_books = std::ptr::eq(seat, &raw const stage.clients);
    if in_books {
        stage.judge.books().close();
    }
    seat.kill(lasts, || {
        if in_books {
            stage.judge.books().reopen();
        }
    })
}

/// Services and policies that concern nobody come and go.
fn flap(stage: &Stage, lasts: Duration) -> Outcome {
    let control_plane = stage.mesh.control_plane();
    let mut number = 0;
    let flapped = repeat(lasts, CHANGE, || {
        let name = format!("flapping-{}", number % FLAPPING);
        number += 1;
        Ok(control_plane.update(|plane| {
            let (services, policies) = (plane.services.len(), plane.policies.len());
            plane.services.retain(|service| service.name != name);
            plane.policies.retain(|policy| policy.name != name);
            if (plane.services.len(), plane.policies.len()) == (services, policies) {
                let vip = [10, 96, 1, (number % FLAPPING) as u8];
                plane.services.push(Service::new(&name, "shop", vip, &[&stage.server]).port(80, 80));
                plane.policies.push(policy(&name));
            }
        })?)
    });
    control_plane.update(|plane| {
        plane.services.retain(|service| !service.name.starts_with("flapping-"));
        plane.policies.clear();
    })?;
    flapped
}

/// Denies what nobody asks for.
fn policy(name: &str) -> Policy {
    let matches = Match { destination_ports: vec![1], ..Match::default() };
    Policy {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        rules: vec![vec![vec![matches]]],
    }
}

/// Pods come, talk at once, and go with a connection open.
fn churn(stage: &Stage, dice: &mut Dice) -> Outcome {
    let (here, there) = (&stage.clients.node, &stage.servers.node);
    let spec = |number: usize| pod(&format!("passer-by-{number}"), "passer-by");
    let pods = (0..CHURNED).map(|number| here.add_pod(spec(number))).collect::<Result<Vec<Pod>, _>>()?;
    let bystander = there.add_pod(pod("bystander", "bystander"))?;
    let visits = pods.iter().map(|pod| {
        let (server, judge) = (stage.server.ip(), Arc::clone(&stage.judge));
        let mut dice = Dice::new(dice.below(usize::MAX) as u64, 0);
        pod.spawn(move || visit(server, &mut dice, &judge))
    });
    let visits = visits.collect::<Result<Vec<_>, _>>()?;
    let opened = stage.judge.now();
    let held: Vec<_> =
        visits.into_iter().map(|visit| visit.join().map_err(|_| "a visitor panicked")).collect::<Result<_, _>>()?;
    pods.iter().try_for_each(|pod| here.remove_pod(pod))?;
    there.remove_pod(&bystander)?;
    for stream in held {
        let surprise = match stream? {
            Ok(stream) => outlives(stream).then(|| "the connection of a pod that was removed did not end".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        stage.judge.ended(Life::Talk, opened, 0, surprise);
    }
    Ok(())
}

/// A whole connection, and one that is left open.
fn visit(server: IpAddr, dice: &mut Dice, judge: &Judge) -> std::io::Result<TcpStream> {
    traffic::live(server, Life::ServerEndsFirst, dice, judge);
    traffic::hold(server, dice, judge)
}

/// Whether nothing has ended a connection for as long as its clients are patient.
fn outlives(mut stream: TcpStream) -> bool {
    let silent = |error: std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    stream.read(&mut [0]).err().is_some_and(silent)
}
