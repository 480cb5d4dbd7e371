//! Certificates of the demonstration CA for programs that are not ztunnel, as PEM files or as a rustls configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh::Identity;
use rustls::pki_types::PrivateKeyDer;
use ztunnel::identity::{Certificate, FakeCa, Issued, LeafCheck, Rules, Signer, Terms, WorkloadCertificate, csr};

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
    let (_, key, issued) = issue(identity)?;
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

/// The configuration of a client that is `identity` and expects `server`.
pub fn client(identity: &str, server: &str) -> Outcome<Arc<rustls::ClientConfig>> {
    let (identity, key, issued) = issue(identity)?;
    let terms = Terms { leaf: LeafCheck::Requested, rules: Rules::default(), bundles: Arc::default() };
    let certificate = WorkloadCertificate::new(&identity, key, issued, &terms)?;
    Ok(certificate.client_config(&[server.parse()?]))
}

fn issue(identity: &str) -> Outcome<(Identity, PrivateKeyDer<'static>, Issued)> {
    let identity: Identity = identity.parse()?;
    let (key, request) = csr::create(&identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let issued = runtime.block_on(FakeCa::new().sign(&identity, &request, TTL))?;
    Ok((identity, key, issued))
}
