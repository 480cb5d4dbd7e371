//! A certificate authority: a root and what it signs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

/// How far certificates reach into the past.
const BACKDATE: Duration = Duration::from_secs(1);
/// Lifetime of roots and of certificates of the server.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// A root with its key.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A fresh root.
    ///
    /// # Errors
    /// The cryptography library fails.
    pub fn new(name: &str) -> Result<Authority, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = dates(SystemTime::now() - LONG, SystemTime::now() + LONG);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate as PEM text.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a request for `uri`, whatever the request asks for: the certificate and its serial number. `ttl` may be zero:
    /// then it has expired already.
    pub(super) fn sign(&self, csr: &str, uri: &str, ttl: Duration) -> Result<(String, u64), rcgen::Error> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut request = CertificateSigningRequestParams::from_pem(csr)?;
        let leaf = &mut request.params;
        let now = SystemTime::now();
        let from = if ttl.is_zero() { now - Duration::from_secs(3600) } else { now - BACKDATE };
        let to = if ttl.is_zero() { now - Duration::from_secs(60) } else { now + ttl };
        (leaf.not_before, leaf.not_after) = dates(from, to);
        leaf.serial_number = Some(SerialNumber::from(serial));
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        Ok((request.signed_by(issuer)?.pem(), serial))
    }

    /// The list that revokes certificates by their serial numbers, as PEM text.
    ///
    /// # Errors
    /// The cryptography library fails.
    pub fn revoke(&self, serials: &[u64]) -> Result<String, rcgen::Error> {
        let (this_update, next_update) = dates(SystemTime::now() - LONG, SystemTime::now() + LONG);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        params.signed_by(issuer)?.pem()
    }

    /// A certificate of a server, for DNS names and addresses.
    pub(super) fn server(&self, names: Vec<String>) -> Result<Pair, rcgen::Error> {
        self.leaf(CertificateParams::new(names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate of a workload that makes its key itself, as peers that are no ztunnel have it.
    ///
    /// # Errors
    /// `uri` is none, or the cryptography library fails.
    pub fn workload(&self, uri: &str) -> Result<Pair, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        self.leaf(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair, rcgen::Error> {
        let key = KeyPair::generate()?;
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = dates(SystemTime::now() - LONG, SystemTime::now() + LONG);
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        let certificate = params.signed_by(&key, issuer)?;
        Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

/// A certificate and its key.
pub type Pair = (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>);

fn dates(from: SystemTime, to: SystemTime) -> (OffsetDateTime, OffsetDateTime) {
    (from.into(), to.into())
}
