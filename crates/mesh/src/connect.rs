//! What travels beside the bytes of a connection: the headers of a CONNECT request and its answer, and the PROXY
//! protocol header towards an app (spec data-plane 6).
//!
//! Writers emit only what is legal in a header, whatever the control plane put into a name; readers accept anything
//! and never panic.

pub mod baggage;
pub mod forwarded;
pub mod proxy_protocol;
pub mod traceparent;

pub use baggage::Baggage;
pub use proxy_protocol::ProxyHeader;
pub use traceparent::{TraceId, Traceparent};
