//! Certificates of the demonstration CA for programs that are not ztunnel, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh::Identity;
use rustls::pki_types::PrivateKeyDer;
use ztunnel::identity::{Certificate, FakeCa, Signer, csr};

use crate::Outcome;

const TTL: Duration = Duration::from_secs(3600);

/// The files that a program's TLS wants.
pub struct Files {
    /// The leaf.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What its peers are verified against.
    pub root: PathBuf,
}

/// Writes credentials of `identity` into `folder`.
pub fn files(identity: &str, folder: &Path) -> Outcome<Files> {
    let identity: Identity = identity.parse()?;
    let (key, request): (PrivateKeyDer<'_>, _) = csr::create(&identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let issued = runtime.block_on(FakeCa::new().sign(&identity, &request, TTL))?;
    let pem = |list: Vec<_>| -> Outcome<String> {
        let parsed = list.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(parsed.iter().map(Certificate::pem).collect())
    };
    let key =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.secret_der()));
    let files = Files { chain: folder.join("chain.pem"), key: folder.join("key.pem"), root: folder.join("root.pem") };
    fs::write(&files.chain, pem(issued.chain)?)?;
    fs::write(&files.key, key)?;
    fs::write(&files.root, pem(issued.roots)?)?;
    Ok(files)
}
