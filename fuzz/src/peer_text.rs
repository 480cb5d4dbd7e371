//! Texts in the headers of a request or its answer, and identities.

use mesh::connect::{baggage, forwarded};
use mesh::{Authority, Identity, NetworkAddress, Traceparent};

/// Hands the same bytes to everything that reads a peer's text.
pub fn peer_text(data: &[u8]) {
    let _ = baggage::parse(data.split(|byte| *byte == b'\n'));
    if let Some(trace) = Traceparent::parse(data) {
        let again = Traceparent::parse(trace.to_string().as_bytes());
        assert_eq!(again.map(|again| again.to_string()), Some(trace.to_string()));
    }
    let _ = forwarded::host(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(authority) = text.parse::<Authority>() {
        assert_eq!(authority.to_string().parse().ok(), Some(authority));
    }
    if let Ok(identity) = text.parse::<Identity>() {
        let again = identity.to_string().parse::<Identity>();
        assert_eq!(again.ok().map(|again| again.to_string()), Some(identity.to_string()));
    }
    if let Ok(address) = text.parse::<NetworkAddress>() {
        assert_eq!(address.to_string().parse().ok(), Some(address));
    }
}
