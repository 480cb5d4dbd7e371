//! Certificates for two ends, made once per process.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Configurations that accept each other.
pub struct Pki {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

/// The configurations of this process.
pub fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| make().expect("constant parameters are valid"))
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn make() -> Outcome<Pki> {
    let root_key = rcgen::KeyPair::generate()?;
    let mut root = rcgen::CertificateParams::new(Vec::new())?;
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let mut roots = RootCertStore::empty();
    roots.add(root.self_signed(&root_key)?.der().clone())?;
    let roots = Arc::new(roots);
    let issuer = rcgen::Issuer::new(root, root_key);
    let leaf = || -> Outcome<_> {
        let key = rcgen::KeyPair::generate()?;
        // The client never names the server; it verifies an address that every leaf here carries.
        let params = rcgen::CertificateParams::new(vec!["0.0.0.0".to_owned()])?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der())?))
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls13 = &[&rustls::version::TLS13];
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let (chain, key) = leaf()?;
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(tls13)?;
    let mut server = server.with_client_cert_verifier(verifier.build()?).with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.enable_secret_extraction = true; // as the daemon has it: records are opened and sealed by ourselves
    let (chain, key) = leaf()?;
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(tls13)?;
    let mut client = client.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.enable_secret_extraction = true;
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Pki { client: Arc::new(client), server: Arc::new(server) })
}
