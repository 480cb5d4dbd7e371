//! The way to the control plane: one HTTP/2 connection, over TLS or a Unix socket, that carries gRPC calls.
//!
//! Discovery and the CA use it alike (spec wire-protocols 6). Roots are read at every connection and tokens at every
//! call, so that whatever is rotated counts from the next one on; every step towards a connection has a deadline. What
//! the calls mean, and when to connect again, is decided by those who use it.

pub mod address;
pub mod credentials;
mod driver;
pub mod tls;

use std::path::PathBuf;
use std::time::Duration;

use crate::crypto::Crypto;

pub use address::{Address, InvalidAddress};
pub use credentials::{Credentials, Token, TokenError};
pub use driver::{Channel, Connector};
pub use tls::{Roots, RootsError};

/// Longest that a TCP connection may take to come about (spec wire-protocols 6.1).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that TLS and HTTP/2 may take after that: a server that accepts and says nothing must not hold us.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a service of the control plane is, and how it is approached.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Address`].
    pub address: Address,
    /// Whom the server must have its certificate from; of no account on a Unix socket.
    pub roots: Roots,
    /// Another name that the server may prove.
    pub alternative_name: Option<String>,
    /// What proves who we are.
    pub credentials: Credentials,
    /// The cryptography of all TLS.
    pub crypto: Crypto,
}

/// Why there is no connection; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address did not answer.
    #[error("cannot connect to {address}: {source}; check that the control plane runs and is reachable")]
    Connect {
        /// Where to.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server is not who it should be, or does not speak TLS.
    #[error("TLS with {address}: {source}")]
    Tls {
        /// With whom.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The server does not speak HTTP/2.
    #[error("HTTP/2 with {address}: {source}")]
    Http {
        /// With whom.
        address: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{address}: {step} took longer than {}s", .after.as_secs())]
    Late {
        /// With whom.
        address: String,
        /// What was being done.
        step: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Our own part is not usable.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// Our own part is not usable.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The alternative name is no name.
    #[error("`{0}` is no host name that a certificate can prove; correct ALT_XDS_HOSTNAME or ALT_CA_HOSTNAME")]
    AlternativeName(String),
}

/// The file that a setting names, for those who watch it.
impl Config {
    /// Files whose change makes the present connection outdated.
    #[must_use]
    pub fn watched(&self) -> Option<PathBuf> {
        match (&self.address, &self.roots) {
            (Address::Tls { .. }, Roots::File(path)) => Some(path.clone()),
            _ => None,
        }
    }
}
