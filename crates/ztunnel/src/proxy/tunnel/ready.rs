//! Which streams of a tunnel have something to do.
//!
//! One task owns all sockets of a tunnel. Each socket wakes it through a waker of its own, which notes the stream's
//! slot, so that a wake-up costs the same however many streams the tunnel has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The slots of a tunnel that have been woken and not been looked at yet; each at most once.
#[derive(Debug, Default, Clone)]
pub(super) struct ReadyQueue(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    slots: Vec<u32>,
    /// The task that owns the tunnel.
    task: Option<Waker>,
}

impl ReadyQueue {
    /// A waker that notes `slot`. It is made once per stream.
    pub(super) fn waker(&self, slot: u32) -> (Arc<SlotWaker>, Waker) {
        let slot = Arc::new(SlotWaker { queue: self.clone(), slot, queued: AtomicBool::new(false) });
        (Arc::clone(&slot), Waker::from(slot))
    }

    /// Moves the noted slots to `slots` and remembers whom to wake for the next.
    pub(super) fn take(&self, task: &Waker, slots: &mut Vec<u32>) {
        let mut queue = self.lock();
        slots.append(&mut queue.slots);
        match &mut queue.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
    }

    fn note(&self, slot: u32) {
        let mut queue = self.lock();
        queue.slots.push(slot);
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that runs under the lock can leave the queue half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the tunnel's task on behalf of one stream.
#[derive(Debug)]
pub(super) struct SlotWaker {
    queue: ReadyQueue,
    slot: u32,
    queued: AtomicBool,
}

impl SlotWaker {
    /// To be called before the stream is looked at, so that a wake-up from then on is noted again.
    pub(super) fn rearm(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.note(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_that_wakes_twice_is_noted_once_until_it_is_looked_at() {
        let queue = ReadyQueue::default();
        let task = Arc::new(Task::default());
        let task_waker = Waker::from(Arc::clone(&task));
        let mut slots = Vec::new();
        queue.take(&task_waker, &mut slots);
        let (slot, waker) = queue.waker(7);

        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1, "the task is woken once");
        queue.take(&task_waker, &mut slots);
        assert_eq!(slots, [7]);

        slot.rearm();
        waker.wake_by_ref();
        queue.take(&task_waker, &mut slots);
        assert_eq!(slots, [7, 7]);
        assert_eq!(task.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_wake_up_while_the_task_is_running_is_found_at_the_next_look() {
        let queue = ReadyQueue::default();
        let (_slot, waker) = queue.waker(3);
        waker.wake();
        let mut slots = Vec::new();
        queue.take(Waker::noop(), &mut slots);
        assert_eq!(slots, [3]);
    }
}
