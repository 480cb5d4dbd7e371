//! The PROXY protocol version 2 header, written to apps that take tunnelled connections behind one (spec data-plane
//! 6.6; the HAProxy PROXY protocol specification §2.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::identity::Identity;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// Family and transport: a stream over IPv4.
const STREAM_V4: u8 = 0x11;
/// Family and transport: a stream over IPv6.
const STREAM_V6: u8 = 0x21;
/// The TLV that tells the peer's identity; of the range that the protocol leaves to applications.
const TLV_IDENTITY: u8 = 0xd0;

/// What the app is told about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The peer of the tunnel.
    pub source: SocketAddr,
    /// The address that was asked for.
    pub destination: SocketAddr,
    /// The peer's identity.
    pub identity: Option<Identity>,
}

impl ProxyHeader {
    /// The header's bytes.
    ///
    /// Addresses of different families are both written as IPv6, the IPv4 one mapped, so that neither is lost.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        let family = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                body.extend(source.octets());
                body.extend(destination.octets());
                STREAM_V4
            }
            (source, destination) => {
                body.extend(v6(source).octets());
                body.extend(v6(destination).octets());
                STREAM_V6
            }
        };
        body.extend(self.source.port().to_be_bytes());
        body.extend(self.destination.port().to_be_bytes());
        if let Some(identity) = &self.identity {
            let text = identity.to_string();
            // Certificates are far smaller than this; a text that does not fit could only be cut, so it is left out.
            const ROOM: usize = u16::MAX as usize - 36 - 3;
            if let Ok(length) = u16::try_from(text.len())
                && text.len() <= ROOM
            {
                body.push(TLV_IDENTITY);
                body.extend(length.to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
        let length = u16::try_from(body.len()).expect("addresses and a bounded identity fit in 16 bits");
        let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
        header.extend(SIGNATURE);
        header.extend([VERSION_AND_COMMAND, family]);
        header.extend(length.to_be_bytes());
        header.append(&mut body);
        header
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str, identity: Option<&str>) -> Vec<u8> {
        let identity = identity.map(|text| text.parse().unwrap());
        ProxyHeader { source: source.parse().unwrap(), destination: destination.parse().unwrap(), identity }.encode()
    }

    /// The fixed part, with the length of the rest.
    fn fixed(family: u8, length: u8) -> Vec<u8> {
        [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family, 0, length]].concat()
    }

    #[test]
    fn two_ipv4_addresses() {
        let expected = [&fixed(0x11, 12)[..], &[10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80]].concat();
        assert_eq!(header("10.0.0.1:40000", "10.0.0.2:80", None), expected);
    }

    #[test]
    fn two_ipv6_addresses() {
        let written = header("[fd00::1]:1", "[fd00::2]:2", None);
        assert_eq!(written[..16], fixed(0x21, 36));
        assert_eq!((written[16], written[31], written[32], written[47]), (0xfd, 1, 0xfd, 2));
        assert_eq!(written[48..], [0, 1, 0, 2]);
    }

    #[test]
    fn mixed_families_are_written_as_ipv6() {
        let written = header("10.0.0.1:1", "[fd00::2]:2", None);
        assert_eq!(written[..16], fixed(0x21, 36));
        assert_eq!(written[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    }

    #[test]
    fn the_identity_follows_the_addresses() {
        let text = "spiffe://td/ns/a/sa/b";
        let written = header("10.0.0.1:1", "10.0.0.2:2", Some(text));
        assert_eq!(written[..16], fixed(0x11, 12 + 3 + 21));
        assert_eq!(written[28..31], [0xd0, 0, 21]);
        assert_eq!(&written[31..], text.as_bytes());
    }

    #[test]
    fn an_identity_that_does_not_fit_is_left_out() {
        let text = format!("spiffe://td/ns/a/sa/{}", "b".repeat(70_000));
        assert_eq!(header("10.0.0.1:1", "10.0.0.2:2", Some(&text)), header("10.0.0.1:1", "10.0.0.2:2", None));
        // The length of all that follows the fixed part is a number of 16 bits: two addresses, two ports, and the rest.
        let longest = usize::from(u16::MAX) - (16 + 16 + 2 + 2) - 3;
        let of_length = |length: usize| format!("{:b<length$}", "spiffe://td/ns/a/sa/");
        let full = header("[fd00::1]:1", "[fd00::2]:2", Some(&of_length(longest)));
        assert_eq!((full.len(), full[14], full[15]), (16 + usize::from(u16::MAX), 0xff, 0xff));
        let more = header("[fd00::1]:1", "[fd00::2]:2", Some(&of_length(longest + 1)));
        assert_eq!(more, header("[fd00::1]:1", "[fd00::2]:2", None));
    }
}
