//! What a certificate authority is to this crate: something that turns a request into a chain and the roots it hangs
//! on.
//!
//! A signer does not retry, queue or cache; the [`schedule`](super::schedule) does, and the driver gives every call a
//! deadline. It does not judge its own answer either: [`WorkloadCertificate`](super::WorkloadCertificate) does.

use std::future::Future;
use std::time::Duration;

use mesh::Identity;
use rustls::pki_types::CertificateDer;

use super::csr::Csr;
use super::error::SignError;

/// What a CA answered.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, then the intermediates towards the root. Empty if the CA sent none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots to trust from now on.
    pub roots: Vec<CertificateDer<'static>>,
}

/// A certificate authority, or the way to one.
pub trait Signer: Send + Sync + 'static {
    /// Has `csr` signed for `identity`, valid for `ttl` if the CA agrees.
    ///
    /// The future is dropped when the deadline of the call has passed.
    ///
    /// # Errors
    /// A [`SignError`] that tells the operator what the CA said.
    fn sign(
        &self,
        identity: &Identity,
        csr: &Csr,
        ttl: Duration,
    ) -> impl Future<Output = Result<Issued, SignError>> + Send;
}
