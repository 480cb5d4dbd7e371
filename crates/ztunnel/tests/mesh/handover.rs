//! One ztunnel takes the place of another while connections come and go.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::{Node, Pod};
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

use super::{DEADLINE, Outcome, TwoNodes, at, eventually, spec};

/// Clients at a time from each pod: enough for connections to be under way whatever happens.
const CLIENTS: usize = 4;

pub fn tests() -> Vec<Test> {
    vec![test("a ztunnel that takes another's place under load loses no connection, and long ones live on", || {
        let mesh = TwoNodes::start_with(&settings())?;
        let _echo = serve_echo(&mesh.server, 9000)?;
        let TwoNodes { zt_a, zt_b, client, server, outside_a, a, b, .. } = &mesh;
        let load = Load::default();
        std::thread::scope(|scope| {
            for pod in [client, outside_a] {
                for _ in 0..CLIENTS {
                    let load = &load;
                    scope.spawn(move || load.connect_again_and_again(pod, at(server, 9000)));
                }
            }
            let both = || -> Outcome<(Ztunnel, Ztunnel)> {
                load.has_moved()?;
                let new_b = replace(b, zt_b, &load, client, server)?;
                let new_a = replace(a, zt_a, &load, client, server)?;
                load.has_moved().map(|()| (new_a, new_b))
            };
            let replaced = both();
            load.stop.store(true, Ordering::Relaxed); // whatever came of it
            replaced
        })?;
        assert_eq!(*load.failures.lock().unwrap(), Vec::<String>::new());
        Ok(())
    })]
}

/// Time to look after a long connection.
fn settings() -> ZtunnelSpec {
    spec().env("CONNECTION_TERMINATION_DEADLINE", "8s")
}

/// Starts a second ztunnel beside the first, has the first end, and looks after a connection that it carries.
fn replace(node: &Node, old: &Ztunnel, load: &Load, client: &Pod, server: &Pod) -> Outcome<Ztunnel> {
    let mut long = connect(client, at(server, 9000))?;
    says(&mut long)?;
    let new = node.start_ztunnel(&settings())?;
    new.wait_ready(DEADLINE)?;
    load.has_moved()?;
    old.terminate()?;
    old.wait_for_log("received signal SIGTERM, starting shutdown", DEADLINE)?;
    load.has_moved()?;
    says(&mut long)?;
    let answer = old.http_get(15021, "/healthz/ready")?;
    assert_eq!((answer.status, answer.body.as_str()), (500, "not ready, draining\n"));
    assert!(old.http_get(15020, "/metrics")?.body.contains("istio_tcp_connections_opened_total"));
    says(&mut long)?;
    old.wait_for_log("drain duration expired with pending connections", DEADLINE)?;
    assert_eq!(long.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    old.wait_for_log("shutdown complete", DEADLINE)?;
    load.has_moved()?;
    Ok(new)
}

fn says(stream: &mut TcpStream) -> Outcome {
    let mut heard = [0; 4];
    stream.write_all(b"here")?;
    stream.read_exact(&mut heard)?;
    assert_eq!(&heard, b"here");
    Ok(())
}

/// Clients that connect, say something, hear it, and end.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn connect_again_and_again(&self, from: &Pod, to: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            match exchange(from, to, b"a little load") {
                Ok(heard) if heard == b"a little load" => {}
                other => self.failures.lock().unwrap().push(format!("from {}: {other:?}", from.name())),
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until connections have come and gone since.
    fn has_moved(&self) -> Outcome {
        let enough = self.done.load(Ordering::Relaxed) + 20 * CLIENTS;
        eventually("connections come and go", || self.done.load(Ordering::Relaxed) >= enough)
    }
}
