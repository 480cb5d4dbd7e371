//! OpenSSL, as the system has it. Post-quantum key exchange came with its version 3.5, which shows when the process runs.

use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// Everything that the library offers.
pub(super) fn provider() -> CryptoProvider {
    rustls_openssl::default_provider()
}

/// A new key on P-256.
pub(super) fn generate_p256() -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    let generate = || -> Result<Vec<u8>, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        PKey::from_ec_key(EcKey::generate(&group)?)?.private_key_to_pkcs8()
    };
    generate().map(Into::into).map_err(|error| Error::General(format!("OpenSSL cannot make a key: {error}")))
}
