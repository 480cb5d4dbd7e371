//! Names, as a pod's resolver gets them: over UDP and TCP, from the mesh and from the server that the pod asks.

mod client;
pub mod upstream;

use std::net::SocketAddr;

use testkit::control_plane::Service;
use testkit::harness::{Test, long_test, test};
use testkit::mesh::{Capture, Pod, PodSpec};
use testkit::redirect::DnsCapture;

use self::client::{A, AAAA, Answer, HTTPS, NO_SUCH_NAME, TXT};
use self::upstream::Upstream;
use super::{Governed, Outcome, TwoNodes, eventually, metric, spec};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Where no resolver is: what is asked there and answered was answered by the mesh.
const NOBODY: &str = "10.96.0.10:53";
const CART: &str = "cart.shop.svc.cluster.local";

/// Queries after which nothing new is to be expected, and those after which nothing may be.
const WARM_UP: u32 = 100_000;
/// See [`WARM_UP`].
const MANY: u32 = 10_000_000;
/// What an allocator may find to do in the meantime, in KiB: not a tenth of a byte for each query.
const MOST_GROWTH: u64 = 1024;

/// Resident size of a process.
fn resident_kib(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the process has no memory")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// A pod whose names are captured, on the first node.
fn asker(mesh: &TwoNodes) -> Outcome<Pod> {
    let pod = mesh.a.add_pod(PodSpec::new("asker", "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
    eventually("the pod is known", || super::knows(&mesh.zt_a, &pod).unwrap_or(false))?;
    Ok(pod)
}

fn captured() -> testkit::ztunnel::ZtunnelSpec {
    spec().env("ISTIO_META_DNS_CAPTURE", "true").env("RUST_LOG", "info,dns=debug")
}

fn names(name: &str, run: impl FnOnce(TwoNodes, Pod) -> Outcome + Send + 'static) -> Test {
    test(name, move || {
        let mesh = TwoNodes::start_with(&captured())?;
        let cart = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
        let mut db = Service::new("db", "shop", [10, 96, 0, 2], &[&mesh.server, &mesh.client]).port(80, 8080);
        db.vips.clear();
        mesh.mesh.control_plane().update(|plane| plane.services.extend([cart, db]))?;
        let pod = asker(&mesh)?;
        run(mesh, pod)
    })
}

/// Asks until the mesh has an answer of that many addresses.
fn known(pod: &Pod, name: &str, count: usize) -> Outcome<Answer> {
    let nobody: SocketAddr = NOBODY.parse()?;
    let ask = || client::ask(pod, nobody, name, A).ok().filter(|answer| answer.addresses.len() == count);
    eventually("the mesh answers", || ask().is_some())?;
    ask().ok_or_else(|| "the answer went away".into())
}

fn told(mesh: &TwoNodes, result: &str) -> Outcome<u64> {
    metric(&mesh.zt_a, "istio_dns_answers_total", &[&format!("result=\"{result}\"")])
}

pub fn tests() -> Vec<Test> {
    vec![
        names("names of the mesh are answered over UDP and TCP, whatever server is asked", |mesh, pod| {
            let answer = known(&pod, CART, 1)?;
            assert_eq!(answer.addresses, ["10.96.0.1".parse::<std::net::IpAddr>()?]);
            assert!(answer.authoritative && answer.from == NOBODY.parse()?);
            let nobody = NOBODY.parse()?;
            assert_eq!(client::ask(&pod, nobody, "CART", A)?.addresses, answer.addresses);
            assert!(client::ask(&pod, nobody, CART, AAAA)?.addresses.is_empty());
            assert_eq!(client::ask_in_order(&pod, nobody, &[(CART, A)])?[0].addresses, answer.addresses);
            let mut endpoints = known(&pod, "db.shop.svc.cluster.local", 2)?.addresses;
            endpoints.sort();
            let mut pods = [mesh.client.ip(), mesh.server.ip()];
            pods.sort();
            assert_eq!(endpoints, pods);
            assert_eq!(known(&pod, "server.db.shop.svc.cluster.local", 1)?.addresses, [mesh.server.ip()]);
            assert!(told(&mesh, "local")? >= 5);
            assert!(metric(&mesh.zt_a, "istio_dns_requests_total", &["\"aaaa\"", "\"udp\""])? >= 1);
            assert!(metric(&mesh.zt_a, "istio_dns_requests_total", &["\"a\"", "\"tcp\""])? >= 1);
            let line = "src.workload=\"asker\" src.namespace=\"shop\" query=\"A\" \
                        domain=\"cart.shop.svc.cluster.local.\" result=\"success\"";
            eventually("the query log says so", || mesh.zt_a.logs().contains(line))
        }),
        names(
            "every other name goes to the server that was asked, and its answer comes through as it is",
            |mesh, pod| {
                let upstream = Upstream::start(&mesh.outside_a)?;
                for question in [("Some.Example", A), ("some.example", TXT), ("some.example", 65_280)] {
                    let direct = client::ask(&mesh.outside_b, upstream.address(), question.0, question.1)?;
                    let carried = client::ask(&pod, upstream.address(), question.0, question.1)?;
                    assert_eq!(direct.records, carried.records, "{question:?}");
                    assert!(carried.from == upstream.address() && !carried.records.is_empty());
                    let in_order = client::ask_in_order(&pod, upstream.address(), &[question])?;
                    assert_eq!(direct.records, in_order[0].records);
                }
                assert!(upstream.spellings("some.example") > 2, "names are not spelt at random");
                // One connection, all questions at once: the slow one holds up nobody.
                let questions = [("slow.example", TXT), (CART, A), ("some.example", TXT)];
                assert_eq!(client::ask_in_order(&pod, upstream.address(), &questions)?.len(), 3);
                assert!(told(&mesh, "forwarded")? >= 4);
                let seconds = "request_duration_seconds_count";
                for counted in ["requests_total", seconds] {
                    assert!(metric(&mesh.zt_a, &format!("istio_dns_upstream_{counted}"), &["\"udp\""])? >= 3);
                }
                Ok(())
            },
        ),
        names("a name of the mesh exists, whatever an upstream says of its other types", |mesh, pod| {
            let upstream = Upstream::start(&mesh.outside_a)?;
            known(&pod, CART, 1)?;
            assert_eq!(client::ask(&pod, upstream.address(), "absent.example", HTTPS)?.rcode, NO_SUCH_NAME);
            let answer = client::ask(&pod, upstream.address(), CART, HTTPS)?;
            assert_eq!((answer.rcode, answer.records.len()), (0, 0));
            Ok(())
        }),
        names(
            "while an upstream is gone its answers are told although their time is over, and the mesh's as ever",
            |mesh, pod| {
                let upstream = Upstream::start(&mesh.outside_a)?;
                let address = upstream.address();
                let before = client::ask(&pod, address, "brief.example", A)?.addresses;
                known(&pod, CART, 1)?;
                drop(upstream);
                eventually("an answer is stale", || {
                    let answer = client::ask(&pod, address, "brief.example", A);
                    assert_eq!(answer.map(|answer| answer.addresses).ok().as_ref(), Some(&before));
                    assert!(known(&pod, CART, 1).is_ok());
                    told(&mesh, "stale").is_ok_and(|stale| stale >= 3)
                })?;
                let lost = client::ask(&pod, address, "never.asked.example", A)?;
                assert_eq!(lost.rcode, client::SERVER_FAILURE);
                assert!(metric(&mesh.zt_a, "istio_dns_upstream_failures_total", &[])? >= 1);
                let _upstream = Upstream::start(&mesh.outside_a)?;
                eventually("the upstream is asked again", || {
                    assert!(
                        client::ask(&pod, address, "brief.example", A).is_ok_and(|answer| answer.addresses == before)
                    );
                    client::ask(&pod, address, "never.asked.example", A)
                        .is_ok_and(|answer| !answer.addresses.is_empty())
                })
            },
        ),
        names("what is no query is answered as the standard says, or not at all", |_mesh, pod| {
            let nobody = NOBODY.parse()?;
            known(&pod, CART, 1)?;
            let query = client::query(7, CART, A);
            let mut update = query.clone();
            update[2] |= 5 << 3;
            let mut none = query.clone();
            none[5] = 0;
            let mut looped = query[..12].to_vec();
            looped.extend([0xc0, 12, 0, 1, 0, 1]);
            let mut newer = query.clone();
            newer[11] = 1;
            newer.extend([0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0]);
            for (message, rcode) in [(&update, 4), (&none, 1), (&looped, 1), (&query[..20].to_vec(), 1), (&newer, 0)] {
                assert_eq!(client::exchange(&pod, nobody, message)?[3] & 15, rcode, "{message:?}");
            }
            let mut response = query.clone();
            response[2] |= 0x80;
            assert!(client::exchange(&pod, nobody, &response).is_err());
            assert!(client::exchange(&pod, nobody, &query[..7]).is_err());
            assert!(client::exchange(&pod, nobody, &query).is_ok());
            Ok(())
        }),
        test("a pod that nobody has announced is told that its names cannot be looked up yet", || {
            let mesh = TwoNodes::start_with(&captured().env("UNKNOWN_WORKLOAD_TIMEOUT", "50ms"))?;
            let spec = PodSpec::new("stranger", "shop", "front", Capture::Enrolled).dns(DnsCapture::On);
            let pod = mesh.a.prepare_pod(spec)?;
            pod.enrol()?;
            assert_eq!(client::ask(&pod, NOBODY.parse()?, "localhost", A)?.rcode, client::SERVER_FAILURE);
            pod.announce()?;
            known(&pod, "localhost", 1).map(drop)
        }),
        long_test("ten million queries leave nothing behind in memory", || {
            let mesh = TwoNodes::start_with(&spec().env("ISTIO_META_DNS_CAPTURE", "true").env("RUST_LOG", "warn"))?;
            let cart = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(cart))?;
            let pod = asker(&mesh)?;
            known(&pod, CART, 1)?;
            let questions = [(CART, A), ("cart", A), (CART, AAAA), ("cart.shop.cluster.local", A), ("x.invalid", A)];
            let ask = |count| client::ask_many(&pod, NOBODY.parse()?, &questions, count);
            ask(WARM_UP)?;
            let before = resident_kib(mesh.zt_a.pid())?;
            ask(MANY)?;
            let after = resident_kib(mesh.zt_a.pid())?;
            println!("{MANY} queries: {before} KiB before, {after} KiB after");
            assert!(after <= before + MOST_GROWTH, "{before} KiB before, {after} KiB after");
            Ok(())
        }),
        test("a service that is looked up on demand has its name", || {
            let governed = Governed::start(DAY, &[("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "true")])?;
            let mesh = &governed.mesh;
            let cart = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(cart))?;
            let spec = PodSpec::new("asker", "shop", "front", Capture::Enrolled).dns(DnsCapture::On);
            let pod = mesh.a.add_pod(spec)?;
            assert_eq!(known(&pod, CART, 1)?.addresses, ["10.96.0.1".parse::<std::net::IpAddr>()?]);
            Ok(())
        }),
    ]
}
