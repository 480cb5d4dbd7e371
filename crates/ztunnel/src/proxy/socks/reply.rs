//! What a client is told of its request (RFC 1928 §6).

use std::io::ErrorKind;

use mesh::Cause;
use mesh::cause::{Side, Stage};

use super::negotiation::VERSION;

/// The code of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Reply {
    /// The connection is there.
    Succeeded = 0,
    /// It is not, for a reason of ours.
    Failure = 1,
    /// It is not allowed.
    NotAllowed = 2,
    /// No way leads to the network.
    NetworkUnreachable = 3,
    /// The host does not answer, or its name is not known.
    HostUnreachable = 4,
    /// The host refuses.
    Refused = 5,
    /// Only CONNECT is offered.
    CommandNotSupported = 7,
    /// There is no such type of address.
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// The message. The address that it could tell is left empty: the client cannot do anything with it.
    pub(super) fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }

    /// What to tell of a connection that did not come about: by the error of the last dial if that was it, by the reason
    /// that the peer gave, or by where it came to an end.
    pub(in crate::proxy) fn to(cause: Cause, kind: Option<ErrorKind>, peer_reason: Option<&str>) -> Self {
        if let Some(kind) = kind {
            return Self::to_dial(kind);
        }
        let given = peer_reason.and_then(|reason| Cause::ALL.iter().find(|cause| cause.meaning().code == reason));
        let cause = *given.unwrap_or(&cause);
        let meaning = cause.meaning();
        match (cause, meaning.stage, meaning.side) {
            (Cause::Recursion, ..) | (_, Stage::Authorize, _) => Self::NotAllowed,
            (Cause::AppUnreachable, ..) => Self::Refused,
            (Cause::DialTimedOut, ..) => Self::HostUnreachable,
            (Cause::UnknownGateway, ..) => Self::NetworkUnreachable,
            (Cause::UnknownLocalWorkload, ..) => Self::Failure,
            (_, Stage::Route | Stage::Dns, _) | (_, Stage::Tls | Stage::Http2 | Stage::Connect, Side::Peer) => {
                Self::HostUnreachable
            }
            _ => Self::Failure,
        }
    }

    fn to_dial(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::NetworkUnreachable => Self::NetworkUnreachable,
            ErrorKind::HostUnreachable | ErrorKind::TimedOut => Self::HostUnreachable,
            ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_says_why_as_exactly_as_it_is_known() {
        let by = |cause| Reply::to(cause, None, None);
        assert_eq!(by(Cause::Recursion), Reply::NotAllowed);
        assert_eq!(by(Cause::NoHealthyUpstream), Reply::HostUnreachable);
        assert_eq!(by(Cause::UnknownName), Reply::HostUnreachable);
        assert_eq!(by(Cause::UnknownGateway), Reply::NetworkUnreachable);
        assert_eq!(by(Cause::TlsHandshake), Reply::HostUnreachable);
        assert_eq!(by(Cause::NoCertificate), Reply::Failure, "that is our own affair");
        assert_eq!(by(Cause::UnknownLocalWorkload), Reply::Failure);
        let dial = |kind| Reply::to(Cause::DialFailed, Some(kind), None);
        assert_eq!(dial(ErrorKind::ConnectionRefused), Reply::Refused);
        assert_eq!(dial(ErrorKind::NetworkUnreachable), Reply::NetworkUnreachable);
        assert_eq!(dial(ErrorKind::TimedOut), Reply::HostUnreachable);
        assert_eq!(dial(ErrorKind::OutOfMemory), Reply::Failure);
    }

    #[test]
    fn what_the_far_side_says_goes_before_that_it_refused() {
        let said = |reason| Reply::to(Cause::PeerRefused, None, Some(reason));
        assert_eq!(said("denied"), Reply::NotAllowed);
        assert_eq!(said("app-unreachable"), Reply::Refused);
        assert_eq!(said("something-new"), Reply::HostUnreachable);
        assert_eq!(Reply::to(Cause::PeerRefused, None, None), Reply::HostUnreachable);
    }

    #[test]
    fn a_reply_tells_no_address() {
        assert_eq!(Reply::Succeeded.bytes(), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reply::AddressTypeNotSupported.bytes(), [5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
