//! Authorization on real connections: at the door, and on connections that are open when policies change.

use std::io::{ErrorKind, Read, Write};

use testkit::apps::{connect, http_get, serve_echo, serve_http};
use testkit::control_plane::{Action, Match, Policy, Scope, StringMatch};
use testkit::harness::Test;

use super::{DEADLINE, at, eventually, metric, two_nodes};

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("a policy that denies one client lets another pass, and is applied live", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            let other = mesh.enrol(&mesh.a, "other", "ops")?;
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
            mesh.mesh.control_plane().update(|plane| plane.policies.push(deny("cluster.local/ns/shop/sa/front")))?;
            eventually("the client is denied", || http_get(&mesh.client, at(&mesh.server, 8080)).is_err())?;
            // The first may have been cut while it was open; this one is turned away at the door.
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_err());
            assert!(http_get(&other, at(&mesh.server, 8080)).is_ok(), "the other client passes");
            let reason = "error=\"connection closed due to policy rejection: explicitly denied by: shop/no-front\"";
            mesh.zt_b.wait_for_log(reason, DEADLINE)?;
            mesh.zt_a.wait_for_log(
                "error=\"http status: 401 Unauthorized\" reason=\"peer-refused\" peer_reason=\"denied\"",
                DEADLINE,
            )?;
            mesh.zt_b.wait_for_log("reason=\"denied\" policy=\"shop/no-front\" rule=0", DEADLINE)?;
            let counted = ["policy=\"shop/no-front\"", "action=\"deny\"", "dry_run=\"false\""];
            assert!(metric(&mesh.zt_b, "istio_authz_decisions_total", &counted)? >= 1);
            assert!(metric(&mesh.zt_b, "istio_tcp_connections_failed_total", &["response_flags=\"DENY\""])? >= 1);
            mesh.mesh.control_plane().update(|plane| plane.policies.clear())?;
            eventually("the client passes again", || http_get(&mesh.client, at(&mesh.server, 8080)).is_ok())
        }),
        two_nodes("an open connection is cut when a new policy denies it, and others live on", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let other = mesh.enrol(&mesh.a, "other", "ops")?;
            let mut denied = connect(&mesh.client, at(&mesh.server, 9000))?;
            let mut allowed = connect(&other, at(&mesh.server, 9000))?;
            for stream in [&mut denied, &mut allowed] {
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
            }
            mesh.mesh.control_plane().update(|plane| plane.policies.push(deny("cluster.local/ns/shop/sa/front")))?;
            assert_eq!(denied.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            allowed.write_all(b"y")?;
            allowed.read_exact(&mut [0])?;
            mesh.zt_b.wait_for_log("error=\"connection closed due to policy change\"", DEADLINE)?;
            Ok(())
        }),
        two_nodes("a policy that allows identities only keeps out clients without one", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            assert!(http_get(&mesh.outside_a, at(&mesh.server, 8080)).is_ok());
            let strict = Policy {
                rules: vec![vec![vec![Match {
                    principals: vec![StringMatch::Prefix("cluster.local/".into())],
                    ..Match::default()
                }]]],
                ..policy("strict", Action::Allow)
            };
            mesh.mesh.control_plane().update(|plane| plane.policies.push(strict))?;
            eventually("the plain client is denied", || http_get(&mesh.outside_a, at(&mesh.server, 8080)).is_err())?;
            // The first may have been cut while it was open; this one is turned away at the door.
            assert!(http_get(&mesh.outside_a, at(&mesh.server, 8080)).is_err());
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
            let reason = "connection closed due to policy rejection: allow policies exist, but none allowed";
            mesh.zt_b.wait_for_log(reason, DEADLINE)?;
            Ok(())
        }),
        two_nodes("a policy on ports looks at the app's port", |mesh| {
            let _apps = (serve_http(&mesh.server, 8080)?, serve_http(&mesh.server, 9090)?);
            let closed = Policy {
                rules: vec![vec![vec![Match { destination_ports: vec![9090], ..Match::default() }]]],
                ..policy("closed", Action::Deny)
            };
            mesh.mesh.control_plane().update(|plane| plane.policies.push(closed))?;
            eventually("the port is closed", || http_get(&mesh.client, at(&mesh.server, 9090)).is_err())?;
            assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
            Ok(())
        }),
    ]
}

pub(super) fn policy(name: &str, action: Action) -> Policy {
    Policy {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        rules: Vec::new(),
    }
}

pub(super) fn deny(principal: &str) -> Policy {
    let who = Match { principals: vec![StringMatch::Exact(principal.into())], ..Match::default() };
    Policy { rules: vec![vec![vec![who]]], ..policy("no-front", Action::Deny) }
}
