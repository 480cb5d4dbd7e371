//! What the repository can check, generate, measure or package, in one typed program.

pub mod bench;
pub mod demo;
pub mod full;
pub mod fuzz;
pub mod generate;
pub mod instructions;
pub mod interop;
pub mod lint;
pub mod package;
mod patience;
pub mod providers;
pub mod soak;
pub mod walls;

use std::path::PathBuf;

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
