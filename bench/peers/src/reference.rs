//! A node proxy as a good engineer conventionally builds one, and what ztunnel is compared with: a multi-thread tokio
//! runtime, tokio-rustls, the `h2` crate, one task per connection.
//!
//! It speaks HBONE with certificates of the mesh's demonstration CA, so that it may also stand at one end of a tunnel
//! whose other end is a ztunnel. It has no policies, no telemetry, no services: everything it leaves out is work saved.

mod copy;
mod inbound;
mod outbound;
mod tls;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use socket2::Socket;
use tokio::net::{TcpListener, TcpStream};

use crate::authority;
use crate::sockets::{OUTBOUND_PORT, TUNNEL_PORT, dial, listen};

/// Windows and frames are those of the existing ztunnel.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 1 << 20;
/// Read at once from a tunnel: rustls by itself reads 4 KiB at a time.
const TLS_READ: usize = 64 * 1024;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Destinations outside the mesh.
    pub plain: Vec<Ipv4Addr>,
    /// Connections that share a tunnel at the most.
    pub streams_per_tunnel: usize,
}

/// Serves the pod for ever.
///
/// # Errors
/// No certificate, or no listener.
pub async fn serve(identity: &str, settings: Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    let credentials = authority::issue(identity)?;
    let (client, server) = (tls::client(&credentials)?, tls::server(&credentials)?);
    let outbound = TcpListener::from_std(listen(OUTBOUND_PORT)?)?;
    let inbound = TcpListener::from_std(listen(TUNNEL_PORT)?)?;
    let pool = Arc::new(outbound::Pool::new(client, settings));
    tokio::spawn(outbound::accept(outbound, pool));
    inbound::accept(inbound, server).await;
    Ok(())
}

/// Connects from `source`, if the client's address shall be kept.
async fn connect(destination: SocketAddrV4, source: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let socket: Socket = dial(destination, source)?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}
