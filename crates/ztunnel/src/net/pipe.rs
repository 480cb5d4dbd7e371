//! Kernel pipes, through which bytes pass from one plain socket to another without being copied into the process.
//!
//! Invariant: an idle pipe is empty. A thread keeps [`KEPT`] of them for the next use; one whose contents nobody wants
//! any more is closed. Deliberately absent: waiting; whoever splices knows what to wait for.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe is asked to hold: as much as a socket has after a wake-up of a fast connection. The kernel gives an
/// unprivileged process less once it has many pipes, which only makes for more system calls.
const CAPACITY: usize = 512 * 1024;
/// Idle pipes that a thread keeps. Each costs two descriptors and no memory.
const KEPT: usize = 8;

/// A pipe and what is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    /// An idle pipe of this thread, or a new one.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn take() -> io::Result<Self> {
        if let Some(pipe) = IDLE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe serves as well, in more steps.
        let _ = fcntl_setpipe_size(&write, CAPACITY);
        Ok(Self { read, write, filled: 0 })
    }

    /// Keeps the pipe for the next use, if it is empty.
    pub fn give_back(self) {
        if self.filled == 0 {
            IDLE.with_borrow_mut(|idle| {
                if idle.len() < KEPT {
                    idle.push(self);
                }
            });
        }
    }

    /// Bytes in the pipe.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what `socket` has received into the pipe, which should be empty: a full one and a socket without bytes look
    /// the same. Zero means that the socket has ended.
    ///
    /// # Errors
    /// The kernel's; kind `WouldBlock` if there is nothing.
    pub fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice_some(&socket, &self.write, CAPACITY)?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves bytes out of the pipe to `socket`, at least one.
    ///
    /// # Errors
    /// The kernel's; kind `WouldBlock` if the socket takes nothing.
    pub fn drain_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice_some(&self.read, &socket, self.filled)?;
        self.filled = self.filled.saturating_sub(moved);
        Ok(moved)
    }
}

fn splice_some(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, len, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
