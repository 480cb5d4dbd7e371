//! Whom to ask: the `resolv.conf` of the process, read again when it changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::dns::resolv_conf::{Order, ResolvConf};
use crate::files::{self, Stamp};

/// How often the files are looked at, while somebody asks.
const LOOK: Duration = Duration::from_secs(2);
/// A configuration that is longer is none.
const MOST_BYTES: u64 = 64 << 10;

/// The configuration and where it is from.
pub(super) struct Servers {
    paths: Vec<PathBuf>,
    seen: Mutex<Seen>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Seen {
    stamp: Stamp,
    looked: Option<Instant>,
    conf: Arc<ResolvConf>,
}

impl Servers {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, seen: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// What the files say now.
    pub(super) fn current(&self) -> Arc<ResolvConf> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            seen.looked = Some(Instant::now());
            let stamp = Stamp::of_all(self.paths.iter().map(PathBuf::as_path));
            if seen.stamp != stamp {
                (seen.stamp, seen.conf) = (stamp, Arc::new(read(&self.paths)));
                tracing::debug!(servers = ?seen.conf.servers, "resolvers are");
            }
        }
        Arc::clone(&seen.conf)
    }

    /// The servers in the order in which they are asked.
    pub(super) fn in_order(&self, conf: &ResolvConf) -> Vec<SocketAddr> {
        let mut servers = conf.servers.clone();
        if conf.order == Order::InTurn && !servers.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
            servers.rotate_left(turn);
        }
        servers
    }
}

/// What the first file says that names a server which can be reached from anywhere; else the first file.
pub(in crate::dns) fn read(paths: &[PathBuf]) -> ResolvConf {
    let mut first = None;
    for path in paths {
        match files::read_text(path, MOST_BYTES) {
            Ok(text) => {
                let conf = ResolvConf::parse(&text);
                if !conf.servers.is_empty() && !conf.is_stub() {
                    return conf;
                }
                first.get_or_insert(conf);
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot read the resolver configuration"),
        }
    }
    first.unwrap_or_default()
}
