//! A server that dies and comes back under load: nobody but its own clients may notice, and they as little as possible.
//!
//! Two dnsperf ask at the same time, one for names of the mesh and one for names of the server whose answers hold for a
//! second.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::harness::{Test, test};

use super::upstreams::Server;
use super::{Named, unused_folder};
use crate::{Outcome, eventually};

/// Queries in a second: enough that each step of the test sees thousands, and far from what a small machine carries.
const RATE: &str = "1000";
/// An end for what is ended earlier, in seconds.
const LONGEST: &str = "120";
/// Answers of a kind after which a step is over.
const ENOUGH: u64 = 1000;

/// A dnsperf that asks until it is told to stop.
struct Load(Child);

impl Load {
    fn start(mesh: &Named, server: &Server, names: &Path) -> Outcome<Self> {
        let mut command = mesh.asker.command("dnsperf");
        command.args(["-s", &server.address().ip().to_string(), "-Q", RATE, "-l", LONGEST, "-c", "4", "-t", "5", "-d"]);
        Ok(Self(command.arg(names).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    /// Queries sent, lost, and what the answers said.
    fn stop(self) -> Outcome<(u64, u64, String)> {
        let interrupted = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status()?;
        assert!(interrupted.success());
        let text = String::from_utf8(self.0.wait_with_output()?.stdout)?;
        let line = |caption: &str| -> Outcome<String> {
            let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(caption)?.strip_prefix(':'));
            Ok(lines.next().ok_or_else(|| format!("dnsperf did not say {caption}: {text}"))?.trim().to_owned())
        };
        let number = |caption| -> Outcome<u64> { Ok(line(caption)?.split_whitespace().next().unwrap_or("").parse()?) };
        Ok((number("Queries sent")?, number("Queries lost")?, line("Response codes")?))
    }
}

/// Waits until so many more answers of a kind have been given.
fn more(mesh: &Named, kind: &str) -> Outcome {
    let count = || mesh.metric("istio_dns_answers_total", &format!("result=\"{kind}\"")).unwrap_or(0);
    let before = count();
    eventually(&format!("{ENOUGH} answers are {kind}"), || count() >= before + ENOUGH)
}

/// Kills the server that names come from under load, and starts it again.
fn killed_and_back(mesh: &Named, server: &mut Server) -> Outcome {
    let folder = unused_folder()?;
    let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
    fs::write(&ours, "cart.shop.svc.cluster.local A\nweb.other.svc.cluster.local AAAA\ndb.shop.svc.cluster.local A\n")?;
    fs::write(&theirs, "brief.nsec.example A\nbrief.nsec.example TXT\nbrief.nsec3.example A\n")?;
    let (local, carried) = (Load::start(mesh, server, &ours)?, Load::start(mesh, server, &theirs)?);
    more(mesh, "cached")?;
    let forwarded = mesh.metric("istio_dns_answers_total", "result=\"forwarded\"")?;
    server.kill();
    more(mesh, "stale")?;
    more(mesh, "local")?;
    server.restart()?;
    eventually("the server is asked again", || {
        mesh.metric("istio_dns_answers_total", "result=\"forwarded\"").is_ok_and(|now| now > forwarded)
    })?;
    more(mesh, "cached")?;
    more(mesh, "local")?;
    let (sent, lost, codes) = local.stop()?;
    assert!(sent > ENOUGH && lost == 0, "{lost} of {sent} answers of the mesh are lost");
    assert!(codes.starts_with("NOERROR") && codes.contains("100.00%"), "{codes}");
    // Whoever asks again for what is lost on the way has an answer to everything.
    let (sent, lost, codes) = carried.stop()?;
    assert!(sent > ENOUGH && lost == 0, "{lost} of {sent} answers of the server are lost");
    assert!(codes.starts_with("NOERROR") && codes.contains("100.00%"), "{codes}");
    Ok(())
}

pub fn tests() -> Vec<Test> {
    vec![
        test("an unbound that is killed and comes back under load loses no answer of the mesh", || {
            let mesh = Named::start()?;
            killed_and_back(&mesh, &mut Server::unbound(&mesh.servers[0])?)
        }),
        test("a dnsmasq that is killed and comes back under load loses no answer of the mesh", || {
            let mesh = Named::start()?;
            let unbound = Server::unbound(&mesh.servers[0])?;
            killed_and_back(&mesh, &mut Server::dnsmasq(&mesh.servers[1], unbound.address())?)
        }),
    ]
}
