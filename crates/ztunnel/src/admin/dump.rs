//! `/config_dump`: what this process knows, as one JSON object (spec admin-and-telemetry 2, configuration 7).
//!
//! All of it is of one view. It is printed as it is walked, without a tree of values in between, so that a large state
//! costs its text and little more. Keys are in alphabetical order at every level: those of objects because their shapes
//! are declared so, all others because the library's maps are sorted.

pub mod objects;

use std::cell::Cell;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::state::Views;
use crate::xds::local::shape::StaticConfig;

/// Gives one part of the dump, as it is at the moment. Called on a thread that may block.
pub type Part = Box<dyn Fn() -> Value + Send + Sync>;

/// Where the parts of the dump come from.
pub struct Sources {
    /// The state of the mesh: `policies`, `services`, `stagedServices` and `workloads`.
    pub views: Views,
    /// `certificates`.
    pub certificates: Part,
    /// `config`.
    pub config: Part,
    /// `version`.
    pub version: Part,
    /// `workloadState`; `None` in dedicated mode, where the key is absent.
    pub pods: Option<Part>,
    /// `staticConfig`, read anew each time.
    pub static_config: Box<dyn Fn() -> StaticConfig + Send + Sync>,
    /// `rejectedResources`: what the control plane sent and what was not accepted as it was sent.
    pub rejected: Part,
}

impl Sources {
    /// The whole dump, pretty-printed.
    pub(super) fn print(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = self.views.current();
        let mut dump = serializer.serialize_map(None)?;
        dump.serialize_entry("certificates", &(self.certificates)())?;
        dump.serialize_entry("config", &(self.config)())?;
        dump.serialize_entry("policies", &Each::of(objects::policies(&now.view)))?;
        dump.serialize_entry("rejectedResources", &(self.rejected)())?;
        dump.serialize_entry("services", &Each::of(objects::services(&now.view)))?;
        dump.serialize_entry("stagedServices", &objects::staged_services(&now.view))?;
        dump.serialize_entry("staticConfig", &(self.static_config)())?;
        dump.serialize_entry("version", &(self.version)())?;
        if let Some(pods) = &self.pods {
            dump.serialize_entry("workloadState", &pods())?;
        }
        dump.serialize_entry("workloads", &Each::of(objects::workloads(&now.view)))?;
        dump.end()
    }
}

/// What an iterator yields, as a list. Serializing it uses it up.
struct Each<I>(Cell<Option<I>>);

impl<I> Each<I> {
    fn of(items: I) -> Self {
        Self(Cell::new(Some(items)))
    }
}

impl<I: Iterator<Item: Serialize>> Serialize for Each<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten())
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
