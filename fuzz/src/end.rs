//! One end of a tunnel with its buffers: the only file here that knows how a [`Tunnel`] is driven.

use std::time::Instant;

use hbone::h2::{Event, StreamId};
use hbone::limits::Config;
use hbone::{Inbox, Outbox, Tunnel, TunnelError};

use crate::pki::pki;

/// A tunnel and what it needs.
pub struct EndPoint {
    pub tunnel: Tunnel,
    inbox: Inbox,
    pub outbox: Outbox,
}

impl EndPoint {
    pub fn client(config: Config, now: Instant) -> Self {
        let tunnel = Tunnel::client(pki().client.clone(), config, now).expect("the configuration is valid");
        Self { tunnel, inbox: Inbox::default(), outbox: Outbox::default() }
    }

    pub fn server(config: Config, now: Instant) -> Self {
        let tunnel = Tunnel::server(pki().server.clone(), config, now).expect("the configuration is valid");
        Self { tunnel, inbox: Inbox::default(), outbox: Outbox::default() }
    }

    /// Takes all of `bytes`; tells what they meant, payload included.
    pub fn take(
        &mut self,
        now: Instant,
        mut bytes: &[u8],
        seen: &mut dyn FnMut(&Event, &[u8]),
    ) -> Result<(), TunnelError> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            self.tunnel.prepare(&mut self.inbox);
            let room = self.inbox.room();
            let (piece, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..piece.len()].copy_from_slice(piece);
            self.inbox.fill(piece.len());
            bytes = rest;
            let outcome = self.tunnel.receive(now, &mut self.inbox, &mut events);
            for event in events.drain(..) {
                match &event {
                    Event::Data { range, .. } => seen(&event, self.inbox.payload(range.clone())),
                    _ => seen(&event, &[]),
                }
            }
            outcome?;
        }
        Ok(())
    }

    /// Everything it has to say; after an error as well.
    pub fn give(&mut self) -> Vec<u8> {
        // An error here comes after one that has been seen.
        let _ = self.tunnel.seal(&mut self.outbox);
        let bytes = self.outbox.unsent().to_vec();
        self.outbox.advance(bytes.len());
        bytes
    }

    /// Lays out at most `limit` bytes, of which `byte` makes each from its place; returns how many.
    pub fn send(&mut self, id: StreamId, limit: usize, byte: &dyn Fn(usize) -> u8) -> usize {
        let sent = self.tunnel.send_data(id, limit, &mut self.outbox, |places| {
            let mut filled = 0;
            for place in places {
                for slot in place.iter_mut().take(limit - filled) {
                    *slot = byte(filled);
                    filled += 1;
                }
            }
            Ok::<_, std::convert::Infallible>(filled)
        });
        sent.map_or(0, |sent| sent.unwrap_or_else(|never| match never {}))
    }
}
