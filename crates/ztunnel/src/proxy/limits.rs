//! What one pod may take of the process, so that a storm in one pod leaves the others their share.
//!
//! What exceeds the number of connections is turned away, since it would hold memory for as long as it likes; what comes
//! too fast, or would be one handshake too many, waits, since the wait is short. Each time is counted; the log tells of
//! the first, and again when [`SILENCE`] has passed. Who accepts and what it costs is not decided here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hbone::HANDSHAKE_TIMEOUT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::{PodLimit, PodSockets, Telemetry};

/// Between two lines of the log about one pod's limits.
const SILENCE: Duration = Duration::from_secs(10);
/// What a pod that was quiet may make up for at once, as a time at its full rate.
const BURST: Duration = Duration::from_secs(1);

/// The limits of each pod.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Accepted sockets that are open at a time.
    pub connections: usize,
    /// Sockets accepted in a second, through each port.
    pub per_second: u32,
    /// Handshakes of accepted tunnels under way at a time.
    pub handshakes: usize,
    /// Bytes that peers of its tunnels may send ahead, beyond first windows.
    pub buffered: usize,
}

/// What one pod has taken, against its limits.
#[derive(Debug)]
pub(super) struct Quota {
    limits: Limits,
    sockets: Arc<PodSockets>,
    handshakes: Arc<Semaphore>,
    telemetry: Telemetry,
    told: Mutex<Option<Instant>>,
}

impl Quota {
    pub(super) fn new(limits: Limits, telemetry: Telemetry) -> Self {
        let handshakes = Arc::new(Semaphore::new(limits.handshakes.min(Semaphore::MAX_PERMITS)));
        Self { limits, sockets: Arc::default(), handshakes, telemetry, told: Mutex::default() }
    }

    /// Counts the pod's accepted sockets.
    pub(super) fn sockets(&self) -> &Arc<PodSockets> {
        &self.sockets
    }

    /// Whether the pod may have another connection.
    pub(super) fn has_room(&self) -> bool {
        let room = self.sockets.open() < self.limits.connections;
        if !room {
            self.reached(PodLimit::Connections, "POD_MAX_CONNECTIONS");
        }
        room
    }

    /// A clock for one of the pod's ports.
    pub(super) fn pace(&self) -> Pace {
        Pace { interval: Duration::from_secs(1) / self.limits.per_second.max(1), next: None }
    }

    /// Waits until the clock allows what has come.
    pub(super) async fn keep(&self, pace: &mut Pace) {
        if let Some(wait) = pace.take(Instant::now()) {
            self.reached(PodLimit::Rate, "POD_MAX_CONNECTIONS_PER_SECOND");
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for the right to a handshake, no longer than a handshake may take; it lasts until what is yielded is
    /// dropped.
    pub(super) async fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() {
            return Some(permit);
        }
        self.reached(PodLimit::Handshakes, "POD_MAX_HANDSHAKES");
        let permit = Arc::clone(&self.handshakes).acquire_owned();
        tokio::time::timeout(HANDSHAKE_TIMEOUT, permit).await.ok()?.ok()
    }

    fn reached(&self, limit: PodLimit, setting: &str) {
        self.telemetry.limit_reached(limit);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= SILENCE) {
            *told = Some(Instant::now());
            drop(told);
            tracing::warn!(setting, "the pod has reached a limit; raise the setting if this is meant to be");
        }
    }
}

/// Lets things through at a rate, and a burst after a pause.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// When the next would come if all came evenly.
    next: Option<Instant>,
}

impl Pace {
    /// Something has come; yields how long it has to wait.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let due = self.next.map_or(now, |next| next.max(now));
        self.next = Some(due + self.interval);
        let early = due.duration_since(now).saturating_sub(BURST);
        (!early.is_zero()).then_some(early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_burst_through_and_then_one_after_the_other() {
        let interval = Duration::from_millis(100);
        let mut pace = Pace { interval, next: None };
        let start = Instant::now();
        for n in 0..=10 {
            assert_eq!(pace.take(start), None, "number {n} belongs to the burst");
        }
        assert_eq!(pace.take(start), Some(interval));
        assert_eq!(pace.take(start + interval), Some(interval), "whoever waited is through, the next waits");
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(later), None, "after a pause there is a burst again");
    }
}
