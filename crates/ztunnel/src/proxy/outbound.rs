//! Connections that leave a pod (spec data-plane 5).
//!
//! A connection is pursued until a next hop has answered: each attempt asks for a route, with what has failed before, and
//! dials it or places it on a tunnel. Whoever carries the attempt gives the connection back with a [`Failure`] if it
//! comes to nothing. Invariant: however many attempts it takes, a connection is one record.
//!
//! Not here: who is tried next and when to give up (`mesh::retry`), and the bytes.

use std::io;
use std::net::{SocketAddr, TcpStream as AppSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::ask::Replay;
use mesh::connect::{baggage, forwarded};
use mesh::permit::Grant;
use mesh::retry::{Next, Others, PickRole};
use mesh::{
    Attempts, Cause, Direction, Failures, Fault, Flow, Hop, Outbound, Outcome, Past, Permit, Pick, Refusal, Route,
    Traceparent, route,
};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::context::Context;
use super::pool::{Pool, PoolKey};
use super::random::{Random, traceparent};
use super::socks::{Front, Reply};
use super::tunnel::{Opening, Passenger};
use super::{Phase, direct, driver, passthrough};
use crate::net::dial::DIAL_TIMEOUT;
use crate::net::listen::Arrival;
use crate::telemetry::{Carriers, Meter, SocketGuard};

/// Tunnels that a connection may try before a byte of it has left; each move means that a tunnel said it would not.
const MOVES: u8 = 3;

/// The header that tells the far end of a tunnel through a gateway which network it leads from (spec data-plane 6.2).
pub(super) const FORWARDED_NETWORK: &str = "x-forwarded-network";

/// Where a tunnel ends, and the identities of which its end has to prove one.
type Place = (SocketAddr, Arc<[mesh::Identity]>);

/// What the connections that leave one pod share.
pub(super) struct Outgoing {
    pub(super) context: Arc<Context>,
    pub(super) pool: Arc<Pool>,
    pub(super) phase: watch::Receiver<Phase>,
    failures: Mutex<Failures>,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What it means for the connection's other attempts.
    pub(super) fault: Fault,
    pub(super) cause: Cause,
    /// Wording of the log.
    pub(super) error: String,
    /// The code that the peer gave, if it was the peer that refused.
    pub(super) peer_reason: Option<Box<str>>,
    /// The error of the dial, if it was one.
    pub(super) kind: Option<io::ErrorKind>,
}

/// A captured connection that no next hop has answered for yet.
pub(super) struct Pursuit {
    pub(super) outgoing: Arc<Outgoing>,
    /// The app's socket, not registered with a runtime.
    pub(super) app: AppSocket,
    /// Records the connection.
    pub(super) meter: Meter,
    /// Counts the app's socket as open.
    pub(super) socket: SocketGuard,
    pub(super) trace: Traceparent,
    pub(super) attempts: Attempts,
    /// What the app said first, if an attempt has read it: no more than fits into any socket's buffer.
    pub(super) early: Vec<u8>,
    /// Who waits for an answer.
    pub(super) front: Front,
}

impl Outgoing {
    /// No connections yet.
    pub(super) fn new(context: Arc<Context>, pool: Arc<Pool>, phase: watch::Receiver<Phase>) -> Self {
        Self { context, pool, phase, failures: Mutex::default() }
    }

    async fn find_route(&self, client: SocketAddr, target: SocketAddr, attempts: &Attempts) -> Result<Route, Refusal> {
        let context = &self.context;
        let source = context.local().await?;
        let mut draw = Replay::new(Random);
        let decide = |learnt: &mesh::Learnt| {
            draw.rewind();
            let view = &context.views.current().view;
            let settings = &context.config.route;
            let now = Instant::now();
            let mut failures = self.failures();
            let past = Past { failures: &failures, tried: attempts.tried(), now };
            let found = route(&Outbound { view, source: &source, client, target, learnt, settings, past }, &mut draw);
            if let Ok(route) = &found {
                route.picks().for_each(|pick| failures.chosen(pick, now));
            }
            found
        };
        context.settle(decide).await
    }

    /// What was chosen has answered: it is no longer avoided.
    pub(super) fn worked(&self, permit: &Permit) {
        picks(permit).for_each(|pick| self.failures().worked(pick));
    }

    /// The way to what was chosen is there.
    pub(super) fn way_worked(&self, permit: &Permit) {
        let ways = picks(permit).filter(|pick| pick.role == PickRole::Way);
        ways.for_each(|pick| self.failures().worked(pick));
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Nothing that runs under the lock can leave what is remembered half changed.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was chosen to get where a permit leads.
fn picks(permit: &Permit) -> impl Iterator<Item = &Pick> {
    let route = match permit.grant() {
        Grant::Outbound(route) => Some(route),
        Grant::Inbound(..) => None,
    };
    route.into_iter().flat_map(Route::picks)
}

/// Takes care of a captured connection, up to its end if it stays in plain TCP.
pub(super) async fn capture(
    outgoing: &Arc<Outgoing>,
    arrival: Arrival,
    target: SocketAddr,
    socket: SocketGuard,
    front: Front,
) {
    let context = &outgoing.context;
    let attempts = Attempts::new(context.config.retry, Instant::now());
    let route = match outgoing.find_route(arrival.peer, target, &attempts).await {
        Ok(route) => route,
        Err(refusal) => {
            context.deny_early(arrival.peer, target, Direction::Outbound, &refusal);
            return front.turn_away(arrival.socket, Reply::to(refusal.cause(), None, None));
        }
    };
    let trace = traceparent();
    let meter = context.telemetry.begin(Arc::new(Flow::outbound(&route, trace)));
    let (outgoing, app, early) = (Arc::clone(outgoing), arrival.socket, Vec::new());
    let pursuit = Box::new(Pursuit { outgoing, app, meter, socket, trace, attempts, early, front });
    pursuit.go(route.permit()).await;
}

impl Pursuit {
    /// Goes where `permit` allows, and elsewhere when that fails.
    ///
    /// A tunnel takes most connections over at once. Whatever else may become of one has a box of its own, so that
    /// what is spawned for each stays small.
    async fn go(mut self: Box<Self>, mut permit: Permit) {
        loop {
            let failure = match permit.hop() {
                Hop::Tcp { .. } => {
                    let patience = self.patience(&permit).unwrap_or(DIAL_TIMEOUT);
                    match Box::pin(self.outgoing.context.dialer.dial_within(&permit, patience)).await {
                        Ok(server) => {
                            self.outgoing.worked(&permit);
                            self.reached(&permit, &server);
                            return Box::pin(passthrough::carry_outbound(*self, server)).await;
                        }
                        Err(error) => Failure::of_dial(&error, format!("io error: {error}")),
                    }
                }
                Hop::Hbone { next, authority, expect } => match direct::way(&self.outgoing.context, &permit).await {
                    None => return self.through_tunnel(permit, &authority, (next, expect), None),
                    Some(way) => match Box::pin(way.ask(&permit, self.trace)).await {
                        Ok(accepted) => {
                            self.outgoing.worked(&permit);
                            return Box::pin(way.carry(*self, accepted)).await;
                        }
                        Err(failure) => failure,
                    },
                },
                Hop::DoubleHbone { gateway, gateway_expect, authority, inner_expect } => {
                    let gateway_and = Some((gateway, gateway_expect));
                    return self.through_tunnel(permit, &authority, (gateway, inner_expect), gateway_and);
                }
            };
            match Box::pin(self.reconsider(&permit, failure)).await {
                Some((pursuit, other)) => (self, permit) = (pursuit, other),
                None => return,
            }
        }
    }

    /// Puts on record which of several addresses it was.
    fn reached(&mut self, permit: &Permit, server: &TcpStream) {
        let Grant::Outbound(route) = permit.grant() else { return };
        if let Ok(target) = server.peer_addr()
            && route.others.contains(&target)
        {
            let reached = Route { hop: Hop::Tcp { target }, ..route.clone() };
            self.meter.redirect(Arc::new(Flow::outbound(&reached, self.trace)));
        }
    }

    /// How long a further step of an attempt may take that `permit` allows; `None` is as long as any.
    pub(super) fn patience(&self, permit: &Permit) -> Option<Duration> {
        let alternative = picks(permit).find(|pick| pick.others == Others::Left);
        self.attempts.patience(alternative, Instant::now())
    }

    /// How long the request that `permit` allows may remain unanswered; `None` is as long as it takes.
    pub(super) fn patience_for_answer(&self, permit: &Permit) -> Option<Duration> {
        let alternative = picks(permit).find(|pick| pick.others == Others::Left);
        self.attempts.patience_for_answer(alternative, Instant::now())
    }

    /// Asks for a stream of a tunnel to `end`: where it begins to lead there, and who may answer. The tunnel may run
    /// `through` another one.
    fn through_tunnel(
        self: Box<Self>,
        permit: Permit,
        authority: &mesh::Authority,
        end: Place,
        through: Option<Place>,
    ) {
        let Grant::Outbound(route) = permit.grant() else { return };
        let source = route.source.identity();
        let key = |(next, expect): Place, uid| PoolKey { source: source.clone(), next, expect, uid };
        // A gateway is not the destination, and what is behind it has no address here.
        let uid = route.destination.as_ref().filter(|_| through.is_none()).map(|workload| workload.uid.clone());
        let (key, through) = (key(end, uid), through.map(|gateway| key(gateway, None)));
        let authority = authority.to_string();
        let mut headers = request_headers(route, self.trace);
        if through.is_some() {
            headers.push((FORWARDED_NETWORK, self.outgoing.context.config.route.network.to_string()));
        }
        let pool = Arc::clone(&self.outgoing.pool);
        let (permit, passenger) = (Box::new(permit), Passenger::Connection(self));
        pool.place(Box::new(Opening { key, through, authority, headers, permit, moves_left: MOVES, passenger }));
    }

    /// Tries again after an attempt that was made elsewhere has failed, or gives up.
    pub(super) fn try_again(self: Box<Self>, permit: Permit, failure: Failure) {
        if failure.fault == Fault::Final {
            return self.give_up(failure);
        }
        let again = async move {
            if let Some((pursuit, other)) = self.reconsider(&permit, failure).await {
                pursuit.go(other).await;
            }
        };
        driver::detach(again);
    }

    /// Where to go after an attempt has failed, if anywhere.
    async fn reconsider(mut self: Box<Self>, permit: &Permit, failure: Failure) -> Option<(Box<Self>, Permit)> {
        let Grant::Outbound(failed) = permit.grant() else { return None };
        let (pick, now) = (failed.at_fault(failure.fault), Instant::now());
        if let Some(pick) = pick
            && self.attempts.blames(pick, failure.fault)
        {
            self.outgoing.failures().failed(pick, now);
        }
        if self.attempts.failed(pick, failure.fault, now) == Next::GiveUp {
            self.give_up(failure);
            return None;
        }
        match self.outgoing.find_route(failed.client, failed.target, &self.attempts).await {
            Ok(route) => {
                tracing::debug!(error = failure.error, next = %route.hop.dial(), "trying again");
                self.meter.redirect(Arc::new(Flow::outbound(&route, self.trace)));
                Some((self, route.permit()))
            }
            // What went wrong first says more than that there is nothing else.
            Err(_) => {
                self.give_up(failure);
                None
            }
        }
    }

    fn give_up(mut self, failure: Failure) {
        let Failure { cause, error, peer_reason, kind, .. } = failure;
        let reply = Reply::to(cause, kind, peer_reason.as_deref());
        let outcome = Outcome::Failed { cause, error, peer_reason };
        self.meter.look(&outcome, Carriers { app: Some(self.app.as_fd()), ..Carriers::default() });
        self.front.turn_away(self.app, reply);
        self.meter.finish(outcome);
    }
}

impl Failure {
    /// One that the peer said nothing about.
    pub(super) fn new(fault: Fault, cause: Cause, error: String) -> Self {
        Self { fault, cause, error, peer_reason: None, kind: None }
    }

    /// That what carried something was lost.
    pub(super) fn lost(cause: Cause, error: &str) -> Self {
        Self::new(Fault::Unreachable, cause, error.to_owned())
    }

    /// The same of the gateway of another network, which was to carry a tunnel.
    pub(super) fn at_gateway(self) -> Self {
        Self { cause: self.cause.at_gateway(), ..self }
    }

    /// The same of the far end of a tunnel through such a gateway, which is not to blame.
    pub(super) fn behind_gateway(self) -> Self {
        let fault = match self.fault {
            Fault::Unreachable | Fault::TimedOut if self.cause.is_far() => Fault::Unavailable,
            fault => fault,
        };
        Self { fault, cause: self.cause.behind_gateway(), ..self }
    }

    /// That a connection could not be made. Mistakes of our own side are no endpoint's fault.
    pub(super) fn of_dial(error: &io::Error, wording: String) -> Self {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
            PermissionDenied, TimedOut,
        };
        let fault = match error.kind() {
            TimedOut => Fault::TimedOut,
            // The last is what a firewall's rejection may look like.
            ConnectionRefused | ConnectionReset | ConnectionAborted | HostUnreachable | NetworkUnreachable
            | PermissionDenied => Fault::Unreachable,
            _ => Fault::Final,
        };
        Self { kind: Some(error.kind()), ..Self::new(fault, Cause::DialFailed, wording) }
    }
}

/// The headers of a CONNECT request, in order (spec data-plane 6.2).
pub(super) fn request_headers(route: &Route, trace: Traceparent) -> Vec<(&'static str, String)> {
    let service = route.service.as_ref().map(|service| &service.hostname);
    vec![
        ("baggage", baggage::write(&route.source)),
        ("forwarded", forwarded::write(route.client, service)),
        ("traceparent", trace.to_string()),
    ]
}
