//! Authorities, certificates and handshakes for the tests of this subsystem.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use x509_parser::time::ASN1Time;

use super::certificate::{LeafCheck, Terms, WorkloadCertificate};
use super::signer::Issued;
use super::trust::Rules;

pub const HOUR: i64 = 3600;

pub fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// A certificate authority with a root of its own.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What to put into a leaf; times in seconds from now.
#[derive(Clone)]
pub struct Leaf<'a> {
    pub uris: &'a [&'a str],
    pub from: i64,
    pub to: i64,
    pub usages: &'a [ExtendedKeyUsagePurpose],
}

impl<'a> Leaf<'a> {
    /// A leaf like those of a mesh CA: valid for an hour to either side, for both roles.
    pub fn of(uris: &'a [&'a str]) -> Self {
        let usages = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { uris, from: -HOUR, to: HOUR, usages }
    }
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A leaf with its key.
    pub fn leaf(&self, leaf: &Leaf<'_>) -> (PrivatePkcs8KeyDer<'static>, CertificateDer<'static>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = leaf.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.subject_alt_names.push(SanType::DnsName("not.looked.at".try_into().unwrap()));
        params.extended_key_usages = leaf.usages.to_vec();
        set_dates(&mut params, unix_now() + leaf.from, unix_now() + leaf.to);
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        let certificate = params.signed_by(&key, issuer).unwrap();
        (PrivatePkcs8KeyDer::from(key.serialize_der()), certificate.into())
    }

    /// A leaf as a whole workload certificate which trusts this authority.
    pub fn workload(&self, leaf: &Leaf<'_>) -> WorkloadCertificate {
        self.workload_trusting(leaf, &[self])
    }

    /// A leaf as a whole workload certificate which trusts `roots`.
    pub fn workload_trusting(&self, leaf: &Leaf<'_>, roots: &[&Ca]) -> WorkloadCertificate {
        self.make(leaf, roots, &Rules::default())
    }

    /// A leaf as a whole workload certificate which trusts this authority, under rules.
    pub fn workload_under(&self, leaf: &Leaf<'_>, rules: &Rules) -> WorkloadCertificate {
        self.make(leaf, &[self], rules)
    }

    fn make(&self, leaf: &Leaf<'_>, roots: &[&Ca], rules: &Rules) -> WorkloadCertificate {
        let (key, certificate) = self.leaf(leaf);
        let issued = Issued { chain: vec![certificate], roots: roots.iter().map(|ca| ca.root()).collect() };
        let anyone = id("spiffe://td/ns/any/sa/one");
        let terms = Terms { rules: rules.clone(), ..terms(LeafCheck::Any) };
        WorkloadCertificate::new(&anyone, key.into(), issued, &terms).unwrap()
    }

    /// A list that revokes certificates of this authority, as PEM text.
    pub fn crl(&self, revoked: &[&CertificateDer<'_>]) -> String {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let serial = |der: &&CertificateDer<'_>| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec();
        let date = |seconds: i64| ASN1Time::from_timestamp(unix_now() + seconds).unwrap().to_datetime();
        let one = |der| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial(der)),
            revocation_time: date(-HOUR),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date(-HOUR),
            next_update: date(HOUR),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer: &Issuer<'_, KeyPair> = &self.0;
        params.signed_by(issuer).unwrap().pem().unwrap()
    }
}

/// Terms without bundles and rules.
pub fn terms(leaf: LeafCheck) -> Terms {
    Terms { leaf, rules: Rules::default(), bundles: [].into() }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub fn set_dates(params: &mut CertificateParams, from: i64, to: i64) {
    params.not_before = ASN1Time::from_timestamp(from).unwrap().to_datetime();
    params.not_after = ASN1Time::from_timestamp(to).unwrap().to_datetime();
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().try_into().unwrap()
}

/// Both ends of a handshake that has come to rest, and what each made of it.
pub struct Handshake {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub client_result: Result<(), rustls::Error>,
    pub server_result: Result<(), rustls::Error>,
}

/// Lets the two talk, in memory, until neither has more to say.
pub fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Handshake {
    let name = ServerName::try_from("0.0.0.0").unwrap();
    let mut both = Handshake {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_result: Ok(()),
        server_result: Ok(()),
    };
    while both.client.wants_write() || both.server.wants_write() {
        let mut wire = Vec::new();
        while both.client.wants_write() {
            both.client.write_tls(&mut wire).unwrap();
        }
        read_all(&wire, &mut both.server_result, |wire| {
            both.server.read_tls(wire).unwrap();
            both.server.process_new_packets().map(drop)
        });
        let mut wire = Vec::new();
        while both.server.wants_write() {
            both.server.write_tls(&mut wire).unwrap();
        }
        read_all(&wire, &mut both.client_result, |wire| {
            both.client.read_tls(wire).unwrap();
            both.client.process_new_packets().map(drop)
        });
    }
    both
}

fn read_all(
    wire: &[u8],
    result: &mut Result<(), rustls::Error>,
    mut read: impl FnMut(&mut Cursor<&[u8]>) -> Result<(), rustls::Error>,
) {
    let mut wire = Cursor::new(wire);
    while result.is_ok() && wire.position() < wire.get_ref().len() as u64 {
        *result = read(&mut wire);
    }
}

/// Some certificate as PEM text.
pub fn any_root_pem() -> String {
    super::fake_ca::INSECURE_DEMO_ROOT.to_owned()
}
