//! Tells whoever supervises the process, as systemd does, that it serves, that it ends, and that it is alive.
//!
//! The protocol is that of sd_notify(3): datagrams of text to the socket that `NOTIFY_SOCKET` names. Nothing waits for
//! it and nothing depends on it; a supervisor that does not listen is told nothing. The watchdog is fed only while every
//! worker and the control runtime take their turns, so that one that is stuck gets the process restarted.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use crate::proxy::Workers;

/// The watchdog is fed this many times within its time, so that one late turn does not count.
const TURNS: u32 = 3;
/// A supervisor that wants to hear from us more often than this is not humoured: it would cost more than it tells.
const SHORTEST: Duration = Duration::from_millis(10);

/// What the environment says about a supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    pub socket: Option<PathBuf>,
    /// `WATCHDOG_USEC`, if it is meant for this process (`WATCHDOG_PID`).
    pub watchdog: Option<Duration>,
}

/// The way to the supervisor, if there is one.
#[derive(Debug)]
pub struct Supervisor {
    way: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Finds the way; what does not work is logged and done without.
    #[must_use]
    pub fn find(config: &Config) -> Self {
        let way = config.socket.as_ref().and_then(|path| {
            let address = match path.as_os_str().as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(path),
            };
            let opened = address.and_then(|address| {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Ok((socket, address))
            });
            opened.inspect_err(|error| tracing::warn!(%error, ?path, "NOTIFY_SOCKET cannot be used")).ok()
        });
        Self { way, watchdog: config.watchdog }
    }

    /// Connections are accepted.
    pub fn serving(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// What is open may finish, nothing new is taken.
    pub fn draining(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Feeds the watchdog for as long as there are turns to be taken; ends at once if there is none.
    pub async fn feed(&self, workers: Workers) {
        let Some(patience) = self.watchdog else { return };
        let pause = (patience / TURNS).max(SHORTEST);
        while turn(&workers).await {
            self.tell("WATCHDOG=1");
            tokio::time::sleep(pause).await;
        }
    }

    fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.way else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, text, "the supervisor was not told");
        }
    }
}

/// Resolves when every worker has taken a turn; false when they take none any more.
async fn turn(workers: &Workers) -> bool {
    for worker in workers.all() {
        if worker.runtime.spawn(async {}).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stuck_keeps_the_watchdog_hungry() {
        let (workers, _threads) = Workers::start(2).unwrap();
        assert!(turn(&workers).await);
        let (release, stuck) = mpsc::channel::<()>();
        workers.next().spawn(async move { stuck.recv() });
        assert!(tokio::time::timeout(DAY, turn(&workers)).await.is_err());
        release.send(()).unwrap();
        assert!(turn(&workers).await);
    }

    #[tokio::test]
    async fn workers_that_have_ended_end_the_feeding() {
        let (workers, threads) = Workers::start(1).unwrap();
        drop(threads);
        assert!(!turn(&workers).await);
        Supervisor::find(&Config { socket: None, watchdog: Some(DAY) }).feed(workers).await;
    }

    #[test]
    fn a_supervisor_is_told_by_an_abstract_name_as_well_and_one_that_is_gone_disturbs_nobody() {
        let name = format!("ztunnel-supervisor-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let supervisor = Supervisor::find(&Config { socket: Some(format!("@{name}").into()), watchdog: None });
        supervisor.serving();
        let mut heard = [0; 64];
        let length = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nSTATUS=serving");
        drop(socket);
        supervisor.draining();
        Supervisor::find(&Config { socket: Some("/no/such/socket".into()), watchdog: None }).draining();
    }
}
