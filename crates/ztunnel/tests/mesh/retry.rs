//! One of a service's endpoints is dead, in one of the ways to be dead: no client notices, and it is tried rarely.

use std::net::{IpAddr, SocketAddr, TcpListener};

use testkit::apps::{exchange, serve_echo};
use testkit::control_plane::Service;
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

use super::{DEADLINE, Outcome, access_lines, eventually, knows, spec};

const VIP: [u8; 4] = [10, 250, 0, 1];
const CONNECTIONS: usize = 40;
/// Ways to be dead that take time have to take less of it than a test should.
const DEADLINE_OF_RETRIES: &str = "3s";
/// What a dead endpoint of three is tried at most while the test runs; without being avoided it would be 13 times. Each
/// try after the first comes twice as late as the one before, so that this many take more than two minutes.
const RARELY: usize = 8;

pub fn tests() -> Vec<Test> {
    vec![
        test("an endpoint whose app refuses is passed over", || {
            let b = Shop::new()?;
            let dead = b.endpoint(&b.alive, "dead", Capture::Enrolled)?;
            b.nobody_notices(&[&dead])
        }),
        test("an endpoint whose node has no ztunnel is passed over", || {
            let b = Shop::new()?;
            let dead = b.endpoint(&b.bare, "dead", Capture::Enrolled)?;
            b.nobody_notices(&[&dead])
        }),
        test("an endpoint whose ztunnel takes connections and says nothing is passed over", || {
            let b = Shop::new()?;
            let dead = b.endpoint(&b.bare, "dead", Capture::Enrolled)?;
            let _silent = dead.run(|| TcpListener::bind("0.0.0.0:15008"))??;
            b.nobody_notices(&[&dead])
        }),
        test("an endpoint whose ztunnel takes requests and does not answer is passed over", || {
            // What an app says before the answer may have arrived; its connection stays where it is.
            let retries = spec().env("ENDPOINT_RETRY_DEADLINE", DEADLINE_OF_RETRIES);
            let b = Shop::with(&retries.env("HBONE_EARLY_DATA", "false"))?;
            let dead = b.endpoint(&b.alive, "dead", Capture::Enrolled)?;
            // Its ztunnel waits for a policy that nobody announces, longer than an attempt may take.
            let unheard_of = vec!["shop/unheard-of".to_owned()];
            b.mesh.control_plane().update(|plane| _ = plane.selections.insert("dead".to_owned(), unheard_of))?;
            b.nobody_notices(&[&dead])
        }),
        test("an endpoint of which nothing is heard is passed over", || {
            let b = Shop::new()?;
            let dead = b.endpoint(&b.bare, "dead", Capture::Enrolled)?;
            b.bare.cut_off()?;
            b.nobody_notices(&[&dead])
        }),
        test("an endpoint outside the mesh that refuses is passed over", || {
            let b = Shop::new()?;
            let dead = b.endpoint(&b.alive, "dead", Capture::Off)?;
            b.nobody_notices(&[&dead])
        }),
        test("two of three endpoints may be dead", || {
            let b = Shop::new()?;
            let dead = [b.endpoint(&b.alive, "dead", Capture::Enrolled)?, b.endpoint(&b.bare, "gone", Capture::Off)?];
            b.with_one(&[&dead[0], &dead[1]])
        }),
        test("what an app said goes to the endpoint that takes it, in the mesh or not", said_early),
        test("without retries a dead endpoint is noticed", switched_off),
    ]
}

/// A client, a node of live endpoints and a node without a ztunnel.
struct Shop {
    zt: Ztunnel,
    zt_b: Ztunnel,
    client: Pod,
    alive: Node,
    bare: Node,
    mesh: Mesh,
    _a: Node,
}

impl Shop {
    fn new() -> Outcome<Self> {
        Self::with(&spec().env("ENDPOINT_RETRY_DEADLINE", DEADLINE_OF_RETRIES))
    }

    fn with(spec: &ZtunnelSpec) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, alive, bare) = (mesh.add_node("a")?, mesh.add_node("b")?, mesh.add_node("c")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let spec = spec.clone().env("RUST_LOG", "info,access=debug,ztunnel::proxy::outbound=debug");
        let (zt, zt_b) = (a.start_ztunnel(&spec)?, alive.start_ztunnel(&spec)?);
        zt.wait_ready(DEADLINE)?;
        zt_b.wait_ready(DEADLINE)?;
        Ok(Self { zt, zt_b, client, alive, bare, mesh, _a: a })
    }

    fn endpoint(&self, node: &Node, name: &str, capture: Capture) -> Outcome<Pod> {
        let pod = node.add_pod(PodSpec::new(name, "shop", "cart", capture))?;
        for zt in [&self.zt, &self.zt_b] {
            eventually("the pod is known", || knows(zt, &pod).unwrap_or(false))?;
        }
        Ok(pod)
    }

    /// Announces a service on port 80 for port 9000 of `endpoints`.
    fn serve(&self, endpoints: &[&Pod]) -> Outcome {
        let service = Service::new("cart", "shop", IpAddr::from(VIP), endpoints).port(80, 9000);
        self.mesh.control_plane().update(|plane| plane.services = vec![service])?;
        // Of the dump, only what has been loaded counts; it has a copy of the file as well.
        let announced = |zt: &Ztunnel| {
            let dump = zt.http_get(15000, "/config_dump").ok().map(|dump| dump.body);
            let dump = dump.and_then(|body| serde_json::from_str::<serde_json::Value>(&body).ok());
            dump.is_some_and(|dump| dump["services"].as_array().is_some_and(|services| !services.is_empty()))
        };
        eventually("the service is known", || announced(&self.zt) && announced(&self.zt_b))
    }

    /// Whether a connection to the service carries what is said both ways.
    fn works(&self) -> bool {
        exchange(&self.client, SocketAddr::from((VIP, 80)), b"hello").is_ok_and(|answer| answer == b"hello")
    }

    /// How often a connection had to go elsewhere.
    fn retries(&self) -> usize {
        self.zt.logs().lines().filter(|line| line.contains("trying again")).count()
    }

    /// Two live endpoints beside one dead one.
    fn nobody_notices(&self, dead: &[&Pod]) -> Outcome {
        let second = self.endpoint(&self.alive, "second", Capture::Enrolled)?;
        let _app = serve_echo(&second, 9000)?;
        self.with_one(&[dead, &[&second]].concat())?;
        let retries = self.retries();
        assert!((1..=RARELY).contains(&retries), "the dead endpoint was tried {retries} times");
        Ok(())
    }

    /// One live endpoint beside others.
    fn with_one(&self, others: &[&Pod]) -> Outcome {
        let first = self.endpoint(&self.alive, "first", Capture::Enrolled)?;
        let _app = serve_echo(&first, 9000)?;
        self.serve(&[others, &[&first]].concat())?;
        for i in 0..CONNECTIONS {
            assert!(self.works(), "connection {i} failed:\n{}", self.zt.logs());
        }
        let records = || access_lines(&self.zt, &["connection complete", "dst.service="]);
        eventually("all connections are on record", || records().len() >= CONNECTIONS)?;
        assert_eq!(records().len(), CONNECTIONS, "each once, however many endpoints it took");
        assert!(records().iter().all(|record| !record.contains("error=")));
        assert!(self.retries() > 0, "the dead endpoint was tried");
        Ok(())
    }
}

/// The app behind a tunnel refuses after the first bytes have come along with the request; the other endpoint is not in
/// the mesh.
fn said_early() -> Outcome {
    let shop = Shop::new()?;
    let refusing = shop.endpoint(&shop.alive, "refusing", Capture::Enrolled)?;
    let outside = shop.endpoint(&shop.alive, "outside", Capture::Off)?;
    let _other = serve_echo(&refusing, 9001)?;
    let _app = serve_echo(&outside, 9000)?;
    shop.serve(&[&refusing, &outside])?;
    // A tunnel that is up carries early data.
    assert_eq!(exchange(&shop.client, super::at(&refusing, 9001), b"up")?, b"up");
    let said: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    while shop.retries() == 0 {
        let answer = exchange(&shop.client, SocketAddr::from((VIP, 80)), &said)?;
        assert!(answer == said, "all of it comes back, once and in order");
    }
    Ok(())
}

fn switched_off() -> Outcome {
    let shop = Shop::with(&spec().env("ENDPOINT_RETRY", "false"))?;
    let dead = shop.endpoint(&shop.alive, "dead", Capture::Enrolled)?;
    let first = shop.endpoint(&shop.alive, "first", Capture::Enrolled)?;
    let _app = serve_echo(&first, 9000)?;
    shop.serve(&[&dead, &first])?;
    eventually("a connection fails", || !shop.works())?;
    assert_eq!(shop.retries(), 0);
    Ok(())
}
