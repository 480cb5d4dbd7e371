//! The log: one line per event on an output that may stall, from threads that may not.
//!
//! Callers format a line and hand it to a bounded queue; one thread writes. When the output does not keep up the queue
//! fills and lines are dropped and counted, with a notice once it moves again: traffic never waits for a log. What is
//! logged is decided by a filter that can be changed while running (spec admin-and-telemetry 2, `/logging`, and 4).
//!
//! Not here: what is logged. Events come through `tracing`; access-log lines are made by `telemetry::access_log`.

mod filter;
mod layer;
mod line;
mod writer;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::SubscriberExt;

pub use filter::{Directive, Filter, InvalidFilter, InvalidLevel, directives};
pub use line::Format;
pub(super) use line::{Line, Value};
use writer::Queue;
pub use writer::{FLUSH_TIMEOUT, Flushed, MAX_QUEUED_BYTES, MAX_QUEUED_LINES};

/// Target of access-log lines (spec admin-and-telemetry 4).
pub const ACCESS: &str = "access";

/// What the operator set about logging.
#[derive(Clone, Debug)]
pub struct Config {
    /// How lines look (`LOG_FORMAT`).
    pub format: Format,
    /// What is logged (`RUST_LOG`).
    pub directives: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::default(), directives: filter::DEFAULT.to_owned() }
    }
}

/// The running log. Clones share it; when the last one is gone, what is queued is still written.
#[derive(Clone, Debug)]
pub struct Logging(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    format: Format,
    /// What the process was started with, to which `/logging?reset` returns.
    initial: Filter,
    filter: ArcSwap<Filter>,
    /// The most verbose level at which access-log lines are on, so that a connection asks with one load.
    access: AtomicU8,
    queue: Arc<Queue>,
}

/// Somebody else's subscriber is already in charge of the process's events.
#[derive(Debug, thiserror::Error)]
#[error("logging was installed twice in one process")]
pub struct AlreadyInstalled;

/// From which filter a change starts (spec admin-and-telemetry 2, `reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// From what is in force.
    Current,
    /// From what the process was started with.
    Initial,
}

/// Starts the thread that writes to `output`. Directives that cannot be read are an error line and leave the default.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(config: Config, output: impl Write + Send + 'static) -> std::io::Result<Logging> {
    let (filter, complaint) = match config.directives.parse() {
        Ok(filter) => (filter, None),
        Err(error) => (Filter::default(), Some(error)),
    };
    let queue = Arc::new(Queue::new(config.format));
    let writing = Arc::clone(&queue);
    std::thread::Builder::new().name("log".into()).spawn(move || writing.write_to(output))?;
    let access = AtomicU8::new(rank(&filter));
    let (initial, filter) = (filter.clone(), ArcSwap::from_pointee(filter));
    let logging = Logging(Arc::new(Shared { format: config.format, initial, filter, access, queue }));
    if let Some(error) = complaint {
        logging.write(|out| {
            let mut line = Line::begin(out, config.format, SystemTime::now(), Level::ERROR, module_path!());
            line.message(&format_args!("RUST_LOG is not used: {error}; logging at {}", logging.filter()));
            line.end();
        });
    }
    Ok(logging)
}

impl Logging {
    /// Makes this log the destination of the process's events.
    ///
    /// # Errors
    /// If another one is in charge.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        tracing::subscriber::set_global_default(self.subscriber()).map_err(|_| AlreadyInstalled)
    }

    /// A subscriber that writes events to this log.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(layer::Layer::new(self.clone()))
    }

    /// How lines look.
    #[must_use]
    pub fn format(&self) -> Format {
        self.0.format
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> Arc<Filter> {
        self.0.filter.load_full()
    }

    /// Adds `changes` to the filter that `base` names and puts the result in force. Later changes win.
    pub fn change(&self, base: Base, changes: impl IntoIterator<Item = Directive>) {
        let base = match base {
            Base::Current => self.filter(),
            Base::Initial => Arc::new(self.0.initial.clone()),
        };
        let filter = base.with(changes);
        self.0.access.store(rank(&filter), Ordering::Relaxed);
        self.0.filter.store(Arc::new(filter));
        // What each place in the code remembers of whether it is on was true of the filter before.
        tracing::callsite::rebuild_interest_cache();
        tracing::info!("new log filter is {}", self.filter());
    }

    /// Whether access-log lines of `level` are on.
    pub(super) fn logs_access(&self, level: Level) -> bool {
        verbosity(level) <= self.0.access.load(Ordering::Relaxed)
    }

    /// Queues the line that `format` makes, newline included. Never waits for the output.
    pub(super) fn write(&self, format: impl FnOnce(&mut String)) {
        line::with_scratch(|out| {
            format(out);
            self.0.queue.push(out);
        });
    }

    /// Lines that were dropped because the output did not keep up, since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.queue.dropped()
    }

    /// Waits until everything logged so far has been written, at most [`FLUSH_TIMEOUT`] long. For the end of the process:
    /// it blocks the thread.
    pub fn flush(&self) -> Flushed {
        self.0.queue.flush(FLUSH_TIMEOUT)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Levels as numbers that grow with verbosity; 0 is off.
fn verbosity(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

fn rank(filter: &Filter) -> u8 {
    let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
    levels.into_iter().find(|level| filter.enables(ACCESS, level)).map_or(0, verbosity)
}

#[cfg(test)]
mod tests;
