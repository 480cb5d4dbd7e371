//! How a tunnel ends before its time, and what that means to the connections that it carries.

use std::fmt;
use std::io;

use hbone::TunnelError;
use mesh::{Cause, Fault};

use super::transport::Transport;
use crate::proxy::outbound::Failure;

/// How a tunnel ended.
#[derive(Debug)]
pub(in crate::proxy) enum Ended {
    /// In order.
    Clean,
    /// Before the handshake was complete.
    Handshake(TunnelFailure),
    /// Later.
    Failed(TunnelFailure),
}

/// What ended a tunnel before its time.
#[derive(Debug)]
pub(in crate::proxy) enum TunnelFailure {
    /// The TLS or HTTP/2 machine gave up.
    Machine(TunnelError),
    /// The socket failed.
    Socket(io::Error),
    /// The peer closed the connection without saying goodbye to its streams.
    PeerClosed,
    /// The tunnel that this one runs in does not carry it, or not any more.
    Carrier(Failure),
    /// The peer's certificate has been revoked.
    Revoked,
    /// We were told to end now.
    Aborted,
}

/// How far a tunnel had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its handshake was not complete.
    Greeting,
    /// It was.
    Established,
}

impl TunnelFailure {
    /// What it means to the tunnel's connections; `None` if they were cut by a drain.
    pub(super) fn told(&self, progress: Progress, carrier: &Transport) -> Option<Failure> {
        let (fault, cause) = match (self, progress) {
            (Self::Aborted, _) => return None,
            (Self::Carrier(failure), _) => return Some(failure.clone()),
            (Self::Revoked, _) => return Some(Failure::new(Fault::Unreachable, Cause::Revoked, self.to_string())),
            (Self::Machine(TunnelError::HandshakeTimeout), _) if carrier.is_pending() => {
                let error = "io error: the network gateway did not answer in time".to_owned();
                return Some(Failure::new(Fault::TimedOut, Cause::GatewayLost, error));
            }
            (Self::Machine(TunnelError::HandshakeTimeout), _) => (Fault::TimedOut, Cause::TlsHandshake),
            (Self::Machine(TunnelError::Tls(_)), Progress::Greeting) => (Fault::Unreachable, Cause::TlsHandshake),
            (Self::Machine(TunnelError::Http2(_)), Progress::Established) => (Fault::Unreachable, Cause::Http2),
            (Self::Machine(_) | Self::Socket(_) | Self::PeerClosed, _) => (Fault::Unreachable, Cause::TunnelLost),
        };
        Some(Failure::new(fault, cause, format!("io error: {self}")))
    }
}

impl fmt::Display for TunnelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(e) => write!(f, "{e}"),
            Self::Socket(e) => write!(f, "{e}"),
            Self::PeerClosed => f.write_str("peer closed the connection"),
            Self::Carrier(failure) => f.write_str(&failure.error),
            Self::Revoked => f.write_str("connection closed: peer certificate revoked by CRL"),
            Self::Aborted => f.write_str("connection closed due to connection drain"),
        }
    }
}
