//! What a peer may ask for that has a certificate of the mesh. The peer is this test, around an [`hbone::Tunnel`], and
//! asks for whatever it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hbone::h2::{Event, Header, StreamId};
use hbone::limits::Config;
use hbone::{Inbox, Outbox, Tunnel};
use testkit::apps::{connect, serve_echo};
use testkit::control_plane::{Action, Match, Particulars, Policy, Service, StringMatch};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;
use testkit::ztunnel::Ztunnel;
use ztunnel::identity::{FakeCa, LeafCheck, Rules, Signer, Terms, WorkloadCertificate, csr};

use super::policy::policy;
use super::{DEADLINE, Outcome, TwoNodes, access_lines, at, eventually, two_nodes};

const APP_PORT: u16 = 9000;
const PEER: &str = "spiffe://cluster.local/ns/shop/sa/front";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const CART: &str = "cart.shop.svc.cluster.local";
const VIP: [u8; 4] = [10, 96, 0, 1];

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("whatever a peer asks for is answered as it should be, and disturbs nothing in its tunnel", |mesh| {
            let _app = serve_echo(&mesh.server, APP_PORT)?;
            let mut peer = Peer::connect(&mesh.outside_a, &mesh.server, PEER)?;
            let server = mesh.server.ip();
            let own = format!("{server}:{APP_PORT}");
            let open = peer.ask(&own, &[])?;
            assert_eq!(open, Answer::Status(200, String::new()));
            let open = peer.last;
            for (authority, status, reason) in [
                (&*own, 200, ""),
                (&*format!("[::ffff:{server}]:{APP_PORT}"), 200, ""),
                (&*format!("{}:{APP_PORT}", mesh.outside_a.ip()), 400, "ip-mismatch"),
                (&*format!("{}:{APP_PORT}", mesh.client.ip()), 400, "ip-mismatch"),
                ("9.9.9.9:80", 400, "ip-mismatch"),
                (&*format!("{server}"), 400, "no-authority"),
                (&*format!("{server}:"), 400, "no-authority"),
                (&*format!("{server}:65536"), 400, "no-authority"),
                (&*format!("{server}:0"), 503, "app-unreachable"),
                (&*format!("{server}:1"), 503, "app-unreachable"),
                (&*format!("{server}:15006"), 503, "recursion"),
                ("nobody.example:80", 503, "unknown-hostname"),
                ("[fe80::1%eth0]:80", 400, "no-authority"),
                ("user@host:80", 400, "no-authority"),
            ] {
                assert_eq!(peer.ask(authority, &[])?, Answer::Status(status, reason.to_owned()), "{authority}");
            }
            let long = "a=b,".repeat(3_000);
            for headers in [
                [("baggage", "%ff,;;,=,k8s.namespace.name"), ("traceparent", "00-zz-zz-zz")],
                [("baggage", &*long), ("forwarded", "for=\"[::1\";host=\"\\")],
            ] {
                assert_eq!(peer.ask(&own, &headers)?, Answer::Status(200, String::new()), "{headers:?}");
            }
            assert_eq!(peer.echoed(open, b"still here")?, b"still here");
            Ok(())
        }),
        two_nodes("a peer that asks a pod for the peer's own address is told which it should have been", |mesh| {
            let mut peer = Peer::connect(&mesh.outside_a, &mesh.server, PEER)?;
            let (own, server) = (mesh.outside_a.ip(), mesh.server.ip());
            assert_eq!(peer.ask(&format!("{own}:80"), &[])?, Answer::Status(400, "ip-mismatch".to_owned()));
            let line = [&*format!("error=\"ip mismatch: {server} != {own}\""), "direction=\"inbound\""];
            eventually("it is on record", || !access_lines(&mesh.zt_b, &line).is_empty())
        }),
        two_nodes("a peer may ask by the name of a service, whether its target is a number or a name", |mesh| {
            let app = serve_echo(&mesh.server, APP_PORT)?;
            let service = Service::new("cart", "shop", VIP, &[&mesh.server]).port(80, APP_PORT);
            let service = service.named_port(81, APP_PORT);
            mesh.mesh.control_plane().update(|plane| plane.services.push(service))?;
            let mut peer = Peer::connect(&mesh.outside_a, &mesh.server, PEER)?;
            let accepted = Answer::Status(200, String::new());
            eventually("the service is known", || {
                peer.ask(&format!("{CART}:80"), &[]).is_ok_and(|answer| answer == accepted)
            })?;
            assert_eq!(peer.ask(&format!("{CART}:81"), &[])?, accepted);
            let named = peer.last;
            assert_eq!(peer.echoed(named, b"by name")?, b"by name");
            assert_eq!(peer.ask(&format!("{CART}:82"), &[])?, Answer::Status(503, "unresolvable-port".to_owned()));
            assert!(app.peers().len() >= 2);
            Ok(())
        }),
        two_nodes("a peer with a certificate of the mesh is denied where others alone are allowed", |mesh| {
            let others = vec![StringMatch::Exact("cluster.local/ns/ops/sa/other".into())];
            let rules = vec![vec![vec![Match { principals: others, ..Match::default() }]]];
            let only = Policy { rules, ..policy("only-other", Action::Allow) };
            let _app = serve_echo(&mesh.server, APP_PORT)?;
            mesh.mesh.control_plane().update(|plane| plane.policies.push(only))?;
            let mut peer = Peer::connect(&mesh.outside_a, &mesh.server, PEER)?;
            let own = format!("{}:{APP_PORT}", mesh.server.ip());
            let denied = Answer::Status(401, "denied".to_owned());
            eventually("the policy is in force", || peer.ask(&own, &[]).is_ok_and(|answer| answer == denied))?;
            let error = "connection closed due to policy rejection: allow policies exist, but none allowed";
            mesh.zt_b.wait_for_log(error, DEADLINE)?;
            Ok(())
        }),
        test("who is of another trust domain is reset, and the log says at which side and why", || {
            let mesh = TwoNodes::start()?;
            let elsewhere = Particulars { trust_domain: Some("other.example".to_owned()), ..Particulars::default() };
            mesh.mesh.control_plane().update(|plane| _ = plane.particulars.insert("client".to_owned(), elsewhere))?;
            let app = serve_echo(&mesh.server, APP_PORT)?;
            for zt in [&mesh.zt_a, &mesh.zt_b] {
                eventually("the client is of the other trust domain", || is_elsewhere(zt).unwrap_or(false))?;
            }
            let mut client = connect(&mesh.client, at(&mesh.server, APP_PORT))?;
            client.write_all(b"hello")?;
            assert_eq!(client.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert!(app.peers().is_empty());
            eventually("the server's side says why", || mesh.zt_b.logs().contains("other.example"))
        }),
    ]
}

/// Whether a ztunnel has been told that the client is of another trust domain; what its file says by now does not count.
fn is_elsewhere(ztunnel: &Ztunnel) -> Outcome<bool> {
    let dump: serde_json::Value = serde_json::from_str(&ztunnel.http_get(15000, "/config_dump")?.body)?;
    let workloads = dump["workloads"].as_array().ok_or("the dump has no workloads")?;
    Ok(workloads.iter().any(|workload| workload["name"] == "client" && workload["trustDomain"] == "other.example"))
}

/// What comes of a request.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The status, and the code of the reason, if one is given.
    Status(u16, String),
    /// The stream was reset.
    Reset,
}

/// A client of one tunnel.
struct Peer {
    socket: TcpStream,
    tunnel: Tunnel,
    inbox: Inbox,
    outbox: Outbox,
    /// The stream of the last request.
    last: Option<StreamId>,
    answer: Option<Answer>,
    received: Vec<u8>,
}

impl Peer {
    fn connect(from: &Pod, to: &Pod, identity: &str) -> Outcome<Self> {
        let identity = identity.parse()?;
        let (key, request) = csr::create(&identity)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let issued = runtime.block_on(FakeCa::new().sign(&identity, &request, Duration::from_secs(3600)))?;
        let terms = Terms { leaf: LeafCheck::Requested, rules: Rules::default(), bundles: Default::default() };
        let certificate = WorkloadCertificate::new(&identity, key, issued, &terms)?;
        let tls = certificate.client_config(&[SERVER.parse()?]);
        let socket = connect(from, at(to, 15008))?;
        let tunnel = Tunnel::client(tls, Config::client(), Instant::now())?;
        let (inbox, outbox) = Default::default();
        Ok(Self { socket, tunnel, inbox, outbox, last: None, answer: None, received: Vec::new() })
    }

    /// Asks, and waits for the answer.
    fn ask(&mut self, authority: &str, headers: &[(&str, &str)]) -> Outcome<Answer> {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header::new(name, value)).collect();
        self.last = Some(self.tunnel.open(authority, &headers)?);
        loop {
            self.flush()?;
            if let Some(answer) = self.answer.take() {
                return Ok(answer);
            }
            self.read()?;
        }
    }

    /// Says something on an accepted stream, and waits until as much has come back.
    fn echoed(&mut self, id: Option<StreamId>, said: &[u8]) -> Outcome<&[u8]> {
        let id = id.ok_or("nothing was asked for")?;
        self.received.clear();
        let sent = self.tunnel.send_data(id, said.len(), &mut self.outbox, |places| {
            let place = places.first_mut().ok_or("no place")?;
            place[..said.len()].copy_from_slice(said);
            Ok::<_, &str>(said.len())
        });
        assert!(matches!(sent, Some(Ok(n)) if n == said.len()), "all of it fits");
        while self.received.len() < said.len() {
            self.flush()?;
            self.read()?;
        }
        Ok(&self.received)
    }

    fn read(&mut self) -> Outcome {
        self.tunnel.prepare(&mut self.inbox);
        let n = self.socket.read(self.inbox.room())?;
        if n == 0 {
            return Err("the tunnel has ended".into());
        }
        self.inbox.fill(n);
        let mut events = Vec::new();
        self.tunnel.receive(Instant::now(), &mut self.inbox, &mut events)?;
        for event in events {
            match event {
                Event::Response { id, response, .. } if Some(id) == self.last => {
                    let reason = response.headers.get("x-ztunnel-reason").unwrap_or_default();
                    self.answer = Some(Answer::Status(response.status, String::from_utf8_lossy(reason).into_owned()));
                }
                Event::Reset { id, .. } if Some(id) == self.last && self.answer.is_none() => {
                    self.answer = Some(Answer::Reset);
                }
                Event::Data { id, range, .. } => {
                    self.received.extend_from_slice(self.inbox.payload(range.clone()));
                    self.tunnel.credit(id, range.len());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        self.tunnel.seal(&mut self.outbox)?;
        let bytes = self.outbox.unsent();
        self.socket.write_all(bytes)?;
        let sent = bytes.len();
        self.outbox.advance(sent);
        Ok(())
    }
}
