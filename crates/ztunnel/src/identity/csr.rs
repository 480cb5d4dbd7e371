//! The certificate signing request: a fresh ECDSA P-256 key and a PKCS #10 request for one SPIFFE identity.
//!
//! Every request has its own key; the key stays in memory and leaves this module once, to become the TLS key. What the
//! CA makes of the request (it may take the identity from elsewhere) is not decided here.

use mesh::Identity;
use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls::pki_types::PrivateKeyDer;

use super::error::MaterialError;
use crate::crypto::Key;

/// A signing request in the form CAs take it: the PEM text of a `CERTIFICATE REQUEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr(String);

impl Csr {
    /// The PEM text.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl Csr {
    /// The same request with the last byte of its signature changed.
    pub(super) fn with_broken_signature(&self) -> Self {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let (_, block) = x509_parser::pem::parse_x509_pem(self.0.as_bytes()).unwrap();
        let mut der = block.contents;
        *der.last_mut().unwrap() ^= 1;
        Self(format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        ))
    }
}

/// Makes a key and the request to sign it for `identity`: version 1, empty subject, one attribute (extension request)
/// with one extension (subjectAltName, critical, one URI), signed with ECDSA and SHA-256 (spec identity-and-tls 2).
///
/// # Errors
/// [`MaterialError::Uri`] if the identity is not ASCII; [`MaterialError::Tls`] if the provider cannot make a key.
pub fn create(identity: &Identity) -> Result<(PrivateKeyDer<'static>, Csr), MaterialError> {
    let key = Key::generate().map_err(|error| MaterialError::Tls(error.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![san(identity)?];
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(tls)?;
    Ok((key.into(), Csr(pem)))
}

/// The identity as the URI name of a certificate or of a request for one.
pub(super) fn san(identity: &Identity) -> Result<SanType, MaterialError> {
    let uri = identity.to_string();
    uri.as_str().try_into().map(SanType::URI).map_err(|_| MaterialError::Uri(uri))
}

fn tls(error: rcgen::Error) -> MaterialError {
    MaterialError::Tls(error.to_string())
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::oid_registry::{OID_EC_P256, OID_PKCS9_EXTENSION_REQUEST, OID_SIG_ECDSA_WITH_SHA256};
    use x509_parser::prelude::{FromDer, ParsedCriAttribute};

    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/default/sa/client";

    #[test]
    fn the_request_has_the_form_of_the_specification() {
        let (_, csr) = create(&ID.parse().unwrap()).unwrap();
        assert!(csr.pem().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
        let (rest, block) = x509_parser::pem::parse_x509_pem(csr.pem().as_bytes()).unwrap();
        assert!(rest.is_empty());
        let (rest, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        assert!(rest.is_empty());
        request.verify_signature().unwrap();
        assert_eq!(request.signature_algorithm.algorithm, OID_SIG_ECDSA_WITH_SHA256);

        let info = &request.certification_request_info;
        assert_eq!(info.version.0, 0, "version 1 is written as 0");
        assert_eq!(info.subject.iter().count(), 0, "empty subject");
        let curve = info.subject_pki.algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
        assert_eq!(curve, OID_EC_P256);

        let [attribute] = info.attributes() else { panic!("one attribute") };
        assert_eq!(attribute.oid, OID_PKCS9_EXTENSION_REQUEST);
        let ParsedCriAttribute::ExtensionRequest(extensions) = attribute.parsed_attribute() else {
            panic!("extension request")
        };
        let [extension] = extensions.extensions.as_slice() else { panic!("one extension") };
        assert!(extension.critical);
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            panic!("subjectAltName")
        };
        assert_eq!(names.general_names, [GeneralName::URI(ID)]);
    }

    #[test]
    fn every_request_has_a_key_of_its_own() {
        let identity = ID.parse().unwrap();
        let (first, _) = create(&identity).unwrap();
        let (second, _) = create(&identity).unwrap();
        assert_ne!(first.secret_der(), second.secret_der());
    }

    #[test]
    fn an_identity_that_is_not_ascii_is_refused_by_name() {
        let identity: Identity = "spiffe://cluster.local/ns/default/sa/clïent".parse().unwrap();
        let error = create(&identity).unwrap_err();
        assert_eq!(error.to_string(), "invalid uri: spiffe://cluster.local/ns/default/sa/clïent");
    }
}
