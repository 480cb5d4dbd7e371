//! The tasks of a pod's proxy: accept loops, one task per tunnel and per plain connection, and the drain.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hbone::{HANDSHAKE_TIMEOUT, Tunnel};
use mesh::workload::Health;
use mesh::{Cause, Direction, Fault, LocalWorkload, Reporter};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::Instrument;

use super::context::Context;
use super::inbound::{InboundTunnel, Patience};
use super::limits::{Pace, Quota};
use super::neighbours::{Neighbours, Presence};
use super::outbound::{self, Failure, Outgoing};
use super::pool::{NewTunnel, Pool};
use super::registry::Registry;
use super::socks::{self, Front, Names, NamesOf};
use super::tunnel::{ClientRole, Command, Driver, Ended, Handle, Mailbox, Role, ServerRole, Transport};
use super::worker::Workers;
use super::{Config, Phase, SameNode, SharedConfig, Shutdown, passthrough, reached, span};
use crate::identity::{Identities, Priority, Side, peer_identity};
use crate::net::dial::{DIAL_TIMEOUT, Dialer};
use crate::net::listen::{Acceptor, Arrival, BindError, Cut, ListenOptions, Listener, PortReuse, Transparency};
use crate::net::netns::Netns;
use crate::net::original_dst::original_destination;
use crate::state::{ANNOUNCEMENT_TIMEOUT, Views};
use crate::telemetry::{SocketGuard, Telemetry};

/// Connections accepted before those accepted so far are carried on. More in one go would travel as one batch from
/// process to process, each of which would wait for the one before it.
const ACCEPTS_PER_TURN: usize = 4;
/// How long a pod that drains goes on accepting where another ztunnel may have taken its place: handshakes that began
/// before it did still end here. A second is when a client that lost a packet of its handshake tries again.
const LAST_ARRIVALS: Duration = Duration::from_secs(1);
/// How long cut connections may take to be accounted for once they have been told.
const FORCED_END: Duration = Duration::from_secs(1);

/// Makes the proxies of pods.
#[derive(Clone)]
pub struct Proxies {
    config: SharedConfig,
    views: Views,
    identities: Identities,
    telemetry: Telemetry,
    workers: Workers,
    /// What names mean that are asked for by SOCKS5.
    names: Option<NamesOf>,
    neighbours: Option<Neighbours>,
}

/// A pod's listeners, open but not accepting.
struct Sockets {
    inbound: Listener,
    /// `None` for this process itself, whose traffic nobody captures.
    captured: Option<Captured>,
}

/// The listeners that traffic of a pod is redirected to.
struct Captured {
    inbound_plaintext: Listener,
    outbound: Listener,
    socks: Option<(Listener, Names)>,
}

/// The proxy of one pod. Dropping it cuts all its connections.
pub struct PodProxy {
    registry: Arc<Registry>,
    phase: watch::Sender<Phase>,
    /// Not accepting yet; the number is that of its worker.
    waiting: Option<Box<(Sockets, Arc<Context>, usize)>>,
    /// Accepting from the other pods of the process.
    presence: Option<Presence>,
}

impl Proxies {
    /// A maker of proxies that share all this.
    #[must_use]
    pub fn new(config: Config, views: Views, identities: Identities, telemetry: Telemetry, workers: Workers) -> Self {
        let neighbours = (config.same_node == SameNode::Direct).then(Neighbours::default);
        Self { config: Arc::new(config), views, identities, telemetry, workers, names: None, neighbours }
    }

    /// The same with SOCKS5, if the configuration has a port for it.
    #[must_use]
    pub fn with_names(self, names: NamesOf) -> Self {
        Self { names: Some(names), ..self }
    }

    /// Opens the listeners for `who` in `netns` (`None`: our own). Connections queue until [`PodProxy::accept`].
    ///
    /// # Errors
    /// [`BindError`]; what was opened before is closed again.
    pub fn bind(&self, who: LocalWorkload, netns: Option<Arc<Netns>>) -> Result<PodProxy, BindError> {
        let config = &self.config;
        let options = ListenOptions {
            netns: netns.clone(),
            mark: netns.as_ref().and(config.mark),
            port_reuse: config.port_reuse,
            transparency: config.transparency,
            liveness: config.apps,
            cut: Cut::Reset,
        };
        let towards_peers = ListenOptions { liveness: config.peers, cut: Cut::End, ..options.clone() };
        let ports = config.listeners;
        let open = |component: &str, port, options: &ListenOptions| open_at(component, ports.at(port), options);
        let within = ListenOptions { transparency: Transparency::Never, ..options.clone() };
        let socks = ports.socks5.zip(self.names.as_ref());
        let sockets = span(&who).in_scope(|| {
            let socks = socks.map(|(port, names)| {
                let listener = open_at("socks5", SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &within)?;
                Ok((listener, names(&who, netns.clone())))
            });
            Ok(Sockets {
                inbound: open("inbound", ports.inbound, &towards_peers)?,
                captured: Some(Captured {
                    inbound_plaintext: open("inbound plaintext", ports.inbound_plaintext, &options)?,
                    outbound: open("outbound", ports.outbound, &options)?,
                    socks: socks.transpose()?,
                }),
            })
        })?;
        let dialer = Dialer::new(netns, config.mark, config.peers, config.apps);
        Ok(self.proxy(who, sockets, dialer, self.neighbours.clone()))
    }

    /// Opens the listener for `who`, which is this process itself: peers of the mesh reach its own ports through mutual TLS
    /// as they would a pod's (spec data-plane 1.4). Nothing of it is captured, so that nothing has to be marked.
    ///
    /// # Errors
    /// [`BindError`]
    pub fn bind_own(&self, who: LocalWorkload) -> Result<PodProxy, BindError> {
        let config = &self.config;
        let options = ListenOptions {
            netns: None,
            mark: None,
            port_reuse: config.port_reuse,
            transparency: Transparency::Never,
            liveness: config.peers,
            cut: Cut::End,
        };
        let address = config.listeners.at(config.listeners.inbound);
        let inbound = span(&who).in_scope(|| open_at("inbound", address, &options))?;
        let dialer = Dialer::new(None, None, config.peers, config.apps);
        Ok(self.proxy(who, Sockets { inbound, captured: None }, dialer, None))
    }

    fn proxy(&self, who: LocalWorkload, sockets: Sockets, dialer: Dialer, neighbours: Option<Neighbours>) -> PodProxy {
        let config = &self.config;
        let registry = Arc::<Registry>::default();
        let mut own = Config::clone(config);
        own.admit.preserve_source = sockets.inbound.is_transparent();
        own.allowance = own.allowance.part(own.limits.buffered);
        let context = Arc::new(Context {
            who,
            config: Arc::new(own),
            views: self.views.clone(),
            identities: self.identities.clone(),
            telemetry: self.telemetry.clone(),
            dialer,
            registry: Arc::clone(&registry),
            quota: Quota::new(config.limits, self.telemetry.clone()),
            neighbours,
        });
        let phase = watch::Sender::new(Phase::Running);
        let waiting = Some(Box::new((sockets, context, self.workers.home())));
        PodProxy { registry, phase, waiting, presence: None }
    }

    /// Waits until `who` is announced and has its certificate, or has failed to get one. Whoever waits bounds this.
    pub async fn certified(&self, who: &LocalWorkload) {
        let Some(workload) = self.views.local(who, self.config.unknown_workload_timeout).await else { return };
        // Whoever needs the certificate is told what became of it.
        let _ = self.identities.certificate(&workload.identity(), Priority::Warmup).await;
    }
}

fn open_at(component: &str, address: SocketAddr, options: &ListenOptions) -> Result<Listener, BindError> {
    let listener = Listener::bind(address, options)?;
    let transparent = listener.is_transparent();
    tracing::info!(address = %listener.address(), component, transparent, "listener established");
    Ok(listener)
}

impl PodProxy {
    /// Starts accepting. Does nothing the second time.
    ///
    /// # Errors
    /// If the worker cannot watch the listeners.
    pub fn accept(&mut self, workers: &Workers) -> std::io::Result<()> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        let (sockets, context, home) = *waiting;
        let runtime = workers.numbered(home);
        let _entered = runtime.enter();
        let span = span(&context.who);
        let phase = self.phase.subscribe();
        let pool = Arc::new(new_pool(&context, (workers.clone(), home), &phase));
        let watched = Arc::clone(&pool);
        let door = |listener, reporter| Door::new(&context, listener, reporter, &phase);
        let inbound = door(sockets.inbound, Reporter::Destination)?;
        let captured = match sockets.captured {
            Some(Captured { inbound_plaintext, outbound, socks }) => {
                let plaintext = door(inbound_plaintext, Reporter::Destination)?;
                let outbound = door(outbound, Reporter::Source)?;
                let socks =
                    socks.map(|(listener, names)| Ok::<_, std::io::Error>((door(listener, Reporter::Source)?, names)));
                Some((plaintext, outbound, socks.transpose()?))
            }
            None => None,
        };
        self.presence = context.neighbours.as_ref().map(|neighbours| neighbours.add(&context, phase.clone()));
        let inbound = accept_inbound(Arc::clone(&context), inbound, workers.clone(), phase.clone());
        runtime.spawn(inbound.instrument(span.clone()));
        if let Some((plaintext, outbound, socks)) = captured {
            let plaintext = accept_plaintext(Arc::clone(&context), plaintext, phase.clone());
            runtime.spawn(plaintext.instrument(span.clone()));
            let outgoing = Arc::new(Outgoing::new(Arc::clone(&context), pool, phase.clone()));
            if let Some((door, names)) = socks {
                let asked = socks::accept(Arc::clone(&outgoing), names, door);
                runtime.spawn(asked.instrument(span.clone()));
            }
            let outbound = accept_outbound(outgoing, outbound);
            runtime.spawn(outbound.instrument(span.clone()));
        }
        runtime.spawn(watch_policies(context, watched, phase).instrument(span));
        Ok(())
    }

    /// Ends the proxy and waits until its connections have ended.
    pub async fn shutdown(mut self, how: Shutdown) {
        self.waiting = None;
        self.presence = None;
        if let Shutdown::Graceful(deadline) = how {
            self.phase.send_replace(Phase::Draining);
            self.registry.tell_all(|| Command::Drain).await;
            if tokio::time::timeout(deadline, self.phase.closed()).await.is_ok() {
                return;
            }
            tracing::warn!("drain duration expired with pending connections, forcefully shutting down");
        }
        self.phase.send_replace(Phase::Forced);
        self.registry.tell_all(|| Command::Abort).await;
        // What does not end by then has been told, and ends with its worker.
        let _ = tokio::time::timeout(FORCED_END, self.phase.closed()).await;
    }
}

/// Re-evaluates all tunnels of the pod whenever the state of the mesh changes, and once more when what a change left
/// missing has had its time. Tunnels to where nobody is any more take nothing new.
async fn watch_policies(context: Arc<Context>, pool: Arc<Pool>, mut phase: watch::Receiver<Phase>) {
    let mut changes = context.views.changes();
    let mut looks = context.telemetry.looks();
    let mut revocations = context.identities.revocations();
    let mut strict_at = None;
    let mut health = Health::Unhealthy; // a pod that is not healthy yet is not one that ends
    loop {
        health = see_health(&context, health).await;
        let patience = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => Patience::Wait,
                Err(_) => return,
            },
            () = sleep_until(strict_at.unwrap_or_else(Instant::now).into()), if strict_at.is_some() => Patience::Final,
            Ok(()) = revocations.changed() => {
                context.registry.tell_all(|| Command::Review).await;
                continue;
            }
            Ok(()) = looks.changed() => {
                let look = looks.borrow_and_update().clone();
                if let Some(look) = look {
                    context.registry.tell_all(|| Command::Look(look.clone())).await;
                }
                continue;
            }
            () = reached(&mut phase, Phase::Draining) => return,
        };
        strict_at = match patience {
            Patience::Wait => strict_at.or(Some(Instant::now() + ANNOUNCEMENT_TIMEOUT)),
            Patience::Final => None,
        };
        for tunnel in pool.outdated(&context.views.current().view) {
            tunnel.tell(Command::Drain).await;
        }
        context.registry.tell_all(|| Command::Recheck(patience)).await;
    }
}

/// Sees to it that peers leave a pod that becomes unhealthy, which is also how the control plane calls one that
/// terminates: what they have under way goes on, and what they begin does not begin here unless they insist.
async fn see_health(context: &Context, before: Health) -> Health {
    let Some(now) = context.views.current().view.local(&context.who).map(|workload| workload.status) else {
        return before;
    };
    if (before, now) == (Health::Healthy, Health::Unhealthy) {
        tracing::info!("pod is unhealthy or about to end, asking peers to leave");
        context.registry.tell_all(|| Command::Retire).await;
    }
    now
}

/// A listener of a pod, until it has accepted its last connection.
pub(super) struct Door {
    acceptor: Acceptor,
    phase: watch::Receiver<Phase>,
    /// Whether others may listen on the port, and so connections come that are meant for them.
    shared: PortReuse,
    /// When the pod, which drains, stops accepting.
    closes: Option<tokio::time::Instant>,
    context: Arc<Context>,
    pace: Pace,
    reporter: Reporter,
}

impl Door {
    fn new(
        context: &Arc<Context>,
        listener: Listener,
        reporter: Reporter,
        phase: &watch::Receiver<Phase>,
    ) -> std::io::Result<Self> {
        let (acceptor, phase, context) = (listener.accepting()?, phase.clone(), Arc::clone(context));
        let (shared, pace) = (context.config.port_reuse, context.quota.pace());
        Ok(Self { acceptor, phase, shared, closes: None, context, pace, reporter })
    }

    /// The next connection within the pod's limits, or `None` once the pod drains and the last has come.
    pub(super) async fn next(&mut self) -> Option<(Arrival, SocketGuard)> {
        let Context { quota, telemetry, .. } = &*Arc::clone(&self.context);
        loop {
            let arrival = self.arrival().await?;
            quota.keep(&mut self.pace).await;
            if quota.has_room() {
                return Some((arrival, telemetry.socket(self.reporter, quota.sockets())));
            }
        }
    }

    async fn arrival(&mut self) -> Option<Arrival> {
        if self.closes.is_none() {
            tokio::select! {
                biased;
                () = reached(&mut self.phase, Phase::Draining) => {}
                arrival = self.acceptor.next() => return Some(arrival),
            }
            let last = match self.shared {
                PortReuse::Shared => LAST_ARRIVALS,
                PortReuse::Exclusive => Duration::ZERO,
            };
            self.closes = Some(tokio::time::Instant::now() + last);
        }
        let closes = self.closes?;
        if tokio::time::Instant::now() > closes + LAST_ARRIVALS {
            return None; // whoever still comes has no other place to go, and will not have
        }
        tokio::select! {
            biased;
            () = reached(&mut self.phase, Phase::Forced) => None,
            // Before the end of the wait, so that what has queued up by then is not turned away.
            arrival = self.acceptor.next() => Some(arrival),
            () = tokio::time::sleep_until(closes) => None,
        }
    }
}

/// Lets the other tasks of this thread that are ready have a turn.
async fn let_others_run() {
    let mut others_first = true;
    poll_fn(|cx| {
        if !std::mem::take(&mut others_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Carries on beside whoever asks, on the same worker and in the same span.
pub(super) fn detach(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task.in_current_span());
}

/// One captured connection, until a tunnel has it or it has ended.
async fn capture(outgoing: Arc<Outgoing>, arrival: Arrival, target: SocketAddr, counted: SocketGuard) {
    outbound::capture(&outgoing, arrival, target, counted, Front::Captured).await;
}

async fn accept_outbound(outgoing: Arc<Outgoing>, mut door: Door) {
    let mut accepted = 0_usize;
    while let Some((arrival, socket)) = door.next().await {
        let target = original_destination(&arrival.socket, arrival.local);
        tokio::spawn(capture(Arc::clone(&outgoing), arrival, target, socket).in_current_span());
        accepted += 1;
        if accepted.is_multiple_of(ACCEPTS_PER_TURN) {
            let_others_run().await;
        }
    }
    tracing::info!(component = "outbound", "shutdown complete");
}

async fn accept_plaintext(context: Arc<Context>, mut door: Door, phase: watch::Receiver<Phase>) {
    while let Some((arrival, socket)) = door.next().await {
        let target = original_destination(&arrival.socket, arrival.local);
        let (context, phase) = (Arc::clone(&context), phase.clone());
        tokio::spawn(
            async move {
                let _counted = socket;
                passthrough::carry_inbound(&context, arrival, target, phase).await;
            }
            .in_current_span(),
        );
    }
    tracing::info!(component = "inbound passthrough", "shutdown complete");
}

async fn accept_inbound(context: Arc<Context>, mut door: Door, workers: Workers, phase: watch::Receiver<Phase>) {
    while let Some((arrival, socket)) = door.next().await {
        let task = serve_tunnel(Arc::clone(&context), arrival, socket, phase.clone());
        workers.next().spawn(task.in_current_span());
    }
    tracing::info!(component = "inbound", "shutdown complete");
}

/// One accepted tunnel, from its first byte to its end.
async fn serve_tunnel(context: Arc<Context>, arrival: Arrival, _counted: SocketGuard, phase: watch::Receiver<Phase>) {
    let (peer, local) = (arrival.peer, arrival.local);
    let (driver, registered) = match prepare_server(&context, arrival, &phase).await {
        Ok(Some(ready)) => ready,
        Ok(None) => return, // the peer left without a word
        Err((cause, error)) => {
            return context.telemetry.early_denial(peer, local, Direction::Inbound, cause, &error);
        }
    };
    match driver.await {
        Ended::Clean => {}
        Ended::Handshake(failure) => {
            let error = format!("tls handshake error: {failure}");
            context.telemetry.early_denial(peer, local, Direction::Inbound, Cause::TlsHandshake, &error);
        }
        Ended::Failed(failure) => tracing::debug!(%peer, error = %failure, "tunnel ended"),
    }
    drop((registered, phase));
}

/// Waits for the first byte of a handshake, so that a bare TCP connect costs nothing, and then gets what it takes to
/// answer it.
async fn prepare_server(
    context: &Arc<Context>,
    arrival: Arrival,
    phase: &watch::Receiver<Phase>,
) -> Result<Option<(Driver, super::registry::Registered)>, (Cause, String)> {
    let Arrival { socket, peer, local } = arrival;
    let socket = TcpStream::from_std(socket).map_err(|e| (Cause::AppLost, format!("io error: {e}")))?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, socket.peek(&mut [0])).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return Ok(None),
        Err(_) => {
            let error = format!("tls handshake error: nothing received for {} s", HANDSHAKE_TIMEOUT.as_secs());
            return Err((Cause::TlsHandshake, error));
        }
    }
    let crowded = || (Cause::TlsHandshake, "tls handshake error: too many handshakes of this pod".to_owned());
    let handshake = context.quota.handshake().await.ok_or_else(crowded)?;
    let workload = context.local().await.map_err(|refusal| (refusal.cause(), refusal.to_string()))?;
    let certificate = context.identities.certificate(&workload.identity(), Priority::RealTime).await;
    let certificate = certificate.map_err(|e| (Cause::NoCertificate, format!("signing error: {e}")))?;
    let config = context.config.server.clone();
    let tunnel = Tunnel::server(certificate.server_config(), config, Instant::now());
    let mut tunnel = tunnel.map_err(|e| (Cause::TlsSetup, format!("tls error: {e}")))?;
    let acceptance = certificate.acceptance(Side::Server);
    tunnel.draw_on(context.config.allowance.clone());
    let serving = Arc::clone(context);
    let serve = Box::new(move |tunnel: &Tunnel| {
        drop(handshake); // it is complete
        let identity = tunnel.peer_certificates().and_then(|chain| peer_identity(chain));
        Arc::new(InboundTunnel { context: serving, peer, local, identity })
    });
    // Streams of accepted tunnels are limited by HTTP/2, not by whoever places them.
    let (handle, mailbox) = Handle::new(u32::MAX);
    let registered = context.registry.register(handle.clone());
    if *phase.borrow() >= Phase::Draining {
        handle.tell(Command::Drain).await; // those who were there when it began have been told
    }
    let role = Role::Server(ServerRole::Unauthenticated(serve));
    let half_closed_timeout = context.config.half_closed_timeout;
    let census = context.telemetry.census(Reporter::Destination);
    let carrier = Transport::Socket(socket);
    Ok(Some((Driver::new(carrier, tunnel, role, mailbox, acceptance, half_closed_timeout, census), registered)))
}

/// Of a pod whose worker has the number `home`.
fn new_pool(context: &Arc<Context>, (workers, home): (Workers, usize), phase: &watch::Receiver<Phase>) -> Pool {
    let early_data = context.config.early_data;
    let (streams, context, phase) = (context.config.pool_streams, Arc::clone(context), phase.clone());
    let count = workers.count();
    let start = move |pool: &Arc<Pool>, new: NewTunnel| {
        let beside = new.beside;
        let task = dial_tunnel(Arc::clone(&context), Arc::clone(pool), new, phase.clone());
        workers.for_tunnel(home, beside).spawn(task.in_current_span());
    };
    Pool::new(streams, early_data, count, Box::new(start))
}

/// One dialled tunnel, from its certificate to its end.
async fn dial_tunnel(context: Arc<Context>, pool: Arc<Pool>, new: NewTunnel, phase: watch::Receiver<Phase>) {
    let NewTunnel { key, permit, handle, mailbox, .. } = new;
    let registered = context.registry.register(handle.clone());
    let connected = async {
        let certificate = context.identities.certificate(&key.source, Priority::RealTime).await;
        let certificate = certificate.map_err(|e| ours(Cause::NoCertificate, format!("identity error: {e}")))?;
        let tls = certificate.client_config(&key.expect);
        let (retry, begun) = (context.config.retry, Instant::now());
        let patience = retry.attempt().unwrap_or(DIAL_TIMEOUT);
        let socket = context.dialer.dial_within(&permit, patience).await.map_err(|e| dial_failure(&e))?;
        let tunnel = Tunnel::client(tls, context.config.client.clone(), Instant::now());
        let mut tunnel = tunnel.map_err(|e| ours(Cause::TlsSetup, format!("tls error: {e}")))?;
        if let Some(patience) = retry.tunnel() {
            tunnel.finish_handshake_by(begun + patience);
        }
        tunnel.draw_on(context.config.allowance.clone());
        Ok((socket, tunnel, certificate.acceptance(Side::Client)))
    };
    match connected.await {
        Ok((socket, tunnel, acceptance)) => {
            // A pod that drains keeps no tunnel for later.
            let draining = *phase.borrow() >= Phase::Draining;
            let unused_release = if draining { Duration::ZERO } else { context.config.pool_unused_release };
            let early_data = pool.early_data(&key);
            let role = Role::Client(ClientRole { pool: Arc::clone(&pool), unused_release, early_data });
            let half_closed_timeout = context.config.half_closed_timeout;
            let census = context.telemetry.census(Reporter::Source);
            let carrier = Transport::Socket(socket);
            match Driver::new(carrier, tunnel, role, mailbox, acceptance, half_closed_timeout, census).await {
                Ended::Clean => {}
                Ended::Handshake(error) | Ended::Failed(error) => {
                    tracing::debug!(next = %key.next, %error, "tunnel ended");
                }
            }
        }
        Err(failure) => fail_all(mailbox, &failure),
    }
    pool.remove(&key, &handle);
    drop((registered, phase));
}

/// Wording and flag of a tunnel that could not be dialled (spec data-plane 9.4).
fn dial_failure(error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::TimedOut {
        let text = format!("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: {error}");
        Failure { cause: Cause::DialTimedOut, ..Failure::of_dial(error, text) }
    } else {
        Failure::of_dial(error, format!("io error: {error}"))
    }
}

/// A failure of this side, which another endpoint would not change.
pub(super) fn ours(cause: Cause, error: String) -> Failure {
    Failure::new(Fault::Final, cause, error)
}

/// Everybody who waited for a tunnel that did not come about shares the reason.
pub(super) fn fail_all(mut mailbox: Mailbox, failure: &Failure) {
    mailbox.commands.close();
    while let Ok(command) = mailbox.commands.try_recv() {
        if let Command::Open(opening) = command {
            opening.fail(failure.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is moved several times before it runs, and allocated until a tunnel has the connection.
    const SMALL: usize = 2048;

    fn size_of_task<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_captured_connection_is_small() {
        let size = size_of_task(capture);
        assert!(size <= SMALL, "{size} bytes");
    }
}
