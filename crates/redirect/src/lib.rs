//! Packet rules and routes that lead traffic to a ztunnel: those that the node agent lays into an enrolled pod ([`pod`]),
//! and those of a host whose apps share one ztunnel ([`host`]). [`own`] keeps what ztunnel itself has installed: made
//! whole or not at all, found again, and taken away exactly.
//!
//! Everything acts on the network namespace of the calling thread, by netlink; no external program is run, and tables of
//! others are never touched. That traffic is redirected says nothing about whether something listens.

pub mod host;
pub mod layout;
pub mod netlink;
pub mod nft;
pub mod own;
pub mod pod;
pub mod presence;
pub mod routes;

pub use layout::{DNS_PORT, MARK_MASK, OUTBOUND_PORT, PLAINTEXT_PORT, REPLY_MARK, TUNNEL_PORT, ZTUNNEL_MARK};

/// Whether name queries are sent to ztunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsCapture {
    /// They go where apps send them.
    #[default]
    Off,
    /// To port 15053, by UDP and by TCP.
    On,
}

/// Rules or routes could not be set or read; says what the operator can do.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Packet rules.
    #[error(transparent)]
    Rules(#[from] nft::NftError),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] routes::RouteError),
    /// The node agent was there before.
    #[error(
        "this network namespace is redirected already, by the node agent (table {table}); whoever installed that removes it"
    )]
    Taken {
        /// The table that shows it.
        table: String,
    },
}
