//! AWS-LC, or the validated edition of it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::Error;
use rustls::crypto::{CryptoProvider, aws_lc_rs as rustls_aws_lc};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// Everything that the library offers; the validated edition, nothing that is not approved.
pub(super) fn provider() -> CryptoProvider {
    rustls_aws_lc::default_provider()
}

/// A new key on P-256.
pub(super) fn generate_p256() -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let document = key.and_then(|key| key.to_pkcs8v1());
    let document = document.map_err(|_| Error::General("AWS-LC cannot make a key".to_owned()))?;
    Ok(document.as_ref().to_vec().into())
}
