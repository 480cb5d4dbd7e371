//! The `h2` crate as a second opinion, in both roles, over an in-memory transport.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::time::Instant;

use bytes::Bytes;
use hbone::error::Reason;
use hbone::h2::{Config, Connection, End, Event, Header, ResetBy, Role, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

const MEBIBYTE: usize = 1 << 20;

/// Our machine with a transport.
struct Ours {
    machine: Connection,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    out: Vec<u8>,
    events: VecDeque<(Event, Vec<u8>)>,
}

impl Ours {
    /// Our machine, and the other end of its transport. The transport is small, so that frames are cut everywhere.
    fn new(role: Role, config: Config) -> (Self, DuplexStream) {
        let (here, there) = tokio::io::duplex(7_777);
        let (reader, writer) = tokio::io::split(here);
        let machine = Connection::new(role, config, Instant::now());
        (Ours { machine, reader, writer, out: Vec::new(), events: VecDeque::new() }, there)
    }

    /// Reads or writes something; false once the transport has ended.
    async fn turn(&mut self) -> bool {
        self.machine.poll_transmit(&mut self.out);
        let mut input = [0; 3_000];
        let waiting = !self.out.is_empty();
        let read = tokio::select! {
            read = self.reader.read(&mut input) => read.unwrap_or(0),
            written = self.writer.write(&self.out), if waiting => {
                let written = written.unwrap_or(0);
                self.out.drain(..written);
                return written > 0;
            }
        };
        let mut events = Vec::new();
        self.machine.receive(Instant::now(), &input[..read], &mut events).expect("the h2 crate obeys the rules");
        for event in events {
            let payload = match &event {
                Event::Data { range, .. } => input[range.clone()].to_vec(),
                _ => Vec::new(),
            };
            self.events.push_back((event, payload));
        }
        read > 0
    }

    /// The next event but windows and settings, with its payload.
    async fn event(&mut self) -> Option<(Event, Vec<u8>)> {
        loop {
            match self.events.pop_front() {
                Some((Event::SendWindow { .. } | Event::SettingsChanged, _)) => {}
                Some(event) => return Some(event),
                None if !self.turn().await => return None,
                None => {}
            }
        }
    }

    async fn request(&mut self) -> (StreamId, hbone::h2::Request) {
        match self.event().await {
            Some((Event::Request { id, request, .. }, _)) => (id, request),
            other => panic!("not a request: {other:?}"),
        }
    }

    async fn response(&mut self, stream: StreamId) -> u16 {
        match self.event().await {
            Some((Event::Response { id, response, .. }, _)) if id == stream => response.status,
            other => panic!("not a response on {stream}: {other:?}"),
        }
    }

    async fn reset(&mut self, stream: StreamId) -> Reason {
        loop {
            match self.event().await {
                Some((Event::Reset { id, reason, by: ResetBy::Peer }, _)) if id == stream => return reason,
                Some((Event::Data { id, range, .. }, _)) => self.machine.credit(id, range.len()),
                other => panic!("not a reset of {stream}: {other:?}"),
            }
        }
    }

    /// Writes everything queued.
    async fn flush(&mut self) {
        while self.machine.has_transmit() || !self.out.is_empty() {
            self.turn().await;
        }
    }

    /// Puts as many DATA frames into the output as windows and transport suggest.
    fn frame(&mut self, id: StreamId, payload: &mut &[u8], end: End) {
        self.machine.poll_transmit(&mut self.out);
        while self.out.len() < 100_000 {
            let len = payload.len().min(self.machine.send_capacity(id)).min(16_384);
            if len == 0 && !payload.is_empty() {
                return;
            }
            let (now, rest) = payload.split_at(len);
            let last = rest.is_empty() && end.is_end();
            let head = self.machine.data_header(id, len, if last { End::Yes } else { End::No }).expect("it fits");
            self.out.extend(head);
            self.out.extend(now);
            *payload = rest;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Sends `payload` and ends the stream, meanwhile receiving to the other side's end.
    async fn exchange(&mut self, id: StreamId, mut payload: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        let (mut sent, mut ended) = (false, false);
        while !(sent && ended) {
            if !sent {
                self.frame(id, &mut payload, End::Yes);
                sent = payload.is_empty();
            }
            while let Some((event, bytes)) = self.events.pop_front() {
                match event {
                    Event::Data { id: of, end, .. } if of == id => {
                        self.machine.credit(id, bytes.len());
                        received.extend(bytes);
                        ended |= end.is_end();
                    }
                    Event::SendWindow { .. } | Event::SettingsChanged => {}
                    other => panic!("unexpected {other:?}"),
                }
            }
            if !(sent && ended) {
                assert!(self.turn().await, "the transport lives as long as the stream");
            }
        }
        self.flush().await;
        received
    }
}

fn noise(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 131) ^ (i >> 8) ^ seed) as u8).collect()
}

/// Sends `payload` on a stream of the h2 crate and ends it.
async fn theirs_send(mut stream: h2::SendStream<Bytes>, payload: Vec<u8>) {
    let mut rest = Bytes::from(payload);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len().min(50_000));
        let granted = poll_fn(|cx| stream.poll_capacity(cx)).await.expect("the stream lives").expect("capacity");
        stream.send_data(rest.split_to(granted), false).expect("it was granted");
    }
    stream.send_data(Bytes::new(), true).expect("the stream lives");
}

/// Receives on a stream of the h2 crate to its end.
async fn theirs_receive(mut stream: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut received = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        received.extend_from_slice(&chunk);
        let _ = stream.flow_control().release_capacity(chunk.len());
    }
    Ok(received)
}

fn connect(authority: &str) -> http::Request<()> {
    http::Request::builder().method("CONNECT").uri(authority).header("baggage", "k=v").body(()).unwrap()
}

type TheirClient = h2::client::SendRequest<Bytes>;

/// Our server and a client of the h2 crate, whose connection runs by itself.
async fn our_server(
    config: Config,
    builder: h2::client::Builder,
) -> (Ours, TheirClient, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (ours, there) = Ours::new(Role::Server, config);
    let (client, connection) = builder.handshake::<_, Bytes>(there).await.unwrap();
    (ours, client, tokio::spawn(connection))
}

type TheirRequest = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// Our client and a server of the h2 crate, which hands each request to `serve`.
fn our_client<F, Fut>(config: Config, builder: h2::server::Builder, serve: F) -> (Ours, tokio::task::JoinHandle<()>)
where
    F: Fn(TheirRequest) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (ours, there) = Ours::new(Role::Client, config);
    let server = tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(there).await.unwrap();
        let mut served = Vec::new();
        while let Some(Ok(request)) = connection.accept().await {
            served.push(tokio::spawn(serve(request)));
        }
        for request in served {
            request.await.unwrap();
        }
    });
    (ours, server)
}

/// Ends our client's connection and makes sure that the server was content.
async fn part(mut ours: Ours, server: tokio::task::JoinHandle<()>) {
    ours.machine.shutdown(Instant::now());
    ours.flush().await;
    while ours.turn().await {}
    drop(ours);
    server.await.unwrap();
}

fn ok() -> http::Response<()> {
    http::Response::builder().status(200).header("baggage", "of=server").body(()).unwrap()
}

#[tokio::test]
async fn our_server_moves_a_mebibyte_both_ways() {
    let (mut ours, mut client, _) = our_server(Config::server(), h2::client::Builder::new()).await;
    let theirs = tokio::spawn(async move {
        let (response, stream) = client.send_request(connect("10.0.0.1:80"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["baggage"], "of=server");
        let sender = tokio::spawn(theirs_send(stream, noise(MEBIBYTE, 1)));
        let received = theirs_receive(response.into_body()).await.unwrap();
        sender.await.unwrap();
        received
    });
    let (id, request) = ours.request().await;
    assert_eq!(request.authority.as_deref(), Some("10.0.0.1:80"));
    assert_eq!(request.headers.get("baggage"), Some(&b"k=v"[..]));
    ours.machine.respond(id, 200, &[Header::new("baggage", "of=server")], End::No).unwrap();
    let received = ours.exchange(id, &noise(MEBIBYTE, 2)).await;
    assert!(received == noise(MEBIBYTE, 1));
    assert_eq!((ours.machine.active_streams(), ours.machine.uncredited()), (0, 0));
    while !theirs.is_finished() && ours.turn().await {}
    assert!(theirs.await.unwrap() == noise(MEBIBYTE, 2));
}

#[tokio::test]
async fn our_client_moves_a_mebibyte_both_ways() {
    let serve = |(request, mut respond): TheirRequest| async move {
        assert_eq!(request.method(), "CONNECT");
        assert_eq!(request.uri().authority().unwrap(), "[2001:db8::1]:80");
        assert_eq!(request.headers()["baggage"], "a=b");
        let stream = respond.send_response(ok(), false).unwrap();
        tokio::spawn(theirs_send(stream, noise(MEBIBYTE, 3)));
        assert!(theirs_receive(request.into_body()).await.unwrap() == noise(MEBIBYTE, 4));
    };
    let (mut ours, server) = our_client(Config::client(), h2::server::Builder::new(), serve);
    let id = ours.machine.open("[2001:db8::1]:80", &[Header::new("baggage", "a=b")]).unwrap();
    assert_eq!(ours.response(id).await, 200);
    assert!(ours.exchange(id, &noise(MEBIBYTE, 4)).await == noise(MEBIBYTE, 3));
    assert_eq!((ours.machine.active_streams(), ours.machine.uncredited()), (0, 0));
    part(ours, server).await;
}

#[tokio::test]
async fn our_client_waits_for_windows_smaller_than_its_payload() {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1_000).max_frame_size(16_384);
    let serve = |(request, mut respond): TheirRequest| async move {
        respond.send_response(ok(), true).unwrap();
        assert!(theirs_receive(request.into_body()).await.unwrap() == noise(100_000, 5));
    };
    let config = Config { stream_window: 1_000, ..Config::client() };
    let (mut ours, server) = our_client(config, builder, serve);
    let id = ours.machine.open("a:1", &[]).unwrap();
    assert_eq!(ours.response(id).await, 200);
    assert_eq!(ours.machine.send_capacity(id), 1_000, "it has learnt the small window");
    let payload = noise(100_000, 5);
    let mut rest = &payload[..];
    while !rest.is_empty() {
        ours.frame(id, &mut rest, End::Yes);
        assert!(ours.turn().await);
    }
    assert_eq!(ours.machine.active_streams(), 0);
    part(ours, server).await;
}

#[tokio::test]
async fn our_server_holds_a_sender_back_until_it_credits() {
    let config = Config { stream_window: 10_000, ..Config::server() };
    let (mut ours, mut client, _) = our_server(config, h2::client::Builder::new()).await;
    let (_response, stream) = client.send_request(connect("a:1"), false).unwrap();
    let (id, _) = ours.request().await;
    let sender = tokio::spawn(theirs_send(stream, noise(50_000, 6)));
    let mut held = Vec::new();
    while held.len() < 10_000 {
        let Some((Event::Data { .. }, bytes)) = ours.event().await else { panic!("data") };
        held.extend(bytes);
    }
    assert_eq!(held.len(), 10_000, "not a byte beyond the window");
    assert_eq!(ours.machine.receive_capacity(id), 0);
    assert!(!sender.is_finished());
    ours.machine.credit(id, held.len());
    let mut end = End::No;
    while end == End::No {
        let Some((Event::Data { end: this, .. }, bytes)) = ours.event().await else { panic!("data") };
        ours.machine.credit(id, bytes.len());
        held.extend(bytes);
        end = this;
    }
    assert!(held == noise(50_000, 6));
}

#[tokio::test]
async fn resets_cross_with_their_codes_from_and_to_our_server() {
    for code in [0x0, 0x2, 0x5, 0x8, 0xa] {
        let (mut ours, mut client, _) = our_server(Config::server(), h2::client::Builder::new()).await;
        let (_first, mut stream) = client.send_request(connect("a:1"), false).unwrap();
        let (id, _) = ours.request().await;
        stream.send_reset(h2::Reason::from(code));
        assert_eq!(ours.reset(id).await, Reason(code));

        let (second, _stream) = client.send_request(connect("a:1"), false).unwrap();
        let (id, _) = ours.request().await;
        ours.machine.reset(id, Reason(code));
        ours.flush().await;
        assert_eq!(second.await.unwrap_err().reason(), Some(h2::Reason::from(code)));
    }
}

#[tokio::test]
async fn resets_cross_with_their_codes_from_and_to_our_client() {
    let serve = |(request, mut respond): TheirRequest| async move {
        let port = request.uri().authority().unwrap().port_u16();
        let mut body = request.into_body();
        if port == Some(1) {
            respond.send_reset(h2::Reason::CONNECT_ERROR);
            return;
        }
        let mut stream = respond.send_response(ok(), false).unwrap();
        // The client sends once it has seen the answer, which a reset would otherwise overtake.
        assert_eq!(body.data().await.unwrap().unwrap(), "seen");
        if port == Some(2) {
            stream.send_reset(h2::Reason::CANCEL);
            return;
        }
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
        assert!(error.is_remote());
    };
    let (mut ours, server) = our_client(Config::client(), h2::server::Builder::new(), serve);
    let id = ours.machine.open("a:1", &[]).unwrap();
    assert_eq!(ours.reset(id).await, Reason::CONNECT_ERROR);
    for (authority, reason) in [("a:2", Some(Reason::CANCEL)), ("a:3", None), ("a:2", Some(Reason::CANCEL))] {
        let id = ours.machine.open(authority, &[]).unwrap();
        assert_eq!(ours.response(id).await, 200);
        ours.frame(id, &mut &b"seen"[..], End::No);
        match reason {
            Some(reason) => assert_eq!(ours.reset(id).await, reason),
            None => {
                ours.flush().await;
                ours.machine.reset(id, Reason::INTERNAL_ERROR);
            }
        }
        assert_eq!(ours.machine.active_streams(), 0);
    }
    part(ours, server).await;
}

#[tokio::test]
async fn our_server_ends_gracefully_in_the_eyes_of_their_client() {
    let (mut ours, mut client, connection) = our_server(Config::server(), h2::client::Builder::new()).await;
    let (response, stream) = client.send_request(connect("a:1"), false).unwrap();
    let (id, _) = ours.request().await;
    ours.machine.shutdown(Instant::now());
    ours.machine.respond(id, 200, &[], End::No).unwrap();
    let theirs = tokio::spawn(async move {
        let body = response.await.unwrap().into_body();
        tokio::spawn(theirs_send(stream, noise(10_000, 7)));
        theirs_receive(body).await.unwrap()
    });
    assert!(ours.exchange(id, &noise(20_000, 8)).await == noise(10_000, 7));
    while !(ours.machine.is_drained() && theirs.is_finished()) && ours.turn().await {}
    assert!(theirs.await.unwrap() == noise(20_000, 8));
    assert!(poll_fn(|cx| client.poll_ready(cx)).await.is_err(), "their client opens no more streams");
    ours.flush().await;
    drop(ours);
    connection.await.unwrap().expect("their client saw a clean end");
}

#[tokio::test]
async fn their_server_ends_gracefully_in_the_eyes_of_our_client() {
    let (mut ours, there) = Ours::new(Role::Client, Config::client());
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(there).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        tokio::spawn(async move {
            let stream = respond.send_response(ok(), false).unwrap();
            tokio::spawn(theirs_send(stream, noise(30_000, 9)));
            theirs_receive(request.into_body()).await.unwrap()
        });
        while connection.accept().await.is_some() {}
    });
    let id = ours.machine.open("a:1", &[]).unwrap();
    let mut going_away = 0;
    let mut received = Vec::new();
    while let Some((event, bytes)) = ours.event().await {
        match event {
            Event::GoingAway { last, reason, .. } => {
                going_away += 1;
                assert!(last >= id && reason == Reason::NO_ERROR);
                assert!(ours.machine.open("a:1", &[]).is_err());
            }
            Event::Response { .. } => {
                let mut payload = &noise(5_000, 10)[..];
                ours.frame(id, &mut payload, End::Yes);
                assert!(payload.is_empty());
            }
            Event::Data { .. } => {
                ours.machine.credit(id, bytes.len());
                received.extend(bytes);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(going_away, 2, "first a warning, then the last stream");
    assert!(received == noise(30_000, 9), "the stream was served to its end");
    assert!(ours.machine.is_drained());
    server.await.unwrap();
}

#[tokio::test]
async fn their_client_sees_the_code_of_our_fault() {
    let (mut ours, client, connection) = our_server(Config::server(), h2::client::Builder::new()).await;
    while !ours.machine.is_established() {
        ours.turn().await;
    }
    ours.machine.close(Reason::ENHANCE_YOUR_CALM);
    ours.flush().await;
    drop(ours);
    let error = connection.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    drop(client);
}

#[tokio::test]
async fn headers_of_every_legal_byte_survive_their_huffman_coder() {
    let (mut ours, mut client, _) = our_server(Config::server(), h2::client::Builder::new()).await;
    let bytes: Vec<u8> = (0x21..=0x7e).chain(0x80..=0xff).chain([b'\t', b' ', b'x']).collect();
    let mut request = connect("a:1");
    let every = http::HeaderValue::from_bytes(&bytes).unwrap();
    request.headers_mut().insert("every-byte", every);
    // Each byte in the company of others, so that codes start at every bit.
    for (i, byte) in bytes.iter().enumerate() {
        let value = [b"0aX".repeat(i % 5), vec![b'<', *byte, *byte, b'>']].concat();
        let name = http::HeaderName::from_bytes(format!("h{i}").as_bytes()).unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_bytes(&value).unwrap());
    }
    let (_response, _stream) = client.send_request(request.clone(), false).unwrap();
    let (_, seen) = ours.request().await;
    assert_eq!(seen.headers.len(), request.headers().len());
    for (name, value) in request.headers() {
        assert_eq!(seen.headers.get(name.as_str()), Some(value.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn their_dynamic_table_and_ours_agree_over_many_requests() {
    let (mut ours, mut client, _) = our_server(Config::server(), h2::client::Builder::new()).await;
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for i in 0..600 {
        let mut request = connect("10.0.0.1:80");
        // Old and new values of many lengths, so that entries are used, evicted and added again.
        let value = "v".repeat(i * 7 % 300);
        let kind = i * 13 % 17;
        let name = http::HeaderName::from_bytes(format!("name-{kind}").as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        let (_response, mut stream) = client.send_request(request, false).unwrap();
        let (id, request) = ours.request().await;
        assert_eq!(request.headers.get(&format!("name-{kind}")), Some(value.as_bytes()));
        *seen.entry(kind).or_default() += 1;
        ours.machine.respond(id, 503, &[], End::Yes).unwrap();
        ours.flush().await;
        stream.send_data(Bytes::new(), true).unwrap();
        while ours.machine.active_streams() > 0 {
            ours.turn().await;
        }
        ours.events.clear();
    }
    assert_eq!(seen.len(), 17);
}

#[tokio::test]
async fn their_trailers_end_a_stream() {
    let (mut ours, mut client, _) = our_server(Config::server(), h2::client::Builder::new()).await;
    let (_response, mut stream) = client.send_request(connect("a:1"), false).unwrap();
    let (id, _) = ours.request().await;
    ours.machine.respond(id, 200, &[], End::No).unwrap();
    stream.send_data(Bytes::from_static(b"last words"), false).unwrap();
    stream.send_trailers(http::HeaderMap::from_iter([(http::header::DATE, "now".parse().unwrap())])).unwrap();
    let received = ours.exchange(id, b"").await;
    assert_eq!(received, b"last words");
}

#[tokio::test]
async fn their_client_obeys_our_limit_of_streams() {
    let config = Config { max_concurrent_streams: 3, ..Config::server() };
    let (mut ours, mut client, _) = our_server(config, h2::client::Builder::new()).await;
    while !ours.machine.is_established() {
        ours.turn().await;
    }
    ours.flush().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        client = client.ready().await.unwrap();
        streams.push(client.send_request(connect("a:1"), false).unwrap());
        ours.request().await;
    }
    // The fourth waits until one of the three is gone.
    streams.push(client.send_request(connect("a:4"), false).unwrap());
    ours.machine.reset(StreamId::new(1), Reason::CANCEL);
    let (id, request) = ours.request().await;
    assert_eq!((id, request.authority.as_deref()), (StreamId::new(7), Some("a:4")));
}
