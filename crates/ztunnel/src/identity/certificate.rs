//! A workload's certificate with everything that is ever asked of it, parsed once when it arrives.
//!
//! Whatever the CA answered is judged here: a [`WorkloadCertificate`] has a key that fits, a leaf for the right
//! identity and at least one usable root, and its TLS configurations can be had without failing. The private key never
//! leaves it. When to replace it is the [`schedule`](super::schedule)'s concern.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesh::Identity;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{ClientConfig, ServerConfig};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::error::{IdentityError, MaterialError};
use super::revocation::Side;
use super::schedule::Dated;
use super::schedule::timing::Validity;
use super::signer::Issued;
use super::tls::{self, Configs};
use super::trust::{Anchors, Rules};
use super::verify::{Acceptance, uri_names};

/// Length of a line in PEM text (what existing tools show for `/config_dump`, spec admin-and-telemetry 2).
const PEM_LINE: usize = 60;

/// Whether a CA may answer with a certificate for another identity than the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafCheck {
    /// No: the first URI name must be the identity (shared mode, spec identity-and-tls 2).
    Requested,
    /// Yes: the CA knows better who we are (dedicated mode).
    Any,
}

/// One X.509 certificate of a chain or of the roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    serial: String,
    validity: Validity,
}

impl Certificate {
    /// Reads the fields that are shown or acted upon.
    ///
    /// # Errors
    /// [`MaterialError::Parse`] if this is not one whole X.509 certificate.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, MaterialError> {
        let (rest, x509) = X509Certificate::from_der(&der).map_err(|error| MaterialError::Parse(error.to_string()))?;
        if !rest.is_empty() {
            return Err(MaterialError::Parse(format!("{} bytes follow the certificate", rest.len())));
        }
        let (serial, dates) = (x509.serial.to_string(), x509.validity());
        let validity = Validity { not_before: wall(dates.not_before)?, not_after: wall(dates.not_after)? };
        Ok(Self { der, serial, validity })
    }

    /// The DER encoding.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The serial number in decimal.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// First and last second of validity.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// PEM text with lines of 60 characters and a final newline.
    #[must_use]
    pub fn pem(&self) -> String {
        let body = BASE64.encode(&self.der);
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }
}

/// The certificate of a workload, its key, and the roots that it accepts.
pub struct WorkloadCertificate {
    identity: Option<Identity>,
    chain: Arc<[Certificate]>,
    anchors: Anchors,
    /// All of `anchors`.
    roots: Vec<Certificate>,
    validity: Validity,
    configs: Configs,
}

/// What a certificate needs besides what the CA answers.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whether the CA may issue for another identity than the one asked for.
    pub leaf: LeafCheck,
    /// What holds for all identities.
    pub rules: Rules,
    /// Roots of the operator's, accepted beside the CA's.
    pub bundles: Arc<[Certificate]>,
}

impl WorkloadCertificate {
    /// Accepts what a CA issued for `key`, which was made for `requested`.
    ///
    /// Dates are not judged: the schedule does, whenever the certificate is asked for. A root that cannot serve as a
    /// trust anchor is skipped with a warning; one that is not X.509 spoils the answer (spec identity-and-tls 2).
    ///
    /// # Errors
    /// [`IdentityError::EmptyChain`], [`IdentityError::SanMismatch`], or [`IdentityError::Material`] if a certificate
    /// does not parse, no root is usable or the key belongs to another certificate.
    pub fn new(
        requested: &Identity,
        key: PrivateKeyDer<'static>,
        issued: Issued,
        terms: &Terms,
    ) -> Result<Self, IdentityError> {
        let parse = |list: Vec<_>| list.into_iter().map(Certificate::parse).collect::<Result<Vec<_>, _>>();
        let (chain, roots) = (parse(issued.chain)?, parse(issued.roots)?);
        let leaf = chain.first().ok_or_else(|| IdentityError::EmptyChain(requested.clone()))?;
        let names = uri_names(&leaf.der).map_err(|error| MaterialError::Parse(error.to_string()))?;
        if terms.leaf == LeafCheck::Requested
            && names.first().and_then(|name| name.parse().ok()).as_ref() != Some(requested)
        {
            let got = names.first().map_or("no URI name", String::as_str);
            tracing::error!(id = %requested, "expected identity {requested}, got {got}");
            return Err(IdentityError::SanMismatch(requested.clone()));
        }
        let identity: Option<Identity> = names.iter().find_map(|name| name.parse().ok());
        let trust_domain = identity.as_ref().map(|identity| identity.trust_domain.clone());
        let validity = leaf.validity;
        let presented = chain.iter().map(|certificate| certificate.der.clone()).collect();
        let anchors = Anchors::new(roots, terms.bundles.clone());
        let configs =
            Configs::new(tls::own(key, presented, &terms.rules.crypto)?, anchors.store()?, trust_domain, &terms.rules)?;
        let roots = anchors.all();
        Ok(Self { identity, validity, chain: chain.into(), anchors, roots, configs })
    }

    /// The same certificate, accepting other roots.
    ///
    /// # Errors
    /// [`MaterialError`] if none of them is usable.
    pub fn trusting(&self, anchors: Anchors) -> Result<Self, MaterialError> {
        Ok(Self {
            identity: self.identity.clone(),
            chain: self.chain.clone(),
            roots: anchors.all(),
            validity: self.validity,
            configs: self.configs.trusting(anchors.store()?)?,
            anchors,
        })
    }

    /// Whom it accepts, and for how long.
    #[must_use]
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Whether whoever accepts what `other` accepts would accept this certificate.
    #[must_use]
    pub fn is_accepted_by(&self, other: &Self) -> bool {
        let [leaf, intermediates @ ..] = &*self.chain else { return false };
        let intermediates: Vec<_> = intermediates.iter().map(|certificate| certificate.der.clone()).collect();
        let algorithms = other.configs.algorithms();
        let Ok(leaf) = EndEntityCert::try_from(&leaf.der) else { return false };
        let (now, usage) = (UnixTime::now(), KeyUsage::server_auth());
        leaf.verify_for_usage(algorithms, &other.configs.roots().roots, &intermediates, now, usage, None, None).is_ok()
    }

    /// The identity that peers see: the first SPIFFE name of the leaf. None only if [`LeafCheck::Any`] let such a leaf
    /// in.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What peers are shown: leaf, then intermediates. Never empty.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// All roots that are accepted, including those that cannot serve as trust anchors.
    #[must_use]
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// First and last second of the leaf.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The configuration for inbound connections: clients of our own trust domain.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.configs.server()
    }

    /// The configuration for outbound connections to a server that is one of `expected`; of an empty list, none is.
    ///
    /// The same list, in the same order, finds the same configuration again while it is among the
    /// [`MAX_CLIENT_CONFIGS`](super::tls::MAX_CLIENT_CONFIGS) last ones.
    #[must_use]
    pub fn client_config(&self, expected: &[Identity]) -> Arc<ClientConfig> {
        self.configs.client(expected)
    }

    /// What connections are accepted by that are made now, we being at that side of them.
    #[must_use]
    pub fn acceptance(&self, side: Side) -> Acceptance {
        self.configs.acceptance(side)
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.chain.first().map(Certificate::serial))
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Dated for Arc<WorkloadCertificate> {
    fn validity(&self) -> Validity {
        self.validity
    }
}

/// A moment as RFC 3339 in UTC, to the second.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    };
    match ASN1Time::from_timestamp(seconds) {
        Ok(time) => {
            let t = time.to_datetime();
            let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
            format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.hour(), t.minute(), t.second())
        }
        // Not a date that a certificate can have.
        Err(_) => format!("{seconds}s after 1970"),
    }
}

fn wall(time: ASN1Time) -> Result<SystemTime, MaterialError> {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let time = if time.timestamp() < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    time.ok_or_else(|| MaterialError::Parse("a date is outside of what this machine can express".into()))
}

#[cfg(test)]
mod tests;
