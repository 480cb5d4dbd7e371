//! What the control plane says about the mesh, made into views.
//!
//! [`local`] decodes documents, the driver reads them and publishes what they say; a document that is not valid changes
//! nothing. The conversation with a remote control plane will live here as well.

mod driver;
pub mod local;

use std::path::PathBuf;

use mesh::NodeName;

pub use driver::{LoadError, load, watch};

/// Where the state of the mesh comes from.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Source`].
    pub source: Source,
    /// The node whose workloads are local; `None`: all are.
    pub node: Option<NodeName>,
}

/// A document.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, loaded again when it changes.
    File(PathBuf),
    /// Text that does not change.
    Text(String),
    /// None: the mesh is empty.
    Nothing,
}
