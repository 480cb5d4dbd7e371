//! What we have asked the control plane for, what it has told, and what to say next: delta discovery as a machine
//! (spec wire-protocols 2, state-and-dns 2).
//!
//! Two types are subscribed to. Invariants: a version is recorded only for what was accepted; a rejected resource keeps
//! the version that it had, and is named until it is good or gone; every response is answered once. Claims at the start
//! of a stream fit what servers take ([`MAX_CLAIM`]); what they leave out is asked for again or swept, so that nothing
//! outlives its removal. What resources mean is not known here, and nothing here does I/O.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use rustc_hash::FxBuildHasher;

/// Longest list of held versions in one request, in bytes of names and versions. Common servers take 4 MiB.
pub const MAX_CLAIM: usize = 2 * 1024 * 1024;
/// Bytes that an entry of such a list costs besides its texts.
const CLAIM_OVERHEAD: usize = 12;
/// A held resource that was not claimed and that the control plane has not repeated in this time after its last news is
/// no more. Long against the pause between the parts of a large push.
pub const SWEEP_AFTER: Duration = Duration::from_secs(60);
/// Longest text of a refusal.
const MAX_NACK: usize = 16 * 1024;
/// Rejected resources that are remembered by name; more are only counted.
pub const MAX_REJECTED: usize = 1_000;
/// Keys that are waited for at one time: each has at least one connection behind it.
pub const MAX_WAITING: usize = 4_096;
/// How long the control plane's word that there is nothing at a key is believed without asking again.
pub const ABSENCE: Duration = Duration::from_secs(5);
/// Absences remembered at one time.
const MAX_ABSENT: usize = 16_384;

/// The name of a resource.
pub type Name = Arc<str>;
/// The version of a resource: whatever the control plane calls it.
pub type Version = CompactString;

/// A type of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Policies.
    Authorization,
}

impl Kind {
    /// All, in the order in which they are asked for.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// The type URL.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    /// The type of a URL, if it is one of ours.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookups {
    /// Everything.
    Everything,
    /// All policies, and addresses when they are needed (`XDS_ON_DEMAND`).
    OnDemand,
}

/// What to tell the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The first of its type on a stream.
    Open {
        /// Of which type.
        kind: Kind,
        /// Names to add; none means everything.
        subscribe: Vec<Name>,
        /// Names to take away.
        unsubscribe: Vec<Name>,
        /// What is held already.
        versions: BTreeMap<Name, Version>,
    },
    /// More names of the type that is looked up.
    Subscribe(Vec<Name>),
    /// The answer to a response.
    Settle {
        /// Of which type.
        url: String,
        /// Which response.
        nonce: String,
        /// What was wrong with it; nothing if it was accepted.
        error: Option<String>,
    },
}

/// A resource of a response, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Other names by which it may have been asked for; none where nothing is asked for by name.
    pub aliases: Vec<String>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is applied.
    Accepted,
    /// It is applied, and means less than was written: a part could not be read.
    Flawed(String),
    /// It is not applied; what was applied before stays.
    Rejected(String),
}

impl Verdict {
    /// What is wrong, if anything.
    #[must_use]
    pub fn complaint(&self) -> Option<&str> {
        match self {
            Self::Accepted => None,
            Self::Flawed(text) | Self::Rejected(text) => Some(text),
        }
    }
}

/// A response that has been decoded and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its type.
    pub kind: Kind,
    /// To be named in the answer.
    pub nonce: String,
    /// In wire order.
    pub resources: Vec<Received>,
    /// Names that are no more.
    pub removed: Vec<Name>,
}

/// What an answered response means for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The answer.
    pub answer: Request,
    /// Keys that were waited for and are settled now, one way or the other.
    pub woken: Vec<Name>,
}

/// What a demand meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demanded {
    /// The control plane has to be asked.
    Ask(Request),
    /// It has been asked already.
    Wait,
    /// It has just said that there is nothing, or too much is being asked.
    Absent,
}

/// All subscriptions of the process, across streams.
#[derive(Debug)]
pub struct Subscriptions {
    lookups: Lookups,
    address: Subscription,
    authorization: Subscription,
    /// Keys that somebody waits for.
    waiting: HashSet<Name>,
    /// Keys without anything behind them, and until when that is believed.
    absent: HashMap<Name, Instant>,
    /// Complaints about what was sent last, by type and name.
    rejected: BTreeMap<(Kind, Name), String>,
}

/// One type.
#[derive(Debug, Default)]
struct Subscription {
    held: HashSet<Held, FxBuildHasher>,
    /// Held, not claimed on this stream, and not repeated by the control plane so far.
    unclaimed: HashSet<Name>,
    sweep: Option<Instant>,
    synced: bool,
}

/// A resource that is held, found by its name.
#[derive(Debug)]
struct Held {
    name: Name,
    version: Version,
}

impl Borrow<str> for Held {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.name).hash(state);
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Held {}

impl Subscriptions {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(lookups: Lookups) -> Self {
        Self {
            lookups,
            address: Subscription::default(),
            authorization: Subscription::default(),
            waiting: HashSet::new(),
            absent: HashMap::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// What is asked for.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        self.lookups
    }

    fn of(&mut self, kind: Kind) -> &mut Subscription {
        match kind {
            Kind::Address => &mut self.address,
            Kind::Authorization => &mut self.authorization,
        }
    }

    /// The first requests of a new stream.
    pub fn open(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let on_demand = kind == Kind::Address && self.lookups == Lookups::OnDemand;
            let versions = self.of(kind).claim();
            let everything: Name = "*".into();
            let (subscribe, unsubscribe) = if on_demand {
                // Everything and not everything: nothing, to begin with (spec state-and-dns 2.1).
                let waited = self.waiting.iter().cloned();
                (std::iter::once(everything.clone()).chain(waited).collect(), vec![everything])
            } else {
                (Vec::new(), Vec::new())
            };
            requests.push(Request::Open { kind, subscribe, unsubscribe, versions });
            if on_demand {
                // What did not fit is asked for by name, so that none of it has to be swept.
                let rest: Vec<Name> = self.address.unclaimed.drain().collect();
                requests.extend(chunks(rest).map(Request::Subscribe));
            }
        }
        requests
    }

    /// Takes note of a response, and answers it.
    pub fn settle(&mut self, now: Instant, response: Response) -> Settled {
        let Response { kind, nonce, resources, removed } = response;
        let error = nack(&resources);
        let mut woken = Vec::new();
        let held = &mut self.of(kind).held;
        if held.is_empty() {
            held.reserve(resources.len());
        }
        for Received { name, version, aliases, verdict } in resources {
            self.answered(&name, &aliases, &mut woken);
            match verdict.complaint() {
                None => self.is_well(kind, &name),
                Some(text) if self.rejected.len() < MAX_REJECTED => {
                    self.rejected.insert((kind, name.clone()), text.to_owned());
                }
                Some(_) => {}
            }
            let subscription = self.of(kind);
            subscription.heard_of(&name);
            if !matches!(verdict, Verdict::Rejected(_)) {
                // With the new text of its name, which the rest of the process holds now.
                subscription.held.replace(Held { name, version });
            }
        }
        for name in removed {
            woken.extend(self.waiting.take(&name));
            self.is_well(kind, &name);
            let subscription = self.of(kind);
            subscription.heard_of(&name);
            if !subscription.held.remove(&*name) {
                self.note_absence(now, name);
            }
        }
        let subscription = self.of(kind);
        subscription.synced = true;
        subscription.sweep = (!subscription.unclaimed.is_empty()).then(|| now + SWEEP_AFTER);
        Settled { answer: Request::Settle { url: kind.url().to_owned(), nonce, error }, woken }
    }

    /// There is something at these keys, for whoever has waited for it.
    fn answered(&mut self, name: &Name, aliases: &[String], woken: &mut Vec<Name>) {
        if self.waiting.is_empty() && self.absent.is_empty() {
            return; // as it always is where everything is asked for
        }
        for key in std::iter::once(&**name).chain(aliases.iter().map(String::as_str)) {
            woken.extend(self.waiting.take(key));
            self.absent.remove(key);
        }
    }

    /// There is nothing to complain of any more.
    fn is_well(&mut self, kind: Kind, name: &Name) {
        if !self.rejected.is_empty() {
            self.rejected.remove(&(kind, name.clone()));
        }
    }

    fn note_absence(&mut self, now: Instant, name: Name) {
        if self.lookups == Lookups::Everything {
            return;
        }
        if self.absent.len() >= MAX_ABSENT {
            self.absent.retain(|_, until| *until > now);
        }
        if self.absent.len() < MAX_ABSENT {
            self.absent.insert(name, now + ABSENCE);
        }
    }

    /// Somebody needs what is at `key` and does not find it in the view.
    pub fn demand(&mut self, now: Instant, key: &Name) -> Demanded {
        let absent = self.absent.get(key).is_some_and(|until| *until > now);
        if absent || self.lookups == Lookups::Everything {
            return Demanded::Absent;
        }
        if self.waiting.contains(key) {
            return Demanded::Wait;
        }
        if self.waiting.len() >= MAX_WAITING {
            return Demanded::Absent;
        }
        self.waiting.insert(key.clone());
        Demanded::Ask(Request::Subscribe(vec![key.clone()]))
    }

    /// Nobody waits for `key` any longer.
    pub fn give_up(&mut self, key: &Name) {
        self.waiting.remove(key);
    }

    /// When [`sweep`](Self::sweep) has something to do.
    #[must_use]
    pub fn next_sweep(&self) -> Option<Instant> {
        [self.address.sweep, self.authorization.sweep].into_iter().flatten().min()
    }

    /// What the control plane has not repeated though it was not told that we hold it: to be removed.
    pub fn sweep(&mut self, now: Instant) -> Vec<(Kind, Name)> {
        let mut gone = Vec::new();
        for kind in Kind::ALL {
            let subscription = self.of(kind);
            if subscription.sweep.is_some_and(|at| at <= now) {
                subscription.sweep = None;
                gone.extend(subscription.unclaimed.drain().map(|name| (kind, name)));
            }
        }
        for (kind, name) in &gone {
            self.of(*kind).held.remove(&**name);
        }
        gone
    }

    /// Whether everything that is asked for at the start has been answered at least once. A response of which a part was
    /// rejected counts: one bad resource must not keep every new node from serving.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.authorization.synced && (self.address.synced || self.lookups == Lookups::OnDemand)
    }

    /// Resources that were not accepted as they were sent, and why.
    pub fn rejected(&self) -> impl ExactSizeIterator<Item = (Kind, &Name, &str)> {
        self.rejected.iter().map(|((kind, name), why)| (*kind, name, why.as_str()))
    }

    /// How many resources are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.address.held.len() + self.authorization.held.len()
    }
}

impl Subscription {
    /// The control plane has said something of it on this stream.
    fn heard_of(&mut self, name: &Name) {
        if !self.unclaimed.is_empty() {
            self.unclaimed.remove(name);
        }
    }

    /// As much of what is held as fits a request; the rest is noted.
    fn claim(&mut self) -> BTreeMap<Name, Version> {
        let mut left = MAX_CLAIM;
        let mut claimed = BTreeMap::new();
        self.unclaimed.clear();
        self.sweep = None;
        for Held { name, version } in &self.held {
            let size = name.len() + version.len() + CLAIM_OVERHEAD;
            if size <= left {
                left -= size;
                claimed.insert(name.clone(), version.clone());
            } else {
                self.unclaimed.insert(name.clone());
            }
        }
        claimed
    }
}

/// Names in groups that fit a request.
fn chunks(names: Vec<Name>) -> impl Iterator<Item = Vec<Name>> {
    let mut names = names.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut left = MAX_CLAIM;
        let mut chunk = Vec::new();
        while let Some(name) = names.next_if(|name| chunk.is_empty() || name.len() + CLAIM_OVERHEAD <= left) {
            left = left.saturating_sub(name.len() + CLAIM_OVERHEAD);
            chunk.push(name);
        }
        Some(chunk).filter(|chunk| !chunk.is_empty())
    })
}

/// `name: reason` of everything that is wrong (spec state-and-dns 2.3).
fn nack(resources: &[Received]) -> Option<String> {
    let mut text = String::new();
    let mut untold = 0;
    for (name, why) in resources.iter().filter_map(|r| Some((&r.name, r.verdict.complaint()?))) {
        if text.len() + name.len() + why.len() > MAX_NACK {
            untold += 1;
            continue;
        }
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}{name}: {why}"); // a String takes everything
    }
    if untold > 0 {
        let _ = write!(text, "; and {untold} more");
    }
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
