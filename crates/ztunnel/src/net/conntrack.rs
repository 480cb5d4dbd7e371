//! Where a redirected datagram was going: connection tracking is asked over netlink, since the socket option that tells it
//! for connections (`SO_ORIGINAL_DST`) knows nothing of UDP.
//!
//! The kernel answers within the system call that asks, so that nothing here waits. `CAP_NET_ADMIN` is needed, as it is for
//! packet marks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;

/// Larger than any answer about one connection.
const ANSWER: usize = 4096;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Subsystem `ctnetlink`, "get" and "new": the latter is what answers come as.
const CT_GET: u16 = 0x101;
const CT_NEW: u16 = 0x100;
const NESTED: u16 = 0x8000;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTO_NUM: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
/// Netlink's and netfilter's headers.
const HEADERS: usize = 20;

/// Asks about the connections of one namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// Opens a way to ask about `netns` (`None`: our own).
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(netns: Option<&Arc<Netns>>) -> io::Result<Self> {
        let open = || {
            let netfilter = Some(Protocol::from(libc::NETLINK_NETFILTER));
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.nonblocking(), netfilter)
        };
        Ok(Self(match netns {
            Some(netns) => netns.run(open)??,
            None => open()?,
        }))
    }

    /// Where the datagrams went that reach `local` from `peer`, before any packet rule; `None` if the kernel does not
    /// know of such.
    ///
    /// # Errors
    /// The kernel's, usually for want of `CAP_NET_ADMIN`.
    pub fn original_destination(&mut self, peer: SocketAddr, local: SocketAddr) -> io::Result<Option<SocketAddr>> {
        // An answer that nobody took would be mistaken for this one's.
        let mut answer = [0; ANSWER];
        while matches!(self.0.read(&mut answer), Ok(n) if n > 0) {}
        // What we would send in reply is the reply's tuple.
        self.0.write_all(&question(local, peer))?;
        let length = self.0.read(&mut answer)?;
        read(answer.get(..length).unwrap_or_default())
    }
}

fn question(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, kinds) = if source.is_ipv4() { (libc::AF_INET, IP_V4) } else { (libc::AF_INET6, IP_V6) };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let addresses =
        [attribute(kinds[0], &octets(source.ip())), attribute(kinds[1], &octets(destination.ip()))].concat();
    let ports = [source.port(), destination.port()].map(u16::to_be_bytes);
    let protocol = [
        attribute(PROTO_NUM, &[libc::IPPROTO_UDP as u8]),
        attribute(PROTO_PORTS[0], &ports[0]),
        attribute(PROTO_PORTS[1], &ports[1]),
    ]
    .concat();
    let tuple = [attribute(TUPLE_IP | NESTED, &addresses), attribute(TUPLE_PROTO | NESTED, &protocol)].concat();
    let tuple = attribute(TUPLE_REPLY | NESTED, &tuple);
    let mut message = Vec::with_capacity(HEADERS + tuple.len());
    message.extend(u32::try_from(HEADERS + tuple.len()).unwrap_or(0).to_ne_bytes());
    message.extend(CT_GET.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: there is one question at a time
    message.extend([family as u8, 0, 0, 0]);
    message.extend(tuple);
    message
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + payload.len();
    let mut attribute = Vec::with_capacity(length.next_multiple_of(4));
    attribute.extend(u16::try_from(length).unwrap_or(0).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(payload);
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

fn read(message: &[u8]) -> io::Result<Option<SocketAddr>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "connection tracking gave an answer that is cut off");
    let kind = message.get(4..6).and_then(|b| Some(u16::from_ne_bytes(b.try_into().ok()?))).ok_or_else(short)?;
    match kind {
        CT_NEW => Ok(message.get(HEADERS..).and_then(destination)),
        NLMSG_ERROR => {
            let code = message.get(16..20).and_then(|b| Some(i32::from_ne_bytes(b.try_into().ok()?)));
            match -code.ok_or_else(short)? {
                libc::ENOENT | 0 => Ok(None),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
        _ => Ok(None),
    }
}

/// The destination of the original direction.
fn destination(attributes: &[u8]) -> Option<SocketAddr> {
    let tuple = find(attributes, TUPLE_ORIG)?;
    let (addresses, protocol) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTO)?);
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(find(addresses, IP_V4[1])?).ok()?));
    let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, IP_V6[1])?).ok()?));
    let port = u16::from_be_bytes(find(protocol, PROTO_PORTS[1])?.try_into().ok()?);
    Some(SocketAddr::new(v4().or_else(v6)?, port))
}

/// The payload of the first attribute of that kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let payload = attributes.get(4..length)?;
        if found == kind {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_what_is_cut_off_is_refused_or_says_nothing() {
        let (source, destination): (SocketAddr, SocketAddr) =
            ("10.1.0.1:4242".parse().unwrap(), "10.96.0.10:53".parse().unwrap());
        // A question has the form of an answer, but for its type and its tuple's.
        let mut message = question(source, destination);
        message[4..6].copy_from_slice(&CT_NEW.to_ne_bytes());
        message[22..24].copy_from_slice(&(TUPLE_ORIG | NESTED).to_ne_bytes());
        assert_eq!(read(&message).unwrap(), Some(destination));
        for length in 0..message.len() {
            assert!(!matches!(read(&message[..length]), Ok(Some(_))), "{length}");
        }
        let mut error = vec![0; 36];
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&error).unwrap(), None);
        error[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&error).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
