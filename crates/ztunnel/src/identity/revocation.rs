//! Certificate revocation lists (spec identity-and-tls 6).
//!
//! All chains are checked to their full depth; a certificate on which no list has a word is good, and a list that has
//! expired still counts. A file that cannot be read leaves the lists as they were. Whoever carries connections is told of
//! new lists, and cuts those whose peer they name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// How PEM text begins.
const PEM: &[u8] = b"-----BEGIN";

/// The lists in force; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lists: ArcSwap<Vec<CertRevocationList<'static>>>,
    /// Handshakes refused by them, and tunnels cut: as client, as server.
    refused: [AtomicU64; 2],
    changed: watch::Sender<()>,
}

/// Which end of a handshake we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We connect.
    Client,
    /// We are connected to.
    Server,
}

impl Revocations {
    /// Puts the lists of a file in force: any number of PEM blocks, or one list in DER. An empty file revokes nothing.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    pub fn load(&self, file: &[u8]) -> Result<usize, String> {
        let text = file.trim_ascii();
        let ders: Vec<CertificateRevocationListDer<'static>> = if text.is_empty() {
            Vec::new()
        } else if text.starts_with(PEM) {
            CertificateRevocationListDer::pem_slice_iter(text)
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?
        } else {
            vec![file.to_vec().into()]
        };
        let parse = |der: CertificateRevocationListDer<'_>| {
            let list = BorrowedCertRevocationList::from_der(&der).and_then(|list| list.to_owned());
            list.map(|list: OwnedCertRevocationList| CertRevocationList::from(list)).map_err(|error| error.to_string())
        };
        let lists = ders.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let count = lists.len();
        self.0.lists.store(Arc::new(lists));
        self.0.changed.send_replace(());
        Ok(count)
    }

    /// Tells when lists have come into force after this call.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Whether nothing is revoked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lists.load().is_empty()
    }

    /// Verifies with the lists in force.
    pub(super) fn verify<T>(
        &self,
        side: Side,
        verify: impl FnOnce(Option<webpki::RevocationOptions<'_>>) -> Result<T, webpki::Error>,
    ) -> Result<T, webpki::Error> {
        let lists = self.0.lists.load();
        let references: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        // Without lists there is nothing to check.
        let options = RevocationOptionsBuilder::new(&references).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let verified = verify(options);
        if matches!(verified, Err(webpki::Error::CertRevoked)) {
            self.0.refused[side as usize].fetch_add(1, Ordering::Relaxed);
        }
        verified
    }

    /// Handshakes that the lists refused on that side, and tunnels that they ended.
    #[must_use]
    pub fn refused(&self, side: Side) -> u64 {
        self.0.refused[side as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Ca, Leaf, handshake, id};
    use super::super::trust::Rules;
    use super::*;

    const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
    const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

    #[test]
    fn a_revoked_peer_is_refused_until_the_list_forgives_it_and_a_broken_list_changes_nothing() {
        let ca = Ca::new("root");
        let rules = Rules::default();
        let client = ca.workload(&Leaf::of(&[CLIENT]));
        let server = ca.workload_under(&Leaf::of(&[SERVER]), &rules);
        let accepted = || handshake(client.client_config(&[id(SERVER)]), server.server_config()).server_result.is_ok();
        assert!(accepted());
        assert_eq!(rules.revocations.load(ca.crl(&[client.chain()[0].der()]).as_bytes()), Ok(1));
        assert!(!accepted());
        assert_eq!((rules.revocations.refused(Side::Server), rules.revocations.refused(Side::Client)), (1, 0));
        assert!(rules.revocations.load(b"garbage").is_err());
        assert!(!accepted(), "a broken file keeps the list");
        assert_eq!(rules.revocations.load(b" \n"), Ok(0));
        assert!(accepted());
    }

    #[test]
    fn who_was_accepted_is_revoked_when_a_list_says_so_however_late() {
        let (ca, other) = (Ca::new("root"), Ca::new("other"));
        let rules = Rules::default();
        let mut changes = rules.revocations.changes();
        let client = ca.workload(&Leaf::of(&[CLIENT]));
        let server = ca.workload_under(&Leaf::of(&[SERVER]), &rules);
        let presented = [client.chain()[0].der().clone()];
        let acceptance = server.acceptance(Side::Server);
        assert!(!acceptance.is_revoked(&presented) && !changes.has_changed().unwrap());

        assert_eq!(rules.revocations.load(other.crl(&[client.chain()[0].der()]).as_bytes()), Ok(1));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!acceptance.is_revoked(&presented), "another authority's list says nothing about it");
        assert_eq!(rules.revocations.load(ca.crl(&[server.chain()[0].der()]).as_bytes()), Ok(1));
        assert!(!acceptance.is_revoked(&presented), "another certificate");
        assert_eq!(rules.revocations.load(ca.crl(&[client.chain()[0].der()]).as_bytes()), Ok(1));
        assert!(acceptance.is_revoked(&presented) && changes.has_changed().unwrap());
        assert!(!acceptance.is_revoked(&[]), "whoever presented nothing was not accepted for it");
        assert_eq!((rules.revocations.refused(Side::Server), rules.revocations.refused(Side::Client)), (1, 0));
    }

    #[test]
    fn a_revoked_server_is_refused_by_its_client() {
        let ca = Ca::new("root");
        let rules = Rules::default();
        let client = ca.workload_under(&Leaf::of(&[CLIENT]), &rules);
        let server = ca.workload(&Leaf::of(&[SERVER]));
        let accepted = || handshake(client.client_config(&[id(SERVER)]), server.server_config()).client_result.is_ok();
        assert!(accepted());
        assert_eq!(rules.revocations.load(ca.crl(&[server.chain()[0].der()]).as_bytes()), Ok(1));
        assert!(!accepted());
        assert_eq!((rules.revocations.refused(Side::Server), rules.revocations.refused(Side::Client)), (0, 1));
    }
}
