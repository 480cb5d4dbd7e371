//! Which of the processes that share a port gets a new connection.
//!
//! By itself the kernel spreads connections over all of them, so that the one that leaves takes with it the handshakes
//! that are half done. A program of one instruction sends them all to the second of the group instead: sockets join at the
//! end, and when one leaves, the last takes its place. Of an old process and its successor that is always the
//! successor, from the moment that it listens; a process alone gets everything, because a place that is not there means
//! any. Of three processes the second is as good as any: it accepts too.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// "Return the number k": `BPF_RET | BPF_K` of classic BPF.
const RETURN: u16 = 0x06;
/// The place after the first.
const SUCCESSOR: u32 = 1;

/// Has the later of two listeners on one port accept what is new, whichever of them this is. The socket must listen.
///
/// # Errors
/// If the kernel has no such programs, or the socket does not share its port.
#[allow(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF has no safe wrapper in socket2 or rustix")]
pub(super) fn prefer_newcomer(socket: &impl AsFd) -> io::Result<()> {
    let mut filter = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: SUCCESSOR }];
    let program = libc::sock_fprog { len: 1, filter: filter.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of_val(&program)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel copies `length` bytes of `program`
    // and the one instruction that it points to, both of which live until the call returns.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
