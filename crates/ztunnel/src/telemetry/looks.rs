//! Looks at the sockets of open connections, when somebody asks.
//!
//! Only the task of a tunnel may touch its sockets. It is told that somebody looks, as it is told of changes of policies,
//! and answers with what its kernel knows; a node that nobody looks at pays nothing. Whoever asks waits no longer than
//! [`PATIENCE`]: an answer that comes later is not shown.
//!
//! Not here: connections in plain TCP, whose tasks listen to nobody while they copy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::SecurityPolicy;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::live::{Connection, Live, Progress};
use super::{Carriers, Meter, Path};

/// How long tunnels may take to answer: a thread of the data plane that is busier than this has other worries.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that may wait to be taken: as many connections as are shown at the most.
const QUEUE: usize = 10_000;

/// Somebody looks. Clones are of the same look.
#[derive(Clone, Debug)]
pub struct Look(mpsc::Sender<(Arc<Connection>, Paths)>);

/// The ways to the ends of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// To the app.
    pub app: Option<Path>,
    /// To the peer, in a tunnel that others may share.
    pub peer: Option<Path>,
}

/// What was seen, by the place of a connection, which is held so that no other takes that place.
#[derive(Debug, Default)]
pub struct Seen(HashMap<usize, (Arc<Connection>, Paths)>);

impl Look {
    /// Answers for a connection.
    pub fn answer(&self, meter: &Meter, carriers: Carriers<'_>) {
        let [app, peer] = carriers.paths();
        // Whoever asked may have left, or have enough.
        let _ = self.0.try_send((meter.connection(), Paths { app, peer }));
    }
}

impl Seen {
    /// What was seen of a connection, if its tunnel has answered.
    #[must_use]
    pub fn of(&self, connection: &Arc<Connection>) -> Option<Paths> {
        self.0.get(&place(connection)).map(|(_, paths)| *paths)
    }
}

fn place(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection).addr()
}

/// Where those who look meet those who are looked at.
#[derive(Debug)]
pub(super) struct Looks {
    latest: watch::Sender<Option<Look>>,
    /// One at a time, so that none takes the place of another that has not been noticed yet.
    turn: Mutex<()>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { latest: watch::Sender::new(None), turn: Mutex::default() }
    }
}

impl Looks {
    /// What tells of each look.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Look>> {
        self.latest.subscribe()
    }

    /// Looks at all connections through tunnels that carry bytes at this moment.
    pub(super) async fn look(&self, live: &Live) -> Seen {
        let carried = |connection: &Arc<Connection>| {
            connection.progress() == Progress::Open && connection.flow().security == SecurityPolicy::MutualTls
        };
        let _turn = self.turn.lock().await;
        let expected = live.all().iter().filter(|connection| carried(connection)).count().min(QUEUE);
        let (answers, mut answered) = mpsc::channel(QUEUE);
        self.latest.send_replace(Some(Look(answers)));
        let (until, mut seen) = (Instant::now() + PATIENCE, Seen::default());
        while seen.0.len() < expected {
            let Ok(Some((connection, paths))) = timeout_at(until, answered.recv()).await else { break };
            seen.0.insert(place(&connection), (connection, paths));
        }
        self.latest.send_replace(None);
        seen
    }
}
