//! The outermost process: makes the namespaces, starts the init in them, waits for it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getegid, geteuid};

use super::init::{self, Watch};
use super::{Inside, STAGE, SandboxError, Step, THIS_PROGRAM};

/// The launcher's process id, by which the init sees that its parent still lives.
pub(super) const LAUNCHER_PID: &str = "TESTKIT_SANDBOX_LAUNCHER_PID";

/// Starts the init and ends with its exit status; returns only when the namespaces cannot be had.
pub(super) fn run() -> Result<Inside, SandboxError> {
    make_namespaces()?;
    let mut args = std::env::args_os();
    let mut command = Command::new(THIS_PROGRAM);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let signals = init::catch_signals().map_err(|error| Step::Execute.failed_io(error))?;
    let init = command
        .args(args)
        .env(STAGE, "init")
        .env(LAUNCHER_PID, std::process::id().to_string())
        .spawn()
        .map_err(|error| Step::Execute.failed_io(error))?;
    let status = init::wait(&init, Watch::ThisChild, &signals).map_err(|error| Step::Execute.failed_io(error))?;
    std::process::exit(status)
}

/// The process namespace is for children only: the first of them, the init, becomes its process 1.
fn make_namespaces() -> Result<(), SandboxError> {
    let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    let (user, group) = (geteuid(), getegid());
    match unshare(all) {
        Ok(()) => return Ok(()),
        Err(_) if user != Uid::from_raw(0) => {}
        // Root without the capability (an ordinary container) may still be given a user namespace.
        Err(nix::Error::EPERM) => {}
        Err(errno) => return Err(Step::Namespaces.failed(errno)),
    }
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| Step::UserNamespace.failed(errno))?;
    map_to_root(user.as_raw(), group.as_raw()).map_err(|error| Step::MapUser.failed_io(error))?;
    unshare(all).map_err(|errno| Step::Namespaces.failed(errno))
}

/// One user and one group exist inside; the kernel lets an unprivileged process map no more (user_namespaces(7)).
fn map_to_root(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}
