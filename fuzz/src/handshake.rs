//! Bytes instead of, or in the middle of, a TLS handshake.

use std::time::Instant;

use hbone::limits::Config;

use crate::choices::{Bytes, Choices};
use crate::end::EndPoint;

/// Flights of a handshake after which the bytes may come.
const FLIGHTS: usize = 3;

/// A tunnel's end that is given so much of a real handshake, and then these bytes.
pub fn handshake(data: &[u8]) {
    let mut bytes = Bytes(data);
    let now = Instant::now();
    let mut ends = [EndPoint::client(Config::client(), now), EndPoint::server(Config::server(), now)];
    let victim = bytes.below(2);
    let flights = bytes.below(FLIGHTS + 1);
    for flight in 0..flights {
        let (from, to) = (flight % 2, 1 - flight % 2);
        let said = ends[from].give();
        let cut = if flight + 1 == flights && to == victim { bytes.below(1 << 12).min(said.len()) } else { 0 };
        ends[to].take(now, &said[..said.len() - cut], &mut |_, _| {}).expect("nothing is wrong yet");
    }
    while !bytes.0.is_empty() {
        let len = 1 + bytes.below(1 << 12);
        if ends[victim].take(now, bytes.take(len), &mut |_, _| {}).is_err() {
            ends[victim].give();
            return;
        }
        ends[victim].give();
    }
}
