//! How a connection was carried and closed, besides what its record says: who ended first, what its TLS agreed on, and
//! for one that failed or lasted long the state of its sockets, as the kernel has it.
//!
//! Sockets are looked at when a connection ends, once, and only if it is one that somebody will ask about
//! ([`Config::slow`](super::Config)); all others cost no system call here.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mesh::End;

/// What is known of how a connection was carried and closed. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Closing {
    /// The app that ended first; none if neither had ended when the connection was cut.
    pub closed_first: Option<End>,
    /// The key exchange group of the tunnel's TLS.
    pub tls_group: Option<Arc<str>>,
    /// The app's socket.
    pub app: Option<Path>,
    /// The socket towards the peer: of the tunnel, which may carry others as well.
    pub peer: Option<Path>,
}

/// What carries a connection that is about to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carriers<'a> {
    /// The app's socket.
    pub app: Option<BorrowedFd<'a>>,
    /// The socket towards the peer.
    pub peer: Option<BorrowedFd<'a>>,
    /// The key exchange group of the tunnel's TLS.
    pub tls_group: Option<&'a Arc<str>>,
}

/// The way to the other end of a socket, as its TCP knows it (`TCP_INFO`, tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Segments sent again since the socket was connected.
    pub retransmits: u32,
}

impl Path {
    /// Asks the kernel about a TCP socket, connected or not any more.
    ///
    /// # Errors
    /// The kernel's; that the socket is not one of TCP.
    #[allow(unsafe_code, reason = "TCP_INFO has no safe wrapper in socket2 or rustix")]
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes no more than `length` bytes, which
        // is the size of what the pointer leads to, and reads and writes `length` itself.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the structure is made of integers, and what the kernel has not written is zero.
        let info = unsafe { info.assume_init() };
        Ok(Self { round_trip: Duration::from_micros(u64::from(info.tcpi_rtt)), retransmits: info.tcpi_total_retrans })
    }
}

impl Carriers<'_> {
    /// The ways to both ends.
    pub(super) fn paths(&self) -> [Option<Path>; 2] {
        [self.app, self.peer].map(|socket| Path::of(socket?).ok())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_kernel_knows_the_round_trip_of_a_connection_that_was_used_and_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let path = Path::of(client.as_fd()).unwrap();
        assert!(path.round_trip > Duration::ZERO, "{path:?}");
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        assert!(client.read(&mut [0]).is_err());
        assert!(Path::of(client.as_fd()).unwrap().round_trip > Duration::ZERO);
    }

    #[test]
    fn what_is_no_tcp_has_no_path() {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Path::of(datagrams.as_fd()).is_err());
    }
}
