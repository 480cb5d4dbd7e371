//! The cryptography of this process: which provider, suites and groups all TLS uses.
//!
//! One provider, made once: the data plane and the control plane's channel share it, so that no rule for one of them
//! can be forgotten for the other. Whom to trust is not decided here.

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::version::TLS13;

/// The cryptography of this process: suites and groups in the order of spec identity-and-tls 5.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768],
            ..aws_lc_rs::default_provider()
        })
    });
    PROVIDER.clone()
}

/// The SHA-256 of something, as the provider computes it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().map(|suite| suite.common.hash_provider.hash(bytes));
    hash.map(|output| output.as_ref().to_vec()).unwrap_or_default()
}

/// The versions of TLS that are spoken.
#[must_use]
pub fn versions() -> &'static [&'static SupportedProtocolVersion] {
    static VERSIONS: [&SupportedProtocolVersion; 1] = [&TLS13];
    &VERSIONS
}
