//! Tunnels that reach the pod: one task per tunnel, one per request in it.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW, TLS_READ, connect, copy::copy};

/// Streams that a peer may have open at once in a tunnel.
const STREAMS: u32 = 1000;

pub(super) async fn accept(listener: TcpListener, config: Arc<rustls::ServerConfig>) {
    let acceptor = TlsAcceptor::from(config);
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, acceptor.clone()));
        }
    }
}

/// A tunnel, from handshake to end; what goes wrong ends it.
async fn serve(socket: TcpStream, acceptor: TlsAcceptor) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let client = socket.peer_addr().ok()?.ip();
    let tls = acceptor.accept(BufReader::with_capacity(TLS_READ, socket)).await.ok()?;
    let mut tunnel = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .handshake(tls)
        .await
        .ok()?;
    while let Some(Ok((request, respond))) = tunnel.accept().await {
        tokio::spawn(answer(request, respond, client));
    }
    Some(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, client: IpAddr) -> Option<()> {
    let (head, receive) = request.into_parts();
    let destination: Option<SocketAddrV4> = head.uri.authority().and_then(|authority| authority.as_str().parse().ok());
    let destination = destination.filter(|_| head.method == Method::CONNECT);
    let source = match client {
        IpAddr::V4(client) => Some(client),
        IpAddr::V6(_) => None,
    };
    let app = match destination {
        Some(destination) => connect(destination, source).await,
        None => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    let mut response = Response::new(());
    match app {
        Ok(app) => {
            let send = respond.send_response(response, false).ok()?;
            copy(app, send, receive).await.ok()
        }
        Err(_) => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            respond.send_response(response, true).ok().map(drop)
        }
    }
}
