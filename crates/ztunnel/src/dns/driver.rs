//! The sockets and tasks of name servers: one server for each pod.
//!
//! A query that the mesh answers is read, decided and answered within one turn of the socket's task. Everything else
//! becomes a task of its own, of which a pod may have [`MOST_OPEN`].

mod ask;
mod hosts;
mod later;
mod names;
mod servers;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::LocalWorkload;
use mesh::ask::Learnt;
use tokio::net::UdpSocket;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

pub use self::hosts::{HostConfig, HostResolver};
pub use self::names::PodNames;
use self::servers::Servers;
pub(super) use self::servers::read;
use super::Config;
use super::cache::Cache;
use super::counts::{Counts, Frequent, Reason, Source, Transport};
use super::local::{Answers, Asked, Step};
use super::wire::query::{Fault, Query};
use super::wire::{Rcode, kind, reply};
use crate::net::conntrack::Conntrack;
use crate::net::datagram::{self, Outlet, Parcel};
use crate::net::listen::{BindError, Cut, ListenOptions, Listener, Transparency};
use crate::net::netns::Netns;
use crate::state::Views;

/// Queries of one pod that wait for somebody else at a time. More are refused at once, so that the pod's resolver can
/// turn to another server: whoever asks that much gets no answers in time anyway.
const MOST_OPEN: usize = 512;
/// Datagrams that are dealt with before they are answered, all at once, and other tasks of the thread get a turn: a fraction
/// of a millisecond's work.
const DATAGRAMS_PER_TURN: usize = 64;
/// Longest query: names and options fit in several times. What is longer is no query.
const LONGEST_QUERY: usize = 4096;
/// After an error of the socket itself, which never lasts: long enough not to spin.
const SOCKET_PAUSE: Duration = Duration::from_millis(10);

/// Makes the name servers of pods; clones share what they have in common.
#[derive(Clone)]
pub struct Resolvers(Arc<Shared>);

struct Shared {
    config: Config,
    views: Views,
    counts: Counts,
    servers: Servers,
}

/// The name server of one pod. Dropping it ends it with all that it waits for.
pub struct PodResolver {
    waiting: Option<(Vec<Sockets>, Arc<Pod>)>,
    tasks: Vec<AbortHandle>,
}

/// One address, open but not served.
struct Sockets {
    datagrams: std::net::UdpSocket,
    streams: Listener,
}

/// What all queries of a pod share.
struct Pod {
    who: LocalWorkload,
    shared: Arc<Shared>,
    outlet: Outlet,
    open: Arc<Semaphore>,
    /// Used by one thread, hence never contended, and never held while waiting.
    desk: Mutex<Desk>,
}

/// What a query is dealt with at.
struct Desk {
    answers: Answers,
    cache: Cache,
    frequent: Frequent,
    conntrack: Option<Conntrack>,
}

/// A query that waits for somebody else.
struct Open {
    message: Arc<[u8]>,
    query: Query,
    transport: Transport,
    /// Whom the app asked, if that is known.
    addressed: Option<SocketAddr>,
    _permit: OwnedSemaphorePermit,
}

/// What becomes of a message.
enum Taken {
    /// The answer is on the desk.
    Answered,
    /// Nothing.
    Ignored,
    /// It is to be carried on.
    Open(Query, OwnedSemaphorePermit),
}

impl Resolvers {
    /// A maker of servers that share all this.
    #[must_use]
    pub fn new(config: Config, views: Views, counts: Counts) -> Self {
        let servers = Servers::new(config.resolv_conf.clone());
        Self(Arc::new(Shared { config, views, counts, servers }))
    }

    /// Opens the sockets for `who` in `netns` (`None`: our own). Queries wait until [`PodResolver::serve`].
    ///
    /// # Errors
    /// [`BindError`]; what was opened before is closed again.
    pub fn bind(&self, who: LocalWorkload, netns: Option<Arc<Netns>>) -> Result<PodResolver, BindError> {
        let config = &self.0.config;
        let options = ListenOptions {
            netns: netns.clone(),
            // Answers go back the way that queries came, which connection tracking knows: a mark would only be in its way.
            mark: None,
            port_reuse: config.port_reuse,
            transparency: Transparency::Never,
            liveness: config.apps,
            cut: Cut::End,
        };
        let mut all = Vec::new();
        for (index, address) in config.addresses.iter().enumerate() {
            let opened = Listener::bind(*address, &options).and_then(|streams| {
                let datagrams = datagram::bind(*address, &options)?;
                Ok(Sockets { datagrams, streams })
            });
            match opened {
                Ok(sockets) => {
                    tracing::info!(address = %sockets.streams.address(), component = "dns", "listener established");
                    all.push(sockets);
                }
                Err(error) if index > 0 && lacks_family(&error.source) => {
                    tracing::debug!(%error, "this namespace has no such address");
                }
                Err(error) => return Err(error),
            }
        }
        let pod = Arc::new(self.pod(who, netns));
        Ok(PodResolver { waiting: Some((all, pod)), tasks: Vec::new() })
    }

    fn pod(&self, who: LocalWorkload, netns: Option<Arc<Netns>>) -> Pod {
        let desk = Desk {
            answers: Answers::default(),
            cache: Cache::default(),
            frequent: Frequent::new(self.0.counts.clone()),
            conntrack: None,
        };
        let outlet = Outlet { mark: self.0.config.mark, netns };
        let open = Arc::new(Semaphore::new(MOST_OPEN));
        Pod { who, shared: Arc::clone(&self.0), outlet, open, desk: Mutex::new(desk) }
    }
}

/// Runs something that nobody waits for.
fn detach(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl PodResolver {
    /// Starts answering, on `runtime`. Does nothing the second time.
    ///
    /// # Errors
    /// If the runtime cannot watch the sockets.
    pub fn serve(&mut self, runtime: &Runtime) -> io::Result<()> {
        let Some((all, pod)) = self.waiting.take() else { return Ok(()) };
        let _entered = runtime.enter();
        let span = tracing::info_span!("dns_proxy", wl = format_args!("{}/{}", pod.who.namespace, pod.who.name));
        for Sockets { datagrams, streams } in all {
            let datagrams = Arc::new(UdpSocket::from_std(datagrams)?);
            let streams = streams.accepting()?;
            let datagrams = runtime.spawn(serve_datagrams(Arc::clone(&pod), datagrams).instrument(span.clone()));
            let streams = runtime.spawn(stream::serve(Arc::clone(&pod), streams).instrument(span.clone()));
            self.tasks.extend([datagrams.abort_handle(), streams.abort_handle()]);
        }
        Ok(())
    }
}

impl Drop for PodResolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn serve_datagrams(pod: Arc<Pod>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; LONGEST_QUERY + 1];
    let mut open = JoinSet::new();
    let mut answers = Parcel::default();
    let local = socket.local_addr().ok();
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!(%error, "cannot wait for queries");
            tokio::time::sleep(SOCKET_PAUSE).await;
        }
        while open.try_join_next().is_some() {}
        for _ in 0..DATAGRAMS_PER_TURN {
            let (length, from) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot receive a query");
                    answers.send(&*socket);
                    tokio::time::sleep(SOCKET_PAUSE).await;
                    break;
                }
            };
            let message = buffer.get(..length).unwrap_or_default();
            let mut desk = pod.desk();
            match pod.take(&mut desk, message, Transport::Udp) {
                Taken::Ignored => {}
                Taken::Answered => answers.add(&desk.answers.out, from),
                Taken::Open(query, permit) => {
                    let addressed = local.and_then(|local| desk.addressed(&pod.outlet, from, local));
                    drop(desk);
                    let transport = Transport::Udp;
                    let one = Open { message: message.into(), query, transport, addressed, _permit: permit };
                    let (pod, socket) = (Arc::clone(&pod), Arc::clone(&socket));
                    let answer = async move { later::answer(&pod, &one, |m| drop(socket.try_send_to(m, from))).await };
                    open.spawn(answer.in_current_span());
                }
            }
        }
        // A socket that takes nothing loses answers as a network does; clients ask again.
        answers.send(&*socket);
    }
}

impl Pod {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Buffers and a cache of what others said: nothing that a panic could leave half true.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what can be answered at once.
    fn take(&self, desk: &mut Desk, message: &[u8], transport: Transport) -> Taken {
        if message.len() > LONGEST_QUERY {
            return Taken::Ignored;
        }
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Fault::Ignore) => return Taken::Ignored,
            Err(Fault::Answer(rcode)) => {
                reply::refuse(&mut desk.answers.out, message, rcode);
                let malformed = matches!(rcode, Rcode::FormErr);
                desk.frequent.told(Source::Failed, if malformed { Reason::Malformed } else { Reason::NotServed });
                return Taken::Answered;
            }
        };
        let versioned = self.shared.views.current();
        let client = versioned.view.local(&self.who);
        desk.frequent.asked(client.map(|client| &**client), query.kind, transport);
        if let Some(client) = client {
            let learnt = &Learnt::default();
            let settings = &self.shared.config.lookup;
            let asked = Asked { view: &versioned.view, client, settings, learnt, message, query: &query, transport };
            if let Step::Told(count) = desk.answers.answer(&asked, &mut rand::rng()) {
                self.told(desk, &query, message, count);
                return Taken::Answered;
            }
        }
        match Arc::clone(&self.open).try_acquire_owned() {
            Ok(permit) => Taken::Open(query, permit),
            Err(_) => {
                desk.answers.fail(message, &query, Rcode::ServFail);
                desk.frequent.told(Source::Failed, Reason::Overload);
                self.log(&query, message, "failed", Some(Reason::Overload), 0);
                Taken::Answered
            }
        }
    }

    fn told(&self, desk: &Desk, query: &Query, message: &[u8], count: usize) {
        desk.frequent.told(Source::Local, Reason::None);
        let result = if count == 0 { "no records" } else { "success" };
        self.log(query, message, result, None, count);
    }

    /// The query log (spec admin-and-telemetry 4).
    fn log(&self, query: &Query, message: &[u8], result: &str, reason: Option<Reason>, endpoints: usize) {
        tracing::event!(
            target: "dns",
            tracing::Level::DEBUG,
            src.workload = &*self.who.name,
            src.namespace = self.who.namespace.as_str(),
            query = kind::name(query.kind).to_ascii_uppercase(),
            domain = query.shown_name(message),
            result,
            reason = reason.map(Reason::as_str),
            endpoints,
        );
    }
}

impl Desk {
    /// Whom the datagram of `from` was for before it was redirected to us.
    fn addressed(&mut self, outlet: &Outlet, from: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
        if self.conntrack.is_none() {
            match Conntrack::open(outlet.netns.as_ref()) {
                Ok(conntrack) => self.conntrack = Some(conntrack),
                Err(error) => tracing::debug!(%error, "cannot ask connection tracking"),
            }
        }
        match self.conntrack.as_mut()?.original_destination(from, local) {
            Ok(destination) => destination.filter(|destination| *destination != local),
            Err(error) => {
                tracing::debug!(%error, "cannot tell whom a query was for");
                self.conntrack = None;
                None
            }
        }
    }
}
