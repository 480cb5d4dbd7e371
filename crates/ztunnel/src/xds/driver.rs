//! Reads the local state, at the start and whenever its file changes.
//!
//! A change is noticed by looking at the file every [`LOOK`]: that also sees a file that is replaced, and the symbolic
//! links that Kubernetes swaps, on every file system.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::{NodeName, State, View};

use super::local::{self, LocalError};
use super::{Config, Source};
use crate::drain::Watcher;
use crate::state::Views;

/// How often the file is looked at: a policy should hold within a second of being written.
const LOOK: Duration = Duration::from_millis(500);
/// Largest document. The largest meshes are a few dozen megabytes as text.
const MAX_DOCUMENT: u64 = 256 * 1024 * 1024;

/// The local state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read the local state {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("{}: {error}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: LocalError,
    },
    /// The text does not say what it should.
    #[error("LOCAL_XDS: {0}")]
    InvalidText(LocalError),
}

/// Reads the state.
///
/// # Errors
/// [`LoadError`], which names the file and what is wrong with it.
pub fn load(config: &Config) -> Result<View, LoadError> {
    let changes = match &config.source {
        Source::Nothing => Vec::new(),
        Source::Text(text) => local::decode(text).map_err(LoadError::InvalidText)?,
        Source::File(path) => {
            let text = read(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            local::decode(&text).map_err(|error| LoadError::Invalid { path: path.clone(), error })?
        }
    };
    Ok(view(config.node.clone(), changes))
}

fn view(node: Option<NodeName>, changes: Vec<mesh::Change>) -> View {
    let mut state = State::new(node);
    let _all_new = state.apply(changes);
    state.view()
}

fn read(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_DOCUMENT {
        let text = format!("{size} bytes are more than {MAX_DOCUMENT}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    fs::read_to_string(path)
}

/// Publishes the state anew whenever its file has changed, until the drain. What is not valid is reported, and the
/// state before it stays.
pub async fn watch(config: Config, views: Views, mut drain: Watcher) {
    let Some(mut watched) = Watched::new(config) else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = drain.begun() => return,
        }
        if !watched.has_changed() {
            continue;
        }
        // A large document takes a while; certificates and the admin server must not wait for it.
        let config = watched.config.clone();
        match tokio::task::spawn_blocking(move || load(&config)).await {
            Ok(Ok(view)) => {
                let (workloads, services, policies) =
                    (view.workloads().count(), view.services().count(), view.policies().count());
                tracing::info!(workloads, services, policies, "local state loaded again");
                views.publish(view);
            }
            Ok(Err(error)) => tracing::error!(%error, "local state not loaded; the state before it stays"),
            Err(error) => tracing::error!(%error, "loading the local state failed; the state before it stays"),
        }
    }
}

/// A file and what it looked like.
struct Watched {
    config: Config,
    path: PathBuf,
    seen: Stamp,
}

impl Watched {
    fn new(config: Config) -> Option<Self> {
        let Source::File(path) = &config.source else { return None };
        let (path, seen) = (path.clone(), Stamp::of(path));
        Some(Self { config, path, seen })
    }

    /// Whether the file looks different from the last time this was asked.
    fn has_changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64, u64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let stamp = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len());
        Self(fs::metadata(path).ok().map(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ztunnel-xds-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn workload(name: &str) -> String {
        format!("workloads: [{{uid: {name}, name: {name}, namespace: ns, workloadIps: [10.0.0.1], services: {{}}}}]")
    }

    #[test]
    fn a_file_that_is_written_or_replaced_has_changed_once() {
        let folder = folder("changed");
        let path = folder.join("state.yaml");
        fs::write(&path, workload("one")).unwrap();
        let config = Config { source: Source::File(path.clone()), node: None };
        let mut watched = Watched::new(config.clone()).unwrap();
        assert!(!watched.has_changed());
        fs::write(folder.join("new"), workload("two")).unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        assert!(watched.has_changed() && !watched.has_changed());
        assert_eq!(load(&config).unwrap().workloads().map(|w| w.name.to_string()).collect::<Vec<_>>(), ["two"]);
        fs::remove_file(&path).unwrap();
        assert!(watched.has_changed() && !watched.has_changed());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_symbolic_link_that_is_pointed_elsewhere_has_changed() {
        let folder = folder("link");
        for version in ["v1", "v2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("state.yaml"), workload(version)).unwrap();
        }
        let link = folder.join("current");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let config = Config { source: Source::File(link.join("state.yaml")), node: None };
        let mut watched = Watched::new(config.clone()).unwrap();
        std::os::unix::fs::symlink("v2", folder.join("next")).unwrap();
        fs::rename(folder.join("next"), &link).unwrap();
        assert!(watched.has_changed());
        assert_eq!(load(&config).unwrap().workloads().map(|w| w.name.to_string()).collect::<Vec<_>>(), ["v2"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
