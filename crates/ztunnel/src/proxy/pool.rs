//! The tunnels that one pod's outgoing connections share.
//!
//! A tunnel serves one pair of identities and one next hop. Connections are placed on a tunnel before it is dialled, so
//! that everybody who waits for a dial shares it and its outcome; no lock is held while anything is dialled. A tunnel is
//! taken out when its task ends, so that what was once talked to leaves nothing behind.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mesh::{Cause, Fault, Identity, Permit, Uid, View};
use rustc_hash::FxBuildHasher;

use self::rate::Rate;
use super::nested;
use super::outbound::Failure;
use super::tunnel::{EarlyData, Handle, Mailbox, Opening};

/// Peers remembered for having refused early data. One that was forgotten refuses once more, at the price of a round
/// trip.
const MAX_REFUSERS: usize = 256;

/// Tunnels that one key has at the most because the others are busy; more would only compete for the same link. Those that
/// are full do not count.
const MAX_BESIDE_BUSY: usize = 4;

/// What connections have to have in common to share a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// Identity presented.
    pub(super) source: Identity,
    /// Where the tunnel goes.
    pub(super) next: SocketAddr,
    /// Identities accepted at the other end; any of them.
    pub(super) expect: Arc<[Identity]>,
    /// Whom the mesh knows there: an address that changes hands is another next hop, even if identities are the same.
    pub(super) uid: Option<Uid>,
}

impl PoolKey {
    /// Whether the tunnel still goes where it was meant to.
    fn is_current(&self, view: &View) -> bool {
        let Some(uid) = &self.uid else { return true };
        view.workload(uid).is_some_and(|workload| {
            // Those that have a host name may be at any address.
            !workload.hostname.is_empty() || workload.addresses.contains(&self.next.ip())
        })
    }
}

/// A tunnel to be dialled.
pub(super) struct NewTunnel {
    pub(super) key: PoolKey,
    /// What allows the connection that wanted the tunnel first, and so the dial.
    pub(super) permit: Permit,
    pub(super) handle: Handle,
    pub(super) mailbox: Mailbox,
    /// How many tunnels there are for the same already.
    pub(super) beside: usize,
}

/// Tunnels of one key.
struct Fitting {
    handles: Vec<Handle>,
    rate: Rate,
}

/// Keys are what the control plane says, so that nobody else can choose them to hash alike.
type Tunnels = HashMap<PoolKey, Fitting, FxBuildHasher>;

/// Starts the task of a tunnel, which [removes](Pool::remove) the tunnel when it ends.
type Start = Box<dyn Fn(&Arc<Pool>, NewTunnel) + Send + Sync>;

/// See the top of this file.
pub(super) struct Pool {
    tunnels: Mutex<Tunnels>,
    /// Tunnels that one key has at the most because connections are many: one for each worker.
    most: usize,
    /// Connections that a tunnel takes at once (`POOL_MAX_STREAMS_PER_CONNECTION`).
    streams: u32,
    early_data: EarlyData,
    /// Peers that have refused early data, oldest first. What is behind a gateway counts as the gateway.
    refusers: Mutex<VecDeque<SocketAddr>>,
    start: Start,
}

impl Pool {
    /// An empty pool whose tunnels take `streams` connections each.
    pub(super) fn new(streams: u32, early_data: EarlyData, workers: usize, start: Start) -> Self {
        let most = workers.min(MAX_BESIDE_BUSY);
        Self { tunnels: Mutex::default(), most, streams: streams.max(1), early_data, refusers: Mutex::default(), start }
    }

    /// Places a connection on the first tunnel that has room and is not busy, or on a new one; beside enough that are busy,
    /// on the one of them with the fewest connections. While very many come, there is a tunnel for each worker.
    ///
    /// A tunnel through the gateway of another network serves one connection only, since it is the gateway that chooses
    /// where each ends (spec data-plane 5.4).
    pub(super) fn place(self: &Arc<Self>, opening: Box<Opening>) {
        match opening.through {
            Some(_) => nested::place(self, opening),
            None => self.place_on_shared(opening),
        }
    }

    fn place_on_shared(self: &Arc<Self>, mut opening: Box<Opening>) {
        let key = opening.key.clone();
        let mut tunnels = self.lock();
        let now = Instant::now();
        let fresh = || Fitting { handles: Vec::new(), rate: Rate::new(now) };
        let Fitting { handles: fitting, rate } = tunnels.entry(key.clone()).or_insert_with(fresh);
        fitting.retain(|handle| !handle.is_closed());
        let wanted = rate.one_more(now).min(self.most);
        if wanted <= fitting.len() || wanted == 1 {
            for handle in in_order(fitting, wanted) {
                match handle.place(opening) {
                    Ok(()) => return,
                    Err(back) => opening = back,
                }
            }
        }
        let beside = fitting.len();
        let permit = Permit::clone(&opening.permit);
        let (handle, mailbox) = Handle::new(self.streams);
        match handle.place(opening) {
            Ok(()) => fitting.push(handle.clone()),
            // A new tunnel has room; if that ever changes, the connection fails rather than waits for nothing.
            Err(opening) => {
                drop(tunnels);
                return opening.fail(Failure::new(Fault::Final, Cause::Http2, "no room in a new tunnel".to_owned()));
            }
        }
        drop(tunnels);
        (self.start)(self, NewTunnel { key, permit, handle, mailbox, beside });
    }

    /// Takes out tunnels whose next hop has left the mesh or its address: nothing new is to go there. They are yielded to be
    /// ended in order.
    pub(super) fn outdated(&self, view: &View) -> Vec<Handle> {
        let mut tunnels = self.lock();
        tunnels.extract_if(|key, _| !key.is_current(view)).flat_map(|(_, fitting)| fitting.handles).collect()
    }

    /// Takes out a tunnel whose task has ended.
    pub(super) fn remove(&self, key: &PoolKey, handle: &Handle) {
        let mut tunnels = self.lock();
        if let Some(fitting) = tunnels.get_mut(key) {
            fitting.handles.retain(|other| !other.is(handle));
            if fitting.handles.is_empty() {
                tunnels.remove(key);
            }
        }
    }

    /// Whether a new tunnel may carry early data.
    pub(super) fn early_data(&self, key: &PoolKey) -> EarlyData {
        if self.refusers().contains(&key.next) { EarlyData::Off } else { self.early_data }
    }

    /// The peer has refused early data.
    pub(super) fn stop_early_data(&self, key: &PoolKey) {
        let mut refusers = self.refusers();
        if !refusers.contains(&key.next) {
            if refusers.len() >= MAX_REFUSERS {
                refusers.pop_front();
            }
            refusers.push_back(key.next);
        }
    }

    fn refusers(&self) -> MutexGuard<'_, VecDeque<SocketAddr>> {
        self.refusers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Tunnels> {
        // Nothing that runs under the lock can leave the map half changed.
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tunnels that a connection may be placed on, best first. Where several are wanted, they share connections evenly.
fn in_order(fitting: &[Handle], wanted: usize) -> Vec<&Handle> {
    if wanted > 1 {
        let mut all: Vec<&Handle> = fitting.iter().collect();
        all.sort_by_key(|handle| handle.streams());
        return all;
    }
    let (mut busy, mut all): (Vec<&Handle>, Vec<&Handle>) = fitting.iter().partition(|handle| handle.is_busy());
    if busy.len() >= MAX_BESIDE_BUSY {
        busy.sort_by_key(|handle| handle.streams());
        all.extend(busy);
    }
    all
}

mod rate;

#[cfg(test)]
mod tests;
