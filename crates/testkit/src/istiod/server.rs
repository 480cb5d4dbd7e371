//! Connections: TLS, HTTP/2, and which service a call is for.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use istio_api::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use super::{Behaviour, Shared, ads, ca, server_names};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Takes connections until the runtime ends.
pub(super) async fn serve(shared: Arc<Shared>, listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        if !shared.behaviour.borrow().up {
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)); // a reset
            continue;
        }
        tokio::spawn(connection(shared.clone(), socket));
    }
}

/// Serves a connection until it ends or istiod goes down.
async fn connection(shared: Arc<Shared>, socket: TcpStream) {
    let mut behaviour = shared.behaviour.subscribe();
    let now = behaviour.borrow().clone();
    let served = async {
        let address = socket.local_addr().ok()?.ip();
        let config = tls(&now, address)?;
        let accepted = timeout(HANDSHAKE, TlsAcceptor::from(Arc::new(config)).accept(socket)).await;
        let io = TokioIo::new(accepted.ok()?.ok()?);
        let service = TowerToHyperService::new(Services {
            discovery: ads::Discovery(shared.clone()),
            ca: IstioCertificateServiceServer::new(ca::Ca(shared.clone())),
        });
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await.ok()
    };
    let down = async {
        if behaviour.wait_for(|now| !now.up).await.is_err() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        _ = served => {}
        () = down => {}
    }
}

fn tls(behaviour: &Behaviour, address: std::net::IpAddr) -> Option<ServerConfig> {
    let (certificate, key) = behaviour.signer.server(server_names(behaviour, address)).ok()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .ok()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(config)
}

/// Both services behind one port.
#[derive(Clone)]
struct Services {
    discovery: ads::Discovery,
    ca: IstioCertificateServiceServer<ca::Ca>,
}

impl Service<Request<hyper::body::Incoming>> for Services {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let request = request.map(tonic::body::Body::new);
        if request.uri().path().starts_with("/istio.v1.auth.") {
            self.ca.call(request)
        } else {
            let discovery = self.discovery.clone();
            Box::pin(async move { Ok(discovery.call(request).await) })
        }
    }
}
