//! The conversation with the node agent, and the proxies that follow from it.
//!
//! Requests are carried out as they come, and answered in their order: an answer that waits, for the certificate of a
//! pod, holds up the answers after it and nothing else. Whatever goes wrong ends at most the conversation, which begins
//! again after a wait; pods that run go on, and pods that could not be started are tried again meanwhile.

mod agent;
mod answers;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mesh::LocalWorkload;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::agent::{Agent, Ended};
use self::answers::{Answer, Answers};
use super::backoff::Backoff;
use super::pods::{Added, Pods, Violation};
use super::zds::{self, Message, PodUid};
use super::{Config, Observer, PodProxies, PodState, PodStates};
use crate::net::netns::Netns;
use crate::proxy::Shutdown;

/// How long a pod that could not be started waits for the next try (spec in-pod 3).
const RETRY: Duration = Duration::from_secs(5);
/// Between two looks whether another agent has taken the place of the one we talk to, which may hang and never say so.
const LOOK: Duration = Duration::from_secs(10);
/// How much longer than their deadline pods may take to stop, so that the process ends whatever happens.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Talks to the agent until `draining` resolves because the process ends, then stops all proxies.
pub async fn run<X: PodProxies>(
    config: Config,
    proxies: X,
    observer: impl Observer,
    states: PodStates,
    draining: impl Future<Output = ()> + Send,
) {
    let mut node = Node {
        proxies,
        observer,
        states,
        pods: Pods::new(),
        certificate_wait: config.certificate_wait,
        retry_at: None,
        stopping: JoinSet::new(),
    };
    tokio::select! {
        never = node.converse_forever(&config.socket) => match never {},
        () = draining => {}
    }
    node.stop_all(config.drain_deadline).await;
}

/// The pods of this node and what runs them.
struct Node<X: PodProxies, O> {
    proxies: X,
    observer: O,
    states: PodStates,
    pods: Pods<Netspace, X::Pod>,
    certificate_wait: Duration,
    /// When pods that could not be started are tried again.
    retry_at: Option<Instant>,
    /// Proxies that are on their way out.
    stopping: JoinSet<()>,
}

/// A namespace, compared by what it is and not by the descriptor.
#[derive(Debug, Clone)]
struct Netspace(Arc<Netns>);

impl PartialEq for Netspace {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

/// What is told to the agent when its request was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("failure to process message : {0}")]
    Violation(#[from] Violation),
    #[error("failure to start proxy : {0}")]
    Start(String),
}

impl<X: PodProxies, O: Observer> Node<X, O> {
    async fn converse_forever(&mut self, path: &Path) -> Infallible {
        let mut backoff = Backoff::new();
        loop {
            let agent = match Agent::connect(path) {
                Ok(agent) => agent,
                Err(error) => {
                    let wait = backoff.next(rand::random());
                    let path = path.display();
                    tracing::warn!(
                        "failed to connect to the Istio CNI node agent over {path}, is the node agent healthy? details: \
                         {error}. retrying in {wait:?}"
                    );
                    self.idle(wait).await;
                    continue;
                }
            };
            if let Err(error) = agent.send(&zds::hello()).await {
                let wait = backoff.next(rand::random());
                tracing::error!("node agent announcement failed ({error}), retrying in {wait:?}");
                self.idle(wait).await;
                continue;
            }
            let ended = self.converse(&agent, path).await;
            if self.pods.is_told() {
                backoff = Backoff::new(); // it was a good conversation
            }
            self.pods.disconnected();
            self.publish();
            let wait = backoff.next(rand::random());
            tracing::info!("conversation with the Istio CNI node agent ended: {ended}. beginning again in {wait:?}");
            drop(agent);
            self.idle(wait).await;
        }
    }

    /// One connection, from after the hello to its end.
    async fn converse(&mut self, agent: &Agent, path: &Path) -> Ended {
        self.pods.connected();
        self.publish();
        let mut answers = Answers::default();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let received = tokio::select! {
                outcome = answers.due() => {
                    if let Err(ended) = agent.send(&zds::ack(&outcome)).await {
                        return ended;
                    }
                    continue;
                }
                received = agent.receive(), if answers.has_room() => received,
                () = self.retry_is_due() => {
                    self.retry().await;
                    continue;
                }
                _ = looks.tick() => {
                    if agent.is_abandoned(path) {
                        return Ended::Replaced;
                    }
                    continue;
                }
            };
            let message = match received {
                Ok(message) => message,
                Err(Ended::Protocol(error)) => {
                    let ended = Ended::Protocol(error);
                    answers.owe(Answer::now(Err(ended.to_string())));
                    // That it cannot be told either makes no difference: the conversation ends.
                    for outcome in answers.all_at_once() {
                        if agent.send(&zds::ack(&outcome)).await.is_err() {
                            break;
                        }
                    }
                    return ended;
                }
                Err(ended) => return ended,
            };
            let uid = message.uid().cloned();
            let answer = match self.handle(message).await {
                Ok(None) => Answer::now(Ok(())),
                Ok(Some(who)) => self.when_certified(who),
                Err(refused) => {
                    tracing::warn!(uid, "refused a request of the Istio CNI node agent: {refused}");
                    Answer::now(Err(refused.to_string()))
                }
            };
            self.publish();
            answers.owe(answer);
        }
    }

    /// The answer about a pod that runs, and may have to do without a certificate in the end.
    fn when_certified(&self, who: LocalWorkload) -> Answer {
        let (proxies, deadline) = (self.proxies.clone(), Instant::now() + self.certificate_wait);
        Answer::after(async move {
            if timeout_at(deadline, proxies.certified(&who)).await.is_err() {
                tracing::info!(
                    name = &*who.name,
                    namespace = who.namespace.as_str(),
                    "pod has no certificate yet, acknowledging it all the same"
                );
            }
        })
    }

    /// Carries out a request; yields a pod whose certificate the answer should wait for.
    async fn handle(&mut self, message: Message<OwnedFd>) -> Result<Option<LocalWorkload>, Refused> {
        match message {
            Message::Add(uid, who, netns) => {
                // Even if it cannot be started, it is there: what runs under its key is not to be stopped.
                self.pods.mention(&uid)?;
                let who = who.ok_or(Violation::NoInfo)?;
                let netns = Netns::new(netns).map_err(|e| Refused::Start(e.to_string()))?;
                self.add(uid, who, Netspace(Arc::new(netns))).await
            }
            Message::Keep(uid) => {
                self.pods.keep(&uid)?;
                tracing::info!(uid, "pod keep received. will not delete it when snapshot is sent");
                if !self.pods.knows(&uid) {
                    tracing::warn!(uid, "the pod has no proxy here, and gets one only when the node agent adds it");
                }
                Ok(None)
            }
            Message::Del(uid) => {
                let pod = self.pods.del(&uid)?;
                tracing::info!(uid, "pod delete request, shutting down proxy");
                pod.into_iter().for_each(|pod| self.stop(pod));
                Ok(None)
            }
            Message::SnapshotSent => {
                let gone = self.pods.snapshot_sent()?;
                tracing::info!("received snapshot sent");
                for (uid, pod) in gone {
                    tracing::info!(uid, "pod is not in the snapshot, shutting down proxy");
                    self.stop(pod);
                }
                Ok(None)
            }
        }
    }

    async fn add(
        &mut self,
        uid: PodUid,
        who: LocalWorkload,
        netns: Netspace,
    ) -> Result<Option<LocalWorkload>, Refused> {
        match self.pods.add(&uid, &netns) {
            Added::Known => return Ok(None),
            Added::Start { replaces } => replaces.into_iter().for_each(|old| self.stop(old)),
        }
        tracing::info!(uid, name = &*who.name, namespace = who.namespace.as_str(), "pod received, starting proxy");
        self.start(uid, who.clone(), netns).await.map_err(Refused::Start)?;
        // Pods of a snapshot run already: to wait would only keep the others waiting.
        Ok((self.pods.is_told() && !self.certificate_wait.is_zero()).then_some(who))
    }

    async fn start(&mut self, uid: PodUid, who: LocalWorkload, netns: Netspace) -> Result<(), String> {
        match self.proxies.start(&who, Arc::clone(&netns.0)).await {
            Ok(proxy) => {
                self.observer.started();
                self.pods.started(uid, who, netns, proxy);
                Ok(())
            }
            Err(error) => {
                self.pods.failed(uid, who, netns);
                Err(error)
            }
        }
    }

    /// Spends a wait on what goes on without the agent.
    async fn idle(&mut self, wait: Duration) {
        let mut over = pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.retry_is_due() => self.retry().await,
            }
        }
    }

    /// Resolves when it is time to try again to start pods that could not be started; never while there are none.
    async fn retry_is_due(&mut self) {
        while self.stopping.try_join_next().is_some() {}
        if self.pods.pending().len() == 0 {
            self.retry_at = None;
            return std::future::pending().await;
        }
        let at = *self.retry_at.get_or_insert_with(|| {
            let uids: Vec<&PodUid> = self.pods.pending().map(|(uid, _)| uid).collect();
            tracing::info!(?uids, "scheduling retry");
            Instant::now() + RETRY
        });
        sleep_until(at).await;
        self.retry_at = None;
    }

    async fn retry(&mut self) {
        let pending: Vec<_> = self.pods.pending().map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
        for (uid, pod) in pending {
            tracing::info!(uid, "retrying workload");
            if let Err(error) = self.start(uid.clone(), pod.who, pod.netns).await {
                tracing::warn!(uid, error, "failed to start the proxy of a pod again");
            }
        }
        self.publish();
    }

    /// Stops a proxy whose pod is gone, without waiting for it.
    fn stop(&mut self, pod: X::Pod) {
        self.observer.stopped();
        self.stopping.spawn(X::stop(pod, Shutdown::Immediate));
    }

    async fn stop_all(self, deadline: Duration) {
        let mut stopping = self.stopping;
        for pod in self.pods.into_running() {
            self.observer.stopped();
            stopping.spawn(X::stop(pod, Shutdown::Graceful(deadline)));
        }
        let all = async { while stopping.join_next().await.is_some() {} };
        if timeout(deadline.saturating_add(STOP_GRACE), all).await.is_err() {
            tracing::error!(pods = stopping.len(), "pods did not stop in time, leaving them behind");
        }
    }

    fn publish(&self) {
        let up = self.pods.running().map(|(uid, who)| (uid.clone(), (who.clone(), PodState::Up)));
        let pending = self.pods.pending().map(|(uid, pod)| (uid.clone(), (pod.who.clone(), PodState::Pending)));
        self.observer.count(self.pods.running().len(), self.pods.pending().len());
        self.observer.ready(self.pods.is_ready());
        self.states.replace(up.chain(pending).collect());
    }
}
