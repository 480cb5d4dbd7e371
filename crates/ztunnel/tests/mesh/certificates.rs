//! Certificates that end soon, and everything that can happen to the CA meanwhile: not one connection may fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::apps::{http_get, serve_http};
use testkit::harness::{Test, test};
use testkit::istiod::{Authority, Fault, Istiod};
use testkit::mesh::Pod;

use super::{Governed, Outcome, at, eventually, metric};

/// Lifetime of certificates in these tests.
const TTL: Duration = Duration::from_secs(6);
/// Between two requests of the load: enough to meet every gap, little enough for two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests that go on until they are stopped; each is a new connection through a new tunnel where the pool allows.
struct Load {
    done: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(client: &Pod, server: SocketAddr) -> Self {
        let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (client, stop, counted) = (client.clone(), done.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match http_get(&client, server) {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failures.push(error.to_string()),
                }
                std::thread::sleep(PAUSE);
            }
            failures
        });
        Self { done, count, thread }
    }

    /// Ends it: how many requests were answered.
    fn finish(self) -> Outcome<usize> {
        self.done.store(true, Ordering::Relaxed);
        let failures = self.thread.join().map_err(|_| "the load panicked")?;
        let answered = self.count.load(Ordering::Relaxed);
        if failures.is_empty() {
            return Ok(answered);
        }
        Err(format!("{} of {} requests failed, first: {}", failures.len(), failures.len() + answered, failures[0])
            .into())
    }
}

/// Waits until `count` more certificates have been signed: one for each of two identities is one generation.
fn generations(istiod: &Istiod, count: usize) -> Outcome {
    let until = istiod.tally().certificates + 2 * count;
    eventually("certificates are renewed", || istiod.tally().certificates >= until)
}

/// A mesh under load with certificates that end soon, and something that happens to it.
fn under_load(name: &str, happens: impl FnOnce(&Governed) -> Outcome + Send + 'static) -> Test {
    test(name, move || {
        // Tunnels that are not used end at once, so that new ones need certificates all the time.
        let governed = Governed::start(TTL, &[("POOL_UNUSED_RELEASE_TIMEOUT", "1s"), ("SECRET_TTL", "6s")])?;
        let mesh = &governed.mesh;
        let _app = serve_http(&mesh.server, 8080)?;
        assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
        let load = Load::start(&mesh.client, at(&mesh.server, 8080));
        let happened = happens(&governed);
        let answered = load.finish()?;
        happened?;
        assert!(answered > 10, "{answered} requests are no load");
        Ok(())
    })
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
        under_load("roots go from A to A and B to B and nothing fails", |governed| {
            let (istiod, b) = (&governed.istiod, Arc::new(Authority::new("mesh root B")?));
            let added = b.clone();
            istiod.update(|behaviour| behaviour.roots.push(added))?;
            generations(istiod, 1)?;
            let signing = b.clone();
            istiod.update(|behaviour| behaviour.signer = signing)?;
            generations(istiod, 1)?;
            istiod.update(|behaviour| behaviour.roots = vec![b])?;
            generations(istiod, 2)
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
