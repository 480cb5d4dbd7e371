//! SOCKS5: apps that say where they want to go.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use testkit::apps::{connect, serve_echo, serve_http};
use testkit::control_plane::{Action, Policy, Scope, Service};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{Outcome, TwoNodes, access_lines, at, eventually, metric, spec};

const PORT: &str = "127.0.0.1:15080";
const VIP: [u8; 4] = [10, 96, 0, 1];
const CART: &str = "cart.shop.svc.cluster.local";
/// Version, one method, which is none.
const GREETING: [u8; 3] = [5, 1, 0];
const SUCCEEDED: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;

pub fn tests() -> Vec<Test> {
    vec![
        socks("what is sent ahead of the answer arrives, whatever kind of address is asked for", |mesh| {
            let _app = serve_echo(&mesh.server, 9000)?;
            for target in [address(at(&mesh.server, 9000)), address((VIP, 80).into()), name(CART, 80), name("cart", 80)]
            {
                let (reply, said) = ask(&mesh.client, &target, b"said ahead")?;
                assert_eq!((reply, &said[..]), (SUCCEEDED, &b"said ahead"[..]), "{target:?}");
            }
            let records = || access_lines(&mesh.zt_a, &["connection complete", "bytes_sent=10", "dst.hbone_addr="]);
            eventually("each is on record as any connection", || records().len() == 4)?;
            let by_service = format!("dst.service=\"{CART}\"");
            assert_eq!(records().iter().filter(|line| line.contains(&by_service)).count(), 3);
            eventually("no socket is left open", || {
                metric(&mesh.zt_a, "istio_tcp_sockets_open", &["source"]).is_ok_and(|open| open == 0)
            })
        }),
        socks("bytes go both ways after the answer, in the mesh and beside it", |mesh| {
            let (_in, _beside) = (serve_http(&mesh.server, 8080)?, serve_http(&mesh.outside_b, 8080)?);
            for server in [&mesh.server, &mesh.outside_b] {
                let mut app = greet(&mesh.client)?;
                assert_eq!(request(&mut app, &address(at(server, 8080)))?, SUCCEEDED);
                app.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
                let mut text = String::new();
                app.read_to_string(&mut text)?;
                assert!(text.contains(&format!("pod: {}", server.name())), "{text}");
            }
            Ok(())
        }),
        socks("a client is told how it failed, and then the connection ends in order", |mesh| {
            let reply = |target: &[u8]| -> Outcome<u8> { Ok(ask(&mesh.client, target, b"never read")?.0) };
            assert_eq!(reply(&address(at(&mesh.outside_b, 9)))?, REFUSED, "by the host");
            assert_eq!(reply(&address(at(&mesh.server, 9)))?, REFUSED, "by the app behind the tunnel");
            assert_eq!(reply(&address("127.0.0.1:15001".parse()?))?, NOT_ALLOWED, "one of our own ports");
            assert_eq!(reply(&name("no.such.name.test", 80))?, HOST_UNREACHABLE);
            let nobody = Policy {
                name: "nobody".into(),
                namespace: "shop".into(),
                scope: Scope::Namespace,
                action: Action::Allow,
                dry_run: false,
                rules: Vec::new(),
            };
            mesh.mesh.control_plane().update(|plane| plane.policies.push(nobody))?;
            eventually("the destination denies", || {
                reply(&address(at(&mesh.server, 9))).is_ok_and(|reply| reply == NOT_ALLOWED)
            })
        }),
        socks("what is no SOCKS5 is turned away, named in the log and counted", |mesh| {
            let answer = |said: &[u8]| -> io::Result<Vec<u8>> {
                let mut app = connect(&mesh.client, PORT.parse().map_err(io::Error::other)?)?;
                app.write_all(said)?;
                all(&mut app)
            };
            assert!(answer(b"GET / HTTP/1.1\r\n\r\n")?.is_empty(), "another protocol");
            assert_eq!(answer(&[5, 1, 2])?, [5, 0xff], "only a method that is not offered");
            assert_eq!(answer(&[5, 1, 0, 5, 3, 0, 1])?[2..4], [5, 7], "UDP ASSOCIATE");
            eventually("each is in the log", || access_lines(&mesh.zt_a, &["reason=\"socks-request\""]).len() == 3)?;
            assert_eq!(metric(&mesh.zt_a, "istio_tcp_connections_denied_early_total", &["source"])?, 3);
            Ok(())
        }),
        socks("curl gets through by name", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            let curl = |option: &str, url: &str| {
                let mut command = mesh.client.netns().command("curl");
                command.args(["-sS", "--max-time", "10", option, PORT, url]).output()
            };
            for (option, url) in [
                ("--socks5-hostname", format!("http://{CART}/")),
                ("--socks5", format!("http://{}/", at(&mesh.server, 8080))),
            ] {
                let output = match curl(option, &url) {
                    Ok(output) => output,
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // our own client has to do
                    Err(error) => return Err(error.into()),
                };
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(text.contains("pod: server"), "{option}: {text}{}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        }),
        test("without the setting nobody listens", || {
            let mesh = TwoNodes::start()?;
            let refused = connect(&mesh.client, PORT.parse()?).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
            Ok(())
        }),
    ]
}

fn socks(name: &'static str, run: impl FnOnce(TwoNodes) -> Outcome + Send + 'static) -> Test {
    test(name, move || {
        // Resolvers are not part of this; without any, what the mesh does not know is known to nobody.
        let mesh = TwoNodes::start_with(&spec().env("UNSTABLE_ENABLE_SOCKS5", "true").env("RESOLV_CONF", "/dev/null"))?;
        let cart = Service::new("cart", "shop", VIP, &[&mesh.server])
            .port(80, if name.starts_with("curl") { 8080 } else { 9000 });
        mesh.mesh.control_plane().update(|plane| plane.services.push(cart))?;
        eventually("the service is known", || {
            let dump = mesh.zt_a.http_get(15000, "/config_dump").map(|dump| dump.body).unwrap_or_default();
            let dump: serde_json::Value = serde_json::from_str(&dump).unwrap_or_default();
            dump["services"].as_array().is_some_and(|services| !services.is_empty())
        })?;
        run(mesh)
    })
}

fn address(target: SocketAddr) -> Vec<u8> {
    let (kind, ip) = match target.ip() {
        std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (4, ip.octets().to_vec()),
    };
    [&[kind], &ip[..], &target.port().to_be_bytes()].concat()
}

fn name(name: &str, port: u16) -> Vec<u8> {
    [&[3, name.len() as u8], name.as_bytes(), &port.to_be_bytes()].concat()
}

/// Says everything at once; yields the code of the reply and all that comes after it.
fn ask(from: &Pod, target: &[u8], ahead: &[u8]) -> Outcome<(u8, Vec<u8>)> {
    let mut app = connect(from, PORT.parse()?)?;
    app.write_all(&[&GREETING, &[5, 1, 0], target, ahead].concat())?;
    app.shutdown(Shutdown::Write)?;
    let heard = all(&mut app)?;
    let (head, said) = heard.split_at_checked(12).ok_or_else(|| format!("too short: {heard:?}"))?;
    assert_eq!([head[0], head[1], head[2], head[4], head[5]], [5, 0, 5, 0, 1], "{head:?}");
    Ok((head[3], said.to_vec()))
}

fn greet(from: &Pod) -> Outcome<TcpStream> {
    let mut app = connect(from, PORT.parse()?)?;
    app.write_all(&GREETING)?;
    let mut method = [0; 2];
    app.read_exact(&mut method)?;
    assert_eq!(method, [5, 0]);
    Ok(app)
}

fn request(app: &mut TcpStream, target: &[u8]) -> Outcome<u8> {
    app.write_all(&[&[5, 1, 0], target].concat())?;
    let mut reply = [0; 10];
    app.read_exact(&mut reply)?;
    Ok(reply[1])
}

fn all(app: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    app.read_to_end(&mut heard)?;
    Ok(heard)
}
