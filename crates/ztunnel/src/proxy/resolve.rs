//! Addresses of endpoints that are known by host name only (spec data-plane 4.6): whom to ask for them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use mesh::{Hostname, Resolution};

/// What will have come of looking a name up.
pub type Resolving = Pin<Box<dyn Future<Output = Resolution> + Send>>;

/// Looks host names up; clones are the same. Whoever makes one bounds how long that takes.
#[derive(Clone)]
pub struct HostNames(Arc<dyn Fn(Hostname) -> Resolving + Send + Sync>);

impl HostNames {
    /// Names are looked up by calling this.
    pub fn new(resolve: impl Fn(Hostname) -> Resolving + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    pub(super) async fn resolve(&self, hostname: &Hostname) -> Resolution {
        (self.0)(hostname.clone()).await
    }
}

impl fmt::Debug for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostNames")
    }
}
