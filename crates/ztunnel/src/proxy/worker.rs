//! The worker threads of the data plane.
//!
//! Each worker runs a runtime of its own, so that a task never moves between threads and whatever it shares with the
//! other tasks of its thread is never contended. Work is placed when it starts: a pod's listeners on one worker each,
//! an accepted tunnel on the next worker in turn, a dialled one as [`placement`](super::placement) says.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::placement::{LOOK, Placement};
use super::{scratch, yielding};
use crate::telemetry::metrics::Worker;

/// The threads that move bytes. Clones share them.
#[derive(Debug, Clone)]
pub struct Workers {
    all: Arc<[Worker]>,
    next: Arc<AtomicUsize>,
    /// Counts pods by themselves: taking turns with what else each of them has, all would come to one worker of two.
    next_home: Arc<AtomicUsize>,
    placement: Arc<Mutex<Placement>>,
}

/// Keeps the worker threads running; they end, with all their tasks, when this is dropped.
#[derive(Debug)]
pub struct WorkerThreads {
    threads: Vec<WorkerThread>,
}

#[derive(Debug)]
struct WorkerThread {
    /// Dropped to stop it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads (at least one), named `ztunnel-0` and on (spec configuration 6).
    ///
    /// # Errors
    /// If a thread or its runtime cannot be made.
    pub fn start(count: usize) -> io::Result<(Self, WorkerThreads)> {
        let mut all = Vec::new();
        let mut threads = Vec::new();
        for i in 0..count.max(1) {
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().on_thread_park(yielding::before_sleep).build()?;
            let worker = Worker::new(runtime.handle().clone());
            let yielded = Arc::clone(&worker.yielded);
            all.push(worker);
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::Builder::new().name(format!("ztunnel-{i}")).spawn(move || {
                yielding::count_in(yielded);
                runtime.block_on(async {
                    tokio::select! {
                        // Either the stop was sent or its sender is gone, which means the same.
                        _ = stopped => {}
                        () = scratch::tend() => {}
                    }
                });
            })?;
            threads.push(WorkerThread { stop: Some(stop), thread: Some(thread) });
        }
        let placement = Arc::new(Mutex::new(Placement::new(all.len(), Instant::now())));
        let workers = Self { all: all.into(), next: Arc::default(), next_home: Arc::default(), placement };
        Ok((workers, WorkerThreads { threads }))
    }

    /// The worker whose turn it is.
    #[must_use]
    pub fn next(&self) -> &Handle {
        self.numbered(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of the worker for the next pod.
    pub(super) fn home(&self) -> usize {
        self.next_home.fetch_add(1, Ordering::Relaxed) % self.all.len()
    }

    /// The worker of that number, or of what is left of it.
    pub(super) fn numbered(&self, number: usize) -> &Handle {
        &self.all[number % self.all.len()].runtime
    }

    /// The worker for a tunnel that a pod dials whose worker has the number `home`.
    pub(super) fn for_tunnel(&self, home: usize, beside: usize) -> &Handle {
        let chosen = self.placement().choose(home, beside);
        self.numbered(chosen)
    }

    /// Looks again and again at how busy the workers are. Never ends.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let busy = self.all.iter().map(Worker::busy);
            self.placement().look(Instant::now(), busy);
        }
    }

    fn placement(&self) -> MutexGuard<'_, Placement> {
        // Nothing that runs under the lock can leave it half changed.
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Worker] {
        &self.all
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        for worker in &mut self.threads {
            drop(worker.stop.take());
        }
        for worker in &mut self.threads {
            if let Some(thread) = worker.thread.take() {
                // A worker that panicked has said so already.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use mesh::End;

    use super::*;
    use crate::proxy::copy::{Count, both_ways};

    /// Only a test that fails waits for it.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Uncounted;

    impl Count for Uncounted {
        fn moved(&mut self, _: End, _: usize) {}
        fn closed(&mut self, _: End) {}
    }

    /// Both ends of a connection that a worker carries.
    fn carried(by: &Handle) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let app = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            (app, ours)
        };
        let ((client, near), (server, far)) = (pair(), pair());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        by.spawn(async move {
            let registered = tokio::net::TcpStream::from_std;
            let (mut near, mut far) = (registered(near).unwrap(), registered(far).unwrap());
            both_ways(&mut near, &mut far, &mut Uncounted, PATIENCE).await
        });
        (client, server)
    }

    #[test]
    fn a_worker_lets_others_run_while_several_connections_keep_it_busy() {
        const ROUNDS: usize = 100;
        let (workers, _threads) = Workers::start(1).unwrap();
        let worker = &workers.all()[0];
        let has_yielded = || worker.yielded.load(Ordering::Relaxed) > 0;
        let mut connections: Vec<_> = (0..16).map(|_| carried(&worker.runtime)).collect();
        let says = |(client, server): &mut (TcpStream, TcpStream)| {
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
        };
        (0..10 * ROUNDS).for_each(|_| says(&mut connections[0]));
        assert!(!has_yielded(), "one connection");
        (0..ROUNDS).take_while(|_| !has_yielded()).for_each(|_| connections.iter_mut().for_each(says));
        assert!(has_yielded(), "sixteen");
    }
}
