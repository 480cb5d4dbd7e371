//! Shared mode: one proxy for each pod of the node, as the node agent announces them over ZDS (spec in-pod).
//!
//! `zds` reads the agent's messages, `pods` knows what they mean, `driver` talks to the agent and runs the proxies. A
//! surprise on the socket ends at most the conversation, never the process and never a pod that runs: the agent is told,
//! and a new conversation begins.

mod backoff;
mod driver;
pub mod pods;
pub mod zds;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::LocalWorkload;
use redirect::presence::Presence;
use serde_json::{Value, json};

pub use driver::run;

use crate::dns::{PodResolver, Resolvers};
use crate::identity::tenants::{Stay, Tenants};
use crate::net::netns::Netns;
use crate::net::redirection;
use crate::proxy::{PodProxy, Proxies, Shutdown, Workers};

/// What the operator set about shared mode.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's socket (`INPOD_UDS`).
    pub socket: PathBuf,
    /// How long the answer about a new pod may wait for its certificate (`INPOD_CERTIFICATE_WAIT`); less than the 5 s
    /// after which the agent gives up.
    pub certificate_wait: Duration,
    /// How long connections may take to end when the process does.
    pub drain_deadline: Duration,
}

/// Starts and stops the proxies of pods.
pub trait PodProxies: Clone + Send + Sync + 'static {
    /// A proxy that runs.
    type Pod: Send + 'static;

    /// Starts a proxy; when this resolves, the pod's connections are at least queued. Dropped before, it leaves nothing.
    ///
    /// # Errors
    /// What the agent and the log are told; it is tried again later.
    fn start(&self, who: &LocalWorkload, netns: Arc<Netns>) -> impl Future<Output = Result<Self::Pod, String>> + Send;

    /// Resolves when a pod that was started has its certificate, or when it is known that there will be none soon.
    /// Waiting makes nothing faster; it may be given up at any time.
    fn certified(&self, who: &LocalWorkload) -> impl Future<Output = ()> + Send;

    /// Stops a proxy and waits until its connections have ended.
    fn stop(pod: Self::Pod, how: Shutdown) -> impl Future<Output = ()> + Send;
}

/// Proxies on the worker threads of the data plane.
#[derive(Clone)]
pub struct DataPlane {
    /// Makes them.
    pub proxies: Proxies,
    /// Makes their name servers, if pods are to have any.
    pub resolvers: Option<Resolvers>,
    /// Where they run.
    pub workers: Workers,
    /// Who needs certificates.
    pub tenants: Tenants,
    /// The port that packet rules of pods should lead to.
    pub outbound: u16,
}

/// The proxy of a pod, its name server, and the pod's claim to a certificate.
pub struct Tenant {
    proxy: PodProxy,
    /// Answers until the proxy has ended: what drains may still want names.
    _resolver: Option<PodResolver>,
    _stay: Stay,
}

impl PodProxies for DataPlane {
    type Pod = Tenant;

    async fn start(&self, who: &LocalWorkload, netns: Arc<Netns>) -> Result<Tenant, String> {
        let stay = self.tenants.come(who.clone());
        let bind = |resolvers: &Resolvers| resolvers.bind(who.clone(), Some(Arc::clone(&netns)));
        let mut resolver = self.resolvers.as_ref().map(bind).transpose().map_err(|e| e.to_string())?;
        let seen = Arc::clone(&netns);
        let mut proxy = self.proxies.bind(who.clone(), Some(netns)).map_err(|e| e.to_string())?;
        let unwatched = |e: std::io::Error| format!("failed to watch the listeners: {e}");
        if let Some(resolver) = &mut resolver {
            resolver.serve(self.workers.next()).map_err(unwatched)?;
        }
        proxy.accept(&self.workers).map_err(unwatched)?;
        if matches!(redirection::leads_to(Some(&seen), self.outbound), Presence::No) {
            tracing::warn!(
                name = &*who.name,
                namespace = who.namespace.as_str(),
                "no packet rule of the pod leads to port {}, so its apps go past ztunnel: look at istio-cni's log",
                self.outbound
            );
        }
        Ok(Tenant { proxy, _resolver: resolver, _stay: stay })
    }

    async fn certified(&self, who: &LocalWorkload) {
        self.proxies.certified(who).await;
    }

    async fn stop(pod: Tenant, how: Shutdown) {
        pod.proxy.shutdown(how).await;
    }
}

/// Hears about the pods as a whole; every method is called from one task.
pub trait Observer: Send + 'static {
    /// Whether the agent has told all pods and all of them run.
    fn ready(&self, ready: bool);
    /// How many proxies run and how many pods wait for theirs.
    fn count(&self, active: usize, pending: usize);
    /// A proxy was started.
    fn started(&self);
    /// A proxy was stopped.
    fn stopped(&self);
}

/// The state of each pod, for the configuration dump. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PodStates(Arc<Mutex<BTreeMap<String, (LocalWorkload, PodState)>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PodState {
    Up,
    Pending,
}

impl PodStates {
    /// `workloadState` of `/config_dump` (spec admin-and-telemetry 2); `connections` gives those of a pod.
    #[must_use]
    pub fn dump(&self, connections: impl Fn(&LocalWorkload) -> Value) -> Value {
        let pods = self.lock();
        let entries = pods.iter().map(|(uid, (who, state))| {
            let info = json!({
                "name": &*who.name,
                "namespace": who.namespace.as_str(),
                "serviceAccount": who.service_account.as_str(),
            });
            let entry = match state {
                PodState::Up => {
                    json!({ "state": "Up", "info": info, "connections": connections(who) })
                }
                PodState::Pending => json!({ "state": "Pending", "info": info }),
            };
            (uid.clone(), entry)
        });
        Value::Object(entries.collect())
    }

    fn replace(&self, pods: BTreeMap<String, (LocalWorkload, PodState)>) {
        *self.lock() = pods;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (LocalWorkload, PodState)>> {
        // The map is replaced whole, so that it cannot be left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
