//! The cryptography of this process: which library, versions, suites and groups all TLS uses.
//!
//! A build has one library, chosen by a feature; each is a file of `crypto/` that says what the library offers, and what
//! is used of it is decided here for all of them. One [`Crypto`] is made at start and shared by the data plane and the
//! control plane's channel, so that no rule for one of them can be forgotten for the other. Whom to trust is not decided
//! here, and records of finished handshakes are sealed in `hbone`, with the same library.

mod key;

#[cfg(any(feature = "tls-aws-lc", feature = "tls-aws-lc-fips"))]
mod aws_lc;
#[cfg(feature = "tls-boring")]
mod boring;
#[cfg(feature = "tls-openssl")]
mod openssl;
#[cfg(feature = "tls-ring")]
mod ring;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};

use crate::version::CRYPTO;

#[cfg(any(feature = "tls-aws-lc", feature = "tls-aws-lc-fips"))]
use self::aws_lc as library;
#[cfg(feature = "tls-boring")]
use self::boring as library;
pub use self::key::{Key, PublicKey};
#[cfg(feature = "tls-openssl")]
use self::openssl as library;
#[cfg(feature = "tls-ring")]
use self::ring as library;

#[cfg(not(any(
    feature = "tls-aws-lc",
    feature = "tls-aws-lc-fips",
    feature = "tls-boring",
    feature = "tls-openssl",
    feature = "tls-ring"
)))]
compile_error!(
    "choose the cryptography library: --features with one of tls-aws-lc, tls-aws-lc-fips, tls-boring, tls-openssl and tls-ring"
);

#[cfg(any(
    all(
        feature = "tls-aws-lc",
        any(feature = "tls-aws-lc-fips", feature = "tls-boring", feature = "tls-openssl", feature = "tls-ring")
    ),
    all(feature = "tls-aws-lc-fips", any(feature = "tls-boring", feature = "tls-openssl", feature = "tls-ring")),
    all(feature = "tls-boring", any(feature = "tls-openssl", feature = "tls-ring")),
    all(feature = "tls-openssl", feature = "tls-ring")
))]
compile_error!(
    "choose one cryptography library: tls-aws-lc is the default, so another one needs --no-default-features as well"
);

/// Suites of TLS 1.3 and then of TLS 1.2, in the order of preference (spec identity-and-tls 5).
const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// Groups of key exchange in the order of preference; a library need not have them all.
const GROUPS: [NamedGroup; 4] =
    [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];

/// What the operator decides about TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// See [`Versions`].
    pub versions: Versions,
    /// See [`KeyExchange`].
    pub key_exchange: KeyExchange,
}

/// Which versions of TLS are spoken (`TLS12_ENABLED`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3.
    #[default]
    Tls13,
    /// TLS 1.2 as well, with peers that have nothing better.
    Tls12And13,
}

/// How keys may be agreed upon (`COMPLIANCE_POLICY`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// With a post-quantum part if both sides can.
    #[default]
    HybridPreferred,
    /// With a post-quantum part or not at all, and so in TLS 1.3 only.
    HybridOnly,
}

/// The library of this build cannot do what the settings ask for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "COMPLIANCE_POLICY=pqc asks for key exchange with X25519MLKEM768 only, which the cryptography library of this \
     build ({CRYPTO}) does not offer: unset COMPLIANCE_POLICY, or use a build with another library (tls-aws-lc, or \
     tls-openssl with OpenSSL 3.5 or later)"
)]
pub struct Unsupported;

/// The cryptography of all TLS of this process.
#[derive(Debug, Clone)]
pub struct Crypto {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Crypto {
    /// Narrows what the library offers down to what is used of it.
    ///
    /// # Errors
    /// [`Unsupported`] if nothing would be left of the key exchange.
    pub fn new(config: Config) -> Result<Self, Unsupported> {
        static TLS13_ONLY: [&SupportedProtocolVersion; 1] = [&TLS13];
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        let groups = groups(library(), config.key_exchange);
        if groups.is_empty() {
            return Err(Unsupported);
        }
        // No group of TLS 1.2 is post-quantum.
        let versions: &[_] = match config {
            Config { versions: Versions::Tls12And13, key_exchange: KeyExchange::HybridPreferred } => &BOTH,
            _ => &TLS13_ONLY,
        };
        let mut provider = library().clone();
        provider.kx_groups = groups;
        provider.cipher_suites = in_order(&SUITES, &library().cipher_suites, |suite| suite.suite())
            .filter(|suite| versions.contains(&suite.version()))
            .collect();
        Ok(Self { provider: Arc::new(provider), versions })
    }

    /// For rustls configurations.
    #[must_use]
    pub fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// The versions of TLS that are spoken.
    #[must_use]
    pub fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        self.versions
    }
}

impl Default for Crypto {
    fn default() -> Self {
        Self::new(Config::default()).expect("every library has P-256")
    }
}

/// The SHA-256 of something, as the library computes it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let tls13 = library().cipher_suites.iter().filter_map(|suite| suite.tls13());
    let mut suites = tls13.filter(|suite| suite.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256);
    suites.next().map(|suite| suite.common.hash_provider.hash(bytes).as_ref().to_vec()).unwrap_or_default()
}

/// Everything that the library offers.
fn library() -> &'static CryptoProvider {
    static LIBRARY: LazyLock<CryptoProvider> = LazyLock::new(library::provider);
    &LIBRARY
}

fn groups(library: &CryptoProvider, key_exchange: KeyExchange) -> Vec<&'static dyn SupportedKxGroup> {
    let wanted = match key_exchange {
        KeyExchange::HybridPreferred => &GROUPS[..],
        KeyExchange::HybridOnly => &[NamedGroup::X25519MLKEM768],
    };
    in_order(wanted, &library.kx_groups, |group| group.name()).collect()
}

/// What of `offered` is wanted, in the order in which it is.
fn in_order<N: PartialEq, T: Copy>(wanted: &[N], offered: &[T], name: impl Fn(&T) -> N) -> impl Iterator<Item = T> {
    wanted.iter().filter_map(move |wanted| offered.iter().find(|offer| name(offer) == *wanted).copied())
}

#[cfg(test)]
mod tests;
