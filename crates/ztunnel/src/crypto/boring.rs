//! BoringSSL: built from the sources that come with its crate, or whichever one `BORING_BSSL_PATH` names.

use std::sync::Arc;

use boring::ec::{EcGroup, EcKey};
use boring::error::ErrorStack;
use boring::nid::Nid;
use boring::pkey::PKey;
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Everything that the library offers.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { key_provider: &Keys, ..boring_rustls_provider::provider() }
}

/// A new key on P-256.
pub(super) fn generate_p256() -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    let generate = || -> Result<Vec<u8>, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        PKey::from_ec_key(EcKey::generate(&group)?)?.private_key_to_der_pkcs8()
    };
    generate().map(Into::into).map_err(|error| Error::General(format!("BoringSSL cannot make a key: {error}")))
}

/// Loads keys that know their public part, which the provider's own do not tell: without it nothing would notice a key
/// that belongs to another certificate.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let unfit = |error: ErrorStack| Error::General(format!("BoringSSL cannot read the key: {error}"));
        let parsed = match &key {
            PrivateKeyDer::Pkcs8(der) => PKey::private_key_from_pkcs8(der.secret_pkcs8_der()),
            other => PKey::private_key_from_der(other.secret_der()),
        };
        let public = parsed.and_then(|key| key.public_key_to_der()).map_err(unfit)?;
        let inner = boring_rustls_provider::provider().key_provider.load_private_key(key)?;
        Ok(Arc::new(Known { inner, public }))
    }

    fn fips(&self) -> bool {
        boring_rustls_provider::provider().key_provider.fips()
    }
}

/// A key with its public part.
#[derive(Debug)]
struct Known {
    inner: Arc<dyn SigningKey>,
    /// A SubjectPublicKeyInfo.
    public: Vec<u8>,
}

impl SigningKey for Known {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.inner.choose_scheme(offered)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public.as_slice().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}
