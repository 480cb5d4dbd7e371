//! A process's output, copied to a file and kept to be searched and waited for.
//!
//! The end of the output also tells that the process has ended, since nobody else holds the pipe.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Output that is kept for searching; a test at info level writes far less. The file has all of it.
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
    pub(super) fn open(path: &Path) -> io::Result<(Log, PipeWriter)> {
        let mut file = File::create(path)?;
        let (mut output, input) = io::pipe()?;
        let shared = Arc::new(Shared::default());
        let filled = shared.clone();
        let copy = move || {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                // A full disk must not stop the process; what is kept in memory still serves.
                let _ = file.write_all(&chunk[..length]);
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
