//! What the control plane says about the mesh, made into views.
//!
//! [`local`] decodes documents, [`decode`] the resources of discovery; [`subscription`] knows what has been said and what
//! to answer; the driver reads, converses and publishes. Whatever is not valid is named and changes nothing: the state
//! before it stays, whole or resource by resource.

mod backoff;
pub mod decode;
mod driver;
mod gather;
pub mod local;
pub mod metrics;
pub mod subscription;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh::NodeName;
use serde_json::{Value, json};

pub use driver::{Driver, LoadError, Reports, load, static_config};
pub use metrics::Counts;
pub use subscription::Lookups;
pub use wire::NodeDescription;

use crate::control;

/// Where the state of the mesh comes from.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Source`]; read first, so that the control plane may overwrite it.
    pub source: Source,
    /// The control plane, if there is one.
    pub remote: Option<Remote>,
    /// The node whose workloads are local; `None`: all are.
    pub node: Option<NodeName>,
}

/// A document.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, or a folder of files, loaded again when anything in it changes.
    Path(PathBuf),
    /// Text that does not change.
    Text(String),
    /// None: the mesh is empty.
    Nothing,
}

/// A control plane that speaks delta discovery.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The way to it.
    pub control: control::Config,
    /// Who we are.
    pub node: NodeDescription,
    /// What it is asked for.
    pub lookups: Lookups,
}

/// Resources that were not accepted as they were sent, for the configuration dump. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Rejected(Arc<ArcSwap<Vec<Complaint>>>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Complaint {
    kind: subscription::Kind,
    name: subscription::Name,
    why: String,
}

impl Rejected {
    fn replace(&self, complaints: Vec<Complaint>) {
        self.0.store(Arc::new(complaints));
    }

    /// `rejectedResources` of `/config_dump`: type, name and reason of each.
    #[must_use]
    pub fn dump(&self) -> Value {
        let one = |c: &Complaint| json!({ "name": &*c.name, "reason": c.why, "type": c.kind.url() });
        self.0.load().iter().map(one).collect()
    }
}
