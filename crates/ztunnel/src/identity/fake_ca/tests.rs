//! The built-in authority: what its leaves look like and who trusts them.

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;
use crate::identity::certificate::{LeafCheck, WorkloadCertificate};
use crate::identity::fixtures::{handshake, id, terms};
use crate::identity::verify::peer_identity;

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn issue(ca: &FakeCa, identity: &str, ttl: Duration) -> (PrivateKeyDer<'static>, Issued) {
    let (key, csr) = csr::create(&id(identity)).unwrap();
    (key, ca.issue(&id(identity), &csr, ttl).unwrap())
}

fn workload(ca: &FakeCa, identity: &str) -> WorkloadCertificate {
    let (key, issued) = issue(ca, identity, DAY);
    WorkloadCertificate::new(&id(identity), key, issued, &terms(LeafCheck::Requested)).unwrap()
}

#[test]
fn two_processes_with_the_fake_ca_trust_each_other() {
    let (one, other) = (FakeCa::new(), FakeCa::new());
    let (client, server) = (workload(&one, CLIENT), workload(&other, SERVER));
    let done = handshake(client.client_config(&[id(SERVER)]), server.server_config());
    assert_eq!((&done.client_result, &done.server_result), (&Ok(()), &Ok(())));
    assert_eq!(peer_identity(done.server.peer_certificates().unwrap()), Some(id(CLIENT)));
    assert_eq!(peer_identity(done.client.peer_certificates().unwrap()), Some(id(SERVER)));
}

#[test]
fn leaves_carry_the_identity_for_both_roles_and_nothing_else() {
    let (_, issued) = issue(&FakeCa::new(), CLIENT, DAY);
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    assert_eq!(names.value.general_names, [GeneralName::URI(CLIENT)]);
    assert_eq!(leaf.subject().iter().count(), 0);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    assert!(!leaf.is_ca());
    let (_, root) = X509Certificate::from_der(&issued.roots[0]).unwrap();
    assert!(root.subject().to_string().contains("INSECURE"), "{}", root.subject());
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn lifetimes_are_as_asked_up_to_a_limit() {
    let ca = FakeCa::new();
    for (ttl, expected) in [(Duration::from_secs(20), Duration::from_secs(20)), (DAY, DAY), (Duration::MAX, MAX_TTL)] {
        let (_, issued) = issue(&ca, CLIENT, ttl);
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let length = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(u64::try_from(length).unwrap(), (expected + BACKDATE).as_secs());
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let ca = FakeCa::new();
    let (_, csr) = csr::create(&id(CLIENT)).unwrap();
    let error = ca.issue(&id(CLIENT), &csr.with_broken_signature(), DAY).unwrap_err();
    assert_eq!(
        SignError::from(error).to_string(),
        "failed to create CSR: tls: the signing request was signed with another key"
    );
}

#[tokio::test]
async fn it_signs_as_any_signer_does() {
    let (_, csr) = csr::create(&id(CLIENT)).unwrap();
    let ca = Arc::new(FakeCa::new());
    let issued = ca.sign(&id(CLIENT), &csr, DAY).await.unwrap();
    assert_eq!((issued.chain.len(), issued.roots.len()), (1, 1));
}
