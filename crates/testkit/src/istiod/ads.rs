//! Delta discovery (spec wire-protocols 2, state-and-dns 2).

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use istio_api::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use istio_api::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Payload, Resource};
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Fault, Shared};
use crate::control_plane::resources::{Resource as AsSent, Resources};

/// Responses that wait for a client to read them.
const OUTGOING: usize = 64;

#[derive(Clone)]
pub(super) struct Discovery(pub(super) Arc<Shared>);

type Outgoing = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send + 'static>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.0.admits(request.metadata())?;
        let fault = self.0.behaviour.borrow().discovery;
        match fault {
            Fault::Refuse => return Err(Status::unavailable("discovery refuses")),
            Fault::Silent => pending().await,
            Fault::Slow(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        self.0.count(|tally| tally.streams += 1);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        tokio::spawn(converse(self.0.clone(), request.into_inner(), outgoing));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

/// What a client has of one type.
#[derive(Debug, Default)]
struct Subscribed {
    sent: BTreeMap<String, String>,
    /// Names that were asked for; `None` if everything is.
    names: Option<BTreeSet<String>>,
    /// The client's node.
    node: String,
}

async fn converse(
    shared: Arc<Shared>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    outgoing: Outgoing,
) -> Option<()> {
    let (mut resources, mut behaviour) = (shared.world.control_plane().watch(), shared.behaviour.subscribe());
    let mut single = shared.single.subscribe();
    let mut types: BTreeMap<String, Subscribed> = BTreeMap::new();
    let mut nonce = 0_u64;
    loop {
        let due = tokio::select! {
            request = requests.next() => take(&shared, &mut types, request?.ok()?),
            changed = resources.changed() => { changed.ok()?; all(&types) }
            changed = behaviour.changed() => { changed.ok()?; all(&types) }
            one = single.recv() => {
                let (url, name, resource) = one.ok()?;
                types.get_mut(url)?.sent.insert(name.clone(), resource.version());
                nonce += 1;
                outgoing.send(Ok(response(&shared, url, nonce, vec![as_sent(url, &name, &resource)], vec![]))).await.ok()?;
                continue;
            }
        };
        if due.is_empty() {
            continue; // large meshes are not copied for an acknowledgement
        }
        let mut now = Resources::clone(&resources.borrow_and_update());
        now.extend(behaviour.borrow_and_update().extra.clone());
        if behaviour.borrow().discovery == Fault::Silent {
            continue;
        }
        for Due { url, always, asked } in due {
            let subscribed = types.get_mut(&url)?;
            let (resources, removed_resources) = difference(&url, subscribed, &now, &asked);
            if !always && resources.is_empty() && removed_resources.is_empty() {
                continue;
            }
            nonce += 1;
            outgoing.send(Ok(response(&shared, &url, nonce, resources, removed_resources))).await.ok()?;
        }
    }
}

fn response(
    shared: &Shared,
    url: &str,
    nonce: u64,
    resources: Vec<Resource>,
    removed_resources: Vec<String>,
) -> DeltaDiscoveryResponse {
    shared.count(|tally| tally.resources += resources.len());
    DeltaDiscoveryResponse {
        resources,
        removed_resources,
        type_url: url.to_owned(),
        nonce: nonce.to_string(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn as_sent(url: &str, name: &str, resource: &AsSent) -> Resource {
    let payload = Payload { type_url: url.to_owned(), value: resource.payload.clone() };
    Resource {
        version: resource.version(),
        resource: Some(payload),
        name: name.to_owned(),
        aliases: resource.aliases.clone(),
        ..Resource::default()
    }
}

/// A type about which there may be something to say.
struct Due {
    url: String,
    /// Even if nothing has changed.
    always: bool,
    /// Names that have to be answered for.
    asked: Vec<String>,
}

fn all(types: &BTreeMap<String, Subscribed>) -> Vec<Due> {
    types.keys().map(|url| Due { url: url.clone(), always: false, asked: Vec::new() }).collect()
}

fn take(shared: &Shared, types: &mut BTreeMap<String, Subscribed>, request: DeltaDiscoveryRequest) -> Vec<Due> {
    if !request.response_nonce.is_empty() {
        shared.count(|tally| match request.error_detail {
            Some(error) => tally.refusals.push(error.message),
            None => tally.accepted += 1,
        });
        return Vec::new();
    }
    let first = !types.contains_key(&request.type_url);
    let subscribed = types.entry(request.type_url.clone()).or_default();
    if first {
        subscribed.sent = request.initial_resource_versions;
        let metadata = request.node.and_then(|node| node.metadata);
        let node = metadata.and_then(|metadata| metadata.fields.get("NODE_NAME")?.kind.clone());
        if let Some(Kind::StringValue(node)) = node {
            subscribed.node = node;
        }
        if request.resource_names_unsubscribe.iter().any(|name| name == "*") {
            subscribed.names = Some(subscribed.sent.keys().cloned().collect());
        }
    }
    let asked: Vec<String> = request.resource_names_subscribe.into_iter().filter(|name| name != "*").collect();
    if let Some(names) = &mut subscribed.names {
        names.extend(asked.iter().cloned());
    }
    vec![Due { url: request.type_url, always: first, asked }]
}

/// What to send and what to take away, so that the client has what it asked for.
fn difference(
    url: &str,
    subscribed: &mut Subscribed,
    now: &Resources,
    asked: &[String],
) -> (Vec<Resource>, Vec<String>) {
    // With a service come its endpoints, and to a node its own pods (as istiod has it).
    let named = |name: &String, aliases: &[String]| match &subscribed.names {
        None => true,
        Some(names) => names.contains(name) || aliases.iter().any(|alias| names.contains(alias)),
    };
    let of_type = || now.iter().filter(|((kind, _), _)| *kind == url).map(|((_, name), resource)| (name, resource));
    let told: BTreeSet<&String> = of_type().filter(|(name, r)| named(name, &r.aliases)).map(|(name, _)| name).collect();
    let wanted = |name: &String, r: &AsSent| {
        told.contains(name)
            || (!r.node.is_empty() && r.node == subscribed.node)
            || r.services.iter().any(|s| told.contains(s))
    };
    let mut there: BTreeMap<&String, _> = of_type().filter(|(name, r)| wanted(name, r)).collect();
    let has = |name: &String| there.iter().any(|(there, r)| *there == name || r.aliases.contains(name));
    let mut removed: Vec<String> = asked.iter().filter(|name| !has(name)).cloned().collect();
    removed.extend(subscribed.sent.keys().filter(|name| !there.contains_key(*name)).cloned());
    removed.dedup();
    subscribed.sent.retain(|name, _| there.contains_key(name));
    there.retain(|name, resource| {
        let again = asked.iter().any(|key| *key == **name || resource.aliases.contains(key));
        again || subscribed.sent.get(*name) != Some(&resource.version())
    });
    let resources = there.into_iter().map(|(name, resource)| {
        subscribed.sent.insert(name.clone(), resource.version());
        as_sent(url, name, resource)
    });
    (resources.collect(), removed)
}
