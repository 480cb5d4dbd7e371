//! Tunnels to other networks: each runs inside a stream of a tunnel to the network's gateway (spec data-plane 5.4).
//!
//! The outer tunnel is one of the pool's, shared by all connections to that gateway. The inner one is an ordinary tunnel
//! too, with a task of its own, whose transport is not a socket but the other [half](Half) of what the outer one's
//! stream carries. It serves one connection, ends with it, and is never pooled: the gateway chooses for each stream where
//! it ends. Its handshake begins as soon as the outer request can be sent, and its first message goes along with that.
//!
//! Invariant: a connection is in one place at any time: with the outer tunnel until the inner one is started, and with
//! that from then on. However either ends, the connection hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::Tunnel;
use hbone::h2::Response;
use mesh::connect::baggage;
use mesh::permit::Grant;
use mesh::{Cause, Flow, Outcome, Permit, Reporter, Traceparent};

use super::driver::{detach, fail_all, ours};
use super::outbound::{FORWARDED_NETWORK, Failure, Outgoing};
use super::pool::{Pool, PoolKey};
use super::tunnel::{Broken, ClientRole, Command, Driver, Ended, Half, Handle, Mailbox, Opening, Passenger};
use super::tunnel::{Role, Transport, pair};
use crate::identity::{Priority, Side, peer_identity};
use crate::telemetry::Meter;

/// Gateways' tunnels that an inner tunnel may try; each move means that a tunnel said it would not.
const MOVES: u8 = 3;

/// A tunnel that runs inside a stream, as that stream sees it.
pub(super) struct Nested {
    /// What the stream carries.
    pub(super) half: Half,
    /// What went along with the request, kept until the answer.
    pub(super) early: Vec<u8>,
    outgoing: Arc<Outgoing>,
    /// The tunnel itself, until it is started.
    waiting: Option<Box<Waiting>>,
}

/// A tunnel that has not been started.
struct Waiting {
    key: PoolKey,
    half: Half,
    handle: Handle,
    mailbox: Mailbox,
    /// How long its handshake may take; `None` is as long as any.
    patience: Option<Duration>,
}

/// The far end of a connection to another network has answered: it takes the gateway's place on record.
pub(super) fn reached(meter: &mut Meter, inner: &Tunnel, permit: &Permit, trace: Traceparent, answer: &Response) {
    let Grant::Outbound(route) = permit.grant() else { return };
    let baggage = baggage::parse(answer.headers.all("baggage")).ok();
    let identity = inner.peer_certificates().and_then(peer_identity);
    let flow = Flow::outbound(route, trace).through_gateway(baggage.as_ref(), identity);
    meter.redirect(Arc::new(flow));
}

/// Takes care of a connection whose tunnel runs through another one: asks for a stream of that.
pub(super) fn place(pool: &Arc<Pool>, opening: Box<Opening>) {
    let (Some(gateway), Passenger::Connection(pursuit)) = (&opening.through, &opening.passenger) else { return };
    let outgoing = Arc::clone(&pursuit.outgoing);
    let patience = pursuit.patience(&opening.permit);
    let (key, gateway, authority) = (opening.key.clone(), gateway.clone(), opening.authority.clone());
    let headers = opening.headers.iter().filter(|(name, _)| *name != FORWARDED_NETWORK).cloned().collect();
    let permit = opening.permit.clone();
    let (handle, mailbox) = Handle::new(1);
    if let Err(opening) = handle.place(opening) {
        // A new tunnel has room for one; if that ever changes, the connection fails rather than waits for nothing.
        return opening.fail(ours(Cause::Http2, "no room in a new tunnel".to_owned()));
    }
    let (half, inner) = pair();
    let waiting = Some(Box::new(Waiting { key, half: inner, handle, mailbox, patience }));
    let passenger = Passenger::Tunnel(Nested { half, early: Vec::new(), outgoing, waiting });
    let outer = Opening { key: gateway, through: None, authority, headers, permit, moves_left: MOVES, passenger };
    pool.place(Box::new(outer));
}

impl Nested {
    /// Starts the tunnel, if it has not been: the stream that is to carry it has been asked for.
    pub(super) fn start(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            detach(waiting.run(Arc::clone(&self.outgoing)));
        }
    }

    /// The gateway has answered that it carries the stream; what is behind it has still to answer.
    pub(super) fn carried(&mut self, permit: &Permit) {
        self.half.connect();
        self.start();
        self.outgoing.way_worked(permit);
    }

    /// No stream carries it.
    pub(super) fn fail(self, failure: Failure) {
        let failure = failure.at_gateway();
        match self.waiting {
            Some(waiting) => fail_all(waiting.mailbox, &failure),
            None => self.half.break_off(Broken::Failed(failure)),
        }
    }

    /// Ends with `outcome`, which is not a failure, before a stream carried it.
    pub(super) fn finish(self, outcome: Outcome) {
        let Some(mut waiting) = self.waiting else { return self.half.break_off(Broken::Drained) };
        waiting.mailbox.commands.close();
        while let Ok(command) = waiting.mailbox.commands.try_recv() {
            if let Command::Open(opening) = command {
                opening.passenger.finish(outcome.clone());
            }
        }
    }
}

impl Waiting {
    /// The tunnel, from its certificate to its end.
    async fn run(self: Box<Self>, outgoing: Arc<Outgoing>) {
        let Self { key, half, handle, mailbox, patience } = *self;
        let context = &outgoing.context;
        let registered = context.registry.register(handle);
        let made = async {
            let certificate = context.identities.certificate(&key.source, Priority::RealTime).await;
            let certificate = certificate.map_err(|e| ours(Cause::NoCertificate, format!("identity error: {e}")))?;
            let tls = certificate.client_config(&key.expect);
            let now = Instant::now();
            let tunnel = Tunnel::client(tls, context.config.client.clone(), now);
            let mut tunnel = tunnel.map_err(|e| ours(Cause::TlsSetup, format!("tls error: {e}")))?;
            if let Some(patience) = patience {
                tunnel.finish_handshake_by(now + patience);
            }
            tunnel.draw_on(context.config.allowance.clone());
            Ok((tunnel, certificate.acceptance(Side::Client)))
        };
        match made.await {
            Ok((tunnel, acceptance)) => {
                let (pool, early_data) = (Arc::clone(&outgoing.pool), outgoing.pool.early_data(&key));
                let role = Role::Client(ClientRole { pool, unused_release: Duration::ZERO, early_data });
                let half_closed_timeout = context.config.half_closed_timeout;
                let census = context.telemetry.census(Reporter::Source);
                let carrier = Transport::Within(half);
                match Driver::new(carrier, tunnel, role, mailbox, acceptance, half_closed_timeout, census).await {
                    Ended::Clean => {}
                    Ended::Handshake(error) | Ended::Failed(error) => {
                        tracing::debug!(gateway = %key.next, %error, "tunnel through gateway ended");
                    }
                }
            }
            Err(failure) => fail_all(mailbox, &failure),
        }
        drop(registered);
    }
}
