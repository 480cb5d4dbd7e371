//! What every connection of one pod shares.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::ask::{Halt, Learnt, Need};
use mesh::{Direction, LocalWorkload, Refusal, Workload};

use super::Config;
use super::limits::Quota;
use super::neighbours::Neighbours;
use super::registry::Registry;
use crate::identity::Identities;
use crate::net::dial::Dialer;
use crate::state::Views;
use crate::telemetry::{Telemetry, WaitEnd};

/// How often a decision may come back for more before it counts as no. Each need is named once at most, and a decision
/// turns on a handful of things.
const MAX_NEEDS: usize = 8;

/// See the top of this file.
pub(super) struct Context {
    /// The workload that this instance stands for.
    pub(super) who: LocalWorkload,
    pub(super) config: Arc<Config>,
    pub(super) views: Views,
    pub(super) identities: Identities,
    pub(super) telemetry: Telemetry,
    pub(super) dialer: Dialer,
    pub(super) registry: Arc<Registry>,
    pub(super) quota: Quota,
    /// The pods of this process, if they may reach each other without a tunnel.
    pub(super) neighbours: Option<Neighbours>,
}

impl Context {
    /// The control plane's word on the workload that this instance stands for; waits for it, within a bound.
    pub(super) async fn local(&self) -> Result<Arc<Workload>, Refusal> {
        if let Some(workload) = self.views.current().view.local(&self.who) {
            return Ok(Arc::clone(workload));
        }
        let found = Box::pin(self.wait_for_local(&self.who)).await; // rare, and larger than all that is not
        found.ok_or_else(|| Refusal::UnknownLocalWorkload(self.who.clone()))
    }

    async fn wait_for_local(&self, who: &LocalWorkload) -> Option<Arc<Workload>> {
        let waiting = self.telemetry.workload_wait();
        let found = self.views.local(who, self.config.unknown_workload_timeout).await;
        waiting.over(if found.is_some() { WaitEnd::Announced } else { WaitEnd::TimedOut });
        found
    }

    /// Comes to a decision: asks, finds out what is needed, and asks again.
    pub(super) async fn settle<T>(&self, mut decide: impl FnMut(&Learnt) -> Result<T, Halt>) -> Result<T, Refusal> {
        let mut learnt = Learnt::default();
        let mut last = None;
        for _ in 0..MAX_NEEDS {
            let need = match decide(&learnt) {
                Ok(decision) => return Ok(decision),
                Err(Halt::Refuse(refusal)) => return Err(refusal),
                Err(Halt::Need(need)) => need,
            };
            Box::pin(self.find_out(&need, &mut learnt)).await; // rare as well
            last = Some(need);
        }
        Err(last.map_or_else(|| Refusal::UnknownLocalWorkload(self.who.clone()), |need| self.unmet(need)))
    }

    /// Finds out what a decision turns on, or that it cannot be found out.
    async fn find_out(&self, need: &Need, learnt: &mut Learnt) {
        match need {
            Need::Resolve { hostname, .. } => {
                self.telemetry
                    .host_resolved(self.views.current().view.local(&self.who).map(|source| &**source), hostname);
                let resolution = self.config.host_names.resolve(hostname).await;
                learnt.resolved(hostname.clone(), resolution);
            }
            Need::LocalWorkload(who) => {
                self.wait_for_local(who).await;
                learnt.asked(need.clone());
            }
            Need::Policy(name) => {
                self.views.wait_for(|view| view.policy(name).map(|_| ())).await;
                learnt.asked(need.clone());
            }
            Need::Address(_) | Need::Host(_) => {
                self.views.find_out(need).await;
                learnt.asked(need.clone());
            }
        }
    }

    fn unmet(&self, need: Need) -> Refusal {
        match need {
            Need::Resolve { workload, .. } => Refusal::Unresolved(workload),
            Need::LocalWorkload(_) | Need::Policy(_) | Need::Address(_) | Need::Host(_) => {
                Refusal::UnknownLocalWorkload(self.who.clone())
            }
        }
    }

    /// Tells that a connection ended before there was anything to put on record.
    pub(super) fn deny_early(&self, source: SocketAddr, destination: SocketAddr, direction: Direction, why: &Refusal) {
        self.telemetry.early_denial(source, destination, direction, why.cause(), &why.to_string());
    }
}
