//! A resolver that asks one question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::PATIENCE;
use crate::mesh::Pod;

/// Longest answer that is taken.
const LONGEST: usize = 512;

/// Asks `server`, from a pod, for the IPv4 addresses of a name; none if the answer says that there are none.
///
/// # Errors
/// No answer, or none that makes sense.
pub fn resolve(from: &Pod, server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let mut query = vec![0x2a, 0x2a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).map_err(io::Error::other)??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&query)?;
    let mut answer = [0; LONGEST];
    let length = socket.recv(&mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    if answer.get(..2) != query.get(..2) || answer.get(12..query.len()) != query.get(12..) {
        return Err(io::Error::other(format!("no answer to a question about {name}")));
    }
    // The mesh's answers refer to the question's name: every record has the same length.
    let records = answer.get(query.len()..).unwrap_or_default().chunks_exact(16);
    let addresses = records.filter(|record| record.get(2..6) == Some(&[0, 1, 0, 1]));
    let address = |record: &[u8]| Some(IpAddr::from(<[u8; 4]>::try_from(record.get(12..)?).ok()?));
    Ok(addresses.filter_map(address).collect())
}
