//! The ztunnel of a node: one process after the other, each with its own count of records.
//!
//! Invariant: a process and its records come and go together, so that its metrics and its log tell of the same
//! connections. The log is counted as it comes; nothing of it is kept.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::mesh::Node;
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

use super::judge::{Judge, lock};
use super::memory::Memory;
use super::records::{Line, Records};
use super::{DEADLINE, Outcome};
use crate::bench::process::resident_kib;

/// What a process has of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holdings {
    pub(super) resident_kib: f64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
}

/// A process at work.
pub(super) struct Serving {
    pub(super) ztunnel: Ztunnel,
    pub(super) records: Arc<Mutex<Records>>,
    pub(super) since: Instant,
    pub(super) memory: Memory,
}

impl Serving {
    pub(super) fn holdings(&self) -> Outcome<Holdings> {
        let pid = self.ztunnel.pid();
        Ok(Holdings {
            resident_kib: resident_kib(pid)?,
            descriptors: self.ztunnel.open_fds()?,
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        })
    }
}

/// Where ztunnels of one node follow one another.
pub(super) struct Seat {
    pub(super) whose: &'static str,
    pub(super) node: Node,
    spec: ZtunnelSpec,
    judge: Arc<Judge>,
    serving: Mutex<Option<Serving>>,
    /// Processes that were killed, and their records.
    killed: Mutex<(u64, u64)>,
    /// What the first process had before there was a connection.
    pub(super) at_first: Holdings,
}

impl Seat {
    pub(super) fn take(whose: &'static str, node: &Node, spec: &ZtunnelSpec, judge: &Arc<Judge>) -> Outcome<Self> {
        let serving = start(whose, node, spec, judge)?;
        serving.ztunnel.wait_ready(DEADLINE)?;
        let at_first = serving.holdings()?;
        let (serving, killed) = (Mutex::new(Some(serving)), Mutex::default());
        Ok(Self { whose, node: node.clone(), spec: spec.clone(), judge: judge.clone(), serving, killed, at_first })
    }

    /// Kills the process, and starts another one after a while; `vacant` is called in between, before the start.
    pub(super) fn kill(&self, absence: Duration, vacant: impl FnOnce()) -> Outcome {
        if let Some(serving) = lock(&self.serving).take() {
            serving.ztunnel.kill()?;
            let mut killed = lock(&self.killed);
            let records = lock(&serving.records);
            *killed = (killed.0 + 1, killed.1 + records.complete + records.early);
        }
        std::thread::sleep(absence);
        vacant();
        let next = start(self.whose, &self.node, &self.spec, &self.judge)?;
        next.ztunnel.wait_ready(DEADLINE)?;
        *lock(&self.serving) = Some(next);
        Ok(())
    }

    /// Looks at the process, if there is one at the moment.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Serving) -> Outcome<T>) -> Outcome<Option<T>> {
        lock(&self.serving).as_mut().map(look).transpose()
    }

    /// The metrics of the process that serves.
    pub(super) fn metrics(&self) -> Outcome<String> {
        let text = self.look(|serving| Ok(serving.ztunnel.http_get(15020, "/metrics")?.body))?;
        text.ok_or_else(|| format!("there is no {} ztunnel", self.whose).into())
    }

    /// How many processes were killed, and how many records they had.
    pub(super) fn killed(&self) -> (u64, u64) {
        *lock(&self.killed)
    }
}

fn start(whose: &'static str, node: &Node, spec: &ZtunnelSpec, judge: &Arc<Judge>) -> Outcome<Serving> {
    let records = Arc::<Mutex<Records>>::default();
    let (counted, judge) = (Arc::clone(&records), Arc::clone(judge));
    let spec = spec.clone().lines_to(move |text| match Line::parse(text) {
        Some(line) => {
            lock(&counted).take(&line);
            if line.level == "error" {
                judge.error(whose, text);
            }
        }
        // What is no line of the log is a panic's, or the allocator's.
        None if text.trim().is_empty() => {}
        None => judge.error(whose, text),
    });
    Ok(Serving { ztunnel: node.start_ztunnel(&spec)?, records, since: Instant::now(), memory: Memory::default() })
}
