//! The local document: a file or a folder, read at the start and whenever anything in it changes.
//!
//! A new version is compared with what is known and only the differences are applied; one that is not valid is reported,
//! and the state before it stays.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh::{Change, NamespacedHostname, PolicyName, Uid, View};

use crate::files::{self, Stamp};
use crate::xds::Source;
use crate::xds::local::{self, LocalError, shape::StaticConfig};

/// Largest document. The largest meshes are a few dozen megabytes as text.
const MAX_DOCUMENT: u64 = 256 * 1024 * 1024;
/// Files of one folder: far more than anybody keeps by hand.
const MAX_FILES: usize = 10_000;
/// Names of documents end so; everything else in a folder is left alone.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

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
        /// The file, or the folder if several files contradict each other.
        path: PathBuf,
        /// What is wrong.
        error: LocalError,
    },
    /// The text does not say what it should.
    #[error("LOCAL_XDS: {0}")]
    InvalidText(LocalError),
}

/// What the source says, as changes to an empty mesh.
///
/// # Errors
/// [`LoadError`], which names the file and what is wrong with it.
pub fn load(source: &Source) -> Result<Vec<Change>, LoadError> {
    let invalid = |error| match source {
        Source::Path(path) => LoadError::Invalid { path: path.clone(), error },
        Source::Text(_) | Source::Nothing => LoadError::InvalidText(error),
    };
    local::assemble(static_config(source)?).map_err(invalid)
}

/// What the source says, as it is written.
///
/// # Errors
/// As for [`load`].
pub fn static_config(source: &Source) -> Result<StaticConfig, LoadError> {
    let path = match source {
        Source::Nothing => return Ok(StaticConfig::default()),
        Source::Text(text) => return local::parse(text).map_err(LoadError::InvalidText),
        Source::Path(path) => path,
    };
    let read = |path: &Path| {
        files::read_text(path, MAX_DOCUMENT).map_err(|source| LoadError::Read { path: path.to_owned(), source })
    };
    let mut whole = StaticConfig::default();
    for file in documents(path).map_err(|source| LoadError::Read { path: path.clone(), source })? {
        let part = local::parse(&read(&file)?).map_err(|error| LoadError::Invalid { path: file, error })?;
        whole.workloads.extend(part.workloads);
        whole.services.extend(part.services);
        whole.policies.extend(part.policies);
    }
    Ok(whole)
}

/// The file itself, or the documents of a folder in order of their names. Names that begin with a dot are Kubernetes' own.
fn documents(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let ending = file.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        if !hidden && ENDINGS.contains(&ending.as_str()) && fs::metadata(&file)?.is_file() {
            found.push(file);
        }
        if found.len() > MAX_FILES {
            return Err(io::Error::other(format!("it holds more than {MAX_FILES} documents")));
        }
    }
    found.sort();
    Ok(found)
}

/// A document and what it looked like.
#[derive(Debug)]
pub(super) struct Watched {
    source: Source,
    path: PathBuf,
    seen: Stamp,
    keys: Keys,
}

/// What a version of the document spoke of.
#[derive(Debug, Default)]
struct Keys {
    workloads: HashSet<Uid>,
    services: HashSet<NamespacedHostname>,
    policies: HashSet<PolicyName>,
}

impl Watched {
    /// Watches a source that can change, of which `loaded` is known.
    pub(super) fn new(source: Source, loaded: &[Change]) -> Option<Self> {
        let Source::Path(path) = &source else { return None };
        let path = path.clone();
        Some(Self { seen: look(&path), path, source, keys: Keys::of(loaded) })
    }

    /// What has changed since the last look, given what is known; `None` if nothing has, or nothing that is valid.
    pub(super) async fn changes(&mut self, view: &View) -> Option<Vec<Change>> {
        let now = look(&self.path);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        // A large document takes a while; certificates and the admin server must not wait for it.
        let source = self.source.clone();
        match tokio::task::spawn_blocking(move || load(&source)).await {
            Ok(Ok(changes)) => {
                let keys = Keys::of(&changes);
                let (workloads, services, policies) = (keys.workloads.len(), keys.services.len(), keys.policies.len());
                tracing::info!(workloads, services, policies, "local state loaded again");
                let before = std::mem::replace(&mut self.keys, keys);
                let mut all = before.without(&self.keys);
                all.extend(changes.into_iter().filter(|change| is_news(change, view)));
                Some(all)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "local state not loaded; the state before it stays");
                None
            }
            Err(error) => {
                tracing::error!(%error, "loading the local state failed; the state before it stays");
                None
            }
        }
    }
}

/// What the file, or the folder with its documents, looks like.
fn look(path: &Path) -> Stamp {
    let inside = documents(path).unwrap_or_default();
    Stamp::of_all(std::iter::once(path).chain(inside.iter().map(PathBuf::as_path)))
}

/// Whether a change would change anything.
fn is_news(change: &Change, view: &View) -> bool {
    match change {
        Change::Workload(workload) => view.workload(&workload.uid).is_none_or(|known| **known != **workload),
        Change::Service(service) => view.service(&service.key()).is_none_or(|known| **known != **service),
        Change::Policy(policy) => view.policy(&policy.key).is_none_or(|known| **known != **policy),
        Change::RemoveWorkload(_) | Change::RemoveService(_) | Change::RemovePolicy(_) => true,
    }
}

impl Keys {
    fn of(changes: &[Change]) -> Self {
        let mut keys = Self::default();
        for change in changes {
            match change {
                Change::Workload(workload) => keys.workloads.insert(workload.uid.clone()),
                Change::Service(service) => keys.services.insert(service.key()),
                Change::Policy(policy) => keys.policies.insert(policy.key.clone()),
                Change::RemoveWorkload(_) | Change::RemoveService(_) | Change::RemovePolicy(_) => false,
            };
        }
        keys
    }

    /// Removals of what `next` does not speak of any more.
    fn without(self, next: &Self) -> Vec<Change> {
        let workloads = self.workloads.into_iter().filter(|key| !next.workloads.contains(key));
        let services = self.services.into_iter().filter(|key| !next.services.contains(key));
        let policies = self.policies.into_iter().filter(|key| !next.policies.contains(key));
        let gone = workloads.map(Change::RemoveWorkload).chain(services.map(Change::RemoveService));
        gone.chain(policies.map(Change::RemovePolicy)).collect()
    }
}

#[cfg(test)]
mod tests;
