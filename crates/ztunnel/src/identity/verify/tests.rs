//! Whole handshakes in memory: who is let in, who is not, and what both sides are told.

use rcgen::ExtendedKeyUsagePurpose;
use rustls::AlertDescription as Alert;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
use rustls::version::TLS13;

use super::*;
use crate::crypto::Crypto;
use crate::identity::certificate::WorkloadCertificate;
use crate::identity::fixtures::{Ca, HOUR, Handshake, Leaf, handshake, id};
use crate::identity::trust::Rules;

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
const OTHER: &str = "spiffe://cluster.local/ns/default/sa/other";
const ABROAD: &str = "spiffe://elsewhere/ns/default/sa/client";

fn connect(client: &WorkloadCertificate, server: &WorkloadCertificate, expected: &[&str]) -> Handshake {
    let expected: Vec<Identity> = expected.iter().map(|text| id(text)).collect();
    handshake(client.client_config(&expected), server.server_config())
}

fn assert_connected(handshake: &Handshake) {
    assert_eq!((&handshake.client_result, &handshake.server_result), (&Ok(()), &Ok(())));
    assert!(!handshake.client.is_handshaking() && !handshake.server.is_handshaking());
}

/// The server refused: what it logs begins like this, and the client gets this alert.
#[track_caller]
fn assert_server_refused(handshake: &Handshake, text: &str, alert: Alert) {
    let error = handshake.server_result.as_ref().expect_err("the server refuses");
    assert!(explain(error).starts_with(text), "{}", explain(error));
    assert_eq!(handshake.client_result, Err(rustls::Error::AlertReceived(alert)));
}

/// The client refused: what it logs begins like this, and the server gets this alert.
#[track_caller]
fn assert_client_refused(handshake: &Handshake, text: &str, alert: Alert) {
    let error = handshake.client_result.as_ref().expect_err("the client refuses");
    assert!(explain(error).starts_with(text), "{}", explain(error));
    assert_eq!(handshake.server_result, Err(rustls::Error::AlertReceived(alert)));
}

#[test]
fn workloads_of_one_mesh_connect_and_learn_who_the_other_is() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    let done = connect(&client, &server, &[SERVER]);
    assert_connected(&done);
    assert_eq!(peer_identity(done.server.peer_certificates().unwrap()), Some(id(CLIENT)));
    assert_eq!(peer_identity(done.client.peer_certificates().unwrap()), Some(id(SERVER)));
    let preferred = Crypto::default().provider().kx_groups[0].name();
    for side in [&*done.client as &rustls::CommonState, &*done.server] {
        assert_eq!(side.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(side.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(side.negotiated_cipher_suite().unwrap().suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert_eq!(side.negotiated_key_exchange_group().unwrap().name(), preferred);
    }
    assert_eq!(done.server.server_name(), None, "SNI is not sent");
}

#[test]
fn one_expected_identity_of_several_is_enough() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    assert_connected(&connect(&client, &server, &[OTHER, SERVER]));
}

#[test]
fn a_server_that_is_not_expected_is_refused() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    assert_client_refused(
        &connect(&client, &server, &[OTHER, CLIENT]),
        &format!("identity verification error: peer did not present the expected SAN ({OTHER},{CLIENT}), got {SERVER}"),
        Alert::CertificateUnknown,
    );
}

#[test]
fn every_part_of_an_expected_identity_counts() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    for near in [
        "spiffe://cluster.locaL/ns/default/sa/server",
        "spiffe://cluster.local/ns/defaul/sa/server",
        "spiffe://cluster.local/ns/default/sa/serve",
    ] {
        assert_client_refused(
            &connect(&client, &server, &[near]),
            "identity verification error: peer did not present the expected SAN (",
            Alert::CertificateUnknown,
        );
    }
}

#[test]
fn who_expects_nobody_accepts_nobody() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    assert_client_refused(
        &connect(&client, &server, &[]),
        &format!("identity verification error: peer did not present the expected SAN (), got {SERVER}"),
        Alert::CertificateUnknown,
    );
}

#[test]
fn a_client_of_another_trust_domain_is_refused() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[ABROAD])), ca.workload(&Leaf::of(&[SERVER])));
    let refused = connect(&client, &server, &[SERVER]);
    let text = format!(
        "identity verification error: peer did not present the expected trustdomain (cluster.local), got {ABROAD}"
    );
    assert_server_refused(&refused, &text, Alert::CertificateUnknown);
    let printed = refused.server_result.unwrap_err().to_string();
    assert!(printed.contains(&text), "readable even as rustls prints it: {printed}");
}

#[test]
fn a_client_without_a_spiffe_name_is_refused_and_so_is_a_server() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    for names in [&[][..], &["https://example.com/ns/a/sa/b", "spiffe://cluster.local/workload"]] {
        let stranger = ca.workload(&Leaf::of(names));
        assert_server_refused(
            &connect(&stranger, &server, &[SERVER]),
            "identity verification error: peer did not present the expected trustdomain (cluster.local), got ",
            Alert::CertificateUnknown,
        );
        assert_client_refused(
            &connect(&client, &stranger, &[SERVER]),
            &format!("identity verification error: peer did not present the expected SAN ({SERVER}), got "),
            Alert::CertificateUnknown,
        );
    }
}

#[test]
fn of_several_names_any_may_match_and_the_first_identity_is_who_the_peer_is() {
    let ca = Ca::new("root");
    let client = ca.workload(&Leaf::of(&["https://not.spiffe/", ABROAD, CLIENT]));
    let server = ca.workload(&Leaf::of(&[OTHER, SERVER]));
    let done = connect(&client, &server, &[SERVER]);
    assert_connected(&done);
    assert_eq!(peer_identity(done.server.peer_certificates().unwrap()), Some(id(ABROAD)));
    assert_eq!(peer_identity(done.client.peer_certificates().unwrap()), Some(id(OTHER)));
}

#[test]
fn a_server_whose_own_certificate_names_no_workload_takes_any_client_of_its_roots() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[ABROAD])), ca.workload(&Leaf::of(&[])));
    let done = handshake(client.client_config(&[id(SERVER)]), server.server_config());
    assert!(explain(done.client_result.as_ref().unwrap_err()).contains("expected SAN"), "a client still wants a name");

    let verifier = ClientsOf::new(None, roots(&ca), &Crypto::default().provider(), &Rules::default());
    let (_, leaf) = ca.leaf(&Leaf::of(&[ABROAD]));
    assert!(verifier.verify_client_cert(&leaf, &[], UnixTime::now()).is_ok());
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new("root");
    let server = ca.workload(&Leaf::of(&[SERVER]));
    let anonymous = client_builder(&ca).with_no_client_auth();
    assert_server_refused(
        &handshake(Arc::new(anonymous), server.server_config()),
        "peer sent no certificates",
        Alert::CertificateRequired,
    );
}

#[test]
fn certificates_are_only_good_between_their_dates() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    let expired = |uri| Leaf { from: -2 * HOUR, to: -HOUR, ..Leaf::of(uri) };
    let early = |uri| Leaf { from: HOUR, to: 2 * HOUR, ..Leaf::of(uri) };
    for (leaf, text) in [
        (expired(&[CLIENT]), "invalid peer certificate: certificate expired: "),
        (early(&[CLIENT]), "invalid peer certificate: certificate not valid yet: "),
    ] {
        let refused = connect(&ca.workload(&leaf), &server, &[SERVER]);
        assert_server_refused(&refused, text, Alert::CertificateExpired);
    }
    for (leaf, text) in [
        (expired(&[SERVER]), "invalid peer certificate: certificate expired: "),
        (early(&[SERVER]), "invalid peer certificate: certificate not valid yet: "),
    ] {
        let refused = connect(&client, &ca.workload(&leaf), &[SERVER]);
        assert_client_refused(&refused, text, Alert::CertificateExpired);
    }
}

#[test]
fn certificates_of_another_root_are_refused_even_with_the_right_names() {
    let (ca, other) = (Ca::new("root"), Ca::new("other root"));
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    let stranger = other.workload_trusting(&Leaf::of(&[CLIENT, SERVER]), &[&ca]);
    let text = "invalid peer certificate: UnknownIssuer";
    assert_server_refused(&connect(&stranger, &server, &[SERVER]), text, Alert::UnknownCA);
    assert_client_refused(&connect(&client, &stranger, &[SERVER]), text, Alert::UnknownCA);
}

#[test]
fn a_forged_signature_by_a_root_of_the_same_name_is_refused() {
    let (ca, forger) = (Ca::new("root"), Ca::new("root"));
    let server = ca.workload(&Leaf::of(&[SERVER]));
    let forged = forger.workload_trusting(&Leaf::of(&[CLIENT]), &[&ca]);
    assert_server_refused(
        &connect(&forged, &server, &[SERVER]),
        "invalid peer certificate: BadSignature",
        Alert::DecryptError,
    );
}

#[test]
fn the_key_usage_of_a_certificate_binds_if_it_is_there() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    let only_server = Leaf { usages: &[ExtendedKeyUsagePurpose::ServerAuth], ..Leaf::of(&[CLIENT]) };
    assert_server_refused(
        &connect(&ca.workload(&only_server), &server, &[SERVER]),
        "invalid peer certificate: certificate does not allow extended key usage for client authentication, \
         allows server authentication",
        Alert::UnsupportedCertificate,
    );
    let only_client = Leaf { usages: &[ExtendedKeyUsagePurpose::ClientAuth], ..Leaf::of(&[SERVER]) };
    assert_client_refused(
        &connect(&client, &ca.workload(&only_client), &[SERVER]),
        "invalid peer certificate: certificate does not allow extended key usage for server authentication, \
         allows client authentication",
        Alert::UnsupportedCertificate,
    );
    let none = Leaf { usages: &[], ..Leaf::of(&[CLIENT, SERVER]) };
    assert_connected(&connect(&ca.workload(&none), &ca.workload(&none), &[SERVER]));
}

#[test]
fn a_ca_certificate_does_not_pass_for_a_workload() {
    let ca = Ca::new("root");
    let below = ca.intermediate("below");
    let verifier = ClientsOf::new(None, roots(&ca), &Crypto::default().provider(), &Rules::default());
    let error = verifier.verify_client_cert(&below.root(), &[], UnixTime::now()).unwrap_err();
    assert_eq!(explain(&error), "CaUsedAsEndEntity");
}

#[test]
fn a_chain_through_an_intermediate_is_followed() {
    let ca = Ca::new("root");
    let below = ca.intermediate("below");
    let (_, leaf) = below.leaf(&Leaf::of(&[CLIENT]));
    let verifier =
        ClientsOf::new(Some("cluster.local".into()), roots(&ca), &Crypto::default().provider(), &Rules::default());
    assert!(verifier.verify_client_cert(&leaf, &[below.root()], UnixTime::now()).is_ok());
    let error = verifier.verify_client_cert(&leaf, &[], UnixTime::now()).unwrap_err();
    assert_eq!(error, CertificateError::UnknownIssuer.into());
    assert_eq!(verifier.root_hint_subjects().len(), 1, "the server names its root");
}

#[test]
fn garbage_in_place_of_a_certificate_is_an_encoding_error() {
    let ca = Ca::new("root");
    let (_, leaf) = ca.leaf(&Leaf::of(&[CLIENT]));
    let verifier = ClientsOf::new(None, roots(&ca), &Crypto::default().provider(), &Rules::default());
    for length in 0..leaf.len() {
        let cut = CertificateDer::from(leaf[..length].to_vec());
        assert!(verifier.verify_client_cert(&cut, &[], UnixTime::now()).is_err(), "{length} bytes");
        assert_eq!(peer_identity(&[cut]), None, "{length} bytes");
    }
    assert_eq!(peer_identity(&[]), None);
}

#[test]
fn a_client_without_alpn_is_accepted_and_one_with_another_protocol_is_not() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    let mut silent = ClientConfig::clone(&client.client_config(&[id(SERVER)]));
    silent.alpn_protocols.clear();
    let done = handshake(Arc::new(silent), server.server_config());
    assert_connected(&done);
    assert_eq!(done.server.alpn_protocol(), None);

    let mut http1 = ClientConfig::clone(&client.client_config(&[id(SERVER)]));
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_server_refused(
        &handshake(Arc::new(http1), server.server_config()),
        "peer doesn't support any known protocol",
        Alert::NoApplicationProtocol,
    );
}

#[test]
fn nothing_but_aes_gcm_is_negotiated() {
    let ca = Ca::new("root");
    let server = ca.workload(&Leaf::of(&[SERVER]));
    let chacha = CryptoProvider {
        cipher_suites: vec![TLS13_CHACHA20_POLY1305_SHA256],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let config = ClientConfig::builder_with_provider(Arc::new(chacha))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots(&ca))
        .with_no_client_auth();
    assert_server_refused(
        &handshake(Arc::new(config), server.server_config()),
        "peer is incompatible: NoCipherSuitesInCommon",
        Alert::HandshakeFailure,
    );
}

#[test]
fn nothing_is_resumed_and_no_ticket_is_sent() {
    let ca = Ca::new("root");
    let (client, server) = (ca.workload(&Leaf::of(&[CLIENT])), ca.workload(&Leaf::of(&[SERVER])));
    for _ in 0..2 {
        let done = connect(&client, &server, &[SERVER]);
        assert_connected(&done);
        assert_eq!(done.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(done.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn the_signature_schemes_are_those_of_the_specification() {
    let ca = Ca::new("root");
    let verifier = ServersNamed::new([].into(), None, roots(&ca), &Crypto::default().provider(), &Rules::default());
    let supported = verifier.supported_verify_schemes();
    // Not every library has all of them.
    let optional = [SignatureScheme::ECDSA_NISTP521_SHA512, SignatureScheme::ED25519];
    let wanted =
        SIGNATURE_SCHEMES.into_iter().filter(|scheme| !optional.contains(scheme) || supported.contains(scheme));
    assert_eq!(supported, wanted.collect::<Vec<_>>());
}

fn roots(ca: &Ca) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    Arc::new(roots)
}

fn client_builder(ca: &Ca) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Crypto::default().provider();
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(ServersNamed::new(
            [id(SERVER)].into(),
            None,
            roots(ca),
            &provider,
            &Rules::default(),
        ))
}
