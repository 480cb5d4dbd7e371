//! What a peer may send, tried at random.
//!
//! Each target is a function of bytes that panics when something is wrong; [`TARGETS`] names them all. `cargo test` runs
//! each over its corpus in `corpus/`, and over seeded schedules for the link; `cargo xtask fuzz` lets libFuzzer look for
//! more. Findings become files of the corpus.
//!
//! Deliberately absent: anything that a fuzzer cannot repeat; the machines under test read no clock. (Keys and nonces
//! of TLS are random all the same, which costs libFuzzer some coverage noise and nothing else.)
#![forbid(unsafe_code)]

mod agent;
mod choices;
mod end;
mod frames;
mod handshake;
mod hpack;
mod link;
mod names;
mod peer_text;
mod pki;
mod sealed;

pub use agent::agent;
pub use choices::{Bytes, Choices, Seeded};
pub use frames::frames;
pub use handshake::handshake;
pub use hpack::hpack;
pub use link::{Outcome, link, schedule};
pub use names::names;
pub use peer_text::peer_text;
pub use sealed::sealed;

/// A body under the name of its corpus and of its libFuzzer target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("frames", frames),
    ("hpack", hpack),
    ("handshake", handshake),
    ("sealed", sealed),
    ("link", link),
    ("peer_text", peer_text),
    ("names", names),
    ("agent", agent),
];
