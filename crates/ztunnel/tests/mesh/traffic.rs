//! Who reaches whom, by which way, and what each side sees.

use std::collections::BTreeSet;
use std::fs;

use testkit::apps::{connect, http_get, serve_echo, serve_http};
use testkit::control_plane::Service;
use testkit::harness::Test;
use testkit::mesh::Pod;

use super::{DEADLINE, access_lines, at, eventually, metric, two_nodes};

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("a request from pod to pod goes through mutual TLS and keeps the client's address", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            let tap = mesh.mesh.tap()?;
            let answer = http_get(&mesh.client, at(&mesh.server, 8080))?;
            assert_eq!(answer.told("pod"), Some("server"));
            let peer = answer.told("peer").unwrap_or_default();
            assert!(peer.starts_with(&format!("{}:", mesh.client.ip())), "the server saw {peer}");
            assert!(tap.saw_tls_application_data() && tap.is_complete());
            assert!(!tap.contains(b"GET /"), "the request crossed the wire in the clear");
            assert!(!tap.saw_tcp_port(8080), "the app's port was seen on the wire");
            Ok(())
        }),
        two_nodes("each side logs one line with both identities, and counts the same bytes", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            http_get(&mesh.client, at(&mesh.server, 8080))?;
            let identities = [
                "src.identity=\"spiffe://cluster.local/ns/shop/sa/front\"",
                "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
                "connection complete",
            ];
            mesh.zt_a.wait_for_log("connection complete", DEADLINE)?;
            mesh.zt_b.wait_for_log("connection complete", DEADLINE)?;
            let source = access_lines(&mesh.zt_a, &identities);
            let destination = access_lines(&mesh.zt_b, &identities);
            let hbone = format!("dst.hbone_addr={}", at(&mesh.server, 8080));
            assert_eq!((source.len(), destination.len()), (1, 1));
            assert!(source[0].contains("direction=\"outbound\"") && source[0].contains(&hbone), "{}", source[0]);
            assert!(destination[0].contains("direction=\"inbound\"") && destination[0].contains(&hbone));
            let number = |line: &str, key: &str| -> u64 {
                let rest = line.split(&format!(" {key}=")).nth(1).unwrap_or_default();
                rest.split(' ').next().unwrap_or_default().parse().unwrap_or_default()
            };
            let (sent, received) = (number(&source[0], "bytes_sent"), number(&source[0], "bytes_recv"));
            assert!(sent > 0 && received > 0, "{}", source[0]);
            assert_eq!(
                (number(&destination[0], "bytes_recv"), number(&destination[0], "bytes_sent")),
                (sent, received)
            );
            for (zt, reporter) in [(&mesh.zt_a, "reporter=\"source\""), (&mesh.zt_b, "reporter=\"destination\"")] {
                for (name, value) in [
                    ("istio_tcp_connections_opened_total", 1),
                    ("istio_tcp_connections_closed_total", 1),
                    ("istio_tcp_received_bytes_total", sent),
                    ("istio_tcp_sent_bytes_total", received),
                ] {
                    assert_eq!(metric(zt, name, &[reporter, "mutual_tls"])?, value, "{name} of {reporter}");
                }
            }
            Ok(())
        }),
        two_nodes("a service spreads over its endpoints and is named in log and metrics", |mesh| {
            let second = mesh.enrol(&mesh.a, "server-2", "cart")?;
            let _apps = (serve_http(&mesh.server, 8080)?, serve_http(&second, 8080)?);
            let service = Service::new("cart", "shop", [10, 96, 0, 1], &[&mesh.server, &second]).port(80, 8080);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            let vip = "10.96.0.1:80".parse()?;
            let mut pods = BTreeSet::new();
            eventually("both endpoints have answered", || {
                pods.extend(http_get(&mesh.client, vip).ok().and_then(|answer| answer.told("pod").map(str::to_owned)));
                pods.len() == 2
            })?;
            let named =
                ["dst.service=\"cart.shop.svc.cluster.local\"", "direction=\"outbound\"", "connection complete"];
            assert!(!access_lines(&mesh.zt_a, &named).is_empty());
            let labels = ["destination_service_name=\"cart\"", "reporter=\"source\""];
            assert!(metric(&mesh.zt_a, "istio_tcp_connections_opened_total", &labels)? >= 2);
            Ok(())
        }),
        two_nodes("pods of one node reach each other through the tunnel as well", |mesh| {
            let neighbour = mesh.enrol(&mesh.a, "neighbour", "near")?;
            let _app = serve_http(&neighbour, 8080)?;
            let answer = http_get(&mesh.client, at(&neighbour, 8080))?;
            assert!(answer.told("peer").unwrap_or_default().starts_with(&format!("{}:", mesh.client.ip())));
            let inbound = ["direction=\"inbound\"", "src.identity=\"spiffe://cluster.local/ns/shop/sa/front\""];
            mesh.zt_a.wait_for_log("direction=\"inbound\" bytes_sent", DEADLINE)?;
            assert!(!access_lines(&mesh.zt_a, &inbound).is_empty());
            Ok(())
        }),
        two_nodes("a client outside the mesh reaches a pod in plain TCP and keeps its address", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            let answer = http_get(&mesh.outside_a, at(&mesh.server, 8080))?;
            let peer = answer.told("peer").unwrap_or_default();
            assert!(peer.starts_with(&format!("{}:", mesh.outside_a.ip())), "the server saw {peer}");
            mesh.zt_b.wait_for_log("connection complete", DEADLINE)?;
            let lines = access_lines(&mesh.zt_b, &["connection complete", "direction=\"inbound\""]);
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("identity") && !lines[0].contains("hbone"), "{}", lines[0]);
            Ok(())
        }),
        two_nodes("a pod reaches a server outside the mesh in plain TCP", |mesh| {
            let _app = serve_http(&mesh.outside_b, 8080)?;
            let answer = http_get(&mesh.client, at(&mesh.outside_b, 8080))?;
            assert_eq!(answer.told("pod"), Some("outside-b"));
            mesh.zt_a.wait_for_log("connection complete", DEADLINE)?;
            let lines = access_lines(&mesh.zt_a, &["connection complete", "direction=\"outbound\""]);
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("src.identity"), "{}", lines[0]);
            Ok(())
        }),
        two_nodes("under a client's address, ztunnel takes no port that the client may take next", |mesh| {
            let app = serve_echo(&mesh.server, 9000)?;
            let _open =
                [connect(&mesh.outside_a, at(&mesh.server, 9000))?, connect(&mesh.client, at(&mesh.server, 9000))?];
            eventually("both are carried on", || app.peers().len() == 2)?;
            let range = |pod: &Pod| pod.run(|| fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range"));
            for client in [&mesh.outside_a, &mesh.client] {
                let range = range(client)??;
                let first: u16 = range.split_whitespace().next().ok_or("no range")?.parse()?;
                let mut peers = app.peers().into_iter().filter(|peer| peer.ip() == client.ip());
                assert!(peers.next().is_some_and(|peer| peer.port() < first), "{:?}", app.peers());
            }
            Ok(())
        }),
        two_nodes("an address that nobody has told us about is passed through", |mesh| {
            // The router of the other node is in no document; an app there is reached as if there were no mesh.
            let listener = mesh.b.netns().run(|| std::net::TcpListener::bind("0.0.0.0:7777"))??;
            let serve = std::thread::spawn(move || listener.accept().map(|(_, peer)| peer.ip()));
            let router = "10.2.0.1:7777".parse()?;
            let stream = testkit::apps::connect(&mesh.client, router)?;
            let peer = serve.join().map_err(|_| "the listener panicked")??;
            drop(stream);
            assert_eq!(peer, mesh.client.ip());
            Ok(())
        }),
    ]
}
