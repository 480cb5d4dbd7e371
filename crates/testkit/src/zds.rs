//! Messages between the node agent and ztunnel (spec in-pod 2), as the agent needs them.
//!
//! Each is one packet of a SEQPACKET socket, without a length in front; what they mean is [`crate::cni`]'s affair.

pub use istio_api::zds::workload_request::Payload;
pub use istio_api::zds::workload_response::Payload as Answer;
pub use istio_api::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo, WorkloadRequest,
    WorkloadResponse, ZdsHello,
};
