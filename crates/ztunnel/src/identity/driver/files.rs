//! The files that say whom to trust: looked at often, read when they change.
//!
//! A file that cannot be used leaves in force what it said before, and is reported once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::files::{self, Stamp};
use crate::identity::Files;
use crate::identity::certificate::Certificate;
use crate::identity::revocation::Revocations;

/// Largest file of roots or of revocation lists.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What has changed.
#[derive(Debug)]
pub(super) enum News {
    /// The operator's roots.
    Bundles(Arc<[Certificate]>),
    /// The root of the mesh, of which the CA will tell more.
    MeshRoot,
}

/// The files and what they looked like; revocation lists are put in force right away.
#[derive(Debug)]
pub(super) struct Watched {
    files: Files,
    revocations: Revocations,
    bundles: Option<Stamp>,
    lists: Option<Stamp>,
    mesh_root: Option<Stamp>,
}

impl Watched {
    pub(super) fn new(files: Files, revocations: Revocations) -> Self {
        let mesh_root = files.mesh_root.as_deref().map(Stamp::of);
        Self { files, revocations, bundles: None, lists: None, mesh_root }
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.bundles.is_empty() || self.files.revocations.is_some() || self.files.mesh_root.is_some()
    }

    /// What is new since the last look; at the first, everything but the root of the mesh.
    pub(super) fn look(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let paths = self.files.bundles.iter().map(PathBuf::as_path);
        if !self.files.bundles.is_empty() && changed(&mut self.bundles, Stamp::of_all(paths)) {
            match self.files.bundles.iter().map(|path| bundle(path)).collect::<Result<Vec<_>, _>>() {
                Ok(bundles) => news.push(News::Bundles(bundles.into_iter().flatten().collect())),
                Err(error) => tracing::error!("{error}; the roots before it stay"),
            }
        }
        if let Some(path) = &self.files.revocations
            && changed(&mut self.lists, Stamp::of(path))
        {
            let loaded = files::read(path, MAX_FILE).map_err(|error| error.to_string());
            match loaded.and_then(|file| self.revocations.load(&file)) {
                Ok(lists) => tracing::info!(lists, "revocation lists loaded from {}", path.display()),
                Err(error) => {
                    tracing::warn!("cannot use the revocation list {}: {error}; the one before stays", path.display());
                }
            }
        }
        if let Some(path) = &self.files.mesh_root
            && changed(&mut self.mesh_root, Stamp::of(path))
        {
            news.push(News::MeshRoot);
        }
        news
    }
}

fn changed(seen: &mut Option<Stamp>, now: Stamp) -> bool {
    seen.replace(now.clone()) != Some(now)
}

fn bundle(path: &Path) -> Result<Vec<Certificate>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot use the trust bundle {}: {error}", path.display());
    let text = files::read(path, MAX_FILE).map_err(|error| cannot(&error))?;
    let certificates = CertificateDer::pem_slice_iter(&text).map(|der| {
        let der = der.map_err(|error| cannot(&error))?;
        Certificate::parse(der).map_err(|error| cannot(&error))
    });
    certificates.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::identity::fixtures::any_root_pem;

    #[test]
    fn a_bundle_is_read_when_it_changes_and_a_broken_one_is_no_news() {
        let path = std::env::temp_dir().join(format!("ztunnel-bundle-{}", std::process::id()));
        fs::write(&path, any_root_pem()).unwrap();
        let files = Files { bundles: vec![path.clone()], mesh_root: Some(path.clone()), ..Files::default() };
        let mut watched = Watched::new(files, Revocations::default());
        let count = |news: Vec<News>| -> Vec<usize> {
            let one = |news| match news {
                News::Bundles(bundles) => bundles.len(),
                News::MeshRoot => 0,
            };
            news.into_iter().map(one).collect()
        };
        assert_eq!(count(watched.look()), [1]);
        assert!(watched.look().is_empty());
        fs::write(&path, any_root_pem().repeat(2)).unwrap();
        assert_eq!(count(watched.look()), [2, 0]);
        fs::write(&path, any_root_pem().replace("MII", "???")).unwrap();
        assert_eq!(count(watched.look()), [0], "the root of the mesh is the CA's client's affair");
        fs::remove_file(path).unwrap();
    }
}
