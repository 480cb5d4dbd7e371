//! The mesh of a soak: two nodes under a control plane that gives out certificates of short lives, a pod of clients on one
//! and the server's app on the other.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::redirect::DnsCapture;
use testkit::ztunnel::ZtunnelSpec;

use super::app::App;
use super::checks::total;
use super::judge::Judge;
use super::seat::Seat;
use super::{DEADLINE, Outcome, PAUSE};
use testkit::control_plane::Service;

/// Lifetime of certificates: many are renewed in a soak, and half of it outlasts a CA that fails for a while.
pub(super) const CERTIFICATE: Duration = Duration::from_secs(40);
/// The identities that hold certificates all the time.
pub(super) const IDENTITIES: [&str; 2] =
    ["spiffe://cluster.local/ns/shop/sa/front", "spiffe://cluster.local/ns/shop/sa/back"];
/// A name that the mesh knows.
pub(super) const NAME: &str = "server.shop.svc.cluster.local";

pub(super) struct Stage {
    pub(super) clients: Seat,
    pub(super) servers: Seat,
    pub(super) client: Pod,
    pub(super) server: Pod,
    pub(super) app: App,
    pub(super) istiod: Istiod,
    pub(super) mesh: Mesh,
    pub(super) judge: Arc<Judge>,
}

impl Stage {
    pub(super) fn set(program: &Path) -> Outcome<Self> {
        let judge = Arc::new(Judge::new());
        let mesh = Mesh::new()?;
        let istiod = Istiod::start(&mesh)?;
        istiod.update(|behaviour| behaviour.ttl = CERTIFICATE)?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(pod("client", "front"))?;
        let server = b.add_pod(pod("server", "back"))?;
        let service =
            Service::new("server", "shop", [10, 96, 0, 1], &[&server]).port(80, super::life::Life::Talk.port(0));
        mesh.control_plane().update(|plane| plane.services.push(service))?;
        let seat = |whose, node: &Node| Seat::take(whose, node, &istiod.ztunnel(node, &spec(program))?, &judge);
        let (clients, servers) = (seat("client's", &a)?, seat("server's", &b)?);
        let app = App::start(&server)?;
        Ok(Self { clients, servers, client, server, app, istiod, mesh, judge })
    }

    pub(super) fn seats(&self) -> [&Seat; 2] {
        [&self.clients, &self.servers]
    }

    /// Waits until both ztunnels are ready and hear the control plane.
    pub(super) fn recovered(&self) -> Outcome {
        for seat in self.seats() {
            // One that does not answer at once may do so later.
            eventually(&format!("the {} ztunnel hears the control plane again", seat.whose), || {
                Ok(seat.metrics().is_ok_and(|metrics| total(&metrics, "istio_xds_connected") == 1))
            })?;
            seat.look(|serving| Ok(serving.ztunnel.wait_ready(DEADLINE)?))?;
        }
        Ok(())
    }
}

/// A pod whose traffic and names are ztunnel's.
pub(super) fn pod(name: &str, service_account: &str) -> PodSpec {
    PodSpec::new(name, "shop", service_account, Capture::Enrolled).dns(DnsCapture::On)
}

fn spec(program: &Path) -> ZtunnelSpec {
    ZtunnelSpec::new(program)
        .env("RUST_LOG", "info")
        .env("ISTIO_META_DNS_CAPTURE", "true")
        .env("SECRET_TTL", &format!("{}s", CERTIFICATE.as_secs()))
        // Counts that are forgotten could not be compared with records.
        .env("METRICS_QUIET_PERIOD", "0")
        // Tunnels that are not used any more have to be gone when it is counted what is left.
        .env("POOL_UNUSED_RELEASE_TIMEOUT", "5s")
}

/// Asks until the answer is yes.
pub(super) fn eventually(what: &str, mut ask: impl FnMut() -> Outcome<bool>) -> Outcome {
    let start = Instant::now();
    while !ask()? {
        if start.elapsed() > DEADLINE {
            return Err(format!("waited {DEADLINE:?} in vain: {what}").into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
