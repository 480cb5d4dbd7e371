//! Network namespaces: where a pod's sockets live.
//!
//! A thread visits a namespace only for the length of one synchronous call, so that no task is ever in the wrong one. A
//! thread that cannot come back would do everything after that in the pod's namespace; the process aborts instead. This
//! neither makes namespaces nor knows whose they are.

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{fstat, fstatfs};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the kernel shows the namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by an open descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// Tells namespaces apart: the same for every descriptor of one namespace, and no other's while one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsId {
    inode: u64,
    device: u64,
}

impl Netns {
    /// The namespace behind a descriptor, such as one received from the node agent.
    ///
    /// # Errors
    /// If the descriptor is not that of a network namespace, which is an error of kind `InvalidInput`, or cannot be
    /// examined.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        if !is_network_namespace(&fd)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not a network namespace"));
        }
        let stat = fstat(&fd)?;
        Ok(Self { fd, id: NetnsId { inode: stat.st_ino, device: stat.st_dev } })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` does not show it.
    pub fn current() -> io::Result<Self> {
        Self::new(File::open(OWN)?.into())
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `visit` on the calling thread while it is in this namespace. `visit` must not wait.
    ///
    /// # Errors
    /// If the thread may not enter (`CAP_SYS_ADMIN` is needed); `visit` has not run then.
    pub fn run<T>(&self, visit: impl FnOnce() -> T) -> io::Result<T> {
        let home = home()?;
        enter(&self.fd)?;
        let _way_back = Home(home);
        Ok(visit())
    }
}

/// The namespace that the calling thread lives in, opened once: a thread only ever visits others.
fn home() -> io::Result<Rc<File>> {
    thread_local! {
        static HOME: OnceCell<Rc<File>> = const { OnceCell::new() };
    }
    HOME.with(|home| match home.get() {
        Some(known) => Ok(Rc::clone(known)),
        None => {
            let opened = Rc::new(File::open(OWN)?);
            Ok(Rc::clone(home.get_or_init(|| opened)))
        }
    })
}

/// The namespace that a thread came from. Dropping it leads back, even if the visit panics.
struct Home(Rc<File>);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = enter(&*self.0) {
            // Not through the log, which may be written by another thread that does not get to it any more.
            eprintln!("cannot leave a pod's network namespace, aborting so as not to mix up namespaces: {error}");
            std::process::abort();
        }
    }
}

fn enter(netns: &impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Whether a descriptor is that of a network namespace (`ioctl_ns(2)`).
fn is_network_namespace(fd: &OwnedFd) -> io::Result<bool> {
    // What the question below means is the file system's to say.
    if i128::from(fstatfs(fd)?.f_type) != i128::from(libc::NSFS_MAGIC) {
        return Ok(false);
    }
    Ok(namespace_type(fd)? == libc::CLONE_NEWNET)
}

#[allow(unsafe_code, reason = "NS_GET_NSTYPE has no safe wrapper in rustix")]
fn namespace_type(fd: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as `fd` is borrowed, and this request takes no argument: the kernel
    // reads and writes no memory of ours.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}
