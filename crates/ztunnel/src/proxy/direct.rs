//! From app to app within this process (`SAME_NODE_DIRECT`): what a tunnel between two of its pods would come to, without
//! the tunnel.
//!
//! The destination decides as if a request had come through HBONE from the source's address with the source's identity:
//! the same function admits it, its policies are asked, and checked again when they change. Each side makes its record.
//! Invariant: what the handshake of a tunnel would have refused goes to a tunnel, so that it is.
//!
//! Since no packet travels between the pods, no NetworkPolicy sees this; it is off unless the operator wants it.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::permit::Grant;
use mesh::{Cause, End, Hop, Identity, Outcome, Permit, Reporter, Route, Traceparent};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::context::Context;
use super::copy::{self, CopyError, Count};
use super::inbound::InboundTunnel;
use super::neighbours::Neighbour;
use super::outbound::{Failure, Pursuit, request_headers};
use super::tunnel::{Accepted, Answer, refused};
use super::{Phase, passthrough, reached};
use crate::telemetry::{Meter, SocketGuard};

/// A way to a pod of this process.
pub(super) struct Way {
    neighbour: Neighbour,
    /// Counts the connection as one of the destination's.
    _counted: SocketGuard,
    /// The address that the destination takes the connection to come from.
    peer: SocketAddr,
    next: SocketAddr,
    authority: String,
    identity: Identity,
}

/// The way to where a permit leads, if that is in this process and there is nothing that a tunnel would find wrong.
pub(super) async fn way(context: &Context, permit: &Permit) -> Option<Way> {
    let Grant::Outbound(route) = permit.grant() else { return None };
    let Hop::Hbone { next, authority, expect } = &route.hop else { return None };
    let destination = route.destination.as_ref()?;
    let neighbour = context.neighbours.as_ref()?.find(destination)?;
    let present = context.views.current().view.local(&neighbour.context.who)?.clone();
    let same = present.uid == destination.uid && present.addresses.contains(&next.ip());
    let served = next.port() == context.config.listeners.inbound && !present.native_tunnel;
    let (own, theirs) = (route.source.identity(), present.identity());
    let trusted = own.trust_domain == theirs.trust_domain && expect.contains(&theirs);
    if !(same && served && trusted) {
        return None;
    }
    let (peer, next, authority) = (address_of(route, *next)?, *next, authority.to_string());
    let counted = neighbour.admit(Reporter::Destination).await?;
    Some(Way { neighbour, _counted: counted, peer, next, authority, identity: own })
}

/// The client's address, or one of its pod's if it came in by loopback.
fn address_of(route: &Route, next: SocketAddr) -> Option<SocketAddr> {
    let own = &route.source.addresses;
    if own.contains(&route.client.ip()) {
        return Some(route.client);
    }
    let of_family = own.iter().find(|ip| ip.is_ipv4() == next.is_ipv4())?;
    Some(SocketAddr::new(*of_family, route.client.port()))
}

impl Way {
    /// Asks the destination, which connects its app if the answer is yes.
    pub(super) async fn ask(&self, permit: &Permit, trace: Traceparent) -> Result<Box<Accepted>, Failure> {
        let Grant::Outbound(route) = permit.grant() else {
            return Err(refused(Cause::NoDestination.meaning().status, None));
        };
        let tunnel = InboundTunnel {
            context: Arc::clone(&self.neighbour.context),
            peer: self.peer,
            local: self.next,
            identity: Some(self.identity.clone()),
        };
        match Arc::new(tunnel).connect_for(&self.authority, &request_headers(route, trace)).await {
            Answer::Accept(accepted) => Ok(accepted),
            Answer::Refuse(cause) => {
                let meaning = cause.meaning();
                Err(refused(meaning.status, Some(meaning.code)))
            }
        }
    }

    /// Copies until the end, or until either pod's proxy or the destination's policies cut it.
    pub(super) async fn carry(self, pursuit: Pursuit, accepted: Box<Accepted>) {
        let Pursuit { outgoing, app, meter, socket: _counted, early, front, .. } = pursuit;
        let Accepted { app: mut server, standing, decided_on, meter: theirs, prologue, .. } = *accepted;
        let mut meters = Meters { ours: meter, theirs };
        meters.ours.settle();
        front.welcome(&app);
        let (mut ours, mut theirs) = (outgoing.phase.clone(), self.neighbour.phase.clone());
        let half_closed_timeout = outgoing.context.config.half_closed_timeout;
        let context = &self.neighbour.context;
        let copied = async {
            let mut client = TcpStream::from_std(app).map_err(|e| CopyError::Read(End::Client, e))?;
            let say = async |server: &mut TcpStream, bytes: &[u8]| {
                server.write_all(bytes).await.map_err(|e| CopyError::write(End::Server, e))
            };
            say(&mut server, &prologue).await?;
            // What an attempt through a tunnel has read of the app; a new socket's buffer takes it at once.
            say(&mut server, &early).await?;
            meters.moved(End::Server, early.len());
            copy::both_ways(&mut client, &mut server, &mut meters, half_closed_timeout).await
        };
        let (ours, theirs) = tokio::select! {
            copied = copied => ends(copied),
            taken_back = passthrough::no_longer_allowed(context, standing.as_deref(), decided_on) => {
                meters.ours.finish(reset_by(End::Server));
                return taken_back.finish(meters.theirs);
            }
            () = reached(&mut ours, Phase::Forced) => (Outcome::Drained, reset_by(End::Client)),
            () = reached(&mut theirs, Phase::Forced) => (reset_by(End::Server), Outcome::Drained),
        };
        meters.ours.finish(ours);
        meters.theirs.finish(theirs);
    }
}

fn reset_by(by: End) -> Outcome {
    Outcome::Reset { by }
}

/// How each side tells the end. Through a tunnel, a side learns of the other's failure as a reset.
fn ends(copied: Result<(), CopyError>) -> (Outcome, Outcome) {
    match copied {
        Ok(()) => (Outcome::Complete, Outcome::Complete),
        Err(CopyError::Reset(by)) => (reset_by(by), reset_by(by)),
        Err(CopyError::HalfClosed(timeout)) => {
            (copy::half_closed_too_long(timeout), copy::half_closed_too_long(timeout))
        }
        Err(error @ (CopyError::Read(End::Client, _) | CopyError::Write(End::Client, _))) => {
            (passthrough::failed(error), reset_by(End::Client))
        }
        Err(error @ (CopyError::Read(End::Server, _) | CopyError::Write(End::Server, _))) => {
            (reset_by(End::Server), passthrough::failed(error))
        }
    }
}

/// Both sides count the same bytes.
struct Meters {
    ours: Meter,
    theirs: Meter,
}

impl Count for Meters {
    fn moved(&mut self, to: End, bytes: usize) {
        self.ours.moved(to, bytes);
        self.theirs.moved(to, bytes);
    }

    fn closed(&mut self, end: End) {
        self.ours.closed(end);
        self.theirs.closed(end);
    }
}
