//! Asking upstreams, until one answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::dns::counts::{Reason, Transport};
use crate::dns::exchange::{Exchange, Heard};
use crate::dns::wire::Rcode;
use crate::dns::wire::answer::Answer;
use crate::dns::wire::query::Query;
use crate::net::datagram::Outlet;

/// How long all upstreams together may take: as long as clients wait, as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer and what it says.
pub(super) type Received = (Vec<u8>, Answer);

/// What is asked, and how.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) message: Arc<[u8]>,
    pub(super) query: Query,
    pub(super) transport: Transport,
}

/// Asks `servers` in their order, `attempts` times each. The next is asked when one has failed or taken `patience`; all that
/// were asked may still answer. An answer that says that somebody failed counts if there is no other.
pub(super) async fn ask(
    outlet: &Outlet,
    question: &Question,
    servers: &[SocketAddr],
    attempts: u32,
    patience: Duration,
) -> Result<Received, Reason> {
    let mut plan = servers.repeat(attempts as usize).into_iter();
    let mut asked = JoinSet::new();
    let (mut next_at, deadline) = (Instant::now(), Instant::now() + PATIENCE.max(patience));
    let (mut worst, mut unwilling) = (Reason::NoUpstream, None);
    loop {
        let more = plan.len() > 0;
        if !more && asked.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some(done) = asked.join_next(), if !asked.is_empty() => {
                next_at = Instant::now();
                match done {
                    Ok(Ok(received)) if is_unwilling(&received) => unwilling = Some(received),
                    Ok(Ok(received)) => return Ok(received),
                    Ok(Err(reason)) => worst = reason,
                    Err(_) => worst = Reason::BadAnswer,
                }
            }
            () = sleep_until(deadline) => {
                worst = Reason::Timeout;
                break;
            }
            () = sleep_until(next_at), if more => {
                if let Some(server) = plan.next() {
                    let (outlet, question) = (outlet.clone(), question.clone());
                    asked.spawn(async move { ask_one(&outlet, &question, server, deadline).await });
                }
                next_at = Instant::now() + patience;
            }
        }
    }
    unwilling.ok_or(worst)
}

/// Whether another server may know better.
fn is_unwilling((_, answer): &Received) -> bool {
    [Rcode::ServFail, Rcode::Refused, Rcode::NotImp].iter().any(|rcode| *rcode as u16 == answer.rcode)
}

async fn ask_one(
    outlet: &Outlet,
    question: &Question,
    server: SocketAddr,
    deadline: Instant,
) -> Result<Received, Reason> {
    let mut exchange = Exchange::new(&question.message, &question.query, &mut rand::rng());
    let answer = async {
        if question.transport == Transport::Udp
            && let Some(received) = by_datagram(outlet, &mut exchange, server, question.query.udp_size()).await?
        {
            return Ok(received);
        }
        by_stream(outlet, &exchange, server).await
    };
    match timeout_at(deadline, answer).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Reason::Timeout),
    }
}

/// An answer of at most `most` bytes. `None` if it has to be asked over TCP.
async fn by_datagram(
    outlet: &Outlet,
    exchange: &mut Exchange<'_>,
    server: SocketAddr,
    most: usize,
) -> Result<Option<Received>, Reason> {
    let socket = outlet.datagrams(server).map_err(|e| unreachable(server, &e))?;
    socket.send(exchange.message()).await.map_err(|e| unreachable(server, &e))?;
    // One byte more than the app takes, which the upstream has been told: what fills it has to be asked for in order.
    let mut buffer = vec![0; most + 1];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|e| unreachable(server, &e))?;
        if length == buffer.len() {
            return Ok(None);
        }
        let message = buffer.get_mut(..length).unwrap_or_default();
        match exchange.hear(message) {
            Heard::Nothing => tracing::debug!(%server, "ignored a message that answers nothing"),
            Heard::AskInOrder => return Ok(None),
            Heard::Nonsense => return Err(Reason::BadAnswer),
            Heard::Answer(answer) => return Ok(Some((message.to_vec(), answer))),
        }
    }
}

async fn by_stream(outlet: &Outlet, exchange: &Exchange<'_>, server: SocketAddr) -> Result<Received, Reason> {
    let talk = async {
        let mut stream = outlet.stream(server).await?;
        let length = u16::try_from(exchange.message().len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), exchange.message()].concat()).await?;
        let length = stream.read_u16().await?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await?;
        Ok(message)
    };
    let mut message: Vec<u8> = talk.await.map_err(|e: io::Error| unreachable(server, &e))?;
    let answer = exchange.hear_in_order(&mut message).ok_or(Reason::BadAnswer)?;
    Ok((message, answer))
}

fn unreachable(server: SocketAddr, error: &io::Error) -> Reason {
    tracing::debug!(%server, %error, "a resolver cannot be reached");
    Reason::Unreachable
}
