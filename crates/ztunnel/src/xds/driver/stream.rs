//! One conversation with the control plane, from connecting to whatever ends it.

use std::time::{Duration, Instant};

use bytes::Buf;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::Driver;
use super::messages::{self, Chunks};
use crate::control::{Connector, TokenError};
use crate::memory;
use crate::xds::gather::Gathered;
use crate::xds::metrics::Ended;
use crate::xds::subscription::Request;
use crate::xds::{Remote, gather, wire};

/// Requests that the control plane has not read yet. It has little reason not to: they are small.
const OUTGOING: usize = 1_024;
/// Longest wait for the first answer of a stream. A control plane with many nodes may take its time; one that accepts
/// streams and says nothing must not hold us, for another replica may be well.
const FIRST_ANSWER: Duration = Duration::from_secs(60);
/// A push of more bytes than this is decoded on another thread, so that certificates and the admin server need not wait.
const LARGE_PUSH: usize = 64 * 1024;
/// Rejections of one push that are logged one by one.
const LOGGED: usize = 20;

impl Driver {
    /// Connects and listens until something ends it.
    pub(super) async fn converse(&mut self, connector: &Connector, remote: &Remote, id: u64) -> Ended {
        let channel = match self.beside(connector.connect()).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(id, "XDS client connection error: {error}");
                return Ended::NotConnected;
            }
        };
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let opening = self.subscriptions.open();
        let node = remote.node.clone();
        let requests = tokio_stream::iter(opening)
            .chain(ReceiverStream::new(queue))
            .map(move |request| wire::request(request, &node));
        self.outgoing = Some(outgoing);
        let request = match channel.request(requests) {
            Ok(request) => request,
            Err(error) => return unable(id, &error),
        };
        let call = timeout(FIRST_ANSWER, messages::call(channel, request));
        let mut stream = match self.beside(call).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => return self.ended_by(id, &status, Ended::NotConnected),
            Err(_) => return silent(id),
        };
        tracing::info!(id, address = %remote.control.address, "connected to the control plane");
        let mut heard = false;
        loop {
            let message =
                async { if heard { Ok(stream.next().await) } else { timeout(FIRST_ANSWER, stream.next()).await } };
            match self.beside(message).await {
                Ok(Ok(Some(message))) => {
                    if let Err(status) = self.take(message).await {
                        return self.ended_by(id, &status, Ended::Failed);
                    }
                }
                Ok(Ok(None)) => {
                    tracing::warn!(id, "XDS client complete");
                    return Ended::Completed;
                }
                Ok(Err(status)) => return self.ended_by(id, &status, Ended::Failed),
                Err(_) => return silent(id),
            }
            if self.outgoing.is_none() {
                return Ended::Failed;
            }
            heard = true;
        }
    }

    /// Applies a response, publishes what follows, and answers.
    async fn take(&mut self, message: Chunks) -> Result<(), Status> {
        let size = message.remaining();
        let (response, bytes) = match self.gather(message).await? {
            Gathered::Applied { response, bytes } => (response, bytes),
            Gathered::Unknown { url, nonce } => {
                self.counts.received(None, 0);
                // To accept it would be to say that it is in effect.
                let error = format!("unknown type: {url}");
                tracing::error!("{error}");
                self.send(Request::Settle { url, nonce, error: Some(error) });
                return Ok(());
            }
        };
        let kind = response.kind;
        self.counts.received(Some(kind.url()), bytes);
        let (resources, removed) = (response.resources.len(), response.removed.len());
        let complaints = response.resources.iter().filter_map(|r| Some((&r.name, r.verdict.complaint()?)));
        let rejected = complaints.clone().count();
        for (name, why) in complaints.take(LOGGED) {
            tracing::warn!(%name, url = kind.url(), "resource not accepted as it was sent: {why}");
        }
        if rejected > 0 {
            tracing::warn!(url = kind.url(), rejected, resources, "part of a push was not accepted");
            self.counts.rejected(kind.url(), rejected);
        }
        tracing::debug!(url = kind.url(), resources, removed, "push applied");
        let settled = self.subscriptions.settle(Instant::now(), response);
        // The view first: whoever is woken looks at it.
        self.publish();
        self.wake(settled.woken);
        self.send(settled.answer);
        if self.subscriptions.is_synced() {
            self.note_sync();
        }
        if size > LARGE_PUSH {
            // The push itself is gone; what it occupied would stay with us until memory is needed otherwise.
            drop(tokio::task::spawn_blocking(memory::give_back));
        }
        Ok(())
    }

    /// A large push is applied elsewhere, on a copy of the state, which costs next to nothing; the views that connections
    /// read stay as they are until it is done.
    async fn gather(&mut self, message: Chunks) -> Result<Gathered, Status> {
        let garbage = |error| Status::internal(format!("what it sent is no discovery response: {error}"));
        let lookups = self.subscriptions.lookups();
        if message.remaining() <= LARGE_PUSH {
            return gather::apply(message, lookups, &mut self.state, &mut self.names).map_err(garbage);
        }
        let (mut state, mut names) = (self.state.clone(), std::mem::take(&mut self.names));
        let work = tokio::task::spawn_blocking(move || {
            let gathered = gather::apply(message, lookups, &mut state, &mut names);
            (gathered, state, names)
        });
        let (gathered, state, names) =
            work.await.map_err(|error| Status::internal(format!("applying a push failed: {error}")))?;
        (self.state, self.names) = (state, names);
        gathered.map_err(garbage)
    }

    fn ended_by(&self, id: u64, status: &Status, otherwise: Ended) -> Ended {
        let message = status.message();
        let usual = match status.code() {
            Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
            Code::Unavailable => message.contains("transport is closing") || message.contains("received prior goaway"),
            _ => false,
        };
        if usual && otherwise == Ended::Failed {
            tracing::debug!(id, "XDS client terminated: {}", told(status));
            return Ended::Dropped;
        }
        let hint = if message.contains("authentication failure") {
            " (hint: check the control plane logs for more information)"
        } else {
            ""
        };
        tracing::warn!(id, "XDS client error: {}{hint}", told(status));
        otherwise
    }
}

/// Code, message, and what is behind them.
fn told(status: &Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unable(id: u64, error: &TokenError) -> Ended {
    tracing::warn!(id, "XDS client connection error: {error}");
    Ended::NotConnected
}

fn silent(id: u64) -> Ended {
    let after = FIRST_ANSWER.as_secs();
    tracing::warn!(id, "XDS client error: no answer within {after}s; check that the control plane is not overloaded");
    Ended::Failed
}
