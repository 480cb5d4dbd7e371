//! Istio's protobuf messages and the clients of its services, as far as a node proxy speaks them.
//!
//! The code under `generated/` comes from our own files under `proto/` by `cargo xtask generate` and is checked in, so
//! that building needs no generator; a test of `xtask` compares the two. Beside it is only another way to read the
//! messages that come in masses ([`borrowed`]). What the messages mean is decided by their decoders, and how a service
//! is reached by whoever has a transport. Server sides, for control planes in tests, are behind the feature `server`.

/// What the node agent tells about pods.
pub mod zds {
    #![allow(missing_docs, reason = "documented in proto/zds.proto")]
    include!("generated/istio.workload.zds.rs");
}

pub mod borrowed;

/// Workloads and services.
pub mod workload {
    #![allow(missing_docs, reason = "documented in proto/workload.proto")]
    #![allow(clippy::large_enum_variant, reason = "an Address is taken apart as soon as it is decoded")]
    include!("generated/istio.workload.rs");
}

/// Authorization policies.
pub mod security {
    #![allow(missing_docs, reason = "documented in proto/security.proto")]
    include!("generated/istio.security.rs");
}

/// The mesh CA.
pub mod ca {
    #![allow(missing_docs, reason = "documented in proto/ca.proto")]
    include!("generated/istio.v1.auth.rs");
}

/// Delta discovery.
pub mod discovery {
    #![allow(missing_docs, reason = "documented in proto/discovery.proto")]
    include!("generated/envoy.service.discovery.v3.rs");
}
