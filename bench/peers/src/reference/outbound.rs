//! Connections that leave the pod: one task each; tunnels are shared and dialled when they are first needed.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW, Settings, TLS_READ, connect, copy::copy};
use crate::sockets::{TUNNEL_PORT, original_destination};

/// The tunnels of the pod.
pub(super) struct Pool {
    connector: TlsConnector,
    settings: Settings,
    /// Tunnels by destination; each list is locked while one is dialled, so that a burst dials no more than it needs.
    tunnels: Lock<HashMap<Ipv4Addr, Arc<Mutex<Vec<Tunnel>>>>>,
}

struct Tunnel {
    requests: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
}

/// A place in a tunnel, given back when dropped.
struct Place {
    streams: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn accept(listener: TcpListener, pool: Arc<Pool>) {
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            let pool = pool.clone();
            // A connection that fails is closed; its client notices.
            tokio::spawn(async move { pool.carry(socket).await });
        }
    }
}

impl Pool {
    pub(super) fn new(config: Arc<rustls::ClientConfig>, settings: Settings) -> Self {
        Self { connector: config.into(), settings, tunnels: Lock::default() }
    }

    async fn carry(&self, mut app: TcpStream) -> io::Result<()> {
        app.set_nodelay(true)?;
        let destination = original_destination(&app)?;
        if self.settings.plain.contains(destination.ip()) {
            let mut server = connect(destination, None).await?;
            tokio::io::copy_bidirectional_with_sizes(&mut app, &mut server, PLAIN_BUFFER, PLAIN_BUFFER).await?;
            return Ok(());
        }
        let (requests, _place) = self.tunnel(*destination.ip()).await?;
        let mut requests = requests.ready().await.map_err(io::Error::other)?;
        let request = Request::builder().method(Method::CONNECT).uri(destination.to_string()).body(());
        let (response, send) =
            requests.send_request(request.map_err(io::Error::other)?, false).map_err(io::Error::other)?;
        // Streams keep their tunnel open, not the handle that made them.
        drop(requests);
        let response = response.await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        copy(app, send, response.into_body()).await
    }

    async fn tunnel(&self, pod: Ipv4Addr) -> io::Result<(SendRequest<Bytes>, Place)> {
        let to_pod = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).entry(pod).or_default().clone();
        let mut tunnels = to_pod.lock().await;
        let free = |tunnel: &&Tunnel| tunnel.streams.load(Ordering::Relaxed) < self.settings.streams_per_tunnel;
        if let Some(tunnel) = tunnels.iter().find(free) {
            return Ok(tunnel.place());
        }
        let socket = connect(SocketAddrV4::new(pod, TUNNEL_PORT), None).await?;
        let socket = BufReader::with_capacity(TLS_READ, socket);
        let tls = self.connector.connect(ServerName::IpAddress(pod.into()), socket).await?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .enable_push(false)
            .handshake(tls)
            .await
            .map_err(io::Error::other)?;
        let streams = Arc::new(AtomicUsize::new(0));
        let (list, number) = (to_pod.clone(), Arc::downgrade(&streams));
        tokio::spawn(async move {
            let _ = connection.await;
            list.lock().await.retain(|tunnel| !std::ptr::eq(Arc::as_ptr(&tunnel.streams), number.as_ptr()));
        });
        tunnels.push(Tunnel { requests, streams });
        Ok(tunnels[tunnels.len() - 1].place())
    }
}

/// Per direction of a plain connection.
const PLAIN_BUFFER: usize = 64 * 1024;

impl Tunnel {
    fn place(&self) -> (SendRequest<Bytes>, Place) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        (self.requests.clone(), Place { streams: self.streams.clone() })
    }
}
