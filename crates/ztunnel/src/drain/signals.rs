//! What asks the process to end: signals, and whoever holds a [`Request`] (spec admin-and-telemetry 4, Signals).

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Why the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupted,
    /// A [`Request`].
    Requested,
}

/// Lets its holder ask for the end of the process. Clones ask for the same.
#[derive(Clone, Debug, Default)]
pub struct Request(Arc<Notify>);

impl Request {
    /// Asks. Once is enough, whether or not somebody waits already.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// The signals that end this process, which no longer do so by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    interrupts: u32,
}

impl Signals {
    /// Takes charge of SIGTERM and SIGINT. Must be called within a runtime.
    ///
    /// # Errors
    /// If the kernel does not let us.
    pub fn watch() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, interrupts: 0 })
    }

    /// Resolves when somebody wants the process to end.
    pub async fn reason(&mut self, request: &Request) -> Reason {
        let reason = tokio::select! {
            _ = self.terminate.recv() => Reason::Terminated,
            _ = self.interrupt.recv() => Reason::Interrupted,
            () = request.0.notified() => Reason::Requested,
        };
        match reason {
            Reason::Terminated => tracing::info!("received signal SIGTERM, starting shutdown"),
            Reason::Interrupted => {
                self.interrupts += 1;
                tracing::info!("received signal SIGINT, starting shutdown");
            }
            Reason::Requested => tracing::info!("received explicit shutdown signal"),
        }
        reason
    }

    /// Resolves when SIGINT has come twice in all: somebody at a keyboard does not want to wait for the drain. The process
    /// is to exit with status 0 at once.
    pub async fn insisted(&mut self) {
        while self.interrupts < 2 {
            if self.interrupt.recv().await.is_none() {
                return std::future::pending().await; // no more signals can come
            }
            self.interrupts += 1;
        }
        tracing::info!("Double Ctrl+C, exit immediately");
    }
}

#[cfg(test)]
mod tests;
