//! Accepts clients, moves the bytes of negotiations, and hands over what is asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh::ask::Resolution;
use mesh::{Cause, Direction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::front::close;
use super::negotiation::{MOST, Negotiation, Step, Target, Violation};
use super::{Front, NEGOTIATION_TIMEOUT, Names, Reply};
use crate::net::listen::Arrival;
use crate::proxy::driver::{Door, detach};
use crate::proxy::outbound::{self, Outgoing};
use crate::proxy::{Phase, reached};
use crate::telemetry::SocketGuard;

/// Why nothing was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the client did not say within {} s where it wants to go", NEGOTIATION_TIMEOUT.as_secs())]
    TimedOut,
}

/// Serves the port until the pod drains.
pub(in crate::proxy) async fn accept(outgoing: Arc<Outgoing>, names: Names, mut door: Door) {
    while let Some((arrival, socket)) = door.next().await {
        let (outgoing, names) = (Arc::clone(&outgoing), Arc::clone(&names));
        detach(async move {
            let mut phase = outgoing.phase.clone();
            tokio::select! {
                () = reached(&mut phase, Phase::Forced) => {}
                () = serve(&outgoing, &names, arrival, socket) => {}
            }
        });
    }
    tracing::info!(component = "socks5", "shutdown complete");
}

async fn serve(outgoing: &Arc<Outgoing>, names: &Names, arrival: Arrival, counted: SocketGuard) {
    let Arrival { socket, peer, local } = arrival;
    let telemetry = &outgoing.context.telemetry;
    let fail = |cause, error: String| telemetry.early_denial(peer, local, Direction::Outbound, cause, &error);
    let mut app = match TcpStream::from_std(socket) {
        Ok(app) => app,
        Err(error) => return fail(Cause::AppLost, format!("io error: {error}")),
    };
    let asked = match timeout(NEGOTIATION_TIMEOUT, negotiate(&mut app)).await {
        Ok(Ok(None)) => return, // a bare connect
        Ok(Ok(Some(target))) => Ok(target),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::TimedOut),
    };
    let target = match asked {
        Ok(target) => target,
        Err(failure) => {
            fail(Cause::SocksRequest, format!("failed to negotiate socks connection: {failure}"));
            return match failure {
                Failure::Violation(violation) => close(app, violation.answer()).await,
                Failure::Io(_) | Failure::TimedOut => {}
            };
        }
    };
    let target = match target {
        Target::Address(target) => target,
        Target::Name(name, port) => match resolve(names, &name).await {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(error) => {
                fail(Cause::UnknownName, format!("dns: {error}: {name}"));
                return close(app, Reply::HostUnreachable.bytes().to_vec()).await;
            }
        },
    };
    match app.into_std() {
        Ok(socket) => {
            outbound::capture(outgoing, Arrival { socket, peer, local }, target, counted, Front::Socks).await;
        }
        Err(error) => fail(Cause::AppLost, format!("io error: {error}")),
    }
}

/// Reads a request; `None` if the client leaves without a word.
async fn negotiate(app: &mut TcpStream) -> Result<Option<Target>, Failure> {
    let mut machine = Negotiation::new();
    let mut buffer = [0; MOST];
    let mut heard = false;
    loop {
        let wanted = &mut buffer[..machine.wants()];
        match app.read_exact(wanted).await {
            Ok(_) => {}
            Err(error) if !heard && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        heard = true;
        match machine.take(wanted)? {
            Step::More => {}
            Step::Say(words) => app.write_all(&words).await?,
            Step::Done(target) => return Ok(Some(target)),
        }
    }
}

async fn resolve(names: &Names, name: &str) -> Result<std::net::IpAddr, &'static str> {
    match names(name.to_owned()).await {
        Resolution::Failed => Err("no answer"),
        Resolution::Addresses(addresses) => addresses.first().copied().ok_or("no addresses"),
    }
}
