//! The node agent's messages: one protobuf message per packet (spec in-pod 2).
//!
//! Nothing here has a state. What is in a packet is read here; what it means for pods, and whether it makes sense at
//! that moment, is `pods`' to say.

#[cfg(test)]
mod tests;

use istio_api::zds::workload_request::Payload;
use istio_api::zds::workload_response::Payload as Answer;
use istio_api::zds::{Ack, Version, WorkloadInfo, WorkloadRequest, WorkloadResponse, ZdsHello};
use mesh::LocalWorkload;
use prost::Message as _;

/// Largest packet that is read. The agent sends less than 1 KiB; more room costs nothing and forgives long names.
pub const MAX_PACKET: usize = 8 * 1024;
/// Longest error text of an acknowledgement: the agent reads 1 KiB in all (spec in-pod 2).
const MAX_ERROR: usize = 900;

/// A pod's key: the Kubernetes pod UID.
pub type PodUid = String;

/// What the agent says; `D` is a file descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<D> {
    /// A pod is there, in this namespace. Who it is may have been left out.
    Add(PodUid, Option<LocalWorkload>, D),
    /// A pod is still there, though its namespace did not come along.
    Keep(PodUid),
    /// A pod is gone.
    Del(PodUid),
    /// All pods have been told.
    SnapshotSent,
}

impl<D> Message<D> {
    /// The pod that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<&PodUid> {
        match self {
            Self::Add(uid, ..) | Self::Keep(uid) | Self::Del(uid) => Some(uid),
            Self::SnapshotSent => None,
        }
    }
}

/// A packet that is not a message as agreed, so that nothing about what follows can be taken for granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZdsError {
    /// Not protobuf, or not this message.
    #[error("not a ZDS request: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An empty request.
    #[error("no payload")]
    NoPayload,
    /// More than fits.
    #[error("received truncated message")]
    Truncated,
    /// The kernel did not hand over all descriptors.
    #[error("received truncated message: too many descriptors, or this process may not open more (ulimit -n)")]
    DescriptorsTruncated,
    /// An Add comes with exactly one descriptor.
    #[error("No control message")]
    NoDescriptor,
    /// Only an Add comes with a descriptor.
    #[error("Unexpected control message")]
    UnexpectedDescriptor,
    /// See the text.
    #[error("Expected 1 FD, got {0}")]
    ManyDescriptors(usize),
}

/// The first packet we send.
#[must_use]
pub fn hello() -> Vec<u8> {
    ZdsHello { version: Version::V1.into() }.encode_to_vec()
}

/// The answer to one request: success, or what went wrong, cut to what the agent can read.
#[must_use]
pub fn ack(outcome: &Result<(), String>) -> Vec<u8> {
    let error = outcome.as_ref().err().map_or("", String::as_str);
    let error = error[..error.floor_char_boundary(MAX_ERROR)].to_owned();
    WorkloadResponse { payload: Some(Answer::Ack(Ack { error })) }.encode_to_vec()
}

/// Reads one packet that came with these descriptors.
///
/// # Errors
/// [`ZdsError`]; descriptors are closed then.
pub fn parse<D>(packet: &[u8], mut descriptors: Vec<D>) -> Result<Message<D>, ZdsError> {
    if descriptors.len() > 1 {
        return Err(ZdsError::ManyDescriptors(descriptors.len()));
    }
    let descriptor = descriptors.pop();
    let message = match WorkloadRequest::decode(packet)?.payload.ok_or(ZdsError::NoPayload)? {
        Payload::Add(add) => {
            let netns = descriptor.ok_or(ZdsError::NoDescriptor)?;
            return Ok(Message::Add(add.uid, add.workload_info.map(who), netns));
        }
        Payload::Keep(keep) => Message::Keep(keep.uid),
        Payload::Del(del) => Message::Del(del.uid),
        Payload::SnapshotSent(_) => Message::SnapshotSent,
    };
    if descriptor.is_none() { Ok(message) } else { Err(ZdsError::UnexpectedDescriptor) }
}

fn who(info: WorkloadInfo) -> LocalWorkload {
    LocalWorkload {
        name: info.name.as_str().into(),
        namespace: info.namespace.as_str().into(),
        service_account: info.service_account.as_str().into(),
    }
}
