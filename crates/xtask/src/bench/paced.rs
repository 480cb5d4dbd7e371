//! Requests at a steady rate, and how long each took: what apps notice of whatever else a ztunnel does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testkit::apps::connect;
use testkit::mesh::Pod;

use super::Outcome;

/// Connections on which requests are made, one at a time on each.
const CLIENTS: u32 = 8;
/// Between the requests of a connection: together a load that leaves the machine room for what is beside it.
const BETWEEN: Duration = Duration::from_millis(4);

/// Seconds of requests on kept connections to an echo, sorted. A request that begins late is late from when it was due.
pub(super) fn requests(from: &Pod, to: SocketAddr, time: Duration) -> Outcome<Vec<f64>> {
    let client = |stream: TcpStream| -> std::io::Result<Vec<f64>> {
        let (mut stream, start) = (stream, Instant::now());
        let (mut all, mut due, mut answer) = (Vec::new(), Duration::ZERO, [0; 64]);
        while start.elapsed() < time {
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            stream.write_all(&[b'x'; 64])?;
            stream.read_exact(&mut answer)?;
            all.push((start.elapsed() - due).as_secs_f64());
            due += BETWEEN;
        }
        Ok(all)
    };
    let streams = (0..CLIENTS).map(|_| connect(from, to)).collect::<Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || client(stream))).collect();
        for client in running {
            all.extend(client.join().map_err(|_| "a client panicked")??);
        }
        Outcome::Ok(())
    })?;
    all.sort_by(f64::total_cmp);
    Ok(all)
}
