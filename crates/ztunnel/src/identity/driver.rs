//! Moves requests, answers and time between the [`schedule`](super::schedule), the signer and those who wait.
//!
//! One task owns all of it. It never waits for a signer: requests run beside it, each with a deadline, and a signer
//! that panics costs one attempt. Decisions about when and in which order are the schedule's. It also looks at the files
//! that say whom to trust.

mod files;

use std::collections::{HashMap, hash_map};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh::Identity;
use tokio::sync::mpsc;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::certificate::{Certificate, Terms, WorkloadCertificate, rfc3339};
use super::error::IdentityError;
use super::schedule::timing::{BACKOFF_CAP, Jitter, Now};
use super::schedule::{Answer, Schedule, Settled, Status};
use super::signer::Signer;
use super::{Command, Config, Counts, Published, Reply, SIGN_DEADLINE, Table, csr};
use crate::files::LOOK;
use files::{News, Watched};

/// Longest sleep. The wall clock may be stepped while we sleep, and nothing tells us.
const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// Callers that wait for one certificate. Each holds a socket of ours, so there cannot be more in earnest.
const MAX_WAITING: usize = 16_384;

/// Shortest time that the CA is given for a renewal, however soon the certificate ends.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(1);
/// A leaf of a root that is new to us is not presented for this long, while there is another that lasts: peers learn of
/// the root as we did.
const ROOT_SETTLES: Duration = Duration::from_secs(600);
/// When the CA has new roots, everybody asks it within this time, and not sooner again.
const REISSUE_SPREAD: Duration = Duration::from_secs(60);

type Fetched = Result<Arc<WorkloadCertificate>, IdentityError>;

/// Owner of the schedule; the other end of [`Identities`](super::Identities).
#[derive(Debug)]
pub struct Driver<S> {
    config: Config,
    signer: Arc<S>,
    commands: mpsc::Receiver<Command>,
    table: Arc<ArcSwap<Table>>,
    schedule: Schedule<Arc<WorkloadCertificate>>,
    signing: JoinSet<Fetched>,
    /// For whom each task of `signing` signs; kept here because a task that panicked cannot say.
    signs_for: HashMap<task::Id, Identity>,
    waiting: HashMap<Identity, Vec<Reply>>,
    watched: Watched,
    bundles: Arc<[Certificate]>,
    counts: Counts,
    /// When everybody was last sent to the CA for new roots.
    reissued: Option<Instant>,
}

impl<S: Signer> Driver<S> {
    pub(super) fn new(
        config: Config,
        signer: S,
        commands: mpsc::Receiver<Command>,
        table: Arc<ArcSwap<Table>>,
        counts: Counts,
    ) -> Self {
        Self {
            watched: Watched::new(config.files.clone(), config.rules.revocations.clone()),
            bundles: [].into(),
            counts,
            reissued: None,
            config,
            signer: Arc::new(signer),
            commands,
            table,
            schedule: Schedule::default(),
            signing: JoinSet::new(),
            signs_for: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    /// Serves until the last [`Identities`](super::Identities) is gone. Dropping the future is a clean stop as well:
    /// requests to the CA are dropped with it, and whoever waits is told so.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.look_at_files();
        loop {
            self.start_due();
            let latest = Instant::now() + CLOCK_CHECK;
            let wake = self.schedule.wake(now()).map_or(latest, |at| latest.min(at.into()));
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(ended) = self.signing.join_next_with_id() => self.settle(ended),
                _ = look.tick(), if self.watched.has_files() => self.look_at_files(),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn start_due(&mut self) {
        for identity in self.schedule.promote(now()) {
            tracing::debug!(id = %identity, "the certificate of the new root is in use");
            self.publish(&identity);
        }
        while let Some(identity) = self.schedule.start(now()) {
            let Config { ttl, leaf, rules, .. } = &self.config;
            let terms = Terms { leaf: *leaf, rules: rules.clone(), bundles: self.bundles.clone() };
            let (ttl, deadline) = (*ttl, self.deadline(&identity));
            let fetch =
                fetch(self.signer.clone(), identity.clone(), Demand { ttl, deadline, terms }, self.counts.clone());
            let task = self.signing.spawn(fetch);
            self.signs_for.insert(task.id(), identity);
        }
    }

    /// How long the CA may take: a renewal is given up while there is time for another.
    fn deadline(&self, identity: &Identity) -> Duration {
        match self.schedule.status(now(), identity) {
            Some(Status::Available(certificate)) => {
                let left = certificate.validity().not_after.duration_since(SystemTime::now()).unwrap_or_default();
                (left / 4).clamp(SHORTEST_DEADLINE, SIGN_DEADLINE)
            }
            _ => SIGN_DEADLINE,
        }
    }

    fn look_at_files(&mut self) {
        for news in self.watched.look() {
            match news {
                News::Bundles(bundles) => {
                    self.bundles = bundles.clone();
                    let amend = |certificate: &Arc<WorkloadCertificate>| {
                        let anchors = certificate.anchors().clone().with_bundles(bundles.clone());
                        certificate.trusting(anchors).ok().map(Arc::new)
                    };
                    for identity in self.schedule.amend(amend) {
                        self.publish(&identity);
                    }
                }
                News::MeshRoot => self.reissue(),
            }
        }
    }

    /// Sends everybody to the CA soon, for it has new roots; not again while that is going on.
    fn reissue(&mut self) {
        let now = Instant::now();
        if self.reissued.is_some_and(|at| now < at + REISSUE_SPREAD) {
            return;
        }
        self.reissued = Some(now);
        tracing::info!("the roots of the mesh have changed; all certificates will be renewed soon");
        self.schedule.hasten_refreshes(self::now(), REISSUE_SPREAD, rand::random);
    }

    /// Lets a certificate of new roots take over without leaving behind peers who know the former ones.
    fn succeed(&self, before: &WorkloadCertificate, new: &WorkloadCertificate) -> Option<Succession> {
        let until = before.validity().not_after;
        let anchors = new.anchors().clone().after(before.anchors(), until, SystemTime::now());
        let meanwhile = (!new.is_accepted_by(before)).then(|| before.trusting(anchors.clone()).ok()).flatten();
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Succession {
            new: Arc::new(new.trusting(anchors).ok()?),
            meanwhile: meanwhile.map(|before| (Arc::new(before), ROOT_SETTLES.min(left / 2))),
        })
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Demand { identity, priority, reply } => {
                let answer = self.schedule.demand(now(), &identity, priority);
                self.publish(&identity);
                match (answer, reply) {
                    (_, None) => {}
                    (Answer::Pending, Some(reply)) => self.park(identity, reply),
                    (Answer::Ready(certificate), Some(reply)) => drop(reply.send(Ok(certificate))),
                    (Answer::Failed(error), Some(reply)) => drop(reply.send(Err(error))),
                }
            }
            Command::Forget(identity) => {
                self.schedule.forget(now(), &identity);
                self.publish(&identity);
                self.answer(&identity, &Err(IdentityError::Forgotten));
            }
        }
    }

    /// Keeps `reply` until there is a result.
    fn park(&mut self, identity: Identity, reply: Reply) {
        let waiting = self.waiting.entry(identity.clone()).or_default();
        if waiting.len() == waiting.capacity() {
            waiting.retain(|reply| !reply.is_closed()); // before growing, those whose deadline has passed
        }
        if waiting.len() < MAX_WAITING {
            waiting.push(reply);
        } else {
            drop(reply.send(Err(IdentityError::Crowded(identity))));
        }
    }

    fn answer(&mut self, identity: &Identity, result: &Fetched) {
        for reply in self.waiting.remove(identity).into_iter().flatten() {
            drop(reply.send(result.clone())); // who has stopped waiting needs no answer
        }
    }

    fn settle(&mut self, ended: Result<(task::Id, Fetched), JoinError>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!("signing a certificate was aborted: {error}");
                (error.id(), Err(IdentityError::Aborted))
            }
        };
        let Some(identity) = self.signs_for.remove(&id) else { return };
        let before = match self.schedule.status(now(), &identity) {
            Some(Status::Available(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let (mut result, mut meanwhile, mut rotated) = (result, None, false);
        if let (Some(before), Ok(new)) = (&before, &result)
            && let Some(succession) = self.succeed(before, new)
        {
            rotated = !new.anchors().same_authority(before.anchors());
            meanwhile = succession.meanwhile;
            result = Ok(succession.new);
        }
        let jitter = Jitter::new(rand::random_range(-1.0..=1.0));
        let settled = self.schedule.finish(now(), &identity, result, jitter);
        report(&identity, &settled);
        if let (Some((before, time)), Settled::Issued { .. }) = (meanwhile, &settled) {
            tracing::info!(id = %identity, "a new root signs; its certificate will be in use in {time:.0?}");
            self.schedule.hold(&identity, before, now().instant + time);
        }
        if rotated {
            self.reissue();
        }
        match self.schedule.status(now(), &identity) {
            Some(Status::Available(certificate)) => {
                let certificate = certificate.clone();
                self.answer(&identity, &Ok(certificate));
            }
            Some(Status::Unavailable(error)) => {
                let error = error.clone();
                self.answer(&identity, &Err(error));
            }
            // Forgotten meanwhile, and nobody waits; or it expired this very moment, and the next attempt will tell.
            None | Some(Status::Initializing(_)) => {}
        }
        self.publish(&identity);
    }

    /// Lets everybody know what the schedule knows of `identity`.
    fn publish(&self, identity: &Identity) {
        let state = match self.schedule.status(now(), identity) {
            None => None,
            Some(Status::Initializing(_)) => Some(Published::Initializing),
            Some(Status::Available(certificate)) => Some(Published::Available(certificate.clone())),
            Some(Status::Unavailable(error)) => Some(Published::Unavailable(error.clone())),
        };
        let before = self.table.load();
        if same(before.get(identity), state.as_ref()) {
            return;
        }
        let mut table = Table::clone(&before);
        match (table.entry(identity.clone()), state) {
            (hash_map::Entry::Occupied(entry), None) => drop(entry.remove()),
            (entry, Some(state)) => drop(entry.insert_entry(state)),
            (hash_map::Entry::Vacant(_), None) => {}
        }
        self.table.store(Arc::new(table));
    }
}

/// A new certificate that also accepts what is still presented, and the former one while peers learn the new root.
struct Succession {
    new: Arc<WorkloadCertificate>,
    meanwhile: Option<(Arc<WorkloadCertificate>, Duration)>,
}

/// What is asked of the CA.
struct Demand {
    ttl: Duration,
    deadline: Duration,
    terms: Terms,
}

/// Makes a key, has it signed, checks the answer, and counts it.
async fn fetch<S: Signer>(signer: Arc<S>, identity: Identity, demand: Demand, counts: Counts) -> Fetched {
    let start = Instant::now();
    let fetched = signed(&*signer, &identity, demand).await;
    counts.answered(start.elapsed(), fetched.as_ref().map(|_| ()));
    fetched
}

async fn signed<S: Signer>(signer: &S, identity: &Identity, demand: Demand) -> Fetched {
    let Demand { ttl, deadline, terms } = demand;
    let (key, csr) = csr::create(identity)?;
    let answer = timeout(deadline, signer.sign(identity, &csr, ttl)).await;
    let issued = answer.map_err(|_| IdentityError::Unanswered(deadline))??;
    Ok(Arc::new(WorkloadCertificate::new(identity, key, issued, &terms)?))
}

fn report(identity: &Identity, settled: &Settled) {
    match settled {
        Settled::Issued { refresh } => {
            tracing::debug!(id = %identity, "certificate issued; refresh at {}", rfc3339(*refresh));
        }
        Settled::Retained { error, until, retry } => tracing::info!(
            id = %identity,
            "certificate renewal failed ({error}); retaining existing valid certificate until {}; next retry at {}",
            rfc3339(*until),
            rfc3339(SystemTime::now() + *retry),
        ),
        Settled::Failed { error, retry } => tracing::warn!(
            id = %identity,
            "certificate fetch failed ({error}) and no valid existing certificate; will retry in {retry:.1?} (backoff \
             capped at {}s)",
            BACKOFF_CAP.as_secs(),
        ),
        Settled::Discarded => tracing::debug!(id = %identity, "certificate arrived after its workload had left"),
    }
}

/// Whether there is nothing new to publish.
fn same(before: Option<&Published>, after: Option<&Published>) -> bool {
    match (before, after) {
        (None, None) | (Some(Published::Initializing), Some(Published::Initializing)) => true,
        (Some(Published::Available(a)), Some(Published::Available(b))) => Arc::ptr_eq(a, b),
        (Some(Published::Unavailable(a)), Some(Published::Unavailable(b))) => a == b,
        _ => false,
    }
}

fn now() -> Now {
    Now { instant: Instant::now().into_std(), wall: SystemTime::now() }
}

#[cfg(test)]
mod tests;
