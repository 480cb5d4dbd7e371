//! Connections that leave a pod (spec data-plane 5).

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::ask::Replay;
use mesh::connect::{baggage, forwarded};
use mesh::{Direction, Flow, Hop, Outbound, Outcome, Permit, Refusal, ResponseFlag, Route, Traceparent, route};

use super::context::Context;
use super::pool::{Pool, PoolKey};
use super::random::{Random, traceparent};
use super::tunnel::Opening;
use crate::net::listen::Arrival;
use crate::telemetry::{Meter, SocketGuard};

/// Tunnels that a connection may try before a byte of it has left; each move means that a tunnel said it would not.
const MOVES: u8 = 3;

/// What a captured connection turned into.
pub(super) enum Captured {
    /// A stream of a tunnel; it has been handed over.
    Tunnelled,
    /// A plain connection to be dialled and copied.
    Plain(Plain),
    /// Nothing; it has been accounted for.
    Refused,
}

/// A captured connection that goes on in plain TCP.
pub(super) struct Plain {
    pub(super) arrival: Arrival,
    pub(super) permit: Permit,
    pub(super) meter: Meter,
    pub(super) socket: SocketGuard,
}

/// Decides where a captured connection goes and sends it on its way.
pub(super) async fn capture(
    context: &Arc<Context>,
    pool: &Arc<Pool>,
    arrival: Arrival,
    target: SocketAddr,
    socket: SocketGuard,
) -> Captured {
    let route = match find_route(context, arrival.peer, target).await {
        Ok(route) => route,
        Err(refusal) => {
            context.deny_early(arrival.peer, target, Direction::Outbound, &refusal);
            return Captured::Refused;
        }
    };
    let trace = traceparent();
    let meter = context.telemetry.open(Arc::new(Flow::outbound(&route, trace.trace)));
    match &route.hop {
        Hop::Tcp { .. } => Captured::Plain(Plain { arrival, permit: route.permit(), meter, socket }),
        Hop::Hbone { next, authority, expect } => {
            let key = PoolKey { source: route.source.identity(), next: *next, expect: Arc::clone(expect) };
            let authority = authority.to_string();
            let headers = request_headers(&route, trace);
            let permit = Box::new(route.permit());
            let app = arrival.socket;
            let (moves_left, early) = (MOVES, Vec::new());
            pool.place(Box::new(Opening { key, app, authority, headers, meter, socket, permit, moves_left, early }));
            Captured::Tunnelled
        }
        Hop::DoubleHbone { .. } => {
            let error = "the destination is in another network, which this version cannot reach yet".to_owned();
            meter.finish(Outcome::Failed { flag: ResponseFlag::Connect, error });
            Captured::Refused
        }
    }
}

async fn find_route(context: &Context, client: SocketAddr, target: SocketAddr) -> Result<Route, Refusal> {
    let source = context.local().await?;
    let mut draw = Replay::new(Random);
    context
        .settle(|learnt| {
            draw.rewind();
            let view = &context.views.current().view;
            let settings = &context.config.route;
            route(&Outbound { view, source: &source, client, target, learnt, settings }, &mut draw)
        })
        .await
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
