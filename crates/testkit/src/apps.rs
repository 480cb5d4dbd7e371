//! Small applications in pods: an echo server, a web server that tells what it saw, and their clients.
//!
//! Sockets are made in the pod's network; the threads that serve them need not be there. Servers record their peers
//! and stop when dropped. They are for tests: one thread per connection, and no more HTTP than that takes.

mod http;
mod names;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::mesh::{Families, Pod};
use crate::netns::NetNs;
pub use http::Response;
pub use names::resolve;

/// For connecting and for every read and write of a client: a mesh that needs longer is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Peers that are recorded.
const RECORDED: usize = 100_000;

/// A running server; dropped, it accepts no more. Connections last as long as their clients want.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Server {
    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The far ends of the connections that it accepted, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(
        pod: &Pod,
        port: u16,
        serve: impl Fn(TcpStream, SocketAddr) + Clone + Send + 'static,
    ) -> io::Result<Server> {
        let families = if pod.ips().len() > 1 { Families::Dual } else { Families::Ipv4 };
        let any: IpAddr = match families {
            Families::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Families::Dual => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listener = pod.run(|| TcpListener::bind((any, port)))??;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (accepting, record) = (listener.try_clone()?, seen.clone());
        std::thread::Builder::new().name("app".to_owned()).spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let mut seen = record.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() < RECORDED {
                    seen.push(peer);
                }
                drop(seen);
                let serve = serve.clone();
                // Without a thread the connection is closed, which its client will notice.
                let _ = std::thread::Builder::new().spawn(move || serve(stream, peer));
            }
        })?;
        Ok(Server { listener, address: SocketAddr::new(pod.ip(), port), seen })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the accepting thread, which then ends.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// Serves at `port` of a pod (0: any) by sending back what comes, until the client has sent its last.
///
/// # Errors
/// The port cannot be had.
pub fn serve_echo(pod: &Pod, port: u16) -> io::Result<Server> {
    Server::start(pod, port, |mut stream, _| {
        if let Ok(mut output) = stream.try_clone() {
            let _ = io::copy(&mut stream, &mut output);
            let _ = output.shutdown(Shutdown::Write);
        }
    })
}

/// Serves HTTP/1.1 at `port` of a pod; answers tell the pod's name, the peer and the request line, a line each.
///
/// # Errors
/// The port cannot be had.
pub fn serve_http(pod: &Pod, port: u16) -> io::Result<Server> {
    let name: Arc<str> = pod.name().into();
    Server::start(pod, port, move |stream, peer| {
        // A connection that breaks off concerns only its client.
        let _ = http::serve(stream, |request| format!("pod: {name}\npeer: {peer}\nrequest: {request}\n"));
    })
}

/// Connects from a pod; reads and writes then have a deadline of [`PATIENCE`].
///
/// # Errors
/// As of the connection.
pub fn connect(from: &Pod, to: SocketAddr) -> io::Result<TcpStream> {
    connect_in(from.netns(), to)
}

/// Asks for `/` at `to`, from a pod.
///
/// # Errors
/// No connection, or no HTTP answer.
pub fn http_get(from: &Pod, to: SocketAddr) -> io::Result<Response> {
    get(from.netns(), to, "/")
}

/// Sends `bytes` from a pod, then the end, and returns all that comes back.
///
/// # Errors
/// No connection, or one that breaks off.
pub fn exchange(from: &Pod, to: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(from, to)?;
    let mut sender = stream.try_clone()?;
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || sender.write_all(bytes).and_then(|()| sender.shutdown(Shutdown::Write)));
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(received)
    })
}

/// Asks for `path` at `to` from anywhere.
///
/// # Errors
/// No connection, or no HTTP answer.
pub fn get(from: &NetNs, to: SocketAddr, path: &str) -> io::Result<Response> {
    http::get(connect_in(from, to)?, to, path)
}

fn connect_in(netns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = netns.run(|| TcpStream::connect_timeout(&to, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
