//! BoringSSL: built from the sources that come with its crate, or whichever one `BORING_BSSL_PATH` names.

use std::sync::{Arc, LazyLock};

use boring::bn::BigNumContext;
use boring::ec::{EcGroup, EcKey, EcPoint};
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::PKey;
use boring::sign::Verifier;
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Everything that the library offers.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        key_provider: &Keys,
        signature_verification_algorithms: *ALGORITHMS,
        ..boring_rustls_provider::provider()
    }
}

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// Those of the provider, and the pairs of curve and hash that it does not know.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    let theirs = boring_rustls_provider::provider().signature_verification_algorithms;
    let more = |scheme: SignatureScheme| -> Option<Algorithm> {
        match scheme {
            SignatureScheme::ECDSA_NISTP256_SHA256 => Some(&P384_SHA256),
            SignatureScheme::ECDSA_NISTP384_SHA384 => Some(&P256_SHA384),
            _ => None,
        }
    };
    // They are wanted for as long as the process runs, and made once. TLS 1.3 takes the first of a scheme only.
    let mapping = theirs.mapping.iter().map(|(scheme, algorithms)| {
        let all: Vec<Algorithm> = algorithms.iter().copied().chain(more(*scheme)).collect();
        (*scheme, &*all.leak())
    });
    let both: [Algorithm; 2] = [&P384_SHA256, &P256_SHA384];
    WebPkiSupportedAlgorithms {
        all: theirs.all.iter().copied().chain(both).collect::<Vec<_>>().leak(),
        mapping: mapping.collect::<Vec<_>>().leak(),
    }
});

static P256_SHA384: Mixed = Mixed {
    curve: Nid::X9_62_PRIME256V1,
    hash: MessageDigest::sha384,
    key: alg_id::ECDSA_P256,
    signature: alg_id::ECDSA_SHA384,
};
static P384_SHA256: Mixed = Mixed {
    curve: Nid::SECP384R1,
    hash: MessageDigest::sha256,
    key: alg_id::ECDSA_P384,
    signature: alg_id::ECDSA_SHA256,
};

/// ECDSA with a hash of another size than the curve's: in certificates, and in TLS 1.2, where a scheme names only the
/// hash (RFC 5246 §7.4.1.4.1). OpenSSL signs so with a key on P-256.
#[derive(Debug)]
struct Mixed {
    curve: Nid,
    hash: fn() -> MessageDigest,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Mixed {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let verify = || -> Result<bool, ErrorStack> {
            let group = EcGroup::from_curve_name(self.curve)?;
            let point = EcPoint::from_bytes(&group, public_key, &mut *BigNumContext::new()?)?;
            let key = PKey::from_ec_key(EcKey::from_public_key(&group, &point)?)?;
            Verifier::new((self.hash)(), &key)?.verify_oneshot(signature, message)
        };
        match verify() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
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
