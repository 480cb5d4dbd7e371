//! A client and a server of HTTP/2 with nothing between them.

use std::time::Instant;

use hbone::h2::frame;
use hbone::h2::{Config, Connection, End, Event, Header, Role, StreamId};

/// What our own outbound side sends with a request.
pub const AUTHORITY: &str = "10.244.12.34:8080";
pub const HEADERS: [Header<'static>; 3] = [
    Header::new("forwarded", "for=\"10.244.1.17:41234\";host=reviews.default.svc.cluster.local"),
    Header::new(
        "baggage",
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=productpage-v1,\
         service.name=productpage,service.version=v1",
    ),
    Header::new("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

/// Two ends, ready for requests.
pub struct Pair {
    pub client: Connection,
    pub server: Connection,
    pub now: Instant,
    events: Vec<Event>,
    wire: Vec<u8>,
}

impl Pair {
    pub fn new() -> Self {
        let now = Instant::now();
        let client = Connection::new(Role::Client, Config::client(), now);
        let server = Connection::new(Role::Server, Config::server(), now);
        let mut pair = Self { client, server, now, events: Vec::new(), wire: Vec::new() };
        pair.talk();
        pair
    }

    /// Carries control frames to and fro until neither end has any.
    pub fn talk(&mut self) {
        while self.client.has_transmit() || self.server.has_transmit() {
            self.wire.clear();
            self.client.poll_transmit(&mut self.wire);
            self.server.receive(self.now, &self.wire, &mut self.events).expect("both ends keep to the protocol");
            self.wire.clear();
            self.server.poll_transmit(&mut self.wire);
            self.client.receive(self.now, &self.wire, &mut self.events).expect("both ends keep to the protocol");
        }
        self.events.clear();
    }

    /// A stream on which both ends may send.
    pub fn open(&mut self) -> StreamId {
        let id = self.client.open(AUTHORITY, &HEADERS).expect("streams are ended as fast as they are opened");
        self.talk();
        self.server.respond(id, 200, &[], End::No).expect("the request has arrived");
        self.talk();
        id
    }

    /// Has the server take `bytes` and give credit for all payload in them; what it has to say to that is thrown away.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.server.receive(self.now, bytes, &mut self.events).expect("both ends keep to the protocol");
        for event in self.events.drain(..) {
            if let Event::Data { id, range, .. } = event {
                self.server.credit(id, range.len());
            }
        }
        self.wire.clear();
        self.server.poll_transmit(&mut self.wire);
    }

    /// Lets the client send `bytes` more on a stream.
    pub fn grant(&mut self, id: StreamId, bytes: usize) {
        let increment = u32::try_from(bytes).expect("a batch is small");
        self.wire.clear();
        frame::put_window_update(&mut self.wire, StreamId::CONNECTION, increment);
        frame::put_window_update(&mut self.wire, id, increment);
        self.client.receive(self.now, &self.wire, &mut self.events).expect("both ends keep to the protocol");
        self.events.clear();
    }
}
