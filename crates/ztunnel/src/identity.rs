//! Certificates of the workloads on this node: who asks for them, who signs them, and what TLS makes of them.
//!
//! Everybody holds [`Identities`], which hands out certificates from a table that no lock guards. Behind it one
//! [`Driver`] on the control runtime owns the [`schedule`], which decides when which identity goes to the [`Signer`].
//! A valid certificate is handed out until its last second, whatever happens to the CA; every wait ends.
//!
//! Whom an identity accepts is [`trust`]'s to say, and who needs one [`tenants`]'.
//!
//! Not here: TLS connections (`hbone::tls`), and which workload has which identity (`mesh`).

pub mod certificate;
pub mod csr;
mod driver;
mod dump;
pub mod error;
pub mod fake_ca;
pub mod istio_ca;
pub mod metrics;
pub mod revocation;
pub mod schedule;
pub mod signer;
pub mod tenants;
pub mod tls;
pub mod trust;
pub mod verify;

#[cfg(test)]
pub(crate) mod fixtures;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh::Identity;
use tokio::sync::{mpsc, oneshot, watch};

pub use certificate::{Certificate, LeafCheck, Terms, WorkloadCertificate};
pub use csr::Csr;
pub use driver::Driver;
pub use error::{IdentityError, MaterialError, SignError};
pub use fake_ca::FakeCa;
pub use istio_ca::{Behalf, IstioCa};
pub use metrics::Counts;
pub use revocation::{Revocations, Side};
pub use schedule::Priority;
pub use signer::{Issued, Signer};
pub use tenants::Tenants;
pub use trust::Rules;
pub use verify::{Acceptance, WrongPeer, explain, peer_identity};

/// Longest that a caller waits for a certificate. More than [`SIGN_DEADLINE`], so that it is told what the CA said
/// rather than that time ran out.
pub const CERTIFICATE_DEADLINE: Duration = Duration::from_secs(15);
/// Longest that the CA may take over one request: one that accepts requests and never answers must not hold a place
/// for ever.
pub const SIGN_DEADLINE: Duration = Duration::from_secs(10);
/// Commands on their way to the driver. It never waits for a CA before it takes the next, so this only evens out
/// bursts.
const COMMAND_QUEUE: usize = 256;

/// What the operator decides about certificates.
#[derive(Debug, Clone)]
pub struct Config {
    /// The lifetime to ask the CA for (`SECRET_TTL`); more than zero.
    pub ttl: Duration,
    /// Whether the CA may issue for another identity than the one asked for.
    pub leaf: LeafCheck,
    /// What holds for all identities.
    pub rules: Rules,
    /// Files, looked at all the time.
    pub files: Files,
}

/// Files that say whom to trust.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Roots that are accepted beside the CA's (`TRUST_BUNDLES`).
    pub bundles: Vec<PathBuf>,
    /// Revocation lists (`CRL_PATH`).
    pub revocations: Option<PathBuf>,
    /// The mesh's root as the CA's clients are told it (`CA_ROOT_CA`): when it changes, so will the CA's answers.
    pub mesh_root: Option<PathBuf>,
}

#[cfg(test)]
impl Default for Config {
    fn default() -> Self {
        let (rules, files) = (Rules::default(), Files::default());
        Self { ttl: Duration::from_secs(3600), leaf: LeafCheck::Requested, rules, files }
    }
}

/// Access to the certificates of all identities, from any thread. Clones share them.
#[derive(Debug, Clone)]
pub struct Identities {
    commands: mpsc::Sender<Command>,
    table: Arc<ArcSwap<Table>>,
    revocations: Revocations,
}

/// Sets up certificates signed by `signer`. Nothing happens until the driver [runs](Driver::run).
#[must_use]
pub fn new<S: Signer>(config: Config, signer: S, counts: Counts) -> (Identities, Driver<S>) {
    let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
    let table = Arc::new(ArcSwap::default());
    let revocations = config.rules.revocations.clone();
    (Identities { commands, table: table.clone(), revocations }, Driver::new(config, signer, queue, table, counts))
}

/// What is known of every managed identity. Replaced whole when anything changes, which is rare next to looks at it.
type Table = HashMap<Identity, Published>;

/// What everybody may know of an identity.
#[derive(Debug, Clone)]
enum Published {
    Initializing,
    Available(Arc<WorkloadCertificate>),
    Unavailable(IdentityError),
}

type Reply = oneshot::Sender<Result<Arc<WorkloadCertificate>, IdentityError>>;

/// What the handle asks of the driver.
#[derive(Debug)]
enum Command {
    /// Manage this identity; tell whoever waits, if anyone does.
    Demand {
        identity: Identity,
        priority: Priority,
        reply: Option<Reply>,
    },
    Forget(Identity),
}

impl Identities {
    /// Tells when lists of revoked certificates have come into force after this call.
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<()> {
        self.revocations.changes()
    }

    /// The certificate of `identity` if a valid one is at hand, at the cost of a look into a table.
    #[must_use]
    pub fn current(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        match self.table.load().get(identity)? {
            Published::Available(certificate) if certificate.validity().lasts(SystemTime::now()) => {
                Some(certificate.clone())
            }
            _ => None,
        }
    }

    /// The certificate of `identity`, asked for from the CA if there is none. All callers for one identity share one
    /// request; if it has just failed and a new attempt would be too soon, they share its error.
    ///
    /// # Errors
    /// The [`IdentityError`] for the access log; at the latest after [`CERTIFICATE_DEADLINE`].
    pub async fn certificate(
        &self,
        identity: &Identity,
        priority: Priority,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        if let Some(certificate) = self.current(identity) {
            return Ok(certificate);
        }
        let ask = async {
            let (reply, answer) = oneshot::channel();
            self.send(Command::Demand { identity: identity.clone(), priority, reply: Some(reply) }).await?;
            answer.await.map_err(|_| IdentityError::Stopped)?
        };
        let late = || IdentityError::Deadline { identity: identity.clone(), after: CERTIFICATE_DEADLINE };
        tokio::time::timeout(CERTIFICATE_DEADLINE, ask).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sees to it that `identity` has a certificate soon: a workload with it has come to this node.
    ///
    /// Waits only for the driver to take note, never for the CA. Failures show in the dump and in the log.
    pub async fn prefetch(&self, identity: &Identity) {
        let demand = Command::Demand { identity: identity.clone(), priority: Priority::Warmup, reply: None };
        self.tell(demand).await;
    }

    /// Stops renewing the certificate of `identity`: the last workload with it has left this node. Whoever waits for
    /// it is told [`IdentityError::Forgotten`].
    ///
    /// Waits only for the driver to take note. If the identity is asked for again shortly after, its certificate is
    /// still there ([`schedule::FORGET_GRACE`]).
    pub async fn forget(&self, identity: &Identity) {
        self.tell(Command::Forget(identity.clone())).await;
    }

    /// The `certificates` list of `/config_dump`.
    #[must_use]
    pub fn dump(&self) -> serde_json::Value {
        dump::certificates(&self.table.load())
    }

    /// What is known of all identities: each with its state in the words of the dump and, if there is a certificate, the
    /// last moment at which it is good. In no order.
    #[must_use]
    pub fn states(&self) -> Vec<(Identity, String, Option<SystemTime>)> {
        let until = |state: &Published| match state {
            Published::Available(certificate) => Some(certificate.validity().not_after),
            Published::Initializing | Published::Unavailable(_) => None,
        };
        let table = self.table.load();
        table.iter().map(|(identity, state)| (identity.clone(), dump::wording(state), until(state))).collect()
    }

    /// For commands whose sender could do nothing about a driver that has stopped; the process is ending then.
    async fn tell(&self, command: Command) {
        if self.send(command).await.is_err() {
            tracing::debug!("certificates are no longer managed");
        }
    }

    async fn send(&self, command: Command) -> Result<(), IdentityError> {
        self.commands.send(command).await.map_err(|_| IdentityError::Stopped)
    }
}
