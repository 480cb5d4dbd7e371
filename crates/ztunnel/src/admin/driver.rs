//! The HTTP servers: sockets, connections and their bounds.
//!
//! A server holds at most [`MAX_CONNECTIONS`]; when one more comes, the oldest makes way, so that whoever keeps
//! connections open cannot keep a probe out. On drain, listening stops and requests in progress are finished.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::body::{Body, Chunk, Printer};
use super::pages::Site;
use super::{Config, Inside};
use crate::drain::{Notice, Watcher};

/// Connections that one listener of a server holds at most: a few probes, scrapers and people, and some that are stuck.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take, and a kept connection may be idle (spec admin-and-telemetry 1).
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest request head, in bytes (spec admin-and-telemetry 1).
const MAX_HEAD: usize = 8 * 1024;
/// Rest after a failed accept, which is mostly for want of descriptors: trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// Port 15000.
    Admin,
    /// Port 15020.
    Stats,
    /// Port 15021.
    Readiness,
}

impl Server {
    /// The name in logs.
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Stats => "stats",
            Self::Readiness => "readiness",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Admin => "stop it, or set another proxyAdminPort in PROXY_CONFIG",
            Self::Stats => "stop it, or set another statsPort in PROXY_CONFIG",
            Self::Readiness => "stop it; the readiness port cannot be changed",
        }
    }
}

/// A server's address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind to address {address} for the {} server: {cause}{}", server.as_str(), self.hint())]
pub struct BindError {
    server: Server,
    address: SocketAddr,
    cause: io::Error,
}

impl BindError {
    fn hint(&self) -> String {
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(" (another process listens there; {})", self.server.remedy()),
            _ => String::new(),
        }
    }
}

/// Servers whose sockets listen: connections queue until they are served.
#[derive(Debug)]
pub struct Bound(Vec<(Server, std::net::TcpListener)>);

/// Opens the listening sockets of all servers.
///
/// On a machine without IPv6 the wildcard address means that of IPv4, and the loopback address is left out if there is
/// another.
///
/// # Errors
/// [`BindError`]; what was opened before is closed again.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let mut bound = Vec::new();
    for &address in &config.admin {
        match listener(Server::Admin, address) {
            Err(error) if is_foreign(&error.cause) && config.admin.len() > 1 && address.is_ipv6() => {}
            listener => bound.push((Server::Admin, listener?)),
        }
    }
    for (server, address) in [(Server::Stats, config.stats), (Server::Readiness, config.readiness)] {
        bound.push((server, listener(server, address)?));
    }
    Ok(Bound(bound))
}

fn listener(server: Server, address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let open = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let wildcard = address.is_ipv6() && address.ip().is_unspecified();
    let listener = match open(address) {
        Err(cause) if wildcard && is_foreign(&cause) => open((Ipv4Addr::UNSPECIFIED, address.port()).into()),
        opened => opened,
    };
    listener.map_err(|cause| BindError { server, address, cause })
}

/// Whether an address could not be bound because this machine does not have its kind.
fn is_foreign(error: &io::Error) -> bool {
    let foreign = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| foreign.contains(&code))
}

/// Serves until the drain is over. Dropping the future closes everything.
///
/// # Errors
/// If the runtime cannot watch a socket.
pub async fn serve(bound: Bound, inside: Inside, drain: Watcher) -> io::Result<()> {
    let site = Arc::new(Site::new(inside));
    let mut loops = JoinSet::new();
    for (server, listener) in bound.0 {
        let listener = TcpListener::from_std(listener)?;
        loops.spawn(listen(server, listener, Arc::clone(&site), drain.clone()));
    }
    drop(drain);
    while loops.join_next().await.is_some() {}
    Ok(())
}

async fn listen(server: Server, listener: TcpListener, site: Arc<Site>, mut drain: Watcher) {
    let address = listener.local_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
    let component = server.as_str();
    tracing::info!(%address, component, "listener established");
    let mut connections = Connections::default();
    loop {
        let stream = tokio::select! {
            biased;
            _ = drain.begun() => break,
            stream = accept(&listener) => stream,
        };
        connections.add(converse(stream, server, Arc::clone(&site), drain.clone()));
    }
    drop(listener);
    connections.finished().await;
    tracing::info!(%address, component, "listener drained");
}

/// The next connection, however long it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "failed to accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections of a listener; dropping it closes them.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Oldest first.
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        while self.handles.len() >= MAX_CONNECTIONS {
            if let Some(oldest) = self.handles.pop_front() {
                oldest.abort();
            }
        }
        self.handles.push_back(self.tasks.spawn(task));
    }

    async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// One connection, from its first request to its last.
async fn converse(stream: TcpStream, server: Server, site: Arc<Site>, mut drain: Watcher) {
    let _ = stream.set_nodelay(true); // matters for speed only
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(server, &request.into_parts().0).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let notice = tokio::select! {
        ended = connection.as_mut() => return log_failure(ended),
        notice = drain.begun() => notice,
    };
    if notice == Notice::Finish {
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_failure(ended),
            () = drain.cut() => {}
        }
    }
}

/// Prints what takes long on a thread of its own that gives way to all others, one at a time, whether or not whoever
/// asked for it has left.
pub(super) struct Turns(Arc<Semaphore>);

/// How much printing gives way to traffic, as nice(1) counts it: a tenth of a core is left to it on a machine that is full,
/// so that a scrape of 50,000 series still ends within a scraper's patience.
const NICENESS: i32 = 10;

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    pub(super) async fn print<T: Send + 'static>(
        &self,
        print: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PrintError> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let printed = aside(move || {
            let _turn = turn;
            print()
        })?;
        printed.await.map_err(|_| PrintError::Lost)
    }

    /// The same for what is sent while it is being printed; the turn lasts until it has been.
    pub(super) async fn stream(
        &self,
        print: impl FnOnce(&mut Printer) -> io::Result<()> + Send + 'static,
    ) -> Result<Body, PrintError> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let (mut printer, mut chunks) = Printer::new(Handle::current());
        let printed = aside(move || {
            let _turn = turn;
            print(&mut printer)?;
            printer.finish()
        })?;
        match chunks.recv().await {
            Some(Chunk::Last(whole)) => Ok(Body::Whole(whole)),
            Some(Chunk::More(first)) => Ok(Body::Printed(first, chunks)),
            None => Err(match printed.await {
                Err(_) => PrintError::Lost,
                Ok(Err(error)) => PrintError::Io(error),
                Ok(Ok(())) => PrintError::Io(io::ErrorKind::UnexpectedEof.into()),
            }),
        }
    }
}

/// Begins some work on a thread of its own. Nothing comes of work that panics.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("ztunnel-print".to_owned()).spawn(move || {
        // Of this thread alone: Linux counts niceness by threads. Without it printing is only less considerate.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let _ = done.send(work()); // whoever asked may have left
    })?;
    Ok(result)
}

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrintError {
    #[error("printing it has panicked; the log says where")]
    Lost,
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn log_failure(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of an admin server failed");
    }
}

#[cfg(test)]
mod tests;
