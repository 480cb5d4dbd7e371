//! Certificates by which a peer of a ztunnel that runs with `FAKE_CA=true` proves to be a workload.
//!
//! The root and its (public) key are those in ztunnel's own source, read from there when this is compiled, so that there
//! is one copy of them.

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const SOURCE: &str = include_str!("../../../crates/ztunnel/src/identity/fake_ca.rs");

/// A certificate, its key, and whom to trust.
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The one root.
    pub root: CertificateDer<'static>,
}

/// Has the authority sign a fresh key for `identity`, for example `spiffe://cluster.local/ns/shop/sa/front`.
///
/// # Errors
/// `identity` is no URI, or the source of the authority does not look as expected.
pub fn issue(identity: &str) -> Result<Credentials, String> {
    let said = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let root = CertificateDer::from_pem_slice(block("CERTIFICATE")?.as_bytes()).map_err(|e| said("root", &e))?;
    let authority = KeyPair::from_pem(block("PRIVATE KEY")?).map_err(|e| said("key of the root", &e))?;
    let issuer = Issuer::from_ca_cert_der(&root, authority).map_err(|e| said("root", &e))?;
    let key = KeyPair::generate().map_err(|e| said("key", &e))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(identity.try_into().map_err(|e| said("identity", &e))?)];
    let leaf = params.signed_by(&key, &issuer).map_err(|e| said("certificate", &e))?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Ok(Credentials { chain: vec![leaf.into()], key, root })
}

/// The first PEM block with this label.
fn block(label: &str) -> Result<&'static str, String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let found = SOURCE.find(&begin).zip(SOURCE.find(&end)).and_then(|(from, to)| SOURCE.get(from..to + end.len()));
    found.ok_or_else(|| format!("ztunnel's source of its demonstration CA has no PEM block {label}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ztunnels_own_demonstration_authority_signs() {
        assert!(super::issue("spiffe://cluster.local/ns/shop/sa/front").is_ok());
    }
}
