//! A real ztunnel process in a namespace of the mesh: its start, its log, its readiness, its end.
//!
//! Invariant: a process that is dropped is killed and reaped. One that is still running when the program ends goes
//! with the sandbox, which is why no parent-death signal is set: that would follow the *thread* that started it.

mod log;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::apps::{self, Response};
use crate::mesh::MeshError;
use crate::netns::NetNs;
use log::Log;

/// Where ztunnel tells whether it is ready.
const READINESS_PORT: u16 = 15021;
/// Between two questions whether it is ready: short against its start, long against the cost of asking.
const READINESS_PAUSE: Duration = Duration::from_millis(20);
/// Within which a process that is told to stand still does, on whatever machine.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions whether it does.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// A ztunnel did not do what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ZtunnelError {
    /// The namespace that it should run in.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The program.
    #[error("cannot start {program} (log {log})")]
    Start {
        /// Which.
        program: String,
        /// Where its output would be.
        log: String,
        /// Why.
        source: io::Error,
    },
    /// Something was awaited that did not happen.
    #[error("ztunnel {what} within {within:?}; the end of its log:\n{tail}")]
    Late {
        /// What did not happen.
        what: String,
        /// For how long it was awaited.
        within: Duration,
        /// Its last lines.
        tail: String,
    },
    /// The process could not be asked or signalled.
    #[error("cannot {action} ztunnel")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Which ztunnel to start, and how.
#[derive(Debug, Clone)]
pub struct ZtunnelSpec {
    program: PathBuf,
    environment: Vec<(String, String)>,
    lines: Option<Lines>,
}

/// Who is told every line of a log.
#[derive(Clone)]
pub(crate) struct Lines(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl ZtunnelSpec {
    /// The program at `program`, logging at level info.
    pub fn new(program: impl Into<PathBuf>) -> ZtunnelSpec {
        let environment = vec![("RUST_LOG".to_owned(), "info".to_owned())];
        ZtunnelSpec { program: program.into(), environment, lines: None }
    }

    /// With one more setting, or another value for one that the mesh would give.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> ZtunnelSpec {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its output told line by line, in place of a file with all of it: for one that runs for hours. What is slow to
    /// listen holds up the output; lines are text as far as they are UTF-8.
    #[must_use]
    pub fn lines_to(mut self, listener: impl Fn(&str) + Send + Sync + 'static) -> ZtunnelSpec {
        self.lines = Some(Lines(Arc::new(listener)));
        self
    }
}

/// A running ztunnel.
pub struct Ztunnel {
    child: Child,
    netns: NetNs,
    log: Log,
}

impl Ztunnel {
    /// The environment is only what is given here: settings of the person who runs the tests must not leak in.
    pub(crate) fn start(
        spec: &ZtunnelSpec,
        netns: &NetNs,
        own: &[(&str, OsString)],
        state: &Path,
        log_file: &Path,
    ) -> Result<Ztunnel, ZtunnelError> {
        let failed = |source| ZtunnelError::Start {
            program: spec.program.display().to_string(),
            log: log_file.display().to_string(),
            source,
        };
        let (log, output) = Log::open(log_file, spec.lines.clone()).map_err(failed)?;
        let mut command = netns.command(&spec.program);
        command.env_clear().env("LOCAL_XDS_PATH", state);
        let common = [("FAKE_CA", "true"), ("XDS_ADDRESS", ""), ("NETWORK", ""), ("ISTIO_META_DNS_CAPTURE", "false")];
        command.envs(common).envs(own.iter().cloned()).envs(spec.environment.iter().cloned());
        let errors = output.try_clone().map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(failed)?;
        Ok(Ztunnel { child, netns: netns.clone(), log })
    }

    /// Waits until its readiness endpoint says so.
    ///
    /// # Errors
    /// [`ZtunnelError::Late`] at the deadline or as soon as the process has ended.
    pub fn wait_ready(&self, deadline: Duration) -> Result<(), ZtunnelError> {
        let start = Instant::now();
        loop {
            let answer = self.http_get(READINESS_PORT, "/healthz/ready");
            if answer.is_ok_and(|response| response.status == 200) {
                return Ok(());
            }
            if start.elapsed() >= deadline || self.log.ended_within(READINESS_PAUSE) {
                return Err(self.late("was not ready", deadline));
            }
        }
    }

    /// Waits until its log has a line that contains `pattern`; returns the first such line.
    ///
    /// # Errors
    /// [`ZtunnelError::Late`].
    pub fn wait_for_log(&self, pattern: &str, deadline: Duration) -> Result<String, ZtunnelError> {
        let found = self.log.wait_for(pattern, deadline);
        found.ok_or_else(|| self.late(&format!("did not log {pattern:?}"), deadline))
    }

    /// What it has logged so far, both outputs together (at least the newest 8 MiB of it).
    pub fn logs(&self) -> String {
        self.log.text()
    }

    /// Asks one of its own HTTP servers (15000 admin, 15020 metrics, 15021 readiness), from inside its namespace.
    ///
    /// # Errors
    /// No connection, or no HTTP answer.
    pub fn http_get(&self, port: u16, path: &str) -> io::Result<Response> {
        apps::get(&self.netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path)
    }

    /// Its process id inside the sandbox.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// It has ended.
    pub fn open_fds(&self) -> Result<usize, ZtunnelError> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        Ok(entries.map_err(|source| ZtunnelError::Process { action: "count the descriptors of", source })?.count())
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Asks it to end (SIGTERM) without waiting; [`Ztunnel::stop`] may follow.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<(), ZtunnelError> {
        self.signal(Signal::SIGTERM, "terminate")
    }

    /// Has the process stand still, all its threads, while `work` is done. What the kernel does for it goes on, such as
    /// accepting connections.
    ///
    /// # Errors
    /// [`ZtunnelError::Process`], or [`ZtunnelError::Late`] if it does not stop.
    pub fn paused<T>(&self, work: impl FnOnce() -> T) -> Result<T, ZtunnelError> {
        self.signal(Signal::SIGSTOP, "pause")?;
        self.wait_stopped()?;
        let done = work();
        self.signal(Signal::SIGCONT, "continue")?;
        Ok(done)
    }

    /// Waits for the last of its threads: a signal has been sent, but not yet obeyed, when `kill` returns.
    fn wait_stopped(&self) -> Result<(), ZtunnelError> {
        let (id, since) = (Pid::from_raw(self.pid().cast_signed()), Instant::now());
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        loop {
            let state = waitid(Id::Pid(id), flags);
            match state.map_err(|errno| ZtunnelError::Process { action: "wait for", source: errno.into() })? {
                WaitStatus::Stopped(..) => return Ok(()),
                _ if since.elapsed() > STOP_DEADLINE => return Err(self.late("did not stand still", STOP_DEADLINE)),
                _ => std::thread::sleep(STOP_PAUSE),
            }
        }
    }

    fn signal(&self, signal: Signal, action: &'static str) -> Result<(), ZtunnelError> {
        let sent = kill(Pid::from_raw(self.pid().cast_signed()), signal);
        sent.map_err(|errno| ZtunnelError::Process { action, source: errno.into() })
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// [`ZtunnelError::Late`]; the process is then killed.
    pub fn stop(mut self, deadline: Duration) -> Result<ExitStatus, ZtunnelError> {
        self.terminate()?;
        self.wait(deadline)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`ZtunnelError::Late`].
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, ZtunnelError> {
        if !self.log.ended_within(deadline) {
            return Err(self.late("did not end", deadline));
        }
        self.child.wait().map_err(|source| ZtunnelError::Process { action: "wait for", source })
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// It could not be waited for.
    pub fn kill(mut self) -> Result<ExitStatus, ZtunnelError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_err(|source| ZtunnelError::Process { action: "kill", source })
    }

    fn late(&self, what: &str, within: Duration) -> ZtunnelError {
        ZtunnelError::Late { what: what.to_owned(), within, tail: self.log.tail() }
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        // Already ended or reaped: then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
