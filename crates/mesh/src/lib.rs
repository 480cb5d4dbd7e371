//! What a ztunnel knows of the mesh, and every decision that follows from it.
//!
//! The control plane's objects ([`Workload`], [`Service`], [`Policy`]) are applied to a [`State`], which hands out
//! immutable [`View`]s. Decisions are plain functions over one view: [`route()`] for connections that leave a pod,
//! [`admit_hbone`] and [`admit_plaintext`] for those that reach one, [`authorize()`] for whether they may, [`Lookup`] for
//! what a name means; [`explain`] asks all of them in advance.
//! A decision that goes through ends in a [`Permit`], without which no peer socket is opened; a decision that does
//! not is a [`Refusal`], or a [`Need`] for something that the caller can find out.
//!
//! Invariants: no I/O, no clock, no randomness of its own ([`Draw`] is the caller's), no locks; nothing that a peer,
//! an app or the control plane sends makes it panic; a view never changes under its reader.

pub mod account;
pub mod address;
pub mod admit;
pub mod ask;
pub mod authorize;
pub mod balance;
pub mod cause;
pub mod connect;
pub mod explain;
pub mod few;
#[cfg(test)]
mod fixture;
mod gateway;
pub mod identity;
pub mod lookup;
pub mod name;
pub mod permit;
pub mod policy;
pub mod ports;
pub mod refusal;
pub mod retry;
pub mod route;
pub mod service;
pub mod view;
pub mod workload;

pub use account::{
    Decided, Direction, End, Flow, Outcome, Party, Record, Reporter, SecurityPolicy, ServiceLabels, Tally,
};
pub use address::{Authority, NetworkAddress, canonical};
pub use admit::{Admission, AdmitSettings, HboneRequest, Tuple, admit_hbone, admit_plaintext};
pub use ask::{Halt, Learnt, Need, Replay, Resolution};
pub use authorize::{Denied, UnknownPolicy, Verdict, authorize, evaluate};
pub use balance::Draw;
pub use cause::Cause;
pub use connect::{Baggage, ProxyHeader, TraceId, Traceparent};
pub use identity::Identity;
pub use lookup::{Found, Lookup, LookupSettings, Question, Standing};
pub use name::{ClusterId, Hostname, LocalWorkload, Namespace, NamespacedHostname, NetworkId, NodeName, PolicyName};
pub use name::{ServiceAccount, TrustDomain, Uid};
pub use permit::Permit;
pub use policy::Policy;
pub use ports::PortMap;
pub use refusal::{Refusal, ResponseFlag};
pub use retry::{Attempts, Failures, Fault, Past, Pick, RetrySettings};
pub use route::{Hop, Outbound, Route, RouteSettings, route};
pub use service::Service;
pub use view::{Addressed, Applied, Change, Endpoint, State, View};
pub use workload::{Deployment, GatewayAddress, Locality, Workload};
