//! The node agent's side of ZDS: tells every ztunnel that connects which pods to serve (spec in-pod 2).
//!
//! Invariant: one request is outstanding per connection. A connection gets its snapshot first; what changes meanwhile
//! waits and follows. Additions go to the newest connection, deletions to all of them, as the real agent does. An
//! answer that does not come in time ends the connection, since a late one would be taken for the next request's.

mod connection;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{accept4, bind, listen, shutdown, socket};

use crate::netns::NetNs;
use crate::zds::{AddWorkload, DelWorkload, Payload, SnapshotSent, WorkloadInfo};
use connection::Connection;

/// ztunnels that may wait to be accepted: an old one, a new one, and their hasty retries.
const BACKLOG: i32 = 8;

/// A ztunnel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// It answered with an error.
    #[error("ztunnel refused: {0}")]
    Refused(String),
    /// It did not answer in time, or not as ZDS wants it.
    #[error("the connection to ztunnel failed: {0}")]
    Connection(#[source] io::Error),
    /// The awaited state did not come about.
    #[error("no ztunnel has taken its snapshot within {0:?}; see its log")]
    NotSynced(Duration),
    /// The socket could not be offered.
    #[error("cannot listen at {path}")]
    Listen {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A pod to be served by the node's ztunnel.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Unique among pods.
    pub uid: String,
    /// Name, namespace, service account.
    pub info: WorkloadInfo,
    /// Where the pod's sockets are.
    pub netns: NetNs,
}

/// Whether anybody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A ztunnel acknowledged.
    Acknowledged,
    /// No ztunnel is connected; the next one learns it with its snapshot.
    Remembered,
}

/// A node agent; it stops when dropped.
pub struct Cni {
    listener: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Enrolment>,
    /// Oldest first.
    connections: Vec<Connection>,
    snapshots: usize,
    refusals: Vec<String>,
}

impl Cni {
    /// Listens at `path`, which must not exist.
    ///
    /// # Errors
    /// [`CniError::Listen`].
    pub fn start(path: &Path) -> Result<Cni, CniError> {
        let failed = |source: io::Error| CniError::Listen { path: path.display().to_string(), source };
        let listener = Arc::new(offer(path).map_err(failed)?);
        let shared = Arc::new(Shared::default());
        let (served, agent) = (listener.clone(), shared.clone());
        std::thread::Builder::new().name("cni".to_owned()).spawn(move || agent.serve(&served)).map_err(failed)?;
        Ok(Cni { listener, shared })
    }

    /// Has a pod served, now and by every later ztunnel.
    ///
    /// # Errors
    /// The newest ztunnel refused or failed; the pod stays enrolled for the next.
    pub fn add(&self, pod: Enrolment) -> Result<Delivery, CniError> {
        let mut state = self.shared.lock();
        state.pods.insert(pod.uid.clone(), pod.clone());
        state.forget_closed();
        let Some(newest) = state.connections.last_mut() else { return Ok(Delivery::Remembered) };
        let told = newest.request(add(&pod), Some(&pod.netns));
        if let Err(CniError::Connection(_)) = told {
            state.connections.pop();
        }
        told.map(|()| Delivery::Acknowledged)
    }

    /// Has a pod no longer served.
    ///
    /// # Errors
    /// The last failure among the connected ztunnels, all of which are told.
    pub fn remove(&self, uid: &str) -> Result<Delivery, CniError> {
        let mut state = self.shared.lock();
        state.pods.remove(uid);
        state.forget_closed();
        let mut outcome = Ok(Delivery::Remembered);
        state.connections.retain_mut(|connection| {
            let told = connection.request(Payload::Del(DelWorkload { uid: uid.to_owned() }), None);
            let failed = matches!(told, Err(CniError::Connection(_)));
            outcome = told.map(|()| Delivery::Acknowledged);
            !failed
        });
        outcome
    }

    /// Sends the newest ztunnel what no agent would, as often as it takes it at once, and takes leave of it: its
    /// connection is closed when it has closed its end, or said nothing for the deadline of an answer.
    ///
    /// # Errors
    /// [`CniError::NotSynced`]: there is no ztunnel.
    pub fn misbehave(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>], times: usize) -> Result<(), CniError> {
        let newest = self.shared.lock().connections.pop();
        newest.ok_or(CniError::NotSynced(Duration::ZERO))?.misbehave(packet, descriptors, times);
        Ok(())
    }

    /// Closes the connections of all ztunnels, as an agent does that is restarted; each that comes back gets a snapshot.
    pub fn hang_up(&self) {
        self.shared.lock().connections.clear();
    }

    /// How many ztunnels have taken their snapshots, counted from the start.
    pub fn snapshots(&self) -> usize {
        self.shared.lock().snapshots
    }

    /// Waits until `snapshots` ztunnels, counted from the start, have taken theirs.
    ///
    /// # Errors
    /// [`CniError::NotSynced`].
    pub fn wait_synced(&self, snapshots: usize, deadline: Duration) -> Result<(), CniError> {
        let waited =
            self.shared.synced.wait_timeout_while(self.shared.lock(), deadline, |state| state.snapshots < snapshots);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() { Err(CniError::NotSynced(deadline)) } else { Ok(()) }
    }

    /// What ztunnels answered to additions in their snapshots, other than success.
    pub fn snapshot_refusals(&self) -> Vec<String> {
        self.shared.lock().refusals.clone()
    }
}

impl Drop for Cni {
    fn drop(&mut self) {
        // Wakes the thread that accepts; it may have ended already.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, listener: &OwnedFd) {
        while let Ok(accepted) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            let Ok(mut connection) = Connection::greet(accepted) else { continue };
            let mut state = self.lock();
            if state.send_snapshot(&mut connection).is_ok() {
                state.connections.push(connection);
                state.snapshots += 1;
                self.synced.notify_all();
            }
        }
    }
}

impl State {
    /// An addition that is refused does not end the snapshot (spec in-pod 2, "istio-cni side").
    fn send_snapshot(&mut self, connection: &mut Connection) -> Result<(), CniError> {
        for pod in self.pods.values() {
            match connection.request(add(pod), Some(&pod.netns)) {
                Err(CniError::Refused(text)) => self.refusals.push(text),
                told => told?,
            }
        }
        connection.request(Payload::SnapshotSent(SnapshotSent {}), None)
    }

    fn forget_closed(&mut self) {
        self.connections.retain(Connection::is_open);
    }
}

fn offer(path: &Path) -> io::Result<OwnedFd> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

fn add(pod: &Enrolment) -> Payload {
    Payload::Add(AddWorkload { uid: pod.uid.clone(), workload_info: Some(pod.info.clone()) })
}
