//! HBONE as a state machine: HTTP/2 CONNECT inside mutual TLS. No sockets, no clock, no runtime.
//!
//! A [`Tunnel`] is one end of a connection between two proxies. Bytes and time go in; bytes, [`Event`](h2::Event)s and
//! a deadline come out. The parts: [`tls`] seals and opens records, [`h2`] knows frames, streams and windows,
//! [`buffer`] holds bytes in passing, [`limits`] names every bound and [`error`] every fault.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod error;
pub mod h2;
pub mod limits;
pub mod tls;
mod tunnel;

pub use buffer::{BATCH, Inbox, Outbox};
pub use tunnel::{HANDSHAKE_TIMEOUT, Tunnel, TunnelError};
