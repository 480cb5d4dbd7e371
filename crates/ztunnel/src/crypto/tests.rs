//! What every library has to offer, whichever this build has chosen.

use super::*;

fn offered(crypto: &Crypto) -> (Vec<CipherSuite>, Vec<NamedGroup>) {
    let provider = crypto.provider();
    let suites = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
    (suites, provider.kx_groups.iter().map(|group| group.name()).collect())
}

fn has_hybrid() -> bool {
    library().kx_groups.iter().any(|group| group.name() == NamedGroup::X25519MLKEM768)
}

#[test]
fn tls_13_with_aes_gcm_is_all_there_is_unless_the_operator_says_otherwise() {
    let crypto = Crypto::default();
    assert_eq!(crypto.versions(), [&TLS13]);
    assert_eq!(offered(&crypto).0, SUITES[..2]);

    let config = Config { versions: Versions::Tls12And13, ..Config::default() };
    let crypto = Crypto::new(config).unwrap();
    assert_eq!(crypto.versions(), [&TLS13, &TLS12]);
    assert_eq!(offered(&crypto).0, SUITES);
}

#[test]
fn the_post_quantum_group_comes_first_and_the_classical_ones_are_there_to_fall_back_on() {
    let (_, groups) = offered(&Crypto::default());
    let expected: Vec<_> = GROUPS.into_iter().filter(|group| groups.contains(group)).collect();
    assert_eq!(groups, expected);
    assert!(groups.ends_with(&[NamedGroup::secp256r1, NamedGroup::secp384r1]), "{groups:?}");
    assert_eq!(groups.first() == Some(&NamedGroup::X25519MLKEM768), has_hybrid());
}

#[test]
fn post_quantum_only_is_what_it_says_or_an_error_that_names_setting_and_library() {
    let config = Config { versions: Versions::Tls12And13, key_exchange: KeyExchange::HybridOnly };
    match Crypto::new(config) {
        Ok(crypto) => {
            assert!(has_hybrid());
            assert_eq!(offered(&crypto).1, [NamedGroup::X25519MLKEM768]);
            assert_eq!(crypto.versions(), [&TLS13], "TLS 1.2 has no such group");
        }
        Err(error) => {
            assert!(!has_hybrid());
            let text = error.to_string();
            assert!(text.contains("COMPLIANCE_POLICY=pqc") && text.contains(CRYPTO), "{text}");
        }
    }
}

#[test]
fn hashes_are_sha_256() {
    let hex: String = sha256(b"abc").iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); // FIPS 180-4, example
}

#[test]
fn a_key_signs_what_its_public_part_verifies_and_nothing_else() {
    use rcgen::{PublicKeyData, SigningKey};
    let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    assert_ne!(key.der_bytes(), other.der_bytes());
    let signature = key.sign(b"message").unwrap();
    let public = PublicKey::new(key.der_bytes());
    assert!(public.has_signed(b"message", &signature));
    assert!(!public.has_signed(b"another", &signature));
    assert!(!PublicKey::new(other.der_bytes()).has_signed(b"message", &signature));
    assert!(!PublicKey::new(b"no key").has_signed(b"message", &signature));
}

#[cfg(feature = "tls-aws-lc-fips")]
#[test]
fn the_validated_edition_offers_only_what_is_approved() {
    assert!(Crypto::default().provider().fips());
}
