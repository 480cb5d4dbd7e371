//! The one task that owns the state: it reads the local document, converses with the control plane, and publishes.
//!
//! Whatever it waits for, it keeps looking after the rest: the document that may change, connections that need to know
//! about an address, and the drain.

mod document;
mod messages;
mod stream;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::time::Duration;

use mesh::{Change, Need, State};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep, sleep_until};

use super::backoff::Backoff;
use super::decode::Interner;
use super::metrics::Counts;
use super::subscription::{Demanded, Name, Request, Subscriptions};
use super::{Complaint, Config, Lookups, Rejected, Remote, gather};
use crate::control::Connector;
use crate::drain::Watcher;
use crate::files::LOOK;
use crate::state::{ANNOUNCEMENT_TIMEOUT, Question, Views};
use document::Watched;
pub use document::{LoadError, load, static_config};

/// Keeps the views up to date.
#[derive(Debug)]
pub struct Driver {
    remote: Option<Remote>,
    watched: Option<Watched>,
    state: State,
    names: Interner,
    subscriptions: Subscriptions,
    views: Views,
    questions: Option<mpsc::Receiver<Question>>,
    /// Who waits for a key, and since when.
    asked: HashMap<Name, Vec<(Instant, oneshot::Sender<()>)>>,
    /// Where to put requests while there is a stream.
    outgoing: Option<mpsc::Sender<Request>>,
    /// When to look after what changes without telling.
    look: Option<Interval>,
    counts: Counts,
    rejected: Rejected,
    synced: Option<oneshot::Sender<()>>,
}

/// What the driver tells others.
#[derive(Debug)]
pub struct Reports {
    /// Counters.
    pub counts: Counts,
    /// For the dump.
    pub rejected: Rejected,
    /// Sent when everything that traffic depends on has been heard once.
    pub synced: oneshot::Sender<()>,
}

impl Driver {
    /// Reads the local document; nothing else happens before [`run`](Self::run).
    ///
    /// # Errors
    /// [`LoadError`], which names the file and what is wrong with it.
    pub fn new(config: Config, reports: Reports) -> Result<(Self, Views), LoadError> {
        let Reports { counts, rejected, synced } = reports;
        let changes = load(&config.source)?;
        let watched = Watched::new(config.source, &changes);
        let mut state = State::new(config.node);
        let _all_new = state.apply(changes);
        let lookups = config.remote.as_ref().map_or(Lookups::Everything, |remote| remote.lookups);
        let (views, questions) = match lookups {
            Lookups::Everything => (Views::new(state.view()), None),
            Lookups::OnDemand => {
                let (views, questions) = Views::on_demand(state.view());
                (views, Some(questions))
            }
        };
        let driver = Self {
            remote: config.remote,
            watched,
            state,
            names: Interner::default(),
            subscriptions: Subscriptions::new(lookups),
            views: views.clone(),
            questions,
            asked: HashMap::new(),
            outgoing: None,
            look: None,
            counts,
            rejected,
            synced: Some(synced),
        };
        Ok((driver, views))
    }

    /// Serves until the drain.
    pub async fn run(mut self, mut drain: Watcher) {
        tokio::select! {
            () = self.serve() => {}
            _ = drain.begun() => {}
        }
    }

    async fn serve(&mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look = Some(look);
        let Some(remote) = self.remote.clone() else {
            self.note_sync();
            return self.beside(pending()).await;
        };
        let (connector, mut backoff) = (Connector::new(remote.control.clone()), Backoff::new());
        let mut attempt = 0_u64;
        loop {
            attempt += 1;
            let began = Instant::now();
            let ended = self.converse(&connector, &remote, attempt).await;
            self.outgoing = None;
            self.counts.ended(ended);
            let wait = backoff.after(began.elapsed(), rand::random());
            tracing::debug!(id = attempt, "next connection to the control plane in {wait:.1?}");
            self.beside(sleep(wait)).await;
        }
    }

    /// Waits for something, and looks after everything else meanwhile.
    async fn beside<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        loop {
            let sweep = self.subscriptions.next_sweep();
            let sweep = async { sleep_until(sweep.map_or_else(Instant::now, Into::into)).await };
            let has_sweep = self.subscriptions.next_sweep().is_some();
            tokio::select! {
                output = &mut future => return output,
                question = next(&mut self.questions) => self.answer(question),
                () = tick(&mut self.look) => {
                    self.look_at_document().await;
                    self.forget_questions();
                    self.views.let_go();
                }
                () = sweep, if has_sweep => self.sweep(),
            }
        }
    }

    /// Asks the control plane on behalf of a connection.
    fn answer(&mut self, question: Question) {
        let Question { need, done } = question;
        let Some(key) = key(&need) else { return };
        // It may have been told since the connection looked.
        if self.knows(&need) {
            return;
        }
        match self.subscriptions.demand(std::time::Instant::now(), &key) {
            Demanded::Absent => return,
            Demanded::Wait => {}
            // Without a stream it goes with the first request of the next.
            Demanded::Ask(request) => self.send(request),
        }
        self.asked.entry(key).or_default().push((Instant::now(), done));
    }

    fn knows(&self, need: &Need) -> bool {
        let current = self.views.current();
        match need {
            Need::Address(address) => current.view.find(address, None).is_some(),
            Need::Host(name) => current.view.service(name).is_some() || current.view.workload_named(name).is_some(),
            Need::LocalWorkload(_) | Need::Policy(_) | Need::Resolve { .. } => true,
        }
    }

    /// Drops questions whose connections have given up.
    fn forget_questions(&mut self) {
        let alive = |since: Instant| since.elapsed() < ANNOUNCEMENT_TIMEOUT + Duration::from_secs(1);
        let subscriptions = &mut self.subscriptions;
        self.asked.retain(|key, waiting| {
            waiting.retain(|(since, done)| alive(*since) && !done.is_closed());
            if waiting.is_empty() {
                subscriptions.give_up(key);
            }
            !waiting.is_empty()
        });
    }

    fn wake(&mut self, keys: Vec<Name>) {
        for (_, done) in keys.iter().filter_map(|key| self.asked.remove(key)).flatten() {
            let _ = done.send(()); // who has given up needs no answer
        }
    }

    /// Puts a request on the stream. A control plane that takes none for as long as the queue is full loses its stream.
    fn send(&mut self, request: Request) {
        if let Some(outgoing) = &self.outgoing
            && outgoing.try_send(request).is_err()
        {
            tracing::warn!("the control plane does not read what we send; connecting again");
            self.outgoing = None;
        }
    }

    fn sweep(&mut self) {
        let gone = self.subscriptions.sweep(std::time::Instant::now());
        for (kind, name) in &gone {
            gather::remove(*kind, [name], &mut self.state);
        }
        tracing::info!(resources = gone.len(), "removed what the control plane no longer tells");
        self.publish();
    }

    async fn look_at_document(&mut self) {
        let Some(watched) = &mut self.watched else { return };
        if let Some(changes) = watched.changes(&self.views.current().view).await {
            self.apply(changes);
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let _counts = self.state.apply(changes);
        self.publish();
    }

    fn publish(&mut self) {
        let complaints = self.subscriptions.rejected();
        self.counts.hold(self.subscriptions.held(), complaints.len());
        let complaint =
            |(kind, name, why): (_, &Name, &str)| Complaint { kind, name: name.clone(), why: why.to_owned() };
        self.rejected.replace(self.subscriptions.rejected().map(complaint).collect());
        self.views.publish(self.state.view());
    }

    fn note_sync(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // nobody waits in a process that is ending
        }
    }
}

/// The key by which something is asked for (spec wire-protocols 3, Names).
fn key(need: &Need) -> Option<Name> {
    match need {
        Need::Address(address) => Some(address.to_string().into()),
        Need::Host(name) => Some(name.to_string().into()),
        Need::LocalWorkload(_) | Need::Policy(_) | Need::Resolve { .. } => None,
    }
}

/// The next tick; never, before there is a clock.
async fn tick(look: &mut Option<Interval>) {
    match look {
        Some(look) => drop(look.tick().await),
        None => pending().await,
    }
}

/// The next question; never, where nobody asks any.
async fn next(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    if let Some(queue) = questions
        && let Some(question) = queue.recv().await
    {
        return question;
    }
    *questions = None;
    pending().await
}
