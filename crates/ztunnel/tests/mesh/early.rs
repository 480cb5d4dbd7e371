//! What an app says first goes along with the request for its connection (`HBONE_EARLY_DATA`) and with the handshake that its
//! destination is dialled with; and what becomes of it with a peer that does not like that, which is no ztunnel but this
//! test, around an [`hbone::Tunnel`].

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::error::Reason;
use hbone::h2::{End, Event, StreamId};
use hbone::limits::Config;
use hbone::{Inbox, Outbox, Tunnel};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use testkit::apps::{PATIENCE, connect};
use testkit::harness::{Test, test};
use testkit::mesh::{Capture, Mesh, PodSpec};
use testkit::ztunnel::ZtunnelSpec;
use ztunnel::identity::{FakeCa, LeafCheck, Rules, Signer, Terms, WorkloadCertificate, csr};

use super::ends::all_of;
use super::{DEADLINE, Outcome, at, eventually, metric, spec, two_nodes};

/// More than goes early, less than a window.
const SAID: usize = 20_000;
/// Of these one at least ends with what is said first. Others may not: the kernel holds the end of a handshake back for a
/// fifth of a second only, and a machine may be that busy.
const HANDSHAKES: u16 = 10;

pub fn tests() -> Vec<Test> {
    let dislikes = [Reason::PROTOCOL_ERROR, Reason::STREAM_CLOSED, Reason::FLOW_CONTROL_ERROR];
    let refused = dislikes.map(|reason| {
        test(&format!("early data refused with {reason} costs the app nothing and is not tried again"), move || {
            let tunnels = talk(&spec(), reason)?;
            assert_eq!(tunnels, [vec![Request::WithData, Request::Alone], vec![Request::Alone]]);
            Ok(())
        })
    });
    let off = test("without early data an app's bytes wait for the answer", || {
        let tunnels = talk(&spec().env("HBONE_EARLY_DATA", "false"), Reason::PROTOCOL_ERROR)?;
        assert_eq!(tunnels, [[Request::Alone], [Request::Alone]]);
        Ok(())
    });
    let at_once =
        two_nodes("what a client says before its app is dialled comes with the end of that handshake", |mesh| {
            const FIRST: &[u8] = b"first words";
            let tap = mesh.server.tap()?;
            let mut first_said = Vec::new();
            for port in 9000..9000 + HANDSHAKES {
                let listener = mesh.server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
                set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
                // The request leaves only when they have been said.
                let _client = mesh.zt_a.paused(|| -> Outcome<TcpStream> {
                    let mut client = connect(&mesh.client, at(&mesh.server, port))?;
                    client.write_all(FIRST)?;
                    Ok(client)
                })??;
                let (mut app, _) = listener.accept()?;
                app.set_read_timeout(Some(PATIENCE))?;
                let mut heard = [0; FIRST.len()];
                app.read_exact(&mut heard)?;
                assert_eq!(heard, FIRST);
                first_said.push(tap.first_said_to(port));
                if first_said.contains(&Some(FIRST.len())) {
                    break;
                }
            }
            assert!(first_said.contains(&Some(FIRST.len())), "never, but {first_said:?}");
            assert!(tap.is_complete());
            Ok(())
        });
    refused.into_iter().chain([off, at_once]).collect()
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Data followed before the answer.
    WithData,
    /// It waited for the answer.
    Alone,
}

/// Two connections after one another, each over a tunnel of its own, to a peer that resets streams with early data. Checks
/// that the apps get all bytes back; returns the requests of each tunnel.
fn talk(spec: &ZtunnelSpec, dislike: Reason) -> Outcome<Vec<Vec<Request>>> {
    let mesh = Mesh::new()?;
    let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
    let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
    let server = b.add_pod(PodSpec::new("server", "shop", "cart", Capture::Enrolled))?;
    let ztunnel = a.start_ztunnel(spec)?;
    ztunnel.wait_ready(DEADLINE)?;
    let listener = server.run(|| TcpListener::bind("0.0.0.0:15008"))??;
    let tls = server_tls("spiffe://cluster.local/ns/shop/sa/cart")?;
    let said: Vec<u8> = (0..SAID).map(|i| (i % 251) as u8).collect();
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let mut app = connect(&client, at(&server, 9000))?;
        app.write_all(&said)?;
        // The handshake begins only now, so that the app has spoken before its request leaves.
        let (socket, _) = listener.accept()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let peer = Peer::new(socket.try_clone()?, Tunnel::server(Arc::clone(&tls), Config::server(), Instant::now())?);
        let serving = std::thread::spawn(move || peer.serve(dislike).map_err(|error| error.to_string()));
        app.shutdown(Shutdown::Write)?;
        assert!(all_of(&mut app)? == said, "the app gets back what it said, once and in order");
        socket.shutdown(Shutdown::Write)?;
        tunnels.push(serving.join().map_err(|_| "the peer panicked")??);
        eventually("the tunnel is gone", || metric(&ztunnel, "istio_hbone_tunnels_open", &[]).is_ok_and(|n| n == 0))?;
    }
    Ok(tunnels)
}

fn server_tls(identity: &str) -> Outcome<Arc<rustls::ServerConfig>> {
    let identity = identity.parse()?;
    let (key, request) = csr::create(&identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let issued = runtime.block_on(FakeCa::new().sign(&identity, &request, Duration::from_secs(3600)))?;
    let terms = Terms { leaf: LeafCheck::Requested, rules: Rules::default(), bundles: Arc::default() };
    Ok(WorkloadCertificate::new(&identity, key, issued, &terms)?.server_config())
}

/// One end of a tunnel that sends back what comes once it has all come.
struct Peer {
    socket: TcpStream,
    tunnel: Tunnel,
    inbox: Inbox,
    outbox: Outbox,
    unanswered: Option<StreamId>,
    /// For data that came together with what it was refused for.
    refused: Option<StreamId>,
    received: Vec<u8>,
    requests: Vec<Request>,
}

impl Peer {
    fn new(socket: TcpStream, tunnel: Tunnel) -> Self {
        let (inbox, outbox) = Default::default();
        Self {
            socket,
            tunnel,
            inbox,
            outbox,
            unanswered: None,
            refused: None,
            received: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Until the other end closes.
    fn serve(mut self, dislike: Reason) -> Outcome<Vec<Request>> {
        loop {
            self.tunnel.prepare(&mut self.inbox);
            let n = self.socket.read(self.inbox.room())?;
            if n == 0 {
                return Ok(self.requests);
            }
            self.inbox.fill(n);
            let mut events = Vec::new();
            self.tunnel.receive(Instant::now(), &mut self.inbox, &mut events)?;
            for event in events {
                self.on_event(event, dislike)?;
            }
            // Data that comes early comes in one piece with its request.
            if let Some(id) = self.unanswered.take() {
                self.requests.push(Request::Alone);
                self.tunnel.respond(id, 200, &[], End::No)?;
            }
            self.flush()?;
        }
    }

    fn on_event(&mut self, event: Event, dislike: Reason) -> Outcome {
        match event {
            Event::Request { id, .. } => self.unanswered = Some(id),
            Event::Data { id, range, .. } if self.unanswered == Some(id) || self.refused == Some(id) => {
                if self.unanswered.take().is_some() {
                    self.refused = Some(id);
                    self.requests.push(Request::WithData);
                    self.tunnel.reset(id, dislike);
                }
                self.tunnel.credit(id, range.len());
            }
            Event::Data { id, range, end } => {
                self.received.extend_from_slice(self.inbox.payload(range.clone()));
                self.tunnel.credit(id, range.len());
                if end.is_end() {
                    self.send_back(id)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn send_back(&mut self, id: StreamId) -> Outcome {
        let mut rest = self.received.as_slice();
        let all = rest.len();
        let sent = self.tunnel.send_data(id, all, &mut self.outbox, |places| {
            for place in places {
                let (now, later) = rest.split_at(place.len().min(rest.len()));
                place[..now.len()].copy_from_slice(now);
                rest = later;
            }
            Ok::<_, std::convert::Infallible>(all - rest.len())
        });
        assert!(matches!(sent, Some(Ok(n)) if n == all), "all of it fits");
        Ok(self.tunnel.end(id, &mut self.outbox)?)
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
