//! TLS towards the control plane: an ordinary web client that may be told a second name (spec identity-and-tls 3).
//!
//! Chain and dates are always checked, and so is the host name; no client certificate is shown. Roots that hold no
//! certificate are an error with a remedy, never an empty list that trusts nobody and says nothing.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use crate::crypto::Crypto;
use crate::files;

/// The application protocol of gRPC.
const ALPN: &[u8] = b"h2";
/// Largest file of roots: far more than every public authority.
const MAX_ROOTS: u64 = 16 * 1024 * 1024;

/// Where roots come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// A file, read at every connection.
    File(PathBuf),
    /// PEM text.
    Text(String),
    /// The operating system's.
    System,
}

/// Roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the roots {}: {source}; check XDS_ROOT_CA, CA_ROOT_CA or OTLP_ROOT_CA", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no usable certificate.
    #[error(
        "{0} holds no usable root certificate; XDS_ROOT_CA, CA_ROOT_CA and OTLP_ROOT_CA take a path, SYSTEM, or PEM text"
    )]
    Empty(String),
    /// The operating system's roots cannot be read.
    #[error("cannot read the system's roots: {0}")]
    System(String),
    /// The TLS library refuses them.
    #[error("the roots cannot be used: {0}")]
    Refused(String),
}

impl Roots {
    /// All certificates, unusable ones left out.
    fn load(&self) -> Result<RootCertStore, RootsError> {
        let mut store = RootCertStore::empty();
        let (name, found) = match self {
            Self::Text(text) => ("the PEM text".to_owned(), pem(text.as_bytes())),
            Self::File(path) => {
                let bytes = files::read(path, MAX_ROOTS);
                let bytes = bytes.map_err(|source| RootsError::Read { path: path.clone(), source })?;
                (path.display().to_string(), pem(&bytes))
            }
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                if let Some(error) = found.errors.first() {
                    return Err(RootsError::System(error.to_string()));
                }
                ("the system".to_owned(), found.certs)
            }
        };
        store.add_parsable_certificates(found);
        if store.is_empty() { Err(RootsError::Empty(name)) } else { Ok(store) }
    }
}

fn pem(text: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect()
}

/// The configuration for one connection: `roots` as they are now.
///
/// # Errors
/// [`RootsError`] if there is nobody to trust.
pub(crate) fn client(
    crypto: &Crypto,
    roots: &Roots,
    also: Option<ServerName<'static>>,
) -> Result<ClientConfig, RootsError> {
    let refused = |error: &dyn std::fmt::Display| RootsError::Refused(error.to_string());
    let provider = crypto.provider();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.load()?), provider.clone());
    let inner = inner.build().map_err(|error| refused(&error))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(crypto.versions())
        .map_err(|error| refused(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Named { inner, also }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Accepts a server that proves the host that we asked for, or the other name.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    also: Option<ServerName<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |name| self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let first = verify(server_name);
        let wrong_name = matches!(
            first,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        match &self.also {
            Some(also) if wrong_name => verify(also),
            _ => first,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_without_a_certificate_are_an_error_that_names_them() {
        let error = client(&Crypto::default(), &Roots::Text("./var/run/secrets/root.pem".into()), None).unwrap_err();
        assert!(error.to_string().starts_with("the PEM text holds no usable root certificate"), "{error}");
        let error = client(&Crypto::default(), &Roots::File("/nowhere/root.pem".into()), None).unwrap_err();
        assert!(error.to_string().contains("/nowhere/root.pem"), "{error}");
    }
}
