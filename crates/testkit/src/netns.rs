//! Network namespaces held by descriptor, and work done inside them.
//!
//! A namespace lives as long as something holds it: this descriptor, a socket, a process. Work inside one is done on a
//! thread made for it, so that no thread ever comes back to its former work in the wrong namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug, Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
}

impl NetNs {
    /// A fresh namespace: no interface but `lo`, which is down.
    ///
    /// # Errors
    /// The kernel refuses (no privileges, or too many namespaces: `user.max_net_namespaces`).
    pub fn new() -> io::Result<NetNs> {
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })??;
        Ok(NetNs { fd: Arc::new(made.into()) })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. A panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// No thread could be had, or the namespace could not be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }

    /// Runs `work` inside on a thread of its own, without waiting for it.
    ///
    /// # Errors
    /// No thread could be had; joining tells whether the namespace could be entered.
    pub fn spawn<T, W>(&self, work: W) -> io::Result<std::thread::JoinHandle<io::Result<T>>>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let inside = self.clone();
        std::thread::Builder::new().spawn(move || {
            setns(inside.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// A command whose process will run inside. It ends with the sandbox at the latest.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let inside = self.clone();
        let enter = move || setns(inside.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it keeps open; it
        // neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Gives the namespace a name in the file system, for `nsenter --net=` and the like.
    ///
    /// # Errors
    /// The file cannot be created or mounted upon.
    pub fn publish(&self, path: &Path) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        File::create(path)?;
        let own = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(mount(Some(own.as_str()), path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?)
    }

    /// Takes a name given by [`NetNs::publish`] away.
    ///
    /// # Errors
    /// Nothing is mounted there.
    pub fn withdraw(path: &Path) -> io::Result<()> {
        umount2(path, MntFlags::MNT_DETACH)?;
        std::fs::remove_file(path)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
