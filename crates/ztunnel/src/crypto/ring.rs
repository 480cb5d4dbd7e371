//! ring, which has no post-quantum key exchange.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// Everything that the library offers.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// A new key on P-256.
pub(super) fn generate_p256() -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    let document = document.map_err(|_| Error::General("ring cannot make a key".to_owned()))?;
    Ok(document.as_ref().to_vec().into())
}
