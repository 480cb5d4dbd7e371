//! Waypoints that a ztunnel serves: a tunnel ends in front of the waypoint's app, and what the app sends on is captured
//! again. (Waypoints that end tunnels themselves are Envoy's part of the tests of interoperability.)

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use testkit::apps::{exchange, http_get, serve_echo, serve_http};
use testkit::control_plane::{AppProtocol, Particulars, Reference, Service};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Pod, PodSpec};
use testkit::netns::NetNs;

use super::{DEADLINE, Outcome, TwoNodes, access_lines, at, eventually, knows};

const APP_PORT: u16 = 9000;
/// Where a waypoint's app listens that is handed the PROXY protocol.
const PROXY_PORT: u16 = 15088;
const WAYPOINT: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/front";

/// What every header of the PROXY protocol's version 2 begins with: signature, version and command, TCP over IPv4.
const PROXY_V2: [u8; 14] = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
/// The TLV with the peer's identity.
const TLV_IDENTITY: u8 = 0xd0;

pub fn tests() -> Vec<Test> {
    vec![
        test("a waypoint behind a ztunnel takes what is for a pod, at the port that was asked for", || {
            let shop = Shop::start(AppProtocol::None, None, |waypoint, _| (format!("/{}", waypoint.ip()), 15008))?;
            let server = at(&shop.mesh.server, APP_PORT);
            let _app = serve_echo(&shop.mesh.server, APP_PORT)?;
            let _waypoint = Waypoint::start(&shop.waypoint, APP_PORT, move |_| Ok(server))?;
            assert_eq!(exchange(&shop.mesh.client, server, b"through")?, b"through");
            shop.was_passed(server)
        }),
        test("a waypoint that is handed the PROXY protocol is told who wants to go where", || {
            // The waypoint is found by a service without any port.
            let shop = Shop::start(AppProtocol::Proxy, Some(PROXY_PORT), |_, vip| (format!("/{vip}"), 15008))?;
            let server = at(&shop.mesh.server, APP_PORT);
            let _app = serve_http(&shop.mesh.server, APP_PORT)?;
            let waypoint =
                Waypoint::start(&shop.waypoint, PROXY_PORT, |stream| told(stream).map(|told| told.destination))?;
            let answer = http_get(&shop.mesh.client, server)?;
            assert_eq!(answer.told("pod"), Some("server"));
            shop.was_passed(server)?;
            assert_eq!(waypoint.local, Ipv4Addr::LOCALHOST, "its ztunnel reaches it by loopback");
            Ok(())
        }),
        test("an app that is handed the PROXY protocol learns address and identity of its client", || {
            let mesh = TwoNodes::start()?;
            let particulars = Particulars {
                application_tunnel: Some((AppProtocol::Proxy, Some(PROXY_PORT))),
                ..Particulars::default()
            };
            mesh.mesh.control_plane().update(|plane| _ = plane.particulars.insert("server".to_owned(), particulars))?;
            let listener = mesh.server.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PROXY_PORT)))??;
            let app = thread::spawn(move || -> io::Result<_> {
                let (mut stream, peer) = listener.accept()?;
                let told = told(&mut stream)?;
                stream.write_all(b"welcome")?;
                Ok((told, peer.ip()))
            });
            let to = at(&mesh.server, APP_PORT);
            eventually("the app is known to take the PROXY protocol", || {
                exchange(&mesh.client, to, b"").is_ok_and(|answer| answer == b"welcome")
            })?;
            let (told, peer) = app.join().map_err(|_| "the app panicked")??;
            assert_eq!((told.source.ip(), told.destination, peer), (mesh.client.ip(), to, Ipv4Addr::LOCALHOST.into()));
            assert_eq!(told.identity, CLIENT);
            Ok(())
        }),
    ]
}

/// A server behind a waypoint, which runs on the client's node.
struct Shop {
    mesh: TwoNodes,
    waypoint: Pod,
}

impl Shop {
    fn start(
        protocol: AppProtocol,
        port: Option<u16>,
        reference: impl FnOnce(&Pod, IpAddr) -> Reference,
    ) -> Outcome<Self> {
        let mesh = TwoNodes::start()?;
        let waypoint = mesh.a.add_pod(PodSpec::new("waypoint", "shop", "waypoint", Capture::Enrolled))?;
        let vip = IpAddr::from([10, 250, 0, 7]);
        let service = Service::new("waypoint", "shop", vip, &[&waypoint]);
        mesh.mesh.control_plane().update(|plane| {
            let tunnel = Particulars { application_tunnel: Some((protocol, port)), ..Particulars::default() };
            let behind = Particulars { waypoint: Some(reference(&waypoint, vip)), ..Particulars::default() };
            plane.particulars.insert("waypoint".to_owned(), tunnel);
            plane.particulars.insert("server".to_owned(), behind);
            plane.services.push(service);
        })?;
        for zt in [&mesh.zt_a, &mesh.zt_b] {
            eventually("the waypoint is known", || knows(zt, &waypoint).unwrap_or(false) && has_waypoint(zt))?;
        }
        Ok(Self { mesh, waypoint })
    }

    /// What was for `target` went by the waypoint, and both of its halves say between whom.
    fn was_passed(&self, target: SocketAddr) -> Outcome {
        let first = [
            "direction=\"outbound\"",
            &format!("src.identity=\"{CLIENT}\""),
            &format!("dst.addr={} dst.hbone_addr={target}", at(&self.waypoint, 15008)),
            &format!("dst.identity=\"{WAYPOINT}\""),
        ];
        let second = [
            "direction=\"outbound\"",
            &format!("src.identity=\"{WAYPOINT}\""),
            &format!("dst.addr={} dst.hbone_addr={target}", at(&self.mesh.server, 15008)),
        ];
        eventually("the client's half is on record", || !access_lines(&self.mesh.zt_a, &first).is_empty())?;
        eventually("the waypoint's half is on record", || !access_lines(&self.mesh.zt_a, &second).is_empty())?;
        let server = "direction=\"inbound\" bytes_sent=";
        self.mesh.zt_b.wait_for_log(server, DEADLINE)?;
        let inbound = ["direction=\"inbound\"", &format!("src.identity=\"{WAYPOINT}\"")];
        assert!(!access_lines(&self.mesh.zt_b, &inbound).is_empty(), "the server knows the waypoint as its client");
        Ok(())
    }
}

fn has_waypoint(zt: &testkit::ztunnel::Ztunnel) -> bool {
    let dump = zt.http_get(15000, "/config_dump").ok().map(|dump| dump.body);
    let dump = dump.and_then(|body| serde_json::from_str::<serde_json::Value>(&body).ok());
    let workloads = dump.as_ref().and_then(|dump| dump["workloads"].as_array());
    workloads.is_some_and(|workloads| workloads.iter().any(|workload| !workload["waypoint"].is_null()))
}

/// The app of a waypoint: passes on what comes, to where `choose` says.
struct Waypoint {
    listener: TcpListener,
    /// Where it listens.
    local: IpAddr,
}

impl Waypoint {
    fn start(
        pod: &Pod,
        port: u16,
        choose: impl Fn(&mut TcpStream) -> io::Result<SocketAddr> + Send + 'static,
    ) -> Outcome<Self> {
        let local = if port == PROXY_PORT { Ipv4Addr::LOCALHOST.into() } else { pod.ip() };
        let listener = pod.run(|| TcpListener::bind((local, port)))??;
        let (accepting, netns) = (listener.try_clone()?, pod.netns().clone());
        thread::Builder::new().name("waypoint".to_owned()).spawn(move || {
            while let Ok((mut near, _)) = accepting.accept() {
                // What goes wrong shows in what the client gets.
                let _ = choose(&mut near).and_then(|to| pass(&near, &netns, to));
            }
        })?;
        Ok(Self { listener, local })
    }
}

impl Drop for Waypoint {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then ends.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn pass(mut near: &TcpStream, netns: &NetNs, to: SocketAddr) -> io::Result<()> {
    let far = netns.run(|| TcpStream::connect(to))??;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*near, &mut &far).and_then(|_| far.shutdown(Shutdown::Write));
        });
        io::copy(&mut &far, &mut near)?;
        near.shutdown(Shutdown::Write)
    })
}

/// What a header of the PROXY protocol tells.
struct Told {
    source: SocketAddr,
    destination: SocketAddr,
    identity: String,
}

/// Reads a header of version 2 with IPv4 addresses.
fn told(stream: &mut TcpStream) -> io::Result<Told> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    if head[..14] != PROXY_V2 {
        return Err(wrong("not version 2 of the PROXY protocol with IPv4 addresses"));
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut rest)?;
    let &[a, b, c, d, e, f, g, h, p, q, r, s, tlv, high, low, ref identity @ ..] = &*rest else {
        return Err(wrong("too short"));
    };
    if tlv != TLV_IDENTITY || identity.len() != usize::from(u16::from_be_bytes([high, low])) {
        return Err(wrong("no identity"));
    }
    Ok(Told {
        source: SocketAddr::from(([a, b, c, d], u16::from_be_bytes([p, q]))),
        destination: SocketAddr::from(([e, f, g, h], u16::from_be_bytes([r, s]))),
        identity: String::from_utf8_lossy(identity).into_owned(),
    })
}
