//! Whom an identity accepts: which roots, for how long, and under which names of its trust domain.
//!
//! An identity accepts the roots of the CA's last answer and the operator's bundles. A root that the CA names no longer
//! stays until the certificate that came with it has ended: until then peers that have not asked the CA again present
//! leaves of it in good faith. Invariant: a new root is accepted from the moment it is known; leaves of it are presented
//! only when peers have had time to learn it too (the schedule's part). Revoked certificates are
//! [`revocation`](super::revocation)'s.

use std::sync::Arc;
use std::time::SystemTime;

use mesh::{Identity, TrustDomain};
use rustls::RootCertStore;

use super::certificate::Certificate;
use super::error::MaterialError;
use super::revocation::Revocations;
use crate::crypto::Crypto;

/// Roots of which the CA speaks no longer that are kept at a time. A rotation leaves one behind.
const MAX_FORMER: usize = 16;

/// The roots that an identity accepts.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    current: Vec<Certificate>,
    former: Vec<(Certificate, SystemTime)>,
    bundles: Arc<[Certificate]>,
}

impl Anchors {
    /// The roots of an answer, and the operator's.
    #[must_use]
    pub fn new(current: Vec<Certificate>, bundles: Arc<[Certificate]>) -> Self {
        Self { current, former: Vec::new(), bundles }
    }

    /// The same, while what was accepted before may still be presented: its roots until `ended`, the end of the
    /// certificate that came with them.
    #[must_use]
    pub fn after(mut self, before: &Self, ended: SystemTime, now: SystemTime) -> Self {
        let kept = before.former.iter().filter(|(_, until)| *until > now).cloned();
        let retired = before.current.iter().map(|root| (root.clone(), ended));
        let mut former: Vec<(Certificate, SystemTime)> = Vec::new();
        for (root, until) in retired.chain(kept) {
            let known = self.current.contains(&root) || former.iter().any(|(other, _)| *other == root);
            if !known && until > now && former.len() < MAX_FORMER {
                former.push((root, until));
            }
        }
        self.former = former;
        self
    }

    /// The same with other bundles.
    #[must_use]
    pub fn with_bundles(mut self, bundles: Arc<[Certificate]>) -> Self {
        self.bundles = bundles;
        self
    }

    /// The roots of the CA's last answer.
    #[must_use]
    pub fn current(&self) -> &[Certificate] {
        &self.current
    }

    /// Whether both have the same roots from the CA, in whatever order.
    #[must_use]
    pub fn same_authority(&self, other: &Self) -> bool {
        self.current.len() == other.current.len() && self.current.iter().all(|root| other.current.contains(root))
    }

    /// All that are accepted, each once.
    #[must_use]
    pub fn all(&self) -> Vec<Certificate> {
        let former = self.former.iter().map(|(root, _)| root);
        let mut all: Vec<Certificate> = Vec::new();
        for root in self.current.iter().chain(former).chain(self.bundles.iter()) {
            if !all.contains(root) {
                all.push(root.clone());
            }
        }
        all
    }

    /// All that can serve as trust anchors.
    ///
    /// # Errors
    /// [`MaterialError::Root`] if none can.
    pub(super) fn store(&self) -> Result<RootCertStore, MaterialError> {
        let mut store = RootCertStore::empty();
        let (_, invalid) = store.add_parsable_certificates(self.all().iter().map(|root| root.der().clone()));
        if invalid > 0 {
            tracing::warn!("warning: found {invalid} invalid root certs");
        }
        if self.current.is_empty() || store.is_empty() {
            return Err(MaterialError::Root("no root certificate present".into()));
        }
        Ok(store)
    }
}

/// What holds for all identities of the process.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Other names of our own trust domain (`TRUST_DOMAIN_ALIASES`).
    pub aliases: Arc<[TrustDomain]>,
    /// Certificates that are accepted no longer.
    pub revocations: Revocations,
    /// The cryptography of all TLS.
    pub crypto: Crypto,
}

impl Rules {
    /// Whether `other` means our own trust domain.
    #[must_use]
    pub fn is_own(&self, own: &TrustDomain, other: &TrustDomain) -> bool {
        own == other || self.aliases.contains(other)
    }

    /// Whether `got` is whom we expect, if both of their trust domains are ours under whatever name.
    #[must_use]
    pub fn is_expected(&self, own: Option<&TrustDomain>, expected: &Identity, got: &Identity) -> bool {
        let ours = |other: &TrustDomain| own.is_some_and(|own| self.is_own(own, other));
        expected.namespace == got.namespace
            && expected.service_account == got.service_account
            && (expected.trust_domain == got.trust_domain || ours(&expected.trust_domain) && ours(&got.trust_domain))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures::{Ca, id};
    use super::*;

    fn root(ca: &Ca) -> Vec<Certificate> {
        vec![Certificate::parse(ca.root()).unwrap()]
    }

    #[test]
    fn a_root_that_the_ca_names_no_longer_stays_until_the_certificate_that_came_with_it_ends() {
        let (a, b) = (Ca::new("a"), Ca::new("b"));
        let (now, bundles) = (SystemTime::now(), Arc::from([]));
        let minute = Duration::from_secs(60);
        let first = Anchors::new(root(&a), Arc::clone(&bundles));
        let second = Anchors::new(root(&b), Arc::clone(&bundles)).after(&first, now + minute, now);
        assert_eq!((second.all().len(), second.current().len()), (2, 1));
        assert!(!second.same_authority(&first));
        let third = Anchors::new(root(&b), bundles).after(&second, now + 3 * minute, now + 2 * minute);
        assert_eq!(third.all(), root(&b));
        assert!(third.same_authority(&second));
    }

    #[test]
    fn bundles_are_accepted_beside_but_not_instead_of_the_cas_roots() {
        let (a, b) = (Ca::new("a"), Ca::new("b"));
        let bundles: Arc<[Certificate]> = root(&b).into();
        assert_eq!(Anchors::new(root(&a), Arc::clone(&bundles)).store().unwrap().len(), 2);
        assert!(Anchors::new(Vec::new(), bundles).store().is_err());
    }

    #[test]
    fn aliases_are_names_of_our_own_trust_domain_only() {
        let rules = Rules { aliases: Arc::from(["old.example".into()]), ..Rules::default() };
        let own: TrustDomain = "cluster.local".into();
        let [here, old, other] =
            ["cluster.local", "old.example", "other.example"].map(|domain| id(&format!("spiffe://{domain}/ns/a/sa/b")));
        assert!(rules.is_expected(Some(&own), &here, &old) && rules.is_expected(Some(&own), &old, &here));
        assert!(!rules.is_expected(Some(&own), &here, &other) && rules.is_expected(Some(&own), &other, &other));
        assert!(!rules.is_expected(Some(&own), &here, &id("spiffe://old.example/ns/a/sa/c")));
    }
}
