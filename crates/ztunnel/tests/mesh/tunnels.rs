//! Which connections share a tunnel, and for how long one is kept.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{Outcome, TwoNodes, at, eventually, metric, spec, within};

const APP_PORT: u16 = 9000;
/// Connections in less than a second, on a machine that has time for them.
const BURST: usize = 600;
/// Of them at a time: fewer than a tunnel takes, which would be another reason for a second one.
const AT_ONCE: usize = 50;
/// Until a machine that is busy with other tests has had time for a burst.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn tests() -> Vec<Test> {
    vec![
        test("connections share a tunnel until it is full, and a full one takes connections again", || {
            let mesh = TwoNodes::start_with(&spec().env("POOL_MAX_STREAMS_PER_CONNECTION", "2"))?;
            let _echo = serve_echo(&mesh.server, APP_PORT)?;
            let mut open = Vec::new();
            for (connections, wanted) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
                open.push(opened(&mesh.client, &mesh.server)?);
                assert_eq!(tunnels(&mesh)?, wanted, "{connections} connections");
            }
            open.clear();
            eventually("all have ended", || streams(&mesh).is_ok_and(|open| open == 0))?;
            for _ in 0..6 {
                open.push(opened(&mesh.client, &mesh.server)?);
            }
            assert_eq!(tunnels(&mesh)?, 3);
            Ok(())
        }),
        test("a limit of one connection is a tunnel for each", || {
            let mesh = TwoNodes::start_with(&spec().env("POOL_MAX_STREAMS_PER_CONNECTION", "1"))?;
            let _echo = serve_echo(&mesh.server, APP_PORT)?;
            let _open = [opened(&mesh.client, &mesh.server)?, opened(&mesh.client, &mesh.server)?];
            assert_eq!(tunnels(&mesh)?, 2);
            Ok(())
        }),
        test("connections that come at once share one dial, and pods share nothing with each other", || {
            let mesh = TwoNodes::start()?;
            let twin = mesh.enrol(&mesh.a, "twin", "front")?;
            let _echo = serve_echo(&mesh.server, APP_PORT)?;
            let open = std::thread::scope(|scope| -> Outcome<Vec<TcpStream>> {
                let one = || scope.spawn(|| opened(&mesh.client, &mesh.server).map_err(|error| error.to_string()));
                let all: Vec<_> = (0..20).map(|_| one()).collect();
                all.into_iter().map(|one| Ok(one.join().map_err(|_| "a client panicked")??)).collect()
            })?;
            assert_eq!((streams(&mesh)?, tunnels(&mesh)?), (open.len() as u64, 1));
            let _other = opened(&twin, &mesh.server)?;
            assert_eq!(tunnels(&mesh)?, 2, "though they have one identity");
            Ok(())
        }),
        test("a tunnel without connections is given up after a while, and one with a connection is not", || {
            let mesh = TwoNodes::start_with(&spec().env("POOL_UNUSED_RELEASE_TIMEOUT", "300ms"))?;
            let neighbour = mesh.enrol(&mesh.b, "neighbour", "near")?;
            let _apps = (serve_echo(&mesh.server, APP_PORT)?, serve_echo(&neighbour, APP_PORT)?);
            let mut busy = opened(&mesh.client, &mesh.server)?;
            let idle = opened(&mesh.client, &neighbour)?;
            assert_eq!(tunnels(&mesh)?, 2);
            drop(idle);
            eventually("the one without is given up", || tunnels(&mesh).is_ok_and(|open| open == 1))?;
            echo(&mut busy)?;
            assert_eq!(exchange(&mesh.client, at(&neighbour, APP_PORT), b"again")?, b"again");
            Ok(())
        }),
        test("very many connections to one peer share a tunnel for each worker, and no more", || {
            let mesh = TwoNodes::start_with(&spec().env("ZTUNNEL_WORKER_THREADS", "2"))?;
            let _echo = serve_echo(&mesh.server, APP_PORT)?;
            let _first = opened(&mesh.client, &mesh.server)?;
            assert_eq!(tunnels(&mesh)?, 1);
            // How fast they come is the machine's: a span in which it was held up is not one of very many.
            let shared = || burst(&mesh).is_ok() && tunnels(&mesh).is_ok_and(|open| open > 1);
            within(PATIENCE, "there is a tunnel for each worker", shared)?;
            burst(&mesh)?;
            burst(&mesh)?;
            assert_eq!(tunnels(&mesh)?, 2);
            Ok(())
        }),
    ]
}

/// Connects and leaves, again and again.
fn burst(mesh: &TwoNodes) -> Outcome {
    let server = at(&mesh.server, APP_PORT);
    let mut open = VecDeque::new();
    for _ in 0..BURST {
        let stream = mesh.client.run(|| TcpStream::connect(server))??;
        stream.shutdown(Shutdown::Write)?;
        open.push_back(stream);
        if open.len() > AT_ONCE
            && let Some(oldest) = open.pop_front()
        {
            ended(oldest)?;
        }
    }
    open.into_iter().try_for_each(ended)
}

/// Waits for the end of a connection that nobody says anything on.
fn ended(mut stream: TcpStream) -> Outcome {
    assert_eq!(stream.read(&mut [0])?, 0);
    Ok(())
}

fn opened(from: &Pod, to: &Pod) -> Outcome<TcpStream> {
    let mut stream = connect(from, at(to, APP_PORT))?;
    echo(&mut stream)?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> Outcome {
    stream.write_all(b"x")?;
    Ok(stream.read_exact(&mut [0])?)
}

fn tunnels(mesh: &TwoNodes) -> Outcome<u64> {
    metric(&mesh.zt_a, "istio_hbone_tunnels_open", &["source"])
}

fn streams(mesh: &TwoNodes) -> Outcome<u64> {
    metric(&mesh.zt_a, "istio_hbone_streams_open", &["source"])
}
