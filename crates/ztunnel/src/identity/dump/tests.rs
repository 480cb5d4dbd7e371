//! The list against a golden file that was made with other tools.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::identity::certificate::{LeafCheck, WorkloadCertificate};
use crate::identity::error::SignError;
use crate::identity::fake_ca::{INSECURE_DEMO_KEY, INSECURE_DEMO_ROOT};
use crate::identity::fixtures::{id, terms};
use crate::identity::signer::Issued;

#[test]
fn the_dump_has_the_form_that_existing_tools_read() {
    let available = id("spiffe://cluster.local/ns/a/sa/available");
    let root = CertificateDer::from_pem_slice(INSECURE_DEMO_ROOT.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(INSECURE_DEMO_KEY.as_bytes()).unwrap();
    let issued = Issued { chain: vec![root.clone()], roots: vec![root] };
    let certificate = WorkloadCertificate::new(&available, key, issued, &terms(LeafCheck::Any)).unwrap();
    let error = SignError::Status { code: "Unknown error".into(), message: "client error (Connect)".into() };

    let table: Table = [
        (id("spiffe://cluster.local/ns/b/sa/a"), Published::Unavailable(error.into())),
        (id("spiffe://cluster.local/ns/a/sa/initializing"), Published::Initializing),
        (available, Published::Available(Arc::new(certificate))),
    ]
    .into();
    let text = serde_json::to_string_pretty(&certificates(&table)).unwrap();
    assert_eq!(text, include_str!("golden.json").trim_end());
}

#[test]
fn no_identities_are_an_empty_list() {
    assert_eq!(certificates(&Table::new()).to_string(), "[]");
}
