//! How parts of the process end in order (spec data-plane 18.1).
//!
//! Whoever must end something holds its [`Trigger`]; everything that has to end with it holds a [`Watcher`] and drops it
//! when done. A drain is complete when no watcher is left. It is bounded: what does not end by the deadline is told to end
//! at once, and what still does not is left behind. A trigger that is dropped counts as told to end at once.
//!
//! What asks the process as a whole to end is in [`signals`].

pub mod signals;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long those who were told to end at once may take to do so.
pub const FORCED_END: Duration = Duration::from_secs(1);

/// How something is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What is in progress may finish, within this long.
    Graceful(Duration),
    /// At once.
    Immediate,
}

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Begin nothing new; what is in progress may finish.
    Finish,
    /// End now.
    Cut,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Everything ended as it was first told to.
    Complete,
    /// What was left at the deadline was cut.
    Cut,
    /// Something did not even end when told to at once.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Finishing,
    Forced,
}

/// Starts a drain.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Is told of a drain and holds it up. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<Phase>);

/// A drain that has not been triggered.
#[must_use]
pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Watcher(receiver))
}

impl Trigger {
    /// Another watcher.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(self.0.subscribe())
    }

    /// Tells all watchers and waits until the last is dropped, within the bound of `mode` and [`FORCED_END`].
    pub async fn drain(self, mode: Mode) -> Drained {
        let mut ended = Drained::Complete;
        if let Mode::Graceful(deadline) = mode {
            self.0.send_replace(Phase::Finishing);
            if timeout(deadline, self.0.closed()).await.is_ok() {
                return ended;
            }
            tracing::warn!("drain duration expired with pending connections, forcefully shutting down");
            ended = Drained::Cut;
        }
        self.0.send_replace(Phase::Forced);
        match timeout(FORCED_END, self.0.closed()).await {
            Ok(()) => ended,
            Err(_) => Drained::Abandoned,
        }
    }
}

impl Watcher {
    /// Resolves when the drain begins. To be told of a later [`Notice::Cut`], go on with [`Watcher::cut`].
    pub async fn begun(&mut self) -> Notice {
        // An error means that the trigger is gone.
        match self.0.wait_for(|phase| *phase != Phase::Running).await.as_deref() {
            Ok(Phase::Running | Phase::Finishing) => Notice::Finish,
            Ok(Phase::Forced) | Err(_) => Notice::Cut,
        }
    }

    /// Resolves when everything has to end at once.
    pub async fn cut(&mut self) {
        let _ = self.0.wait_for(|phase| *phase == Phase::Forced).await;
    }
}

#[cfg(test)]
mod tests;
