//! Certificates that end soon, and everything that can happen to the CA meanwhile: not one connection may fail.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use testkit::apps::{connect, exchange, http_get, serve_echo, serve_http};
use testkit::harness::{Test, long_test, test};
use testkit::istiod::{Authority, Fault, Issued, Istiod};
use testkit::mesh::Pod;

use super::{DEADLINE, Governed, Outcome, TwoNodes, at, eventually, metric, spec};

/// Lifetime of certificates in these tests.
const TTL: Duration = Duration::from_secs(6);
/// The same in the test that takes minutes.
const LONG_TTL: Duration = Duration::from_secs(20);
/// How long a CA is out of reach there: longer than certificates live.
const OUTAGE: Duration = Duration::from_secs(30);
/// Who takes part.
const IDENTITIES: [&str; 2] = ["spiffe://cluster.local/ns/shop/sa/front", "spiffe://cluster.local/ns/shop/sa/cart"];
/// Between two requests of the load: enough to meet every gap, little enough for two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests that go on until they are stopped; each is a new connection, and nearly always through a new tunnel.
struct Load {
    done: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Failure>>,
}

/// A request that was not answered.
struct Failure {
    asked: SystemTime,
    ended: SystemTime,
    error: String,
}

impl Failure {
    /// Whether each of the two identities had a valid certificate from beginning to end.
    fn is_ours(&self, issued: &[Issued]) -> bool {
        IDENTITIES.iter().all(|identity| {
            let covers = |one: &Issued| one.identity == *identity && one.at <= self.asked && one.until >= self.ended;
            issued.iter().any(covers)
        })
    }
}

impl Load {
    fn start(client: &Pod, server: SocketAddr) -> Self {
        let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (client, stop, counted) = (client.clone(), done.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let asked = SystemTime::now();
                match http_get(&client, server) {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        failures.push(Failure { asked, ended: SystemTime::now(), error: error.to_string() });
                    }
                }
                std::thread::sleep(PAUSE);
            }
            failures
        });
        Self { done, count, thread }
    }

    /// Ends it: how many requests were answered. Those that failed without a certificate to go on are nobody's fault.
    fn finish(self, istiod: &Istiod) -> Outcome<usize> {
        self.done.store(true, Ordering::Relaxed);
        let mut failures = self.thread.join().map_err(|_| "the load panicked")?;
        let (answered, issued) = (self.count.load(Ordering::Relaxed), istiod.tally().issued);
        failures.retain(|failure| failure.is_ours(&issued));
        match failures.first() {
            None => Ok(answered),
            Some(first) => {
                let (failed, all) = (failures.len(), failures.len() + answered);
                Err(format!("{failed} of {all} requests failed, the first at {:?}: {}", first.asked, first.error)
                    .into())
            }
        }
    }
}

/// Waits for `count` generations of certificates, one for each of the two identities.
fn generations(istiod: &Istiod, count: usize) -> Outcome {
    for _ in 0..count {
        let until = istiod.tally().certificates + IDENTITIES.len();
        eventually("certificates are renewed", || istiod.tally().certificates >= until)?;
    }
    Ok(())
}

/// A mesh under load with certificates that end soon, and something that happens to it.
fn under_load(name: &str, happens: impl FnOnce(&Governed) -> Outcome + Send + 'static) -> Test {
    test(name, move || loaded(TTL, happens))
}

fn loaded(ttl: Duration, happens: impl FnOnce(&Governed) -> Outcome) -> Outcome {
    // Tunnels that are not used end at once, so that new ones need certificates all the time.
    let lifetime = format!("{}s", ttl.as_secs());
    let governed = Governed::start(ttl, &[("POOL_UNUSED_RELEASE_TIMEOUT", "5ms"), ("SECRET_TTL", &lifetime)])?;
    let mesh = &governed.mesh;
    let _app = serve_http(&mesh.server, 8080)?;
    assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
    let load = Load::start(&mesh.client, at(&mesh.server, 8080));
    let happened = happens(&governed);
    let answered = load.finish(&governed.istiod)?;
    happened?;
    assert!(answered > 10, "{answered} requests are no load");
    Ok(())
}

/// Everything that can happen to a control plane, one after the other.
fn everything_happens(governed: &Governed) -> Outcome {
    let istiod = &governed.istiod;
    for fault in [Fault::Refuse, Fault::Silent] {
        istiod.update(|behaviour| behaviour.ca = fault)?;
        std::thread::sleep(OUTAGE);
        istiod.update(|behaviour| behaviour.ca = Fault::None)?;
        generations(istiod, 1)?;
    }
    istiod.down()?;
    std::thread::sleep(OUTAGE);
    istiod.up()?;
    generations(istiod, 1)?;
    rotate_root(istiod)?;
    istiod.rotate_token("token-2")?;
    generations(istiod, 2)
}

/// From the root that signs to another by way of both.
fn rotate_root(istiod: &Istiod) -> Outcome {
    let b = Arc::new(Authority::new("mesh root B")?);
    let added = b.clone();
    istiod.update(|behaviour| behaviour.roots.push(added))?;
    generations(istiod, 1)?;
    let signing = b.clone();
    istiod.update(|behaviour| behaviour.signer = signing)?;
    generations(istiod, 1)?;
    istiod.update(|behaviour| behaviour.roots = vec![b])?;
    generations(istiod, 2)
}

pub fn tests() -> Vec<Test> {
    vec![
        under_load("certificates of seconds are renewed under load without a failed connection", |governed| {
            generations(&governed.istiod, 2)
        }),
        under_load("a CA that refuses, hangs, babbles or signs for others is survived on what there is", |governed| {
            let istiod = &governed.istiod;
            for fault in [Fault::Refuse, Fault::Garbage, Fault::WrongSan, Fault::Expired] {
                let asked = istiod.tally().requests;
                istiod.update(|behaviour| behaviour.ca = fault)?;
                eventually("it is asked in vain", || istiod.tally().requests > asked)?;
                istiod.update(|behaviour| behaviour.ca = Fault::None)?;
                generations(istiod, 1)?;
            }
            let failures = metric(&governed.mesh.zt_a, "istio_certificate_failures_total", &[])?;
            assert!(failures > 0, "failures are counted");
            Ok(())
        }),
        under_load("istiod restarts and nothing fails", |governed| {
            governed.istiod.down()?;
            let zt = &governed.mesh.zt_a;
            eventually("it is noticed", || metric(zt, "istio_xds_connected", &[]).is_ok_and(|on| on == 0))?;
            governed.istiod.up()?;
            generations(&governed.istiod, 1)
        }),
        under_load("the token is replaced and nothing fails", |governed| {
            governed.istiod.rotate_token("token-2")?;
            generations(&governed.istiod, 2)
        }),
        test("a list that revokes the client cuts its connection at the server's side", || revoked(0, Known::ByServer)),
        test("a list that revokes the server cuts its connections at the client's side", || {
            revoked(1, Known::ByClient)
        }),
        under_load("roots go from A to A and B to B and nothing fails", |governed| rotate_root(&governed.istiod)),
        long_test("certificates of 20 s outlast all that happens to a control plane within minutes", || {
            loaded(LONG_TTL, everything_happens)
        }),
        test("a pod has its certificate before its first connection", || {
            let Governed { mesh, istiod } = Governed::start(Duration::from_secs(3600), &[])?;
            eventually("both pods have theirs", || istiod.tally().certificates == 2)?;
            let pod = mesh.enrol(&mesh.a, "late", "late")?;
            eventually("the new one has its own", || istiod.tally().certificates == 3)?;
            mesh.a.remove_pod(&pod)?;
            Ok(())
        }),
    ]
}

/// Whose ztunnel hears of a revocation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    ByClient,
    ByServer,
}

/// Revokes one of [`IDENTITIES`] while a connection is open.
fn revoked(whose: usize, known: Known) -> Outcome {
    let folder = PathBuf::from(format!("/run/revoked-{known:?}"));
    fs::create_dir_all(&folder)?;
    // Both processes are told of one file each, which only one of them finds.
    let list = folder.join("list.pem");
    let mut nodes = 0;
    let mut istiod = None;
    let mesh = TwoNodes::start_on(|mesh, node| {
        let istiod = match &mut istiod {
            Some(istiod) => istiod,
            none => none.insert(Istiod::start(mesh)?),
        };
        let knows = [Known::ByClient, Known::ByServer][nodes] == known;
        nodes += 1;
        let path = if knows { list.clone() } else { folder.join("absent.pem") };
        Ok(istiod.ztunnel(node, &spec().env("CRL_PATH", &path.display().to_string()))?)
    })?;
    let istiod: Istiod = istiod.ok_or("no node asked for a control plane")?;
    let _echo = serve_echo(&mesh.server, 9000)?;
    let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
    open.write_all(b"x")?;
    open.read_exact(&mut [0])?;

    let issued = istiod.tally().issued;
    let other: Vec<u64> =
        issued.iter().filter(|one| one.identity == IDENTITIES[1 - whose]).map(|one| one.serial).collect();
    let mine: Vec<u64> = issued.iter().filter(|one| one.identity == IDENTITIES[whose]).map(|one| one.serial).collect();
    assert!(!other.is_empty() && !mine.is_empty(), "{issued:?}");
    // A list that names our own certificate only is no reason to end anything.
    fs::write(&list, istiod.signer().revoke(&other)?)?;
    let (zt, reporter) = match known {
        Known::ByClient => (&mesh.zt_a, "source"),
        Known::ByServer => (&mesh.zt_b, "destination"),
    };
    zt.wait_for_log("revocation lists loaded", DEADLINE)?;
    open.write_all(b"y")?;
    open.read_exact(&mut [0])?;
    fs::write(folder.join("next.pem"), istiod.signer().revoke(&mine)?)?;
    fs::rename(folder.join("next.pem"), &list)?;
    assert!(matches!(open.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset));
    zt.wait_for_log("connection closed: peer certificate revoked by CRL", DEADLINE)?;
    let reporter = format!("reporter=\"{reporter}\"");
    assert_eq!(metric(zt, "istio_crl_policy_rejections_total", &[&reporter])?, 1);
    let closed = [&*reporter, "response_flags=\"CERT_REVOKED\""];
    assert_eq!(metric(zt, "istio_tcp_connections_closed_total", &closed)?, 1);
    assert!(exchange(&mesh.client, at(&mesh.server, 9000), b"again").is_err(), "and no other comes about");
    Ok(())
}
