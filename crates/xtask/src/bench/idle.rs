//! What proxies keep in memory for what is open and does nothing, measured on processes started for it.
//!
//! What is made once, on first use, is made by a few connections before and does not count.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::apps::connect;
use testkit::mesh::Pod;

use super::contender::{Contender, REFERENCE, Stage, Standing};
use super::load::Load;
use super::measure::Spread;
use super::process::{peak_kib, resident_kib};
use super::table::{Table, bars, figure};
use super::{Outcome, row::Row};

/// Where the server of idle connections listens.
const PORT: u16 = 9000;
/// Connections before the first look.
const WARM_UP: usize = 50;
const CONNECTIONS: usize = 2000;
const TUNNELS: usize = 500;
/// What every idle connection has moved, each way.
const MOVED: usize = 64 * 1024;
/// After this, whatever is given back after use has been given back.
const SETTLE: Duration = Duration::from_secs(5);
/// Length of the bulk run, in seconds each way.
const BULK_SECONDS: u32 = 3;

/// KiB of the two processes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    near: f64,
    far: f64,
}

impl Memory {
    fn of(party: &Standing, kib: fn(u32) -> Outcome<f64>) -> Outcome<Self> {
        let (near, far) = party.near_pid().zip(party.far_pid()).ok_or("only pairs of proxies keep anything")?;
        Ok(Self { near: kib(near)?, far: kib(far)? })
    }

    fn each(self, before: Memory, count: usize) -> Self {
        let count = count.max(1) as f64;
        Self { near: (self.near - before.near) / count, far: (self.far - before.far) / count }
    }
}

/// Resident KiB for each of [`CONNECTIONS`] connections that have moved [`MOVED`] bytes each way.
pub(super) fn connections(stage: &Stage, contender: &Contender) -> Outcome<[f64; 2]> {
    let party = stage.party(contender.near)?;
    let listener = listen(&party.server)?;
    let _open = exchange(party, &listener, WARM_UP, MOVED)?;
    sleep(SETTLE);
    let before = Memory::of(party, resident_kib)?;
    let _idle = exchange(party, &listener, CONNECTIONS, MOVED)?;
    sleep(SETTLE);
    let each = Memory::of(party, resident_kib)?.each(before, CONNECTIONS);
    Ok([each.near, each.far])
}

/// Resident KiB for each of [`TUNNELS`] tunnels whose one connection has ended; the stage must have one per tunnel.
pub(super) fn tunnels(stage: &Stage, contender: &Contender) -> Outcome<[f64; 2]> {
    let party = stage.party(contender.near)?;
    let listener = listen(&party.server)?;
    drop(exchange(party, &listener, WARM_UP, 1)?);
    sleep(SETTLE);
    let (before, there) = (Memory::of(party, resident_kib)?, open_tunnels(&party.client)?);
    drop(exchange(party, &listener, there + TUNNELS, 1)?);
    sleep(SETTLE);
    let count = open_tunnels(&party.client)?.saturating_sub(there);
    if count < TUNNELS / 2 {
        return Err(format!("of {TUNNELS} tunnels only {count} are still open").into());
    }
    let each = Memory::of(party, resident_kib)?.each(before, count);
    Ok([each.near, each.far])
}

/// Resident KiB before, at the peak and after eight streams each way, of both processes.
pub(super) fn bulk(stage: &Stage, contender: &Contender) -> Outcome<[f64; 6]> {
    let party = stage.party(contender.near)?;
    let listener = listen(&party.server)?;
    drop(exchange(party, &listener, WARM_UP, 1)?);
    sleep(SETTLE);
    let before = Memory::of(party, resident_kib)?;
    for load in [Load::Upload { streams: 8 }, Load::Download { streams: 8 }] {
        load.run(&party.client, &party.server, BULK_SECONDS)?;
    }
    let peak = Memory::of(party, peak_kib)?;
    sleep(SETTLE);
    let after = Memory::of(party, resident_kib)?;
    Ok([before.near, peak.near, after.near, before.far, peak.far, after.far])
}

fn listen(pod: &Pod) -> Outcome<TcpListener> {
    Ok(pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))??)
}

/// Both ends of `count` connections that have moved `bytes` each way.
fn exchange(party: &Standing, listener: &TcpListener, count: usize, bytes: usize) -> Outcome<Vec<[TcpStream; 2]>> {
    let (sent, mut received) = (vec![b'x'; bytes], vec![0; bytes]);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = connect(&party.client, SocketAddr::new(party.server.ip(), PORT))?;
        client.write_all(&sent)?;
        let (mut server, _) = listener.accept()?;
        server.read_exact(&mut received)?;
        server.write_all(&sent)?;
        client.read_exact(&mut received)?;
        open.push([client, server]);
    }
    Ok(open)
}

/// Established connections from a pod to port 15008 of others.
fn open_tunnels(pod: &Pod) -> Outcome<usize> {
    let table = pod.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
    // Columns: number, local address, remote address, state; 3AA0 is 15008, 01 is "established".
    let is_tunnel = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|remote| remote.ends_with(":3AA0")) && columns.next() == Some("01")
    };
    Ok(table.lines().filter(is_tunnel).count())
}

/// A contender and its figures, round by round.
pub(super) type Rounds<const N: usize> = (&'static str, Vec<[f64; N]>);

/// Whether a table has ratios to the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ratios {
    Shown,
    Left,
}

/// Rounds of figures by contender, as a table.
pub(super) fn table<const N: usize>(row: &Row, columns: [&str; N], ratios: Ratios, all: &[Rounds<N>]) -> Table {
    let middle = |rounds: &[[f64; N]], column: usize| Spread::of(rounds.iter().map(|round| round[column])).median;
    let reference = all.iter().find(|(name, _)| *name == REFERENCE && ratios == Ratios::Shown);
    let mut header = vec![String::new()];
    header.extend(columns.iter().map(|column| format!("{column}, KiB")));
    if ratios == Ratios::Shown {
        header.extend(columns.iter().map(|column| format!("{column} ÷ {REFERENCE}")));
    }
    let mut lines = Vec::new();
    let mut json: Vec<Value> = Vec::new();
    for (name, rounds) in all {
        let figures: Vec<f64> = (0..N).map(|column| middle(rounds, column)).collect();
        let over = (0..N).map(|column| reference.map(|(_, others)| figures[column] / middle(others, column)));
        let mut line = vec![(*name).to_owned()];
        line.extend(figures.iter().map(|value| figure(*value)));
        if ratios == Ratios::Shown {
            line.extend(over.map(|ratio| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))));
        }
        lines.push(line);
        let named: serde_json::Map<String, Value> =
            columns.iter().zip(&figures).map(|(column, value)| ((*column).to_owned(), json!(value))).collect();
        json.push(json!({ "contender": name, "kib": named }));
    }
    Table {
        row: row.name,
        congestion: None,
        title: format!("{}: {}", row.name, row.says),
        columns: header,
        lines,
        json: json!({ "contenders": json }),
        plot: bars(columns, all),
    }
}
