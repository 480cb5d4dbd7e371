//! What a client says before its own bytes begin (RFC 1928 §3 to §5).
//!
//! The machine asks for exactly as many bytes as are certain to belong to it. Whoever moves the bytes bounds the time;
//! the size is bounded by the protocol, 516 bytes in all.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh::canonical;

use super::reply::Reply;

/// Version of the protocol.
pub(super) const VERSION: u8 = 5;
/// The only method that is known: no authentication.
const NO_AUTHENTICATION: u8 = 0;
/// The answer to methods none of which will do.
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
/// The only command that is known.
const CONNECT: u8 = 1;
/// Types of addresses.
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;
/// The most that is asked for at once: a list of methods, or a name with its port.
pub(super) const MOST: usize = 257;

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// An address, canonical.
    Address(SocketAddr),
    /// A name, to be resolved.
    Name(String, u16),
}

/// What follows from bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// [`Negotiation::wants`] says what comes next.
    More,
    /// Say this, then go on.
    Say([u8; 2]),
    /// The request is complete.
    Done(Target),
}

/// A client that does not keep to the protocol, or asks for what is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("version {0}, where 5 was expected")]
    Version(u8),
    #[error("version {0} in the request, where 5 was expected")]
    RequestVersion(u8),
    #[error("no authentication methods")]
    NoMethods,
    #[error("no acceptable authentication method: only \"no authentication\" is offered")]
    NoAcceptableMethod,
    #[error("unsupported command {0}: only CONNECT is offered")]
    Command(u8),
    #[error("unsupported address type {0}")]
    AddressType(u8),
    #[error("the host name is empty or not UTF-8")]
    Name,
}

impl Violation {
    /// What the client is told before its connection is closed. Who speaks another protocol is told nothing.
    pub(super) fn answer(self) -> Vec<u8> {
        match self {
            Self::Version(_) => Vec::new(),
            Self::NoMethods | Self::NoAcceptableMethod => vec![VERSION, NO_ACCEPTABLE_METHOD],
            Self::Command(_) => Reply::CommandNotSupported.bytes().to_vec(),
            Self::AddressType(_) => Reply::AddressTypeNotSupported.bytes().to_vec(),
            Self::RequestVersion(_) | Self::Name => Reply::Failure.bytes().to_vec(),
        }
    }
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Negotiation(Stage);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Version and number of methods.
    Greeting,
    Methods(usize),
    /// Version, command, nothing, type of the address.
    Request,
    NameLength,
    /// An address of this type, or a name of this length, and a port.
    Address(u8),
    Name(usize),
}

impl Negotiation {
    pub(super) fn new() -> Self {
        Self(Stage::Greeting)
    }

    /// How many bytes to hand to [`take`](Self::take) next, at most [`MOST`].
    pub(super) fn wants(&self) -> usize {
        match self.0 {
            Stage::Greeting => 2,
            Stage::Methods(count) => count,
            Stage::Request => 4,
            Stage::NameLength => 1,
            Stage::Address(IPV4) => 4 + 2,
            Stage::Address(_) => 16 + 2,
            Stage::Name(length) => length + 2,
        }
    }

    /// Takes the bytes that were wanted.
    ///
    /// # Errors
    /// [`Violation`]; so is less than was wanted.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        let (stage, step) = match (self.0, bytes) {
            (Stage::Greeting, [VERSION, 0]) => return Err(Violation::NoMethods),
            (Stage::Greeting, [VERSION, count]) => (Stage::Methods(usize::from(*count)), Step::More),
            (Stage::Greeting, other) => return Err(Violation::Version(other.first().copied().unwrap_or(0))),
            (Stage::Methods(_), methods) if methods.contains(&NO_AUTHENTICATION) => {
                (Stage::Request, Step::Say([VERSION, NO_AUTHENTICATION]))
            }
            (Stage::Methods(_), _) => return Err(Violation::NoAcceptableMethod),
            (Stage::Request, [VERSION, CONNECT, _, DOMAIN]) => (Stage::NameLength, Step::More),
            (Stage::Request, [VERSION, CONNECT, _, kind @ (IPV4 | IPV6)]) => (Stage::Address(*kind), Step::More),
            (Stage::Request, [VERSION, CONNECT, _, kind]) => return Err(Violation::AddressType(*kind)),
            (Stage::Request, [VERSION, command, ..]) => return Err(Violation::Command(*command)),
            (Stage::Request, other) => {
                return Err(Violation::RequestVersion(other.first().copied().unwrap_or(0)));
            }
            (Stage::NameLength, [length]) if *length > 0 => (Stage::Name(usize::from(*length)), Step::More),
            (Stage::NameLength, _) => return Err(Violation::Name),
            (Stage::Address(kind), bytes) => {
                let target = address(bytes).ok_or(Violation::AddressType(kind))?;
                (Stage::Greeting, Step::Done(Target::Address(target)))
            }
            (Stage::Name(_), bytes) => (Stage::Greeting, Step::Done(name(bytes).ok_or(Violation::Name)?)),
        };
        self.0 = stage;
        Ok(step)
    }
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
    };
    Some(canonical(SocketAddr::new(ip, u16::from_be_bytes(*port))))
}

/// A name; what is an address in text form is that address.
fn name(bytes: &[u8]) -> Option<Target> {
    let (name, port) = bytes.split_last_chunk::<2>()?;
    let (name, port) = (std::str::from_utf8(name).ok()?, u16::from_be_bytes(*port));
    Some(match name.parse::<IpAddr>() {
        Ok(ip) => Target::Address(canonical(SocketAddr::new(ip, port))),
        Err(_) => Target::Name(name.to_owned(), port),
    })
}

#[cfg(test)]
mod tests;
