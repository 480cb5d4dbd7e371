//! Fresh namespaces for the whole program, entered by executing it anew.
//!
//! Three processes are involved, all of the same executable. The *launcher* is the one that was started: it makes the
//! namespaces (and, for an unprivileged user, first a user namespace in which it is root) and waits. The *init* is
//! process 1 of the new process namespace: it lays out `/proc` and `/run`, passes signals on, reaps orphans. The
//! *program* is the third: [`enter`] returns only there.
//!
//! Invariant: nothing outlives the launcher. When it dies, even by SIGKILL, the kernel kills the init (parent-death
//! signal), with it every process of its process namespace, and with them the network namespaces and mounts.
//!
//! It is no security boundary: the program sees the host's files, with the rights of the user who started it.

mod init;
mod launcher;

use std::fmt;
use std::io;
use std::str::FromStr;

/// Tells a process which of the three it is; absent in the launcher.
const STAGE: &str = "TESTKIT_SANDBOX_STAGE";
/// Process id of the init as the launcher's namespace sees it.
const OUTER_PID: &str = "TESTKIT_SANDBOX_OUTER_PID";
/// How the sandbox could not be made, for the program that has to tell it: `<step> <errno>`.
const REFUSAL: &str = "TESTKIT_SANDBOX_REFUSAL";

/// The command line of this process, to be repeated by the next one; the executable itself is found through `/proc`.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Proof that this process runs inside a sandbox.
#[derive(Debug)]
pub struct Inside {
    outer_pid: Option<u32>,
}

impl Inside {
    /// The sandbox's init as seen from where the program was started; `None` if that place has no `/proc` of its own.
    pub fn outer_pid(&self) -> Option<u32> {
        self.outer_pid
    }
}

/// The sandbox could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no sandbox: cannot {step} ({source}). {}", step.remedy())]
pub struct SandboxError {
    /// What failed.
    pub step: Step,
    /// What the kernel said.
    pub source: io::Error,
}

/// The steps on the way into the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A user namespace, for a user who is not privileged.
    UserNamespace,
    /// Mount, network, process and IPC namespaces.
    Namespaces,
    /// Becoming root inside the user namespace.
    MapUser,
    /// Mounts that do not spread to the host.
    PrivateMounts,
    /// A `/proc` that shows the new process namespace.
    Proc,
    /// A `/run` of its own.
    Run,
    /// A network namespace in which the program finds itself under 127.0.0.1.
    Loopback,
    /// Executing this program anew.
    Execute,
    /// Dying with the launcher.
    ParentDeath,
}

impl Step {
    const ALL: [(Step, &str); 9] = [
        (Step::UserNamespace, "create a user namespace"),
        (Step::Namespaces, "create mount, network, process and IPC namespaces"),
        (Step::MapUser, "map the user to root in the user namespace"),
        (Step::PrivateMounts, "make the mounts private"),
        (Step::Proc, "mount a fresh /proc"),
        (Step::Run, "mount a tmpfs at /run"),
        (Step::Loopback, "set lo up"),
        (Step::Execute, "execute this program anew through /proc/self/exe"),
        (Step::ParentDeath, "bind the life of the sandbox to the process that started it"),
    ];

    fn remedy(self) -> &'static str {
        match self {
            Step::UserNamespace | Step::MapUser => {
                "Run as root, or let unprivileged users create user namespaces: sysctl user.max_user_namespaces > 0, \
                 kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0 where they exist; \
                 in a container also a seccomp profile that permits unshare"
            }
            Step::Namespaces | Step::PrivateMounts | Step::Run | Step::Loopback => {
                "This needs CAP_SYS_ADMIN: in a container, run it with --cap-add SYS_ADMIN --cap-add NET_ADMIN and a \
                 seccomp profile that permits unshare and mount (or as a privileged container)"
            }
            Step::Proc => {
                "Containers that hide parts of /proc forbid a fresh one: run the container with unmasked paths \
                 (--security-opt systempaths=unconfined, procMount: Unmasked) or as a privileged container"
            }
            Step::Execute => "The executable must still be readable by this user, and /proc must be mounted",
            Step::ParentDeath => "The process that started the sandbox is gone; start it again",
        }
    }

    fn failed(self, errno: nix::Error) -> SandboxError {
        SandboxError { step: self, source: errno.into() }
    }

    fn failed_io(self, source: io::Error) -> SandboxError {
        SandboxError { step: self, source }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Step::ALL.iter().find(|(step, _)| step == self).map_or("", |(_, text)| text);
        f.write_str(text)
    }
}

/// Takes the program into a sandbox; to be called first thing in `main`, while the process has one thread.
///
/// Returns only inside. In the process that was started it does not return on success: that process waits, passes
/// SIGINT, SIGTERM and SIGHUP on, and ends with the exit status of the program inside (128 + n after signal n).
///
/// # Errors
/// [`SandboxError`] says which step failed and what would permit it. The program then runs outside the sandbox.
pub fn enter() -> Result<Inside, SandboxError> {
    match std::env::var(STAGE).as_deref() {
        Ok("init") => init::run(),
        Ok("inside") => {
            init::release_signals();
            Ok(Inside { outer_pid: outer_pid() })
        }
        Ok("refused") => {
            init::release_signals();
            Err(told_refusal())
        }
        _ => launcher::run(),
    }
}

/// See [`Inside::outer_pid`]; `None` outside a sandbox, too.
pub fn outer_pid() -> Option<u32> {
    std::env::var(OUTER_PID).ok()?.parse().ok()
}

/// Whether the sandbox is in a user namespace of its own, because whoever started it has no privileges.
pub fn is_unprivileged() -> bool {
    // A user namespace that was made here maps one user; the one of the system maps all.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().nth(2) == Some("1"))
}

/// For a command that shall find itself outside any sandbox again and make one of its own.
pub fn forget_sandbox(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env_remove(STAGE).env_remove(OUTER_PID).env_remove(REFUSAL)
}

/// Writes a refusal the way [`told_refusal`] reads it.
fn tell_refusal(error: &SandboxError) -> String {
    let step = Step::ALL.iter().position(|(step, _)| *step == error.step).unwrap_or_default();
    format!("{step} {}", error.source.raw_os_error().unwrap_or_default())
}

fn told_refusal() -> SandboxError {
    let told = std::env::var(REFUSAL).unwrap_or_default();
    let (step, errno) = told.split_once(' ').unwrap_or_default();
    let step = usize::from_str(step).ok().and_then(|index| Step::ALL.get(index));
    SandboxError {
        step: step.map_or(Step::Namespaces, |(step, _)| *step),
        source: io::Error::from_raw_os_error(errno.parse().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
