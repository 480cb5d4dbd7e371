//! A certificate authority inside the process, for demonstrations and tests of whole meshes (`FAKE_CA=true`).
//!
//! All processes that use it share the root below and so trust each other. **Its private key is public**: whoever reads
//! this file can be any workload. That is the point, and the warning at start says so. Requests are parsed and their
//! signatures checked as by a real CA; who may ask for which identity is not checked at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Identity;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::csr::{self, Csr};
use super::error::{MaterialError, SignError};
use super::signer::{Issued, Signer};
use crate::crypto::{Key, PublicKey};

/// The root that all users of the fake CA trust. Insecure: its key is the next constant.
pub(super) const INSECURE_DEMO_ROOT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBtzCCAV2gAwIBAgIBATAKBggqhkjOPQQDAjBCMREwDwYDVQQKDAhJTlNFQ1VS
RTEtMCsGA1UEAwwkenR1bm5lbCBkZW1vbnN0cmF0aW9uIHJvb3QgKEZBS0VfQ0Ep
MCAXDTIwMDEwMTAwMDAwMFoYDzIxMTkxMjMxMjM1OTU5WjBCMREwDwYDVQQKDAhJ
TlNFQ1VSRTEtMCsGA1UEAwwkenR1bm5lbCBkZW1vbnN0cmF0aW9uIHJvb3QgKEZB
S0VfQ0EpMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE54AQDJ/erYpLgJDEw/tc
LZLkR0cyIIQNUH7iJe7JhYtjg+ObXcSjeYT5bBPV+FAKV3elZxPuTiYFQwH0HTtL
6KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYE
FA2hHicylALhDnN69Jc4qp8QRcu6MAoGCCqGSM49BAMCA0gAMEUCIQD1mRuFUlLp
qgbE6Rfbve0MZmW3WnvshhB93Pld548zNgIgQ2mVipTMW/JUax6bvMxDQxX77Yt8
Y6enqVLXlTr3U+4=
-----END CERTIFICATE-----
";

/// The key of that root, known to everybody.
pub(super) const INSECURE_DEMO_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWUxRudxsn6yhGo+N
LEBJGaEI9ec0EcU5bx30Gqta7VuhRANCAATngBAMn96tikuAkMTD+1wtkuRHRzIg
hA1QfuIl7smFi2OD45tdxKN5hPlsE9X4UApXd6VnE+5OJgVDAfQdO0vo
-----END PRIVATE KEY-----
";

/// How far certificates reach into the past, so that clocks a little apart agree on them.
const BACKDATE: Duration = Duration::from_secs(60);

/// Octets of a serial number: as many as there may be (RFC 5280 §4.1.2.2).
const SERIAL: usize = 20;

/// Longest lifetime given out, however long the request; keeps dates within what X.509 can write.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The built-in insecure authority.
#[derive(Debug)]
pub struct FakeCa {
    issuer: Issuer<'static, Key>,
    root: CertificateDer<'static>,
}

impl FakeCa {
    /// Opens the authority and warns, once per call, of what it is.
    #[must_use]
    pub fn new() -> Self {
        tracing::warn!(
            "FAKE_CA is set: certificates are signed with a key that is published in the source of ztunnel, so anyone \
             can pose as any workload. Never use this where traffic matters; unset FAKE_CA to use the CA at CA_ADDRESS"
        );
        let key = PrivatePkcs8KeyDer::from_pem_slice(INSECURE_DEMO_KEY.as_bytes()).ok();
        let key =
            key.and_then(|key| Key::from_pkcs8(key).ok()).expect("the built-in key is a constant that tests parse");
        let root = CertificateDer::from_pem_slice(INSECURE_DEMO_ROOT.as_bytes())
            .expect("the built-in root is a constant that tests parse");
        let issuer = Issuer::new(subject(&root), key);
        Self { issuer, root }
    }

    fn issue(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> Result<Issued, MaterialError> {
        let now = SystemTime::now();
        let key = requested_key(csr)?;
        let mut leaf = CertificateParams::default();
        leaf.serial_number = Some(SerialNumber::from_slice(&serial()));
        leaf.not_before = asn1(now - BACKDATE)?.to_datetime();
        leaf.not_after = asn1(now + ttl.min(MAX_TTL))?.to_datetime();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![csr::san(identity)?];
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &self.issuer).map_err(tls)?;
        Ok(Issued { chain: vec![leaf.into()], roots: vec![self.root.clone()] })
    }
}

impl Default for FakeCa {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer for FakeCa {
    async fn sign(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> Result<Issued, SignError> {
        Ok(self.issue(identity, csr, ttl)?)
    }
}

/// Who the root says that it is.
fn subject(root: &CertificateDer<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "INSECURE");
    params.distinguished_name.push(DnType::CommonName, "ztunnel demonstration root (FAKE_CA)");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let id = X509Certificate::from_der(root).ok().and_then(|(_, root)| {
        root.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    });
    params.key_identifier_method = KeyIdMethod::PreSpecified(id.unwrap_or_default());
    params
}

/// The key in a request, which must have signed it.
fn requested_key(csr: &Csr) -> Result<PublicKey, MaterialError> {
    let unreadable = || MaterialError::Tls("the signing request cannot be read".into());
    let der = CertificateSigningRequestDer::from_pem_slice(csr.pem().as_bytes()).map_err(|_| unreadable())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unreadable())?;
    let body = &request.certification_request_info;
    let key = PublicKey::new(&body.subject_pki.subject_public_key.data);
    if key.has_signed(body.raw, &request.signature_value.data) {
        Ok(key)
    } else {
        Err(MaterialError::Tls("the signing request was signed with another key".into()))
    }
}

/// A positive number that nobody has had before.
fn serial() -> [u8; SERIAL] {
    let mut serial: [u8; SERIAL] = rand::random();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn asn1(time: SystemTime) -> Result<ASN1Time, MaterialError> {
    let outside = || MaterialError::Certificate("the system clock is outside of what certificates can express".into());
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| outside())?;
    let seconds = i64::try_from(since.as_secs()).map_err(|_| outside())?;
    ASN1Time::from_timestamp(seconds).map_err(|_| outside())
}

fn tls(error: rcgen::Error) -> MaterialError {
    MaterialError::Tls(error.to_string())
}

#[cfg(test)]
mod tests;
