//! What the bytes of a tunnel, or of a stream, come from and go to: a socket, or the rest of this process.
//!
//! All of it works on readiness, as tokio's sockets do; nothing here waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use mesh::{Cause, Outcome};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pair::{Broken, Half};
use crate::net::options;
use crate::proxy::outbound::Failure;

/// See the top of this file.
#[derive(Debug)]
pub(in crate::proxy) enum Transport {
    /// A connection of the kernel's.
    Socket(TcpStream),
    /// A tunnel within a stream of another: each has one half.
    Within(Half),
}

/// What comes after something that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// Nothing that is known of.
    Perhaps,
    /// More bytes or the end of the direction, right away: the kernel may wait and send it along, which saves a packet.
    Directly,
}

impl Transport {
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_read_ready(cx),
            Self::Within(half) => half.poll_readable(cx).map(Ok),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_write_ready(cx),
            Self::Within(half) => half.poll_writable(cx).map(Ok),
        }
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// `WouldBlock`, or that the connection has failed.
    pub(super) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_read(room),
            Self::Within(half) => half.read([&mut IoSliceMut::new(room)]),
        }
    }

    /// The same into several places, in order.
    ///
    /// # Errors
    /// `WouldBlock`, or that the connection has failed.
    pub(super) fn try_read_vectored(&self, places: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => {
                socket.try_io(Interest::READABLE, || rustix::io::readv(socket, places).map_err(io::Error::from))
            }
            Self::Within(half) => half.read(places),
        }
    }

    /// A read has brought less than it might have: a socket that is told so is not read just to find out.
    pub(super) fn is_drained(&self) {
        if let Self::Socket(socket) = self {
            let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Bounds what the kernel keeps unread of an app ([`options::bound_unread`]).
    pub(super) fn bound_unread(&self) {
        if let Self::Socket(socket) = self
            && let Err(error) = options::bound_unread(socket)
        {
            tracing::trace!(%error, "failed to bound what an app may have said unread");
        }
    }

    /// Writes as much as is taken.
    ///
    /// # Errors
    /// `WouldBlock`, or that the connection has failed.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_write(bytes),
            Self::Within(half) => half.write([bytes]),
        }
    }

    /// Writes as much as is taken, and does not ask the runtime, which knows nothing of a socket that was connected just
    /// now.
    ///
    /// # Errors
    /// `WouldBlock`, or that the connection has failed.
    pub(super) fn write_at_once(&self, parts: &[IoSlice<'_>], follows: Follows) -> io::Result<usize> {
        let written = match (self, follows) {
            (Self::Socket(socket), Follows::Perhaps) => rustix::io::writev(socket, parts),
            (Self::Socket(socket), Follows::Directly) => {
                sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), SendFlags::MORE | SendFlags::NOSIGNAL)
            }
            (Self::Within(half), _) => return half.write(parts.iter().map(|part| &**part)),
        };
        written.map_err(|error| match error {
            Errno::AGAIN => io::ErrorKind::WouldBlock.into(),
            error => error.into(),
        })
    }

    /// Ends the direction that this side writes.
    ///
    /// # Errors
    /// That the connection has failed.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => match SockRef::from(socket).shutdown(Shutdown::Write) {
                Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
                _ => Ok(()),
            },
            Self::Within(half) => {
                half.end();
                Ok(())
            }
        }
    }

    /// The socket, if it is one, to be looked at.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Socket(socket) => Some(socket.as_fd()),
            Self::Within(_) => None,
        }
    }

    /// The socket, if it is one.
    pub(super) fn into_socket(self) -> Option<TcpStream> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Within(_) => None,
        }
    }

    /// Why a tunnel's carrier within the process has failed, if it has.
    pub(super) fn broken(&self) -> Option<Broken> {
        match self {
            Self::Socket(_) => None,
            Self::Within(half) => half.broken(),
        }
    }

    /// Whether this carries a tunnel through a gateway that has not answered yet.
    pub(super) fn is_pending(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            Self::Within(half) => !half.is_connected(),
        }
    }

    /// Tells a tunnel that it is not carried any further, and why.
    pub(super) fn tell(&self, why: impl FnOnce() -> Failure) {
        if let Self::Within(half) = self {
            half.break_off(Broken::Failed(why().at_gateway()));
        }
    }

    /// Is done with a connection because of `outcome`: a socket's app sees a reset, a tunnel is told why.
    pub(super) fn cut(self, outcome: &Outcome) {
        match outcome {
            Outcome::Failed { cause, error, .. } => self.tell(|| Failure::lost(*cause, error)),
            Outcome::Reset { .. } => self.tell(|| Failure::lost(Cause::Http2, "h2 failed: stream reset by peer")),
            Outcome::Complete | Outcome::Drained => {
                if let Self::Within(half) = self {
                    half.break_off(Broken::Drained);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_an_end_follows_directly_goes_along_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut app = listener.accept().unwrap().0;
        let transport = Transport::Socket(socket);
        assert_eq!(
            transport.write_at_once(&[IoSlice::new(b"last "), IoSlice::new(b"words")], Follows::Directly).unwrap(),
            10
        );
        app.set_nonblocking(true).unwrap();
        assert_eq!(app.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing was sent yet");
        transport.end().unwrap();
        app.set_nonblocking(false).unwrap();
        let mut said = String::new();
        app.read_to_string(&mut said).unwrap();
        assert_eq!(said, "last words");
    }
}
