//! What was built: the version line and the `version` object of the configuration dump.

use serde_json::{Value, json};

/// What is known about this build.
#[derive(Debug, Clone)]
pub struct BuildInfo {
    /// Istio's version, as the image says (`ISTIO_META_ISTIO_VERSION`).
    pub istio_version: String,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const GIT_REVISION: &str = match option_env!("ZTUNNEL_GIT_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
const RUST_VERSION: &str = concat!("at least ", env!("CARGO_PKG_RUST_VERSION"));
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
const STATUS: &str = match option_env!("ZTUNNEL_BUILD_STATUS") {
    Some(status) => status,
    None => "unknown",
};
/// The cryptography library of the build, as operators know it (spec identity-and-tls 7).
pub const CRYPTO: &str = if cfg!(feature = "tls-aws-lc-fips") {
    "tls-aws-lc-fips"
} else if cfg!(feature = "tls-boring") {
    "tls-boring"
} else if cfg!(feature = "tls-openssl") {
    "tls-openssl"
} else if cfg!(feature = "tls-ring") {
    "tls-ring"
} else {
    "tls-aws-lc"
};

impl BuildInfo {
    /// The one line of `ztunnel version` (spec configuration 1).
    #[must_use]
    pub fn line(&self) -> String {
        let istio = &self.istio_version;
        format!(
            "version.BuildInfo{{Version:\"{VERSION}\", GitRevision:\"{GIT_REVISION}\", RustVersion:\"{RUST_VERSION}\", \
             BuildProfile:\"{PROFILE}\", BuildStatus:\"{STATUS}\", IstioVersion:\"{istio}\", \
             CryptoProvider:\"{CRYPTO}\"}}"
        )
    }

    /// The `version` object of the configuration dump.
    #[must_use]
    pub fn dump(&self) -> Value {
        json!({
            "buildProfile": PROFILE,
            "buildStatus": STATUS,
            "cryptoProvider": CRYPTO,
            "gitRevision": GIT_REVISION,
            "istioVersion": self.istio_version,
            "rustVersion": RUST_VERSION,
            "version": VERSION,
        })
    }
}
