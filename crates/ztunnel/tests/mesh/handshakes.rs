//! Clients that stop anywhere in the handshake, and what is left of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use testkit::apps::{connect, http_get, serve_http};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{DEADLINE, Governed, Outcome, at, eventually};

const HBONE: u16 = 15008;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Who the client is.
const CLIENT: &str = "spiffe://cluster.local/ns/legacy/sa/old";

/// Verifies nothing: it is the server that is tested here.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client of HBONE with a certificate of the mesh.
fn client(governed: &Governed) -> Outcome<Arc<ClientConfig>> {
    let (certificate, key) = governed.istiod.signer().workload(CLIENT)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(vec![certificate], key.into())?;
    config.dangerous().set_certificate_verifier(Arc::new(Anybody(provider)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Shakes hands until `bytes` have been sent and says no more; `None` if the handshake is complete before.
fn stop_after(pod: &Pod, server: SocketAddr, config: &Arc<ClientConfig>, bytes: usize) -> Outcome<Option<TcpStream>> {
    let mut socket = connect(pod, server)?;
    socket.set_read_timeout(Some(2 * DEADLINE))?;
    let mut tls = ClientConnection::new(config.clone(), ServerName::try_from("server")?)?;
    let mut left = bytes;
    loop {
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        let said = flight.len().min(left);
        socket.write_all(&flight[..said])?;
        left -= said;
        if said < flight.len() || left == 0 {
            return Ok(Some(socket));
        }
        if !tls.is_handshaking() {
            return Ok(None);
        }
        tls.read_tls(&mut socket)?;
        tls.process_new_packets()?;
    }
}

/// Reads what there is until the other side has ended it.
fn is_cut_off(mut socket: TcpStream) -> Outcome {
    match socket.read_to_end(&mut Vec::new()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub fn tests() -> Vec<Test> {
    vec![test("a client that stops at any byte of the handshake is cut off, and nothing is left of it", || {
        let governed = Governed::start(DAY, &[])?;
        let Governed { mesh, istiod } = &governed;
        let _app = serve_http(&mesh.server, 8080)?;
        assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok());
        let (config, server) = (client(&governed)?, at(&mesh.server, HBONE));
        let (descriptors, asked) = (mesh.zt_b.open_fds()?, istiod.tally().requests);
        let mut stalled = Vec::new();
        while let Some(socket) = stop_after(&mesh.outside_a, server, &config, stalled.len())? {
            stalled.push(socket);
        }
        assert!(stalled.len() > 500, "{} bytes are no mutual handshake", stalled.len());
        assert!(http_get(&mesh.client, at(&mesh.server, 8080)).is_ok(), "others are served meanwhile");
        for socket in stalled {
            is_cut_off(socket)?;
        }
        eventually("its descriptors are free again", || mesh.zt_b.open_fds().is_ok_and(|open| open <= descriptors))?;
        assert_eq!(istiod.tally().requests, asked, "the CA had nothing to do with it");
        Ok(())
    })]
}
