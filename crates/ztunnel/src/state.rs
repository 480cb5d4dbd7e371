//! The one place where the view of the mesh is swapped.
//!
//! Readers take a snapshot and keep it for the length of one decision; they never wait for a writer, nor do they clear
//! away what it has replaced. Whoever applies the control plane's changes publishes a new view here, which wakes
//! everybody who has to decide something again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh::{LocalWorkload, Need, View, Workload};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a connection waits for something that the control plane has not announced yet (spec data-plane 17).
pub const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions on their way to whoever asks the control plane. It never waits before it takes the next, so this only evens
/// out bursts.
const QUESTION_QUEUE: usize = 256;

/// Something that a connection needs and that the control plane tells only when it is asked; the answer is in the view
/// when `done` is sent or dropped.
#[derive(Debug)]
pub struct Question {
    /// An address or a host name.
    pub need: Need,
    /// To be sent when the view says what there is to say.
    pub done: oneshot::Sender<()>,
}

/// The current view, shared by everybody who decides something.
#[derive(Debug, Clone)]
pub struct Views(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Versioned>,
    /// Views that have been replaced and that somebody looked at when this was last noticed.
    former: Mutex<Vec<Arc<Versioned>>>,
    version: watch::Sender<u64>,
    questions: Option<mpsc::Sender<Question>>,
}

/// A view and its number.
#[derive(Debug)]
pub struct Versioned {
    /// The view.
    pub view: View,
    /// Counts publications; equal versions are the same view.
    pub version: u64,
}

impl Views {
    /// Starts with `view` as version 0.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self::make(view, None)
    }

    /// The same for a control plane that tells about addresses only when it is asked; questions come out of the other
    /// end.
    #[must_use]
    pub fn on_demand(view: View) -> (Self, mpsc::Receiver<Question>) {
        let (questions, queue) = mpsc::channel(QUESTION_QUEUE);
        (Self::make(view, Some(questions)), queue)
    }

    fn make(view: View, questions: Option<mpsc::Sender<Question>>) -> Self {
        let current = ArcSwap::from_pointee(Versioned { view, version: 0 });
        Self(Arc::new(Shared { current, former: Mutex::default(), version: watch::Sender::new(0), questions }))
    }

    /// Has the control plane asked what it knows of an address or a host name, and waits until the view says so, at most
    /// [`ANNOUNCEMENT_TIMEOUT`] long. Without on-demand lookups everything that will be said is in the view already.
    pub async fn find_out(&self, need: &Need) {
        let Some(questions) = &self.0.questions else { return };
        let ask = async {
            let (done, answered) = oneshot::channel();
            if questions.send(Question { need: need.clone(), done }).await.is_ok() {
                let _ = answered.await; // dropped means the same: there is nothing more to wait for
            }
        };
        let _ = tokio::time::timeout(ANNOUNCEMENT_TIMEOUT, ask).await; // then the view is as it is
    }

    /// The view of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Versioned> {
        self.0.current.load_full()
    }

    /// Version of the view of this moment.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.current.load().version
    }

    /// Replaces the view. There is one publisher, so that versions only grow.
    pub fn publish(&self, view: View) {
        let version = self.version() + 1;
        let former = self.0.current.swap(Arc::new(Versioned { view, version }));
        self.0.version.send_replace(version);
        self.former().push(former);
        self.let_go();
    }

    /// Clears away former views that nobody looks at any more; for the publisher, from time to time.
    ///
    /// What the last push replaced may be most of a large mesh. A connection that happened to look at it last would have
    /// to free it all, and would be late by that.
    pub fn let_go(&self) {
        // Nobody can get at a former view who does not have it, so that a count of one stays one.
        self.former().retain(|view| Arc::strong_count(view) > 1);
    }

    fn former(&self) -> MutexGuard<'_, Vec<Arc<Versioned>>> {
        // The list is changed in one step, so that what a poisoned lock guards is whole.
        self.0.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells about every later publication; several may be told as one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Asks `look` about every view until it has an answer, at most [`ANNOUNCEMENT_TIMEOUT`] long.
    pub async fn wait_for<T>(&self, look: impl FnMut(&View) -> Option<T>) -> Option<T> {
        self.wait_at_most(ANNOUNCEMENT_TIMEOUT, look).await
    }

    async fn wait_at_most<T>(&self, most: Duration, mut look: impl FnMut(&View) -> Option<T>) -> Option<T> {
        // Subscribed before the first look, so that no publication falls in between.
        let mut changes = self.changes();
        let answer = async {
            loop {
                if let Some(found) = look(&self.current().view) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(most, answer).await.ok().flatten()
    }

    /// The workload that a proxy instance stands for; waits for its announcement, at most so long.
    pub async fn local(&self, local: &LocalWorkload, within: Duration) -> Option<Arc<Workload>> {
        self.wait_at_most(within, |view| view.local(local).cloned()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_is_cleared_away_by_the_publisher_and_not_by_its_last_reader() {
        let views = Views::new(View::default());
        let reader = views.current();
        let former = Arc::downgrade(&reader);
        views.publish(View::default());
        views.let_go();
        assert_eq!(former.upgrade().unwrap().version, 0, "it is still being looked at");
        drop(reader);
        assert!(former.upgrade().is_some(), "and it is not for the reader to clear it away");
        views.let_go();
        assert!(former.upgrade().is_none());
        let unread = Arc::downgrade(&views.current());
        views.publish(View::default());
        assert!(unread.upgrade().is_none(), "what nobody looks at does not wait");
    }
}
