//! Delta discovery (spec wire-protocols 2, state-and-dns 2).

mod prepared;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use istio_api::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Payload, Resource};
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http;
use tonic::{Request, Response, Status, Streaming};

use super::{Behaviour, Fault, Shared, lock};
use crate::control_plane::resources::{Resource as AsSent, Resources};
pub(super) use prepared::Prepared;
use prepared::{Codec, Said};

/// Responses that wait for a client to read them.
const OUTGOING: usize = 64;

#[derive(Clone)]
pub(super) struct Discovery(pub(super) Arc<Shared>);

type Outgoing = mpsc::Sender<Result<Said, Status>>;

impl Discovery {
    /// Answers a call, which is one of `DeltaAggregatedResources`: nothing else is asked of it.
    pub(super) async fn call(self, request: http::Request<tonic::body::Body>) -> http::Response<tonic::body::Body> {
        tonic::server::Grpc::new(Codec).streaming(self, request).await
    }

    async fn stream(
        self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<ReceiverStream<Result<Said, Status>>>, Status> {
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
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Discovery {
    type Response = Said;
    type ResponseStream = ReceiverStream<Result<Said, Status>>;
    type Future = tonic::codegen::BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        Box::pin(self.clone().stream(request))
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

impl Subscribed {
    /// Whether it is everything that has to be sent.
    fn wants_all_anew(&self) -> bool {
        self.sent.is_empty() && self.names.is_none()
    }
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
                let sent = &mut types.get_mut(url)?.sent;
                nonce += 1;
                let said = if let Some(resource) = resource {
                    sent.insert(name.clone(), resource.version());
                    response(&shared, url, nonce, vec![as_sent(url, &name, &resource)], vec![])
                } else {
                    sent.remove(&name);
                    response(&shared, url, nonce, vec![], vec![name])
                };
                outgoing.send(Ok(Said::Now(said))).await.ok()?;
                continue;
            }
        };
        if due.is_empty() {
            continue; // large meshes are not copied for an acknowledgement
        }
        let mesh = resources.borrow_and_update().clone();
        let Behaviour { extra, discovery, .. } = behaviour.borrow_and_update().clone();
        if discovery == Fault::Silent {
            continue;
        }
        for Due { url, always, asked } in due {
            let subscribed = types.get_mut(&url)?;
            nonce += 1;
            if always && subscribed.wants_all_anew() {
                let prepared = lock(&shared.prepared).take_if(|prepared| prepared.is_of(&url, &mesh, &extra));
                if let Some(prepared) = prepared {
                    let rest = response(&shared, &url, nonce, vec![], vec![]);
                    shared.count(|tally| tally.resources += prepared.versions.len());
                    outgoing.send(Ok(Said::Prepared(prepared.resources, rest))).await.ok()?;
                    subscribed.sent = prepared.versions;
                    continue;
                }
            }
            let (resources, removed_resources) = difference(&url, subscribed, &of_type(&url, &mesh, &extra), &asked);
            if !always && resources.is_empty() && removed_resources.is_empty() {
                continue;
            }
            let said = response(&shared, &url, nonce, resources, removed_resources);
            outgoing.send(Ok(Said::Now(said))).await.ok()?;
        }
    }
}

/// All of one type, by name: what the mesh says, and what there is beside or instead.
fn of_type<'a>(url: &str, mesh: &'a Resources, extra: &'a Resources) -> BTreeMap<&'a String, &'a AsSent> {
    let both = mesh.iter().chain(extra);
    both.filter(|((kind, _), _)| *kind == url).map(|((_, name), resource)| (name, resource)).collect()
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
    if types.is_empty() {
        shared.count(|tally| tally.asked = Some(Instant::now()));
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
    now: &BTreeMap<&String, &AsSent>,
    asked: &[String],
) -> (Vec<Resource>, Vec<String>) {
    // With a service come its endpoints, and to a node its own pods (as istiod has it).
    let named = |name: &String, aliases: &[String]| match &subscribed.names {
        None => true,
        Some(names) => names.contains(name) || aliases.iter().any(|alias| names.contains(alias)),
    };
    let all = || now.iter().map(|(name, resource)| (*name, *resource));
    let told: BTreeSet<&String> = all().filter(|(name, r)| named(name, &r.aliases)).map(|(name, _)| name).collect();
    let wanted = |name: &String, r: &AsSent| {
        told.contains(name)
            || (!r.node.is_empty() && r.node == subscribed.node)
            || r.services.iter().any(|s| told.contains(s))
    };
    let mut there: BTreeMap<&String, _> = all().filter(|(name, r)| wanted(name, r)).collect();
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
