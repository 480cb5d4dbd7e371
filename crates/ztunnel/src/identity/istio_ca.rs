//! The mesh CA over gRPC: `CreateCertificate` (spec identity-and-tls 2).
//!
//! One connection serves all requests. It is made anew when it has ended, when the roots it was verified with have
//! changed, and after any request that got no proper answer, so that a CA that has moved or hangs is not asked twice on
//! the same connection. Deadlines, retries and the number of requests at a time are the driver's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use istio_api::ca::IstioCertificateRequest;
use istio_api::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use mesh::Identity;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Code, Status};

use super::csr::Csr;
use super::error::{MaterialError, SignError};
use super::signer::{Issued, Signer};
use crate::control::{Channel, ConnectError, Connector};

/// The lifetime that is asked for if the configured one cannot be written.
const DEFAULT_TTL: i64 = 86_400;
/// Largest answer. A chain with many roots is a few dozen kilobytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// On whose behalf certificates are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behalf {
    /// Of the node's pods: each request names the identity (shared mode).
    Others,
    /// Our own: the CA knows who we are (dedicated mode).
    Own,
}

/// The CA of the mesh.
#[derive(Debug)]
pub struct IstioCa {
    connector: Connector,
    behalf: Behalf,
    /// Held while connecting, so that one connection is made for all who wait.
    channel: tokio::sync::Mutex<Option<Channel>>,
    /// Whether the last request on it went without a proper answer.
    doubtful: Mutex<bool>,
}

impl IstioCa {
    /// The CA at the other end of `connector`; nothing is connected before the first request.
    #[must_use]
    pub fn new(connector: Connector, behalf: Behalf) -> Self {
        Self { connector, behalf, channel: tokio::sync::Mutex::default(), doubtful: Mutex::default() }
    }

    async fn channel(&self) -> Result<Channel, ConnectError> {
        let mut held = self.channel.lock().await;
        if let Some(channel) = &*held
            && !self.doubt(false)
            && !channel.is_outdated()
        {
            return Ok(channel.clone());
        }
        *held = None;
        let channel = self.connector.connect().await?;
        *held = Some(channel.clone());
        Ok(channel)
    }

    /// Sets the doubt and tells what it was.
    fn doubt(&self, doubt: bool) -> bool {
        std::mem::replace(&mut *self.doubtful.lock().unwrap_or_else(PoisonError::into_inner), doubt)
    }

    fn request(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> IstioCertificateRequest {
        let identity = Value { kind: Some(Kind::StringValue(identity.to_string())) };
        let metadata = Struct { fields: [("ImpersonatedIdentity".to_owned(), identity)].into() };
        IstioCertificateRequest {
            csr: csr.pem().to_owned(),
            validity_duration: i64::try_from(ttl.as_secs()).unwrap_or(DEFAULT_TTL),
            metadata: (self.behalf == Behalf::Others).then_some(metadata),
        }
    }
}

impl Signer for IstioCa {
    async fn sign(&self, identity: &Identity, csr: &Csr, ttl: Duration) -> Result<Issued, SignError> {
        let channel = self.channel().await.map_err(|error| unreached(&error))?;
        let request = channel.request(self.request(identity, csr, ttl)).map_err(|error| unreached(&error))?;
        let origin = channel.origin();
        let mut client =
            IstioCertificateServiceClient::with_origin(channel, origin).max_decoding_message_size(MAX_ANSWER);
        let mut unanswered = Unanswered { ca: self, answered: false };
        let answer = client.create_certificate(request).await;
        // A refusal is an answer; a connection that broke is none.
        unanswered.answered = answer.as_ref().err().is_none_or(|status| !is_transport(status));
        issued(answer.map_err(|status| refused(&status))?.into_inner().cert_chain)
    }
}

/// Casts doubt on the connection unless there was an answer; also when the caller's deadline drops the request.
struct Unanswered<'a> {
    ca: &'a IstioCa,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.ca.doubt(true);
        }
    }
}

fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded)
}

fn refused(status: &Status) -> SignError {
    let mut message = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    SignError::Status { code: status.code().to_string(), message }
}

fn unreached(error: &dyn std::fmt::Display) -> SignError {
    SignError::Status { code: Code::Unavailable.to_string(), message: error.to_string() }
}

/// The parts of an answer: leaf, intermediates, and last the roots (spec identity-and-tls 2, Response handling).
fn issued(chain: Vec<String>) -> Result<Issued, SignError> {
    let mut parts = chain.into_iter();
    let Some(leaf) = parts.next() else { return Ok(Issued { chain: Vec::new(), roots: Vec::new() }) };
    let roots = parts.next_back();
    let mut chain = vec![first(&leaf)?];
    for intermediate in parts {
        chain.push(first(&intermediate)?);
    }
    let roots = match roots {
        Some(bundle) => CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<_, _>>().map_err(parse)?,
        None => {
            tracing::warn!("no chain certs: the CA answered with a leaf only");
            Vec::new()
        }
    };
    Ok(Issued { chain, roots })
}

fn first(pem: &str) -> Result<CertificateDer<'static>, SignError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(parse)
}

fn parse(error: rustls::pki_types::pem::Error) -> SignError {
    MaterialError::Parse(format!("the CA answered with what is no PEM certificate: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn an_answer_is_a_leaf_intermediates_and_a_bundle_of_roots() {
        let root = fixtures::any_root_pem();
        let answer = issued(vec![root.clone(), root.clone(), root.clone(), format!("{root}{root}")]).unwrap();
        assert_eq!((answer.chain.len(), answer.roots.len()), (3, 2));
        let answer = issued(vec![root.clone()]).unwrap();
        assert_eq!((answer.chain.len(), answer.roots.len()), (1, 0));
        assert!(issued(vec![]).unwrap().chain.is_empty());
    }

    #[test]
    fn garbage_for_an_answer_is_named() {
        let root = fixtures::any_root_pem();
        for chain in [vec!["garbage".to_owned(), root.clone()], vec![root.clone(), "x".into(), root]] {
            let text = issued(chain).unwrap_err().to_string();
            assert!(text.starts_with("failed to create CSR: certificate parse: the CA answered with"), "{text}");
        }
    }
}
