//! What the control plane tells, how often it has to, and what comes of what cannot be used.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::apps::{http_get, serve_http};
use testkit::control_plane::resources::{ADDRESS, AUTHORIZATION, population};
use testkit::control_plane::{Action, Match, Policy, Scope, Service, StringMatch};
use testkit::harness::{Test, long_test, test};
use testkit::istiod::Fault;

use super::{Governed, Outcome, at, eventually, metric, within};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Workloads that make a push of more than a hundred megabytes.
const HUGE: u32 = 400_000;
/// Until it is applied by two ztunnels and encoded twice, all of them built without optimisation and on the same cores.
const HUGE_DEADLINE: Duration = Duration::from_secs(120);
const VIP: &str = "10.96.0.1:80";

fn governed(name: &str, run: impl FnOnce(Governed) -> Outcome + Send + 'static) -> Test {
    test(name, move || run(Governed::start(DAY, &[])?))
}

fn dump(governed: &Governed) -> Outcome<serde_json::Value> {
    Ok(serde_json::from_str(&governed.mesh.zt_a.http_get(15000, "/config_dump")?.body)?)
}

pub fn tests() -> Vec<Test> {
    vec![
        governed("a mesh that istiod runs carries requests, and hears of services and policies", |governed| {
            let Governed { mesh, istiod } = &governed;
            let _app = serve_http(&mesh.server, 8080)?;
            assert_eq!(http_get(&mesh.client, at(&mesh.server, 8080))?.told("pod"), Some("server"));
            let service = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            let vip: SocketAddr = VIP.parse()?;
            eventually("the service is served", || http_get(&mesh.client, vip).is_ok())?;
            let principals = vec![StringMatch::Exact("cluster.local/ns/shop/sa/front".into())];
            let nobody = Policy {
                name: "nobody".into(),
                namespace: "shop".into(),
                scope: Scope::Namespace,
                action: Action::Deny,
                dry_run: false,
                rules: vec![vec![vec![Match { principals, ..Match::default() }]]],
            };
            mesh.mesh.control_plane().update(|plane| plane.policies.push(nobody))?;
            eventually("the policy denies", || http_get(&mesh.client, vip).is_err())?;
            mesh.mesh.control_plane().update(|plane| plane.policies.clear())?;
            eventually("without it all is well", || http_get(&mesh.client, vip).is_ok())?;
            assert_eq!(istiod.tally().refusals, Vec::<String>::new());
            Ok(())
        }),
        governed("a control plane that comes back unchanged sends no resource again", |governed| {
            let Governed { mesh, istiod } = &governed;
            let _app = serve_http(&mesh.server, 8080)?;
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
            let before = istiod.tally();
            istiod.down()?;
            eventually("both notice", || {
                let gone = |zt| metric(zt, "istio_xds_connected", &[]).is_ok_and(|connected| connected == 0);
                gone(&mesh.zt_a) && gone(&mesh.zt_b)
            })?;
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok(), "what is known stays known");
            istiod.up()?;
            eventually("both are back", || {
                let back = |zt| metric(zt, "istio_xds_connected", &[]).is_ok_and(|connected| connected == 1);
                back(&mesh.zt_a) && back(&mesh.zt_b)
            })?;
            assert_eq!(istiod.tally().resources, before.resources);
            for counted in ["connection_terminations_total", "message_total", "message_bytes_total"] {
                assert!(metric(&mesh.zt_a, &format!("istio_xds_{counted}"), &[])? > 0, "{counted}");
            }
            // What changes from now on is told.
            let service = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            eventually("the service is served", || VIP.parse().is_ok_and(|vip| http_get(&mesh.client, vip).is_ok()))?;
            Ok(())
        }),
        governed("bad resources are named to the control plane and the operator, and disturb nothing", |governed| {
            let Governed { mesh, istiod } = &governed;
            let _app = serve_http(&mesh.server, 8080)?;
            istiod.inject(ADDRESS, "broken-workload", &b"\xff\xff\xff"[..])?;
            istiod.inject(AUTHORIZATION, "shop/broken-policy", &b"\x18\x63"[..])?; // scope 99
            let refused = |name: &str| istiod.tally().refusals.iter().filter(|text| text.contains(name)).count();
            eventually("both ztunnels refuse both", || {
                refused("broken-workload: decode: ") >= 2 && refused("shop/broken-policy: decode error: unknown") >= 2
            })?;
            let listed = dump(&governed)?["rejectedResources"].as_array().cloned().unwrap_or_default();
            let names: Vec<_> = listed.iter().filter_map(|one| one["name"].as_str()).collect();
            assert_eq!(names, ["broken-workload", "shop/broken-policy"]);
            assert_eq!(metric(&mesh.zt_a, "istio_xds_rejected_resources", &[])?, 2);
            assert!(mesh.zt_a.logs().contains("broken-workload"));
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
            istiod.update(|behaviour| behaviour.extra = Default::default())?;
            eventually("nothing is wrong once they are gone", || {
                metric(&mesh.zt_a, "istio_xds_rejected_resources", &[]).is_ok_and(|rejected| rejected == 0)
            })
        }),
        test("a ztunnel that waits for a silent control plane is not ready, says so, and ends when told to", || {
            let Governed { mesh, istiod } = Governed::start(DAY, &[])?;
            istiod.update(|behaviour| behaviour.discovery = Fault::Silent)?;
            let spec = istiod.ztunnel(&mesh.a, &super::spec())?;
            let waiting = mesh.a.start_ztunnel(&spec)?;
            eventually("it says what it waits for", || {
                waiting.http_get(15021, "/healthz/ready").is_ok_and(|answer| answer.body.contains("state manager"))
            })?;
            assert!(waiting.stop(super::DEADLINE)?.success());
            Ok(())
        }),
        long_test("a push of a hundred megabytes is applied whole while connections go on", || {
            let Governed { mesh, istiod } = Governed::start(DAY, &[])?;
            let _app = serve_http(&mesh.server, 8080)?;
            let all = population(HUGE, HUGE / 10);
            let bytes: usize = all.values().map(|resource| resource.payload.len()).sum();
            assert!(bytes > 100_000_000, "{bytes} bytes are not huge");
            let before = metric(&mesh.zt_a, "istio_xds_resources", &[])?;
            let count = all.len() as u64;
            istiod.update(|behaviour| behaviour.extra = all.into())?;
            within(HUGE_DEADLINE, "all of it is known", || {
                assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
                metric(&mesh.zt_a, "istio_xds_resources", &[]).is_ok_and(|known| known == before + count)
            })?;
            assert_eq!(istiod.tally().refusals, Vec::<String>::new());
            Ok(())
        }),
        test("addresses can be looked up when they are needed", || {
            let governed = Governed::start(DAY, &[("XDS_ON_DEMAND", "true")])?;
            let Governed { mesh, istiod } = &governed;
            let _app = serve_http(&mesh.server, 8080)?;
            let service = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            let names = |governed: &Governed| -> Outcome<usize> {
                Ok(dump(governed)?["services"].as_array().map_or(0, Vec::len))
            };
            assert_eq!(names(&governed)?, 0, "nobody has asked");
            assert_eq!(http_get(&mesh.client, VIP.parse()?)?.told("pod"), Some("server"));
            assert_eq!(names(&governed)?, 1, "it was asked for");
            assert_eq!(istiod.tally().refusals, Vec::<String>::new());
            Ok(())
        }),
    ]
}
