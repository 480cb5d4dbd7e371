//! A process's output, kept to be searched and waited for, and copied to a file or told line by line.
//!
//! The end of the output also tells that the process has ended, since nobody else holds the pipe.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Lines;

/// Output that is kept for searching; a test at info level writes far less. The file or the listener has all of it.
pub(super) const KEPT_BYTES: usize = 16 << 20;
/// Lines shown in errors.
const TAIL_LINES: usize = 30;

pub(super) struct Log {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Log {
    /// The log, and what the process is to write to. The caller's copies of that must not outlive the start.
    pub(super) fn open(path: &Path, lines: Option<Lines>) -> io::Result<(Log, PipeWriter)> {
        let mut copied = match lines {
            Some(lines) => Copied::Told { lines, begun: Vec::new() },
            None => Copied::Written(File::create(path)?),
        };
        let (mut output, input) = io::pipe()?;
        let shared = Arc::new(Shared::default());
        let filled = shared.clone();
        let copy = move || {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                copied.take(&chunk[..length]);
                filled.append(&chunk[..length]);
            }
            filled.lock().ended = true;
            filled.changed.notify_all();
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(copy)?;
        Ok((Log { shared }, input))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().bytes).into_owned()
    }

    pub(super) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// The first line with `pattern`, as soon as there is one.
    pub(super) fn wait_for(&self, pattern: &str, deadline: Duration) -> Option<String> {
        let find = |state: &State| {
            String::from_utf8_lossy(&state.bytes).lines().find(|line| line.contains(pattern)).map(str::to_owned)
        };
        let waiting = |state: &mut State| !state.ended && find(state).is_none();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), deadline, waiting);
        find(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    pub(super) fn ended_within(&self, deadline: Duration) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), deadline, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

/// Where all of the output goes.
enum Copied {
    Written(File),
    Told { lines: Lines, begun: Vec<u8> },
}

impl Copied {
    fn take(&mut self, chunk: &[u8]) {
        match self {
            // A full disk must not stop the process; what is kept in memory still serves.
            Copied::Written(file) => drop(file.write_all(chunk)),
            Copied::Told { lines, begun } => {
                begun.extend_from_slice(chunk);
                let whole = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
                String::from_utf8_lossy(&begun[..whole]).lines().for_each(|line| (lines.0)(line));
                begun.drain(..whole);
                // A line without an end would be kept for ever.
                if begun.len() > KEPT_BYTES {
                    begun.clear();
                }
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, chunk: &[u8]) {
        let mut state = self.lock();
        state.bytes.extend_from_slice(chunk);
        if state.bytes.len() > KEPT_BYTES {
            let oldest = state.bytes.len() - KEPT_BYTES / 2;
            state.bytes.drain(..oldest);
        }
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_told_once_however_the_output_is_cut() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = told.clone();
        let lines = Lines(Arc::new(move |line: &str| listener.lock().unwrap().push(line.to_owned())));
        let mut copied = Copied::Told { lines, begun: Vec::new() };
        for chunk in ["one\ntw", "o", "\n", "three\nfour\nnot ended"] {
            copied.take(chunk.as_bytes());
        }
        assert_eq!(*told.lock().unwrap(), ["one", "two", "three", "four"]);
    }
}
