//! Process 1 of the sandbox: lays out the mounts, starts the program, passes signals on, reaps what was orphaned.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::launcher::LAUNCHER_PID;
use super::{Inside, OUTER_PID, REFUSAL, STAGE, SandboxError, Step, THIS_PROGRAM, tell_refusal};
use crate::link;

/// What the process that waits is responsible for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Its one child.
    ThisChild,
    /// Its child and whatever is orphaned in its process namespace.
    Everybody,
}

/// Starts the program inside, or, if the sandbox cannot be finished, the program as a bearer of that news.
pub(super) fn run() -> Result<Inside, SandboxError> {
    let outer_pid = outer_pid();
    let prepared = die_with_launcher().and_then(|()| lay_out_mounts()).and_then(|()| loopback());
    let mut args = std::env::args_os();
    let mut command = Command::new(THIS_PROGRAM);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env_remove(LAUNCHER_PID);
    match &prepared {
        Ok(()) => command.env(STAGE, "inside"),
        Err(error) => command.env(STAGE, "refused").env(REFUSAL, tell_refusal(error)),
    };
    if let Some(pid) = outer_pid {
        command.env(OUTER_PID, pid);
    }
    let signals = catch_signals().map_err(|error| Step::Execute.failed_io(error))?;
    let program = command.spawn().map_err(|error| Step::Execute.failed_io(error))?;
    let status = wait(&program, Watch::Everybody, &signals).map_err(|error| Step::Execute.failed_io(error))?;
    std::process::exit(status)
}

/// As long as `/proc` is still the launcher's, it names this process as the launcher's namespace does.
fn outer_pid() -> Option<String> {
    fs::read_link("/proc/self").ok()?.to_str().map(str::to_owned)
}

/// The parent-death signal alone would miss a launcher that died before it was set, hence the look at the parent after.
fn die_with_launcher() -> Result<(), SandboxError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| Step::ParentDeath.failed(errno))?;
    let status = fs::read_to_string("/proc/self/status").map_err(|error| Step::ParentDeath.failed_io(error))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim);
    if parent == std::env::var(LAUNCHER_PID).ok().as_deref() {
        Ok(())
    } else {
        Err(Step::ParentDeath.failed(nix::Error::ESRCH))
    }
}

fn lay_out_mounts() -> Result<(), SandboxError> {
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| Step::PrivateMounts.failed(errno))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), plain | MsFlags::MS_NOEXEC, none)
        .map_err(|errno| Step::Proc.failed(errno))?;
    mount(Some("testkit"), "/run", Some("tmpfs"), plain, Some("mode=0755")).map_err(|errno| Step::Run.failed(errno))
}

fn loopback() -> Result<(), SandboxError> {
    link::set_up("lo").map_err(|error| Step::Loopback.failed_io(error.into_source()))
}

/// Catches the signals that [`wait`] handles, from now on; to be called before the child is started.
///
/// An init that had not caught them would lose them: the kernel drops signals for a process 1 without handlers. The
/// child inherits the mask and lifts it by [`release_signals`].
pub(super) fn catch_signals() -> io::Result<SignalFd> {
    let awaited = awaited();
    awaited.thread_block()?;
    Ok(SignalFd::new(&awaited)?)
}

/// Lets the program inside have its signals.
pub(super) fn release_signals() {
    // Fails only for an invalid argument, which this is not.
    let _ = awaited().thread_unblock();
}

fn awaited() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Waits until `child` ends, passing on signals that another process sent; returns the exit status to end with.
///
/// What a terminal sends (Ctrl-C) reaches the whole foreground group by itself and is not passed on a second time.
pub(super) fn wait(child: &Child, watch: Watch, signals: &SignalFd) -> io::Result<i32> {
    /// `si_code` of signals that the kernel itself sent (sigaction(2)).
    const SI_KERNEL: i32 = 0x80;
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        if let Some(status) = reap(child, watch)? {
            return Ok(status);
        }
        let Some(signal) = signals.read_signal()? else { continue };
        match Signal::try_from(signal.ssi_signo.cast_signed()) {
            Ok(Signal::SIGCHLD) => {}
            Ok(passed_on) if signal.ssi_code != SI_KERNEL => {
                // The child may be gone by now; then the next reap ends the wait.
                let _ = kill(child, passed_on);
            }
            _ => {}
        }
    }
}

/// Collects every process that has ended; the exit status once `child` is among them.
fn reap(child: Pid, watch: Watch) -> io::Result<Option<i32>> {
    loop {
        let whom = match watch {
            Watch::ThisChild => Id::Pid(child),
            Watch::Everybody => Id::All,
        };
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let ended = match waitid(whom, peek) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => pid,
            Ok(_) | Err(nix::Error::ECHILD) => return Ok(None),
            Err(nix::Error::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match waitpid(ended, None)? {
            WaitStatus::Exited(pid, code) if pid == child => return Ok(Some(code)),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Ok(Some(128 + signal as i32)),
            _ => {}
        }
    }
}
