//! `/config_dump`: what this process knows, as one JSON object (spec admin-and-telemetry 2, configuration 7).
//!
//! All of it, or what a [`Selection`] names, is of one view. It is printed as it is walked, without a tree of values in between, so that a large state
//! costs its text and little more. Keys are in alphabetical order at every level: those of objects because their shapes
//! are declared so, all others because the library's maps are sorted.

mod legacy;
pub mod objects;
mod selection;

use std::cell::Cell;
use std::io;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use legacy::Legacy;
pub use selection::{Selection, UnknownResource};

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
    /// Address of ztunnel's own pod, which only earlier dumps show.
    pub local_ip: String,
}

/// Which shape the dump has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The present one, or a part of it.
    Present(Selection),
    /// That of earlier ztunnels.
    Legacy,
}

impl Shape {
    /// What the parameters of a request ask for.
    ///
    /// # Errors
    /// If they name something that there is not.
    pub fn of(query: &str) -> Result<Self, UnknownResource> {
        let legacy = form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "format" && value == "legacy");
        if legacy { Ok(Self::Legacy) } else { Selection::of(query).map(Self::Present) }
    }
}

impl Sources {
    /// Prints the dump as it is walked.
    ///
    /// # Errors
    /// What `out` says.
    pub(super) fn print(&self, shape: &Shape, out: &mut impl io::Write) -> io::Result<()> {
        match shape {
            Shape::Present(selection) => serde_json::to_writer_pretty(out, &Selected { sources: self, selection }),
            Shape::Legacy => serde_json::to_writer_pretty(out, &Legacy(self)),
        }
        .map_err(io::Error::from)
    }
}

/// What is to be shown of the dump.
struct Selected<'a> {
    sources: &'a Sources,
    selection: &'a Selection,
}

impl Serialize for Selected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { sources, selection } = self;
        let now = sources.views.current();
        let view = &now.view;
        let mut dump = serializer.serialize_map(None)?;
        if selection.shows("certificates") {
            dump.serialize_entry("certificates", &(sources.certificates)())?;
        }
        if selection.shows("config") {
            dump.serialize_entry("config", &(sources.config)())?;
        }
        if selection.shows("policies") {
            let all = objects::policies(view).filter(|one| selection.takes(&one.namespace, &[&one.name]));
            dump.serialize_entry("policies", &Each::of(all))?;
        }
        if selection.shows("rejectedResources") {
            dump.serialize_entry("rejectedResources", &(sources.rejected)())?;
        }
        if selection.shows("services") {
            let taken = |one: &objects::DumpedService| selection.takes(&one.namespace, &[&one.name, &one.hostname]);
            dump.serialize_entry("services", &Each::of(objects::services(view).filter(taken)))?;
        }
        if selection.shows("stagedServices") {
            dump.serialize_entry("stagedServices", &objects::staged_services(view))?;
        }
        if selection.shows("staticConfig") {
            dump.serialize_entry("staticConfig", &(sources.static_config)())?;
        }
        if selection.shows("version") {
            dump.serialize_entry("version", &(sources.version)())?;
        }
        if let Some(pods) = sources.pods.as_ref().filter(|_| selection.shows("workloadState")) {
            dump.serialize_entry("workloadState", &pods())?;
        }
        if selection.shows("workloads") {
            let taken = |one: &objects::Dumped| {
                selection.takes(&one.namespace, &[&one.name, &one.uid]) && selection.takes_node(&one.node)
            };
            dump.serialize_entry("workloads", &Each::of(objects::workloads(view).filter(taken)))?;
        }
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
