//! What is accepted from a CA, and what an accepted certificate says of itself.

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::identity::fixtures::{Ca, Leaf, id, terms};
use crate::identity::tls::MAX_CLIENT_CONFIGS;

const ME: &str = "spiffe://cluster.local/ns/default/sa/me";
const OTHER: &str = "spiffe://cluster.local/ns/default/sa/other";

/// Accepts, for the identity `ME`, a leaf with `uris` and what `change` makes of the answer of its CA.
fn accept(uris: &[&str], check: LeafCheck, change: impl FnOnce(&mut Issued)) -> Result<WorkloadCertificate, String> {
    let ca = Ca::new("root");
    let (key, leaf) = ca.leaf(&Leaf::of(uris));
    let mut issued = Issued { chain: vec![leaf], roots: vec![ca.root()] };
    change(&mut issued);
    WorkloadCertificate::new(&id(ME), key.into(), issued, &terms(check)).map_err(|error| error.to_string())
}

#[test]
fn the_first_uri_name_must_be_the_identity_asked_for() {
    let unchanged = |_: &mut Issued| {};
    let accepted = accept(&[ME, OTHER], LeafCheck::Requested, unchanged).unwrap();
    assert_eq!(accepted.identity(), Some(&id(ME)));
    for names in [&[OTHER][..], &[OTHER, ME], &["https://x/", ME], &[]] {
        let error = accept(names, LeafCheck::Requested, unchanged).unwrap_err();
        assert_eq!(error, format!("did not find expected SAN: {ME}"));
    }
}

#[test]
fn without_that_check_the_leaf_says_who_we_are() {
    let unchanged = |_: &mut Issued| {};
    assert_eq!(accept(&[OTHER], LeafCheck::Any, unchanged).unwrap().identity(), Some(&id(OTHER)));
    assert_eq!(accept(&["https://x/", OTHER], LeafCheck::Any, unchanged).unwrap().identity(), Some(&id(OTHER)));
    assert_eq!(accept(&[], LeafCheck::Any, unchanged).unwrap().identity(), None);
}

#[test]
fn unusable_answers_are_refused_in_the_words_of_the_specification() {
    let refused = |change: fn(&mut Issued)| accept(&[ME], LeafCheck::Requested, change).unwrap_err();
    assert_eq!(refused(|issued| issued.chain.clear()), format!("chain returned from CA is empty for: {ME}"));
    assert_eq!(
        refused(|issued| issued.roots.clear()),
        "failed to create CSR: invalid root certificate: no root certificate present"
    );
    let garbage = || CertificateDer::from(b"garbage".to_vec());
    let parse = "failed to create CSR: certificate parse: ";
    let leaf = refused(|issued| issued.chain[0] = CertificateDer::from(Vec::new()));
    assert!(leaf.starts_with(parse), "{leaf}");
    let intermediate = accept(&[ME], LeafCheck::Requested, |issued| issued.chain.push(garbage())).unwrap_err();
    assert!(intermediate.starts_with(parse), "{intermediate}");
    let root = accept(&[ME], LeafCheck::Requested, |issued| issued.roots.push(garbage())).unwrap_err();
    assert!(root.starts_with(parse), "one bad root spoils the answer: {root}");
    let trailing = refused(|issued| {
        let mut longer = issued.chain[0].to_vec();
        longer.extend(*b"!!");
        issued.chain[0] = longer.into();
    });
    assert_eq!(trailing, format!("{parse}2 bytes follow the certificate"));
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let ca = Ca::new("root");
    let ((_, leaf), (key, _)) = (ca.leaf(&Leaf::of(&[ME])), ca.leaf(&Leaf::of(&[ME])));
    let issued = Issued { chain: vec![leaf], roots: vec![ca.root()] };
    let error = WorkloadCertificate::new(&id(ME), key.into(), issued, &terms(LeafCheck::Requested)).unwrap_err();
    assert_eq!(error.to_string(), "failed to create CSR: tls: keys may not be consistent: KeyMismatch");
}

#[test]
fn a_key_that_is_none_is_refused() {
    let ca = Ca::new("root");
    let (_, leaf) = ca.leaf(&Leaf::of(&[ME]));
    let issued = Issued { chain: vec![leaf], roots: vec![ca.root()] };
    let key = PrivatePkcs8KeyDer::from(b"no key".to_vec());
    let error = WorkloadCertificate::new(&id(ME), key.into(), issued, &terms(LeafCheck::Requested)).unwrap_err();
    assert!(error.to_string().starts_with("failed to create CSR: tls: "), "{error}");
}

#[test]
fn serial_and_dates_are_those_of_the_leaf() {
    let certificate = accept(&[ME], LeafCheck::Requested, |_| {}).unwrap();
    let leaf = &certificate.chain()[0];
    assert_eq!(certificate.validity(), leaf.validity());
    let length = certificate.validity().not_after.duration_since(certificate.validity().not_before).unwrap();
    assert_eq!(length, Duration::from_secs(2 * 3600));
    let (_, x509) = x509_parser::parse_x509_certificate(leaf.der()).unwrap();
    assert_eq!(leaf.serial(), x509.tbs_certificate.serial.to_str_radix(10));
}

#[test]
fn pem_has_lines_of_sixty_characters_and_reads_back() {
    let leaf = Certificate::parse(Ca::new("root").root()).unwrap();
    let pem = leaf.pem();
    assert!(pem.ends_with("\n-----END CERTIFICATE-----\n"));
    let body: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let (last, full) = body.split_last().unwrap();
    assert!(full.iter().all(|line| line.len() == 60) && (1..=60).contains(&last.len()), "{pem}");
    assert_eq!(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), *leaf.der());
}

#[test]
fn times_print_as_rfc_3339() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_827_696, "2000-02-29T12:34:56Z"),
        (1_795_228_715, "2026-11-21T02:38:35Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
    }
    assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31T23:59:59Z");
    assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 40)), "1099511627776s after 1970");
}

#[test]
fn configurations_are_made_once_per_certificate_and_list_of_servers() {
    let certificate = accept(&[ME], LeafCheck::Requested, |_| {}).unwrap();
    assert!(Arc::ptr_eq(&certificate.server_config(), &certificate.server_config()));
    let (a, b) = ([id(ME)], [id(ME), id(OTHER)]);
    assert!(Arc::ptr_eq(&certificate.client_config(&a), &certificate.client_config(&a)));
    assert!(!Arc::ptr_eq(&certificate.client_config(&a), &certificate.client_config(&b)));
}

#[test]
fn the_oldest_client_configuration_makes_room() {
    let certificate = accept(&[ME], LeafCheck::Requested, |_| {}).unwrap();
    let config = |n: usize| certificate.client_config(&[id(&format!("spiffe://td/ns/x/sa/{n}"))]);
    let kept: Vec<_> = (0..MAX_CLIENT_CONFIGS).map(config).collect();
    config(MAX_CLIENT_CONFIGS);
    assert!(Arc::ptr_eq(&config(1), &kept[1]), "the second oldest is still there");
    assert!(!Arc::ptr_eq(&config(0), &kept[0]), "the oldest is made anew");
}

#[test]
fn debug_output_shows_no_key() {
    let shown = format!("{:?}", accept(&[ME], LeafCheck::Requested, |_| {}).unwrap());
    assert!(shown.starts_with("WorkloadCertificate { identity: Some(spiffe://"), "{shown}");
    assert!(shown.len() < 400, "{shown}");
}
