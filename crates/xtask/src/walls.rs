//! The walls of the house: what `ARCHITECTURE.md` says about who may know, import and touch what.
//!
//! Reads the dependency graph and the sources, tests left out. A breach is a line of code that breaks a wall. What a
//! method call reaches cannot be seen this way; the walls keep honest people honest.

mod graph;
mod mentions;
mod rules;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::io;
use std::path::Path;

use graph::{Graph, MACHINES};
use tree::Source;

/// A wall that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// File, and line where there is one.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl Breach {
    fn at(source: &Source, line: usize, what: String) -> Self {
        Self { place: format!("{}:{line}", source.file), what }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// All breaches of the workspace.
///
/// # Errors
/// If cargo does not say what depends on what, or a source file cannot be read.
pub fn breaches(workspace: &Path) -> io::Result<Vec<Breach>> {
    let graph = Graph::of(workspace)?;
    let mut breaches = graph::machines(&graph);
    breaches.extend(graph::ours(&graph));
    let mut product = Vec::new();
    for machine in MACHINES {
        let sources = tree::sources(workspace, machine)?;
        breaches.extend(sources.iter().flat_map(rules::pure));
        product.extend(sources);
    }
    let daemon = tree::sources(workspace, "ztunnel")?;
    for rule in [rules::layers, rules::environment, rules::outside] {
        breaches.extend(daemon.iter().flat_map(rule));
    }
    product.extend(daemon);
    breaches.extend(rules::one_file_of_tls(&product));
    Ok(breaches)
}
