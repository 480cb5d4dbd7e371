//! ECDSA keys on P-256: the only kind that we make, for workloads and for the demonstration CA.
//!
//! Keys are made and used by the library of this build; rcgen, which only lays out what is signed, never sees them.

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::Signer;
use rustls::{Error, SignatureScheme};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// A private key.
#[derive(Debug)]
pub struct Key {
    pkcs8: PrivatePkcs8KeyDer<'static>,
    signer: Box<dyn Signer>,
    public: PublicKey,
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// The library has no randomness, or refuses for reasons of its own.
    pub fn generate() -> Result<Self, Error> {
        Self::from_pkcs8(super::library::generate_p256()?)
    }

    /// One that exists already.
    ///
    /// # Errors
    /// It is not a key on P-256.
    pub fn from_pkcs8(pkcs8: PrivatePkcs8KeyDer<'static>) -> Result<Self, Error> {
        let unfit = || Error::General("not an ECDSA key on P-256".to_owned());
        let key = super::library().key_provider.load_private_key(pkcs8.clone_key().into())?;
        let info = key.public_key().ok_or_else(unfit)?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&info).map_err(|_| unfit())?;
        let public = PublicKey::new(&info.subject_public_key.data);
        let signer = key.choose_scheme(&[SCHEME]).ok_or_else(unfit)?;
        Ok(Self { pkcs8, signer, public })
    }
}

impl From<Key> for PrivateKeyDer<'static> {
    fn from(key: Key) -> Self {
        key.pkcs8.into()
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// The public part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Box<[u8]>);

impl PublicKey {
    /// `point` is what the BIT STRING of a SubjectPublicKeyInfo holds (RFC 5480 §2.2).
    #[must_use]
    pub fn new(point: &[u8]) -> Self {
        Self(point.into())
    }

    /// Whether the key made `signature` of `message`. Never, if it is no key on P-256.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms = &super::library().signature_verification_algorithms;
        let known = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SCHEME).map(|(_, known)| *known);
        let signed = |one: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            one.verify_signature(&self.0, message, signature).is_ok()
        };
        known.unwrap_or_default().iter().any(signed)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
