//! The TLS profile of HBONE as rustls configurations, built once per certificate and shared by all its connections.
//!
//! Versions, suites and groups as `crypto` has them, ALPN `h2`, client certificates mandatory, no server names, no resumption and therefore
//! no tickets (spec data-plane 7). One server configuration per certificate; one client configuration per certificate
//! and list of expected servers, kept in a bounded cache. Connections themselves are `hbone::tls`'s; the control
//! plane's TLS, which has other rules, is not made here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use mesh::{Identity, TrustDomain};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::error::MaterialError;
use super::revocation::Side;
use super::trust::Rules;
use super::verify::{Acceptance, ClientsOf, ServersNamed};
use crate::crypto::Crypto;

/// The application protocol of HBONE.
const ALPN: &[u8] = b"h2";

/// Client configurations kept per certificate: more lists of expected servers than a workload talks to at a time. Each
/// costs about a kilobyte, and one that was dropped too early costs a few microseconds to make again.
pub const MAX_CLIENT_CONFIGS: usize = 256;

/// All TLS configurations of one certificate.
#[derive(Debug)]
pub(super) struct Configs {
    server: Arc<ServerConfig>,
    /// Accepts nobody; copies of it accept those whom they expect.
    client: ClientConfig,
    own: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    trust_domain: Option<TrustDomain>,
    rules: Rules,
    clients: Mutex<ClientConfigs>,
}

/// Checks that `key` belongs to the first certificate of `chain`.
pub(super) fn own(
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    crypto: &Crypto,
) -> Result<Arc<SingleCertAndKey>, MaterialError> {
    let own = CertifiedKey::from_der(chain, key, &crypto.provider()).map_err(tls)?;
    Ok(Arc::new(SingleCertAndKey::from(own)))
}

impl Configs {
    /// Builds what does not depend on the peer. Clients must be of `trust_domain`, if there is one.
    pub(super) fn new(
        own: Arc<SingleCertAndKey>,
        roots: RootCertStore,
        trust_domain: Option<TrustDomain>,
        rules: &Rules,
    ) -> Result<Self, MaterialError> {
        let provider = rules.crypto.provider();
        let roots = Arc::new(roots);

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rules.crypto.versions())
            .map_err(tls)?
            .with_client_cert_verifier(ClientsOf::new(trust_domain.clone(), roots.clone(), &provider, rules))
            .with_cert_resolver(own.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true; // `hbone` opens and seals records itself

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rules.crypto.versions())
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(ServersNamed::new([].into(), None, roots.clone(), &provider, rules))
            .with_client_cert_resolver(own.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.enable_secret_extraction = true;
        client.resumption = Resumption::disabled();

        let rules = rules.clone();
        Ok(Self { server: Arc::new(server), client, own, roots, trust_domain, rules, clients: Mutex::default() })
    }

    /// The same certificate with other roots.
    pub(super) fn trusting(&self, roots: RootCertStore) -> Result<Self, MaterialError> {
        Self::new(self.own.clone(), roots, self.trust_domain.clone(), &self.rules)
    }

    pub(super) fn roots(&self) -> &RootCertStore {
        &self.roots
    }

    /// The signatures of certificates that are understood.
    pub(super) fn algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.rules.crypto.provider().signature_verification_algorithms.all
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// What connections are accepted by that are made now, we being at that side of them.
    pub(super) fn acceptance(&self, side: Side) -> Acceptance {
        Acceptance::new(self.roots.clone(), &self.rules.crypto.provider(), &self.rules, side)
    }

    /// The configuration for connections to any of `expected`, made now or found.
    pub(super) fn client(&self, expected: &[Identity]) -> Arc<ClientConfig> {
        // Nothing that holds the lock can panic half-way, so what a poisoned lock guards is whole.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get_or_insert(expected, |expected| {
            let mut config = self.client.clone();
            let (own, provider) = (self.trust_domain.clone(), config.crypto_provider());
            let verifier = ServersNamed::new(expected, own, self.roots.clone(), provider, &self.rules);
            config.dangerous().set_certificate_verifier(verifier);
            config
        })
    }
}

/// At most [`MAX_CLIENT_CONFIGS`] client configurations; the oldest makes room.
#[derive(Debug, Default)]
struct ClientConfigs {
    configs: HashMap<Arc<[Identity]>, Arc<ClientConfig>>,
    /// The keys in the order in which they came.
    order: VecDeque<Arc<[Identity]>>,
}

impl ClientConfigs {
    fn get_or_insert(
        &mut self,
        expected: &[Identity],
        make: impl FnOnce(Arc<[Identity]>) -> ClientConfig,
    ) -> Arc<ClientConfig> {
        if let Some(config) = self.configs.get(expected) {
            return config.clone();
        }
        if self.order.len() >= MAX_CLIENT_CONFIGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.configs.remove(&oldest);
        }
        let key: Arc<[Identity]> = expected.into();
        let config = Arc::new(make(key.clone()));
        self.configs.insert(key.clone(), config.clone());
        self.order.push_back(key);
        config
    }
}

fn tls(error: rustls::Error) -> MaterialError {
    MaterialError::Tls(error.to_string())
}
