//! Why there is no certificate, in the words operators already know (spec identity-and-tls 1).
//!
//! These texts appear in access logs and in `/config_dump`; the ones the specification fixes must not change. This file
//! decides nothing: peers that are refused in a handshake are [`verify`](super::verify)'s affair.

use std::time::Duration;

use mesh::Identity;
use thiserror::Error;

/// Something about a key, a request or a certificate is unusable on this side of the CA.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MaterialError {
    /// The roots that came with a certificate cannot be used.
    #[error("invalid root certificate: {0}")]
    Root(String),
    /// The identity cannot be written as a URI of a certificate (only ASCII can).
    #[error("invalid uri: {0}")]
    Uri(String),
    /// The TLS library refuses the key or the certificate.
    #[error("tls: {0}")]
    Tls(String),
    /// A certificate is not X.509.
    #[error("certificate parse: {0}")]
    Parse(String),
    /// A certificate is X.509, but of no use to us.
    #[error("certificate: {0}")]
    Certificate(String),
}

/// Why a [`Signer`](super::Signer) did not sign.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignError {
    /// The CA refused, failed or was not reached: the gRPC code in words, and what came with it.
    #[error("signing gRPC error ({code}): {message}")]
    Status {
        /// Meaning of the gRPC status code, such as `The service is currently unavailable`.
        code: String,
        /// Message of the CA or of the connection to it.
        message: String,
    },
    /// The request or the answer could not be handled locally.
    #[error("failed to create CSR: {0}")]
    Material(#[from] MaterialError),
}

/// Why there is no certificate for an identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Key, request or certificate unusable on this side.
    #[error("failed to create CSR: {0}")]
    Material(#[from] MaterialError),
    /// The signer did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The CA signed for somebody else.
    #[error("did not find expected SAN: {0}")]
    SanMismatch(Identity),
    /// The CA answered without a certificate.
    #[error("chain returned from CA is empty for: {0}")]
    EmptyChain(Identity),
    /// The last workload with this identity left the node while the caller waited.
    #[error("the identity is no longer needed")]
    Forgotten,
    /// The CA took a request and did not answer it in time.
    #[error("CA did not answer within {}s; check that it is reachable and not overloaded", .0.as_secs())]
    Unanswered(Duration),
    /// The caller's own time ran out, whatever the CA may still do.
    #[error("no certificate for {identity} within {}s; requests to the CA are queued or unanswered", .after.as_secs())]
    Deadline {
        /// Whose certificate was wanted.
        identity: Identity,
        /// How long the caller waited.
        after: Duration,
    },
    /// More callers wait for this certificate than can be real.
    #[error("too many connections wait for the certificate of {0}")]
    Crowded(Identity),
    /// The signer broke down while it worked on the request.
    #[error("signing was aborted by an internal error; it will be retried")]
    Aborted,
    /// Nobody looks after certificates any more.
    #[error("certificates are no longer managed: this ztunnel is stopping")]
    Stopped,
}
