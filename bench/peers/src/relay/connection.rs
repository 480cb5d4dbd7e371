//! One connection of a relay: two sockets, and for each direction what is still to be written.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};

use super::seal::{Batch, Codec, Scratch};

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to do until a socket is ready.
    Blocked,
    /// There may be more right now.
    More,
    /// Both directions have ended.
    Ended,
}

pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    up: Direction,
    down: Direction,
}

struct Direction {
    codec: Codec,
    /// What the receiving socket did not take, from `written` on.
    pending: Vec<u8>,
    written: usize,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    /// All has been read; what is pending still has to be written.
    Read,
    Passed,
}

impl Connection {
    pub(super) fn new(client: TcpStream, server: TcpStream, codecs: (Codec, Codec), announcement: Vec<u8>) -> Self {
        let up = Direction { codec: codecs.0, pending: announcement, written: 0, source: Source::Open };
        let down = Direction { codec: codecs.1, pending: Vec::new(), written: 0, source: Source::Open };
        Self { client, server, up, down }
    }

    pub(super) fn sockets(&self) -> [&TcpStream; 2] {
        [&self.client, &self.server]
    }

    /// One batch in each direction.
    pub(super) fn turn(&mut self, scratch: &mut Scratch) -> io::Result<Progress> {
        let up = self.up.turn(&self.client, &self.server, scratch)?;
        let down = self.down.turn(&self.server, &self.client, scratch)?;
        Ok(match (up, down) {
            (Progress::Ended, Progress::Ended) => Progress::Ended,
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            _ => Progress::Blocked,
        })
    }
}

impl Direction {
    fn turn(&mut self, from: &TcpStream, to: &TcpStream, scratch: &mut Scratch) -> io::Result<Progress> {
        while self.written < self.pending.len() {
            match write(to, &[IoSlice::new(&self.pending[self.written..])])? {
                0 => return Ok(Progress::Blocked),
                n => self.written += n,
            }
        }
        self.pending.clear();
        self.written = 0;
        let read = match self.source {
            Source::Passed => return Ok(Progress::Ended),
            Source::Read => return self.pass_end(to),
            Source::Open => self.codec.read(from, scratch)?,
        };
        match read {
            Batch::Nothing => Ok(Progress::Blocked),
            Batch::End => self.pass_end(to),
            Batch::Bytes { pieces, filled } => {
                let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(scratch.piece(piece))).collect();
                let mut taken = write(to, &slices)?;
                for slice in &slices {
                    let skip = taken.min(slice.len());
                    self.pending.extend_from_slice(&slice[skip..]);
                    taken -= skip;
                }
                Ok(if filled && self.pending.is_empty() { Progress::More } else { Progress::Blocked })
            }
        }
    }

    fn pass_end(&mut self, to: &TcpStream) -> io::Result<Progress> {
        self.source = Source::Read;
        to.shutdown(Shutdown::Write)?;
        self.source = Source::Passed;
        Ok(Progress::Ended)
    }
}

/// How much the socket took; 0 if it is full.
fn write(mut to: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    if slices.iter().all(|slice| slice.is_empty()) {
        return Ok(0);
    }
    loop {
        match to.write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
