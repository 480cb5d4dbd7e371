//! Connects, and keeps the connection alive.
//!
//! TCP, TLS and HTTP/2 in turn, each with its deadline. The connection runs in a task of its own and ends when the last
//! [`Channel`] to it is gone.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri};

use super::{Address, CONNECT_TIMEOUT, Config, ConnectError, HANDSHAKE_TIMEOUT, TokenError, tls};
use crate::files::Stamp;

/// Keepalive of TCP (spec wire-protocols 6.1): idle time, time between probes, number of probes.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(300), Duration::from_secs(75), 9);
/// Keepalive of HTTP/2 while a call is open (spec wire-protocols 6.1): time between pings, time to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// What the server may send ahead: a large push should not wait for us every 64 KiB.
const WINDOW: u32 = 4 * 1024 * 1024;

/// Makes connections to one address.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<Config>,
}

/// A connection that calls can be made on. Clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    send: http2::SendRequest<Body>,
    config: Arc<Config>,
    /// What the roots looked like when it was made.
    roots: Option<Stamp>,
}

impl Connector {
    /// For the address of `config`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// A new connection, verified with the roots of this moment.
    ///
    /// # Errors
    /// [`ConnectError`], at the latest after [`CONNECT_TIMEOUT`] and twice [`HANDSHAKE_TIMEOUT`].
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        let roots = self.config.watched().map(|path| Stamp::of(&path));
        let send = match &self.config.address {
            Address::Unix(path) => {
                let socket = self.bounded("connecting", CONNECT_TIMEOUT, UnixStream::connect(path)).await?;
                self.speak_http(socket.map_err(|source| self.refused(source))?).await?
            }
            Address::Tls { host, port, .. } => {
                let tls = self.tls_config()?;
                let socket =
                    self.bounded("connecting", CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port))).await?;
                let socket = socket.and_then(keep_alive).map_err(|source| self.refused(source))?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| self.refused(io::Error::other("the host is no name that a certificate can prove")))?;
                let secure = TlsConnector::from(Arc::new(tls)).connect(name, socket);
                let secure = self.bounded("the TLS handshake", HANDSHAKE_TIMEOUT, secure).await?;
                let address = || self.config.address.to_string();
                self.speak_http(secure.map_err(|source| ConnectError::Tls { address: address(), source })?).await?
            }
        };
        Ok(Channel { send, config: Arc::clone(&self.config), roots })
    }

    fn tls_config(&self) -> Result<rustls::ClientConfig, ConnectError> {
        let also =
            self.config.alternative_name.as_ref().map(|name| {
                ServerName::try_from(name.clone()).map_err(|_| ConnectError::AlternativeName(name.clone()))
            });
        Ok(tls::client(&self.config.crypto, &self.config.roots, also.transpose()?)?)
    }

    async fn speak_http<T>(&self, io: T) -> Result<http2::SendRequest<Body>, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let made = self.bounded("the HTTP/2 handshake", HANDSHAKE_TIMEOUT, http.handshake(TokioIo::new(io))).await?;
        let address = || self.config.address.to_string();
        let (send, connection) = made.map_err(|source| ConnectError::Http { address: address(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the control plane ended");
            }
        });
        Ok(send)
    }

    async fn bounded<T>(
        &self,
        step: &'static str,
        after: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        let late = || ConnectError::Late { address: self.config.address.to_string(), step, after };
        timeout(after, work).await.map_err(|_| late())
    }

    fn refused(&self, source: io::Error) -> ConnectError {
        ConnectError::Connect { address: self.config.address.to_string(), source }
    }
}

impl Channel {
    /// A request with everything that has to go with it: the token as it is now.
    ///
    /// # Errors
    /// [`TokenError`], which says what to mend.
    pub fn request<T>(&self, message: T) -> Result<tonic::Request<T>, TokenError> {
        let mut request = tonic::Request::new(message);
        self.config.credentials.add_to(request.metadata_mut())?;
        Ok(request)
    }

    /// Scheme and authority of requests.
    #[must_use]
    pub fn origin(&self) -> Uri {
        self.config.address.origin()
    }

    /// Whether another connection should be made: this one has ended, or the roots it was verified with have changed.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.send.is_closed() || self.config.watched().map(|path| Stamp::of(&path)) != self.roots
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

fn keep_alive(socket: TcpStream) -> io::Result<TcpStream> {
    let (time, interval, retries) = TCP_KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
