//! One conversation with the control plane, from connecting to whatever ends it.

use std::time::{Duration, Instant};

use istio_api::discovery::DeltaDiscoveryResponse;
use istio_api::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::Driver;
use crate::control::{Connector, TokenError};
use crate::xds::metrics::Ended;
use crate::xds::subscription::{Kind, Request};
use crate::xds::{Remote, gather, wire};

/// Largest message (spec wire-protocols 6.1).
const MAX_MESSAGE: usize = 200 * 1024 * 1024;
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
        let origin = channel.origin();
        let request = match channel.request(requests) {
            Ok(request) => request,
            Err(error) => return unable(id, &error),
        };
        let mut client =
            AggregatedDiscoveryServiceClient::with_origin(channel, origin).max_decoding_message_size(MAX_MESSAGE);
        let call = timeout(FIRST_ANSWER, client.delta_aggregated_resources(request));
        let mut stream = match self.beside(call).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.ended_by(id, &status, Ended::NotConnected),
            Err(_) => return silent(id),
        };
        tracing::info!(id, address = %remote.control.address, "connected to the control plane");
        let mut heard = false;
        loop {
            let message = async {
                if heard { Ok(stream.message().await) } else { timeout(FIRST_ANSWER, stream.message()).await }
            };
            match self.beside(message).await {
                Ok(Ok(Some(push))) => self.take(push).await,
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
    async fn take(&mut self, push: DeltaDiscoveryResponse) {
        let size = push.resources.iter().filter_map(|r| r.resource.as_ref()).map(|payload| payload.value.len()).sum();
        let kind = Kind::of(&push.type_url);
        self.counts.received(kind.map(Kind::url), size);
        let Some(kind) = kind else {
            // To accept it would be to say that it is in effect.
            let error = Some(format!("unknown type: {}", push.type_url));
            tracing::error!("{}", error.as_deref().unwrap_or_default());
            return self.send(Request::Settle { url: push.type_url, nonce: push.nonce, error });
        };
        let nonce = push.nonce.clone();
        let Some(response) = self.gather(kind, push, size).await else {
            let error = Some("the response could not be applied".to_owned());
            return self.send(Request::Settle { url: kind.url().to_owned(), nonce, error });
        };
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
    }

    /// A large push is applied elsewhere, on a copy of the state, which costs next to nothing; the views that connections
    /// read stay as they are until it is done.
    async fn gather(
        &mut self,
        kind: Kind,
        push: DeltaDiscoveryResponse,
        size: usize,
    ) -> Option<crate::xds::subscription::Response> {
        if size <= LARGE_PUSH {
            return Some(gather::apply(kind, push, &mut self.state, &mut self.names));
        }
        let (mut state, mut names) = (self.state.clone(), std::mem::take(&mut self.names));
        let work = tokio::task::spawn_blocking(move || {
            let response = gather::apply(kind, push, &mut state, &mut names);
            (response, state, names)
        });
        match work.await {
            Ok((response, state, names)) => {
                (self.state, self.names) = (state, names);
                Some(response)
            }
            Err(error) => {
                tracing::error!(%error, "applying a push failed; the state before it stays");
                None
            }
        }
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
