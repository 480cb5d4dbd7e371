//! Connections that leave a pod (spec data-plane 5).
//!
//! A connection is pursued until a next hop has answered: each attempt asks for a route, with what has failed before, and
//! dials it or places it on a tunnel. Whoever carries the attempt gives the connection back with a [`Failure`] if it
//! comes to nothing. Invariant: however many attempts it takes, a connection is one record.
//!
//! Not here: who is tried next and when to give up (`mesh::retry`), and the bytes.

use std::io;
use std::net::{SocketAddr, TcpStream as AppSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mesh::ask::Replay;
use mesh::connect::{baggage, forwarded};
use mesh::permit::Grant;
use mesh::retry::Next;
use mesh::{
    Attempts, Cause, Direction, Failures, Fault, Flow, Hop, Outbound, Outcome, Past, Permit, Pick, Refusal, Route,
    Traceparent, route,
};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::context::Context;
use super::pool::{Pool, PoolKey};
use super::random::{Random, traceparent};
use super::tunnel::Opening;
use super::{Phase, driver, passthrough};
use crate::net::dial::DIAL_TIMEOUT;
use crate::net::listen::Arrival;
use crate::telemetry::{Meter, SocketGuard};

/// Tunnels that a connection may try before a byte of it has left; each move means that a tunnel said it would not.
const MOVES: u8 = 3;

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
            if let Ok(Route { pick: Some(pick), .. }) = &found {
                failures.chosen(pick, now);
            }
            found
        };
        context.settle(decide).await
    }

    /// An endpoint has answered: it is no longer avoided.
    pub(super) fn worked(&self, permit: &Permit) {
        if let Some(pick) = pick(permit) {
            self.failures().worked(pick);
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Nothing that runs under the lock can leave what is remembered half changed.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was chosen to get where a permit leads.
fn pick(permit: &Permit) -> Option<&Pick> {
    match permit.grant() {
        Grant::Outbound(route) => route.pick.as_ref(),
        Grant::Inbound(..) => None,
    }
}

/// Takes care of a captured connection, up to its end if it stays in plain TCP.
pub(super) async fn capture(outgoing: &Arc<Outgoing>, arrival: Arrival, target: SocketAddr, socket: SocketGuard) {
    let context = &outgoing.context;
    let attempts = Attempts::new(context.config.retry, Instant::now());
    let route = match outgoing.find_route(arrival.peer, target, &attempts).await {
        Ok(route) => route,
        Err(refusal) => return context.deny_early(arrival.peer, target, Direction::Outbound, &refusal),
    };
    let trace = traceparent();
    let meter = context.telemetry.begin(Arc::new(Flow::outbound(&route, trace.trace)));
    let (outgoing, app, early) = (Arc::clone(outgoing), arrival.socket, Vec::new());
    Pursuit { outgoing, app, meter, socket, trace, attempts, early }.go(route).await;
}

impl Pursuit {
    /// Goes where `route` says, and elsewhere when that fails.
    async fn go(mut self, mut route: Route) {
        loop {
            let hop = route.hop.clone();
            let permit = route.permit();
            let failure = match hop {
                Hop::Tcp { .. } => {
                    let patience = self.attempts.patience(pick(&permit), Instant::now()).unwrap_or(DIAL_TIMEOUT);
                    match self.outgoing.context.dialer.dial_within(&permit, patience).await {
                        Ok(server) => {
                            self.outgoing.worked(&permit);
                            self.reached(&permit, &server);
                            return passthrough::carry_outbound(self, server).await;
                        }
                        Err(error) => Failure::of_dial(&error, format!("io error: {error}")),
                    }
                }
                Hop::Hbone { next, authority, expect } => return self.through_tunnel(permit, next, &authority, expect),
                Hop::DoubleHbone { .. } => {
                    let error = "the destination is in another network, which this version cannot reach yet";
                    Failure::new(Fault::Final, Cause::OtherNetwork, error.to_owned())
                }
            };
            match self.reconsider(&permit, failure).await {
                Some((pursuit, other)) => (self, route) = (pursuit, other),
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
            self.meter.redirect(Arc::new(Flow::outbound(&reached, self.trace.trace)));
        }
    }

    fn through_tunnel(
        self,
        permit: Permit,
        next: SocketAddr,
        authority: &mesh::Authority,
        expect: Arc<[mesh::Identity]>,
    ) {
        let Grant::Outbound(route) = permit.grant() else { return };
        let key = PoolKey { source: route.source.identity(), next, expect };
        let authority = authority.to_string();
        let headers = request_headers(route, self.trace);
        let pool = Arc::clone(&self.outgoing.pool);
        let permit = Box::new(permit);
        pool.place(Box::new(Opening { key, authority, headers, permit, moves_left: MOVES, pursuit: self }));
    }

    /// Tries again after an attempt that was made elsewhere has failed, or gives up.
    pub(super) fn try_again(self, permit: Permit, failure: Failure) {
        if failure.fault == Fault::Final {
            return self.give_up(failure);
        }
        let again = async move {
            if let Some((pursuit, route)) = self.reconsider(&permit, failure).await {
                pursuit.go(route).await;
            }
        };
        driver::detach(again);
    }

    /// Where to go after an attempt has failed, if anywhere.
    async fn reconsider(mut self, permit: &Permit, failure: Failure) -> Option<(Self, Route)> {
        let Grant::Outbound(failed) = permit.grant() else { return None };
        let (pick, now) = (failed.pick.as_ref(), Instant::now());
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
                self.meter.redirect(Arc::new(Flow::outbound(&route, self.trace.trace)));
                Some((self, route))
            }
            // What went wrong first says more than that there is nothing else.
            Err(_) => {
                self.give_up(failure);
                None
            }
        }
    }

    fn give_up(self, failure: Failure) {
        let Failure { cause, error, peer_reason, .. } = failure;
        self.meter.finish(Outcome::Failed { cause, error, peer_reason });
    }
}

impl Failure {
    /// One that the peer said nothing about.
    pub(super) fn new(fault: Fault, cause: Cause, error: String) -> Self {
        Self { fault, cause, error, peer_reason: None }
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
        Self::new(fault, Cause::DialFailed, wording)
    }
}

/// The headers of a CONNECT request, in order (spec data-plane 6.2).
fn request_headers(route: &Route, trace: Traceparent) -> Vec<(&'static str, String)> {
    let service = route.service.as_ref().map(|service| &service.hostname);
    vec![
        ("baggage", baggage::write(&route.source)),
        ("forwarded", forwarded::write(route.client, service)),
        ("traceparent", trace.to_string()),
    ]
}
