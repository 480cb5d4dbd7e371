//! The one large push, encoded before anybody asks for it.
//!
//! For measurements of clients, whose time should not be ours. A push is its resources, encoded here, and the few
//! fields that depend on the stream: messages of protobuf may be laid end to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use istio_api::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{Shared, as_sent, of_type};
use crate::control_plane::resources::{ADDRESS, Resources};

/// All workloads and services, for a client that has none.
#[derive(Debug)]
pub(in crate::istiod) struct Prepared {
    pub(super) resources: Bytes,
    /// By name.
    pub(super) versions: BTreeMap<String, String>,
    mesh: Arc<Resources>,
    extra: Arc<Resources>,
}

impl Prepared {
    /// As things are now.
    pub(in crate::istiod) fn new(shared: &Shared) -> Self {
        let mesh = shared.world.control_plane().watch().borrow().clone();
        let extra = shared.behaviour.borrow().extra.clone();
        let (mut resources, mut versions) = (BytesMut::new(), BTreeMap::new());
        for (name, resource) in of_type(ADDRESS, &mesh, &extra) {
            let one = as_sent(ADDRESS, name, resource);
            versions.insert(name.clone(), one.version.clone());
            let part = DeltaDiscoveryResponse { resources: vec![one], ..DeltaDiscoveryResponse::default() };
            resources.put(&part.encode_to_vec()[..]);
        }
        Self { resources: resources.freeze(), versions, mesh, extra }
    }

    /// Whether it is what is to be said of that type.
    pub(super) fn is_of(&self, url: &str, mesh: &Arc<Resources>, extra: &Arc<Resources>) -> bool {
        url == ADDRESS && Arc::ptr_eq(&self.mesh, mesh) && Arc::ptr_eq(&self.extra, extra)
    }
}

/// A response.
#[derive(Debug)]
pub(in crate::istiod) enum Said {
    /// To be encoded when it is sent.
    Now(DeltaDiscoveryResponse),
    /// Resources that are encoded, and all else.
    Prepared(Bytes, DeltaDiscoveryResponse),
}

/// How responses are written and requests are read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = Said;
    type Decode = DeltaDiscoveryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Codec {
    type Item = Said;
    type Error = Status;

    fn encode(&mut self, said: Said, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let rest = match said {
            Said::Now(response) => response,
            Said::Prepared(resources, rest) => {
                buffer.reserve(resources.len());
                buffer.put(resources);
                rest
            }
        };
        rest.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Codec {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        DeltaDiscoveryRequest::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
