//! HTTP/2 as far as CONNECT tunnels need it (RFC 9113), both roles, as a state machine.
//!
//! Bytes and time go in, bytes, [`Event`]s and one deadline come out; see [`Connection`]. Invariants: no I/O, no clock,
//! no randomness, no lock; nothing a peer sends panics, and all memory is bounded by [`crate::limits`]. DATA payload is
//! never copied and never gathered: what arrives is reported as ranges of the caller's buffer, what leaves is laid out
//! by the caller behind a head from [`Connection::data_header`].
//!
//! Deliberately absent: push, priorities, upgrades, extended CONNECT, and everything about HTTP beyond one request and
//! one response head per stream.

mod allowance;
mod budget;
mod connection;
mod event;
pub mod frame;
pub mod hpack;
mod message;
mod stream;
mod window;

pub use allowance::Allowance;
pub use connection::{Connection, Role};
pub use event::{Event, ResetBy};
pub use message::{Header, Headers, Request, Response};
pub use stream::{End, StreamId};

pub use crate::limits::Config;

/// Octets in front of every frame (RFC 9113 §4.1).
pub const FRAME_HEADER: usize = frame::HEAD_LEN;
