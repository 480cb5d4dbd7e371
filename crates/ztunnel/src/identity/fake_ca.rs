//! A certificate authority inside the process, for demonstrations and tests of whole meshes (`FAKE_CA=true`).
//!
//! All processes that use it share the root below and so trust each other. **Its private key is public**: whoever reads
//! this file can be any workload. That is the point, and the warning at start says so. Requests are parsed and their
//! signatures checked as by a real CA; who may ask for which identity is not checked at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Identity;
use rcgen::{
    CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::time::ASN1Time;

use super::csr::{self, Csr};
use super::error::{MaterialError, SignError};
use super::signer::{Issued, Signer};

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

/// Longest lifetime given out, however long the request; keeps dates within what X.509 can write.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The built-in insecure authority.
#[derive(Debug)]
pub struct FakeCa {
    issuer: Issuer<'static, KeyPair>,
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
        let key = KeyPair::from_pem(INSECURE_DEMO_KEY).expect("the built-in key is a constant that tests parse");
        let root = CertificateDer::from_pem_slice(INSECURE_DEMO_ROOT.as_bytes())
            .expect("the built-in root is a constant that tests parse");
        let issuer = Issuer::from_ca_cert_der(&root, key).expect("the built-in root is a constant that tests parse");
        Self { issuer, root }
    }

    fn issue(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> Result<Issued, MaterialError> {
        let now = SystemTime::now();
        let mut request = CertificateSigningRequestParams::from_pem(csr.pem()).map_err(tls)?;
        let leaf = &mut request.params;
        leaf.not_before = asn1(now - BACKDATE)?.to_datetime();
        leaf.not_after = asn1(now + ttl.min(MAX_TTL))?.to_datetime();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![csr::san(identity)?];
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        let leaf = request.signed_by(&self.issuer).map_err(tls)?;
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
