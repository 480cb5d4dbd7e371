//! Connections that stay in plain TCP on both sides: out of a pod to an address outside the mesh, and into a pod from a
//! client outside it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mesh::permit::Standing;
use mesh::{Cause, End, Outcome, Reporter};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::context::Context;
use super::copy::{self, CopyError, Count};
use super::inbound::{self, Connected, Patience, TakenBack};
use super::outbound::Pursuit;
use super::{Phase, reached};
use crate::net::listen::Arrival;
use crate::state::ANNOUNCEMENT_TIMEOUT;
use crate::telemetry::{Carriers, Meter};

/// Copies between a captured connection and its destination until the end, or until the pod's proxy cuts it.
pub(super) async fn carry_outbound(pursuit: Pursuit, mut server: TcpStream) {
    let Pursuit { outgoing, app, mut meter, socket: _counted, early, front, .. } = pursuit;
    meter.settle();
    front.welcome(&app);
    meter.connected();
    let client = match TcpStream::from_std(app) {
        Ok(client) => client,
        Err(error) => return meter.finish(io_failure(&error)),
    };
    // What an attempt through a tunnel has read of the app; a new socket's buffer takes it at once.
    if let Err(error) = server.write_all(&early).await {
        return meter.finish(io_failure(&error));
    }
    meter.upstream(early.len() as u64);
    let (half_closed_timeout, phase) = (outgoing.context.config.half_closed_timeout, outgoing.phase.clone());
    carry(client, server, meter, phase, half_closed_timeout, std::future::pending()).await;
}

/// Decides about a plain connection that reached the pod, and carries it to the app.
pub(super) async fn carry_inbound(
    context: &Context,
    arrival: Arrival,
    original_destination: SocketAddr,
    phase: watch::Receiver<Phase>,
) {
    let half_closed_timeout = context.config.half_closed_timeout;
    let accepted = inbound::accept_plaintext(context, arrival.peer, original_destination).await;
    let Some(Connected { app, standing, decided_on, meter }) = accepted else {
        return;
    };
    match TcpStream::from_std(arrival.socket) {
        Ok(client) => {
            carry(
                client,
                app,
                meter,
                phase,
                half_closed_timeout,
                no_longer_allowed(context, standing.as_deref(), decided_on),
            )
            .await
        }
        Err(error) => meter.finish(io_failure(&error)),
    }
}

/// Resolves once a change of the view takes the permit back that is left as `standing`; never if nobody can.
pub(super) async fn no_longer_allowed(context: &Context, standing: Option<&Standing>, decided_on: u64) -> TakenBack {
    let Some(standing) = standing else { return std::future::pending().await };
    let mut changes = context.views.changes();
    let mut strict_at = None;
    let mut patience = (*changes.borrow_and_update() != decided_on).then_some(Patience::Wait);
    loop {
        if let Some(patience) = patience
            && let Err(taken_back) = inbound::recheck(context, standing, patience)
        {
            return taken_back;
        }
        strict_at = match patience {
            Some(Patience::Wait) => strict_at.or(Some(Instant::now() + ANNOUNCEMENT_TIMEOUT)),
            Some(Patience::Final) | None => None,
        };
        patience = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => Some(Patience::Wait),
                Err(_) => return std::future::pending().await,
            },
            () = sleep_until(strict_at.unwrap_or_else(Instant::now)), if strict_at.is_some() => Some(Patience::Final),
        };
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    mut meter: Meter,
    mut phase: watch::Receiver<Phase>,
    half_closed_timeout: Duration,
    taken_back: impl Future<Output = TakenBack>,
) {
    let outcome = tokio::select! {
        copied = copy::both_ways(&mut client, &mut server, &mut meter, half_closed_timeout) => match copied {
            Ok(()) => Outcome::Complete,
            Err(error) => failed(error),
        },
        TakenBack { outcome, by } = taken_back => {
            meter.decided(by);
            outcome
        }
        () = reached(&mut phase, Phase::Forced) => Outcome::Drained,
    };
    let (client, server) = (Some(client.as_fd()), Some(server.as_fd()));
    let (app, peer) = match meter.flow().reporter {
        Reporter::Source => (client, server),
        Reporter::Destination => (server, client),
    };
    meter.look(&outcome, Carriers { app, peer, tls_group: None });
    meter.finish(outcome);
}

fn io_failure(error: &io::Error) -> Outcome {
    Outcome::failed(Cause::CopyFailed, format!("io error: {error}"))
}

pub(super) fn failed(error: CopyError) -> Outcome {
    let error = match error {
        CopyError::Reset(by) => return Outcome::Reset { by },
        CopyError::HalfClosed(timeout) => return copy::half_closed_too_long(timeout),
        // Named for the direction of the bytes, as the existing log does (spec data-plane 16.3).
        CopyError::Read(End::Client, e) | CopyError::Write(End::Server, e) => format!("send: io error: {e}"),
        CopyError::Read(End::Server, e) | CopyError::Write(End::Client, e) => format!("receive: io error: {e}"),
    };
    Outcome::failed(Cause::CopyFailed, error)
}

impl Count for Meter {
    fn moved(&mut self, to: End, bytes: usize) {
        match to {
            End::Server => self.upstream(bytes as u64),
            End::Client => self.downstream(bytes as u64),
        }
    }

    fn closed(&mut self, end: End) {
        self.ended(end);
    }
}
