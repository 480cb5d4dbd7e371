//! Who may be at the other end of an HBONE connection: the verifiers that our TLS configurations use.
//!
//! Both sides build the peer's chain to the roots of our own certificate, with its dates and key usage. A server then
//! wants a client of its own trust domain, a client wants a server that is one of the expected identities (spec
//! identity-and-tls 5), in whatever name of it. Certificates that are revoked are refused. Host names play no part, and what
//! an accepted peer may do is decided elsewhere.

use std::fmt;
use std::sync::Arc;

use mesh::{Identity, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ExtendedKeyPurpose, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::revocation::Side;
use super::trust::Rules;

/// Signature schemes accepted in handshakes, in the order offered (spec identity-and-tls 5).
const SIGNATURE_SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// A peer with a good certificate that is not who we talk to. The handshake fails with alert `certificate_unknown`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPeer {
    /// No SPIFFE name of the client is of our trust domain.
    #[error(
        "identity verification error: peer did not present the expected trustdomain ({expected}), got {}",
        list(got)
    )]
    TrustDomain {
        /// The trust domain of our own certificate.
        expected: TrustDomain,
        /// The SPIFFE names that the client does have.
        got: Vec<Identity>,
    },
    /// No SPIFFE name of the server is expected.
    #[error(
        "identity verification error: peer did not present the expected SAN ({}), got {}",
        list(expected),
        list(got)
    )]
    San {
        /// Any of these would do.
        expected: Arc<[Identity]>,
        /// The SPIFFE names that the server does have.
        got: Vec<Identity>,
    },
}

/// rustls prints errors of verifiers in this form only, so it must be the readable one.
impl fmt::Debug for WrongPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn list(identities: &[Identity]) -> String {
    identities.iter().map(Identity::to_string).collect::<Vec<_>>().join(",")
}

/// The text of a TLS error for logs: without the wrapping that rustls puts around what a verifier said.
#[must_use]
pub fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => reason.to_string(),
        other => other.to_string(),
    }
}

/// Who the peer of a finished handshake is: its first URI name that is a SPIFFE identity of a workload (spec
/// data-plane 7).
///
/// `certificates` is what the peer presented, leaf first; the handshake has verified it.
#[must_use]
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Option<Identity> {
    let leaf = EndEntityCert::try_from(certificates.first()?).ok()?;
    leaf.valid_uri_names().find_map(|name| name.parse().ok())
}

/// The URI names of a certificate in their order, parsable as identities or not.
///
/// # Errors
/// The reason why it is not a usable end-entity certificate.
pub(super) fn uri_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    Ok(EndEntityCert::try_from(certificate)?.valid_uri_names().map(str::to_owned).collect())
}

/// What both verifiers know: the roots and the algorithms.
#[derive(Debug, Clone)]
struct Chain {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    rules: Rules,
}

impl Chain {
    fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider, rules: &Rules) -> Self {
        Self { roots, algorithms: provider.signature_verification_algorithms, rules: rules.clone() }
    }

    /// Verifies chain, dates and key usage, and answers with the SPIFFE names of the leaf.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<Vec<Identity>, rustls::Error> {
        let leaf = EndEntityCert::try_from(end_entity).map_err(refused)?;
        self.check(&leaf, intermediates, now, side).map_err(refused)?;
        let parse = |name: &str| match name.parse() {
            Ok(identity) => Some(identity),
            Err(error) => {
                tracing::warn!("SAN {name} could not be parsed: {error}");
                None
            }
        };
        Ok(leaf.valid_uri_names().filter_map(parse).collect())
    }

    fn check(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<(), webpki::Error> {
        let usage = match side {
            Side::Client => KeyUsage::server_auth(),
            Side::Server => KeyUsage::client_auth(),
        };
        let (algorithms, roots) = (self.algorithms.all, &self.roots.roots);
        self.rules.revocations.verify(side, |revocation| {
            leaf.verify_for_usage(algorithms, roots, intermediates, now, usage, revocation, None).map(drop)
        })
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !SIGNATURE_SCHEMES.contains(&signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let supported = self.algorithms.supported_schemes();
        SIGNATURE_SCHEMES.into_iter().filter(|scheme| supported.contains(scheme)).collect()
    }
}

/// What a peer was accepted by: tells later whether it would still be.
#[derive(Debug)]
pub struct Acceptance {
    chain: Chain,
    side: Side,
    /// Certificates are judged as of then: one that has ended since was good.
    at: UnixTime,
}

impl Acceptance {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider, rules: &Rules, side: Side) -> Self {
        Self { chain: Chain::new(roots, provider, rules), side, at: UnixTime::now() }
    }

    /// Whether a certificate of those that the peer presented, leaf first, has been revoked; counts as a refusal then.
    #[must_use]
    pub fn is_revoked(&self, presented: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = presented.split_first() else { return false };
        let check = |leaf| self.chain.check(&leaf, intermediates, self.at, self.side);
        !self.chain.rules.revocations.is_empty()
            && EndEntityCert::try_from(leaf).and_then(check) == Err(webpki::Error::CertRevoked)
    }
}

/// Accepts clients of one trust domain.
#[derive(Debug)]
pub(super) struct ClientsOf {
    chain: Chain,
    /// Subjects of the roots, which the server names in its request for a certificate.
    subjects: Vec<DistinguishedName>,
    /// None if our own certificate names no workload: then any client with a good chain is accepted.
    trust_domain: Option<TrustDomain>,
}

impl ClientsOf {
    pub(super) fn new(
        trust_domain: Option<TrustDomain>,
        roots: Arc<RootCertStore>,
        provider: &CryptoProvider,
        rules: &Rules,
    ) -> Arc<Self> {
        let subjects = roots.subjects();
        Arc::new(Self { chain: Chain::new(roots, provider, rules), subjects, trust_domain })
    }
}

impl ClientCertVerifier for ClientsOf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let got = self.chain.verify(end_entity, intermediates, now, Side::Server)?;
        match &self.trust_domain {
            Some(expected) if !got.iter().any(|id| self.chain.rules.is_own(expected, &id.trust_domain)) => {
                Err(wrong(WrongPeer::TrustDomain { expected: expected.clone(), got }))
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.chain.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.schemes()
    }
}

/// Accepts servers that are one of the expected identities. An empty list accepts none.
#[derive(Debug)]
pub(super) struct ServersNamed {
    chain: Chain,
    expected: Arc<[Identity]>,
    /// Our own, which may have other names.
    trust_domain: Option<TrustDomain>,
}

impl ServersNamed {
    pub(super) fn new(
        expected: Arc<[Identity]>,
        trust_domain: Option<TrustDomain>,
        roots: Arc<RootCertStore>,
        provider: &CryptoProvider,
        rules: &Rules,
    ) -> Arc<Self> {
        Arc::new(Self { chain: Chain::new(roots, provider, rules), expected, trust_domain })
    }
}

impl ServerCertVerifier for ServersNamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let got = self.chain.verify(end_entity, intermediates, now, Side::Client)?;
        let own = self.trust_domain.as_ref();
        let expected = |got: &Identity| self.expected.iter().any(|id| self.chain.rules.is_expected(own, id, got));
        if got.iter().any(expected) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(wrong(WrongPeer::San { expected: self.expected.clone(), got }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.chain.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.schemes()
    }
}

fn wrong(peer: WrongPeer) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(peer))).into()
}

/// What a failed verification means in terms of TLS, which decides the alert that the peer sees (RFC 8446 §6.2).
fn refused(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::CertRevoked => CertificateError::Revoked,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::UnsupportedSignatureAlgorithmContext(context) => CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: context.signature_algorithm_id,
            supported_algorithms: context.supported_algorithms,
        },
        E::RequiredEkuNotFoundContext(context) => CertificateError::InvalidPurposeContext {
            required: purpose(&context.required.oid_values().collect::<Vec<_>>()),
            presented: context.present.iter().map(|oid| purpose(oid)).collect(),
        },
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}

fn purpose(oid: &[usize]) -> ExtendedKeyPurpose {
    match oid {
        KeyUsage::CLIENT_AUTH_REPR => ExtendedKeyPurpose::ClientAuth,
        KeyUsage::SERVER_AUTH_REPR => ExtendedKeyPurpose::ServerAuth,
        other => ExtendedKeyPurpose::Other(other.to_vec()),
    }
}

#[cfg(test)]
mod tests;
