use std::sync::mpsc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::super::dump::{Sources, tests::sources};
use super::super::ready::{Ready, TaskName};
use super::*;
use crate::drain::signals::{Reason, Request, Signals};
use crate::drain::{self, Drained, Mode, Trigger};
use crate::telemetry::fixtures::{log, metrics_config, outbound};
use crate::telemetry::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(30);

fn loopback() -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config { admin: vec![any], stats: any, readiness: any }
}

fn inside(dump: Sources) -> Inside {
    let logging = log(Default::default()).0;
    let metrics = Arc::new(Metrics::new(&metrics_config(), logging.clone()));
    let debug = crate::admin::debug::tests::sources();
    Inside { ready: Ready::default(), metrics, logging, shutdown: Request::default(), dump, debug }
}

/// The servers, on ports of loopback.
struct Served {
    bound: Vec<(Server, SocketAddr)>,
    trigger: Trigger,
    task: JoinHandle<io::Result<()>>,
}

fn served(inside: Inside) -> Served {
    let bound = bind(&loopback()).unwrap();
    let addresses = bound.0.iter().map(|(server, listener)| (*server, listener.local_addr().unwrap())).collect();
    let (trigger, watcher) = drain::channel();
    Served { bound: addresses, trigger, task: tokio::spawn(serve(bound, inside, watcher)) }
}

impl Served {
    fn address(&self, wanted: Server) -> SocketAddr {
        self.bound.iter().find(|(server, _)| *server == wanted).unwrap().1
    }

    async fn connect(&self, server: Server) -> TcpStream {
        TcpStream::connect(self.address(server)).await.unwrap()
    }

    /// Status and body of the answer, as they came.
    async fn ask(&self, server: Server, method: &str, path: &str) -> (String, String) {
        let (head, body) = self.ask_with(server, method, path, "").await;
        (head.lines().next().unwrap().to_owned(), body)
    }

    /// Head and body of the answer.
    async fn ask_with(&self, server: Server, method: &str, path: &str, headers: &str) -> (String, String) {
        let mut stream = self.connect(server).await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: ztunnel\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        split(&read_all(&mut stream).await)
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn pair(status: &str, body: &str) -> (String, String) {
    (format!("HTTP/1.1 {status}"), body.to_owned())
}

#[tokio::test]
async fn the_readiness_probe_is_told_what_is_pending_then_ready_then_draining() {
    let inside = inside(sources(None));
    let ready = inside.ready.clone();
    let tasks = [TaskName::StateManager, TaskName::Proxy, TaskName::DnsProxy].map(|name| ready.task(name));
    let server = served(inside);
    let probe = || server.ask(Server::Readiness, "GET", "/healthz/ready");
    assert_eq!(
        probe().await,
        pair("500 Internal Server Error", "not ready, pending: dns proxy, proxy, state manager\n")
    );
    tasks[1].done();
    tasks[2].done();
    assert_eq!(probe().await, pair("500 Internal Server Error", "not ready, pending: state manager\n"));
    tasks[0].done();
    let (head, body) = server.ask_with(Server::Readiness, "GET", "/healthz/ready", "").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"), "{head}");
    assert_eq!(body, "ready\n");
    ready.drain();
    assert_eq!(probe().await, pair("500 Internal Server Error", "not ready, draining\n"));

    assert_eq!(server.ask(Server::Readiness, "POST", "/healthz/ready").await, pair("405 Method Not Allowed", ""));
    assert_eq!(server.ask(Server::Readiness, "GET", "/healthz/ready/").await, pair("404 Not Found", ""));
}

#[tokio::test]
async fn metrics_are_served_under_both_paths_in_the_type_that_was_asked_for() {
    let inside = inside(sources(None));
    inside.metrics.series(&Arc::new(outbound())).opened();
    let server = served(inside);
    for (path, accept, content_type) in [
        ("/metrics", "", "text/plain; version=0.0.4; charset=utf-8"),
        ("/stats/prometheus", "accept: application/openmetrics-text\r\n", {
            "application/openmetrics-text;charset=utf-8;version=1.0.0"
        }),
    ] {
        let (head, body) = server.ask_with(Server::Stats, "GET", path, accept).await;
        assert!(head.contains(&format!("\r\ncontent-type: {content_type}\r\n")), "{head}");
        assert!(body.contains("\nistio_tcp_connections_opened_total{reporter=\"source\","), "{body}");
        assert_eq!(body.ends_with("\n# EOF\n"), content_type.contains("openmetrics"), "{body}");
    }
    assert_eq!(server.ask(Server::Stats, "GET", "/").await, pair("404 Not Found", ""));
}

#[tokio::test]
async fn the_admin_server_answers_each_path_and_method_as_specified() {
    let inside = inside(sources(None));
    let shutdown = inside.shutdown.clone();
    let server = served(inside);
    let (head, body) = server.ask_with(Server::Admin, "GET", "/", "").await;
    assert!(
        head.contains("\r\ncontent-type: text/html; charset=utf-8\r\n") && body.contains("Ztunnel Admin"),
        "{head}"
    );
    let (head, body) = server.ask_with(Server::Admin, "GET", "/config_dump?x=1", "").await;
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    assert!(body.starts_with("{\n  \"certificates\": [\n"), "{body}");
    let level = "current log level is hickory_server::server=off,access=debug,info\n";
    assert_eq!(server.ask(Server::Admin, "POST", "/logging?level=access:debug").await, pair("200 OK", level));
    assert_eq!(server.ask(Server::Admin, "GET", "/logging").await.0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(server.ask(Server::Admin, "GET", "/quitquitquit").await, pair("405 Method Not Allowed", ""));
    assert_eq!(server.ask(Server::Admin, "POST", "/quitquitquit").await, pair("200 OK", "shutdown now\n"));
    let mut signals = Signals::watch().unwrap();
    assert_eq!(signals.reason(&shutdown).await, Reason::Requested);
    // This program has the C library's allocator, whatever ztunnel has.
    for path in ["/debug/pprof/heap", "/debug/pprof/heap/profiling?activate=true"] {
        let expected = "jemalloc not enabled; profiles of memory take a build with `--features jemalloc`";
        let not_here = pair("500 Internal Server Error", expected);
        assert!(cfg!(feature = "jemalloc") || server.ask(Server::Admin, "GET", path).await == not_here);
    }
}

#[tokio::test]
async fn a_part_of_the_dump_that_panics_is_an_answer_and_not_the_end() {
    let mut broken = sources(None);
    broken.version = Box::new(|| std::panic::resume_unwind(Box::new("a bug")));
    let server = served(inside(broken));
    for _ in 0..2 {
        let (status, body) = server.ask(Server::Admin, "GET", "/config_dump").await;
        assert_eq!(status, "HTTP/1.1 500 Internal Server Error");
        assert!(body.contains("panicked"), "{body}");
    }
}

/// The body of an answer in chunks (RFC 9112 §7.1), and whether it came to its end.
fn unchunked(mut body: &str) -> (String, bool) {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return (whole, true);
        }
        whole.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    (whole, false)
}

#[tokio::test]
async fn a_large_dump_is_sent_while_it_is_printed() {
    let mut large = sources(None);
    large.config = Box::new(|| json!("x".repeat(3 << 20)));
    let server = served(inside(large));
    let (head, body) = server.ask_with(Server::Admin, "GET", "/config_dump", "").await;
    assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
    let (dump, complete) = unchunked(&body);
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert!(complete && dump["config"].as_str().unwrap().len() == 3 << 20 && dump["workloads"].is_array());
}

#[tokio::test]
async fn a_dump_that_fails_halfway_is_cut_and_not_ended() {
    let mut broken = sources(None);
    broken.config = Box::new(|| json!("x".repeat(3 << 20)));
    broken.version = Box::new(|| std::panic::resume_unwind(Box::new("a bug")));
    let server = served(inside(broken));
    let mut stream = server.connect(Server::Admin).await;
    stream.write_all(b"GET /config_dump HTTP/1.1\r\nhost: z\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // whether it is reset or closed is of no account
    let (_, body) = split(std::str::from_utf8(&answer).unwrap());
    assert!(!unchunked(&body).1, "whoever reads it can tell");
}

#[tokio::test]
async fn a_profile_is_protobuf_and_wrong_parameters_are_named() {
    let server = served(inside(sources(None)));
    let refused = server.ask(Server::Admin, "GET", "/debug/pprof/profile?seconds=0").await;
    assert_eq!(refused, pair("400 Bad Request", "invalid seconds value; expected 1-300\n"));
    let mut stream = server.connect(Server::Admin).await;
    let request = b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nhost: z\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("nanoseconds") && !text.contains("content-type"), "{text}");
}

#[tokio::test]
async fn a_request_in_progress_is_finished_after_listening_has_stopped() {
    let (begun, begins) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let mut slow = sources(None);
    slow.config = Box::new(move || {
        begun.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        json!("slow")
    });
    let server = served(inside(slow));
    let address = server.address(Server::Admin);
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"POST /logging HTTP/1.1\r\nhost: z\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /config_dump HTTP/1.1\r\nhost: z\r\n\r\n").await.unwrap();
    tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();

    let drain = tokio::spawn(server.trigger.drain(Mode::Graceful(DEADLINE)));
    read_all(&mut idle).await; // kept connections are closed
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    assert!(!drain.is_finished());
    go_on.send(()).unwrap();
    let (head, body) = split(&read_all(&mut busy).await);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body.contains("\"config\": \"slow\""), "{head}\n{body}");
    assert_eq!(drain.await.unwrap(), Drained::Complete);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_oldest_connection_makes_way_when_there_are_too_many() {
    let server = served(inside(sources(None)));
    let mut oldest = server.connect(Server::Readiness).await;
    let mut held = Vec::new();
    for _ in 1..MAX_CONNECTIONS {
        held.push(server.connect(Server::Readiness).await);
    }
    assert_eq!(server.ask(Server::Readiness, "GET", "/healthz/ready").await, pair("200 OK", "ready\n"));
    let ended = oldest.read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_no_request_is_closed() {
    let server = served(inside(sources(None)));
    let mut stream = server.connect(Server::Readiness).await;
    stream.write_all(b"GET /healthz").await.unwrap();
    let begin = tokio::time::Instant::now();
    read_all(&mut stream).await;
    assert!(begin.elapsed() <= HEAD_TIMEOUT + Duration::from_millis(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn heads_beyond_the_bound_are_refused() {
    let server = served(inside(sources(None)));
    let header = format!("x: {}\r\n", "y".repeat(2 * MAX_HEAD));
    let (head, _) = server.ask_with(Server::Readiness, "GET", "/healthz/ready", &header).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[test]
fn an_occupied_port_is_one_line_that_names_the_remedy() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let error = bind(&Config { stats: address, ..loopback() }).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "failed to bind to address {address} for the stats server: Address already in use (os error 98) \
             (another process listens there; stop it, or set another statsPort in PROXY_CONFIG)"
        )
    );
}

#[test]
fn an_address_that_this_machine_lacks_is_left_out_unless_it_is_the_only_one() {
    let [foreign, local]: [SocketAddr; 2] = ["[2001:db8::1]:0", "127.0.0.1:0"].map(|a| a.parse().unwrap());
    assert_eq!(bind(&Config { admin: vec![local, foreign], ..loopback() }).unwrap().0.len(), 3);
    assert!(bind(&Config { admin: vec![foreign], ..loopback() }).is_err());
    assert!(bind(&Config { stats: foreign, ..loopback() }).is_err());
}

#[tokio::test]
async fn a_printing_keeps_its_turn_when_whoever_asked_for_it_has_left() {
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let turns = Arc::new(Turns::default());
    let asking = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            let print = move || {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
            };
            turns.print(print).await
        }
    });
    begins.await.unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    assert_eq!(turns.0.available_permits(), 0, "it is still being printed");
    go_on.send(()).unwrap();
    assert_eq!(turns.print(|| "next").await.unwrap(), "next");
}
