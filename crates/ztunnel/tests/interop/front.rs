//! A TLS front: plain TCP in, mutual TLS with a mesh identity out. For clients that cannot present a certificate.
//!
//! One connection in is one connection out. Whatever the far end sends before it closes reaches the client, who may
//! still be sending then: its bytes are thrown away, lest they become a reset. What a client writes in short order is
//! sent on together, so that whether a request is answered before the next frame has arrived is no matter of luck.
//! A front lives as long as the program.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use testkit::mesh::Pod;
use testkit::netns::NetNs;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::Outcome;

/// Starts a front on the loopback of `pod` that connects to `target`; returns its port.
pub fn start(pod: &Pod, target: SocketAddr, tls: Arc<ClientConfig>) -> Outcome<u16> {
    let listener = pod.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    let port = listener.local_addr()?.port();
    let (netns, connector) = (pod.netns().clone(), TlsConnector::from(tls));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("front".to_owned()).spawn(move || {
        let tasks = tokio::task::LocalSet::new();
        runtime.block_on(tasks.run_until(async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (plain, _) = listener.accept().await?;
                // Where the far end refuses, the client sees its connection end, which is what it tests for.
                tokio::task::spawn_local(relay(plain, netns.clone(), target, connector.clone()));
            }
            #[expect(unreachable_code, reason = "names the error type")]
            std::io::Result::Ok(())
        }))
    })?;
    Ok(port)
}

/// Pause of the client after which what it has written is sent on. A client under test is waiting for an answer then.
const GATHERED_FOR: Duration = Duration::from_millis(40);
/// Most that is gathered; far more than a test case writes at once.
const MOST_GATHERED: usize = 1 << 20;

/// Copies what comes, many writes at a time.
async fn gather(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut gathered = Vec::new();
    while from.read_buf(&mut gathered).await? > 0 {
        while gathered.len() < MOST_GATHERED
            && let Ok(more) = timeout(GATHERED_FOR, from.read_buf(&mut gathered)).await
        {
            if more? == 0 {
                return to.write_all(&gathered).await;
            }
        }
        to.write_all(&gathered).await?;
        to.flush().await?;
        gathered.clear();
    }
    Ok(())
}

async fn relay(
    mut plain: tokio::net::TcpStream,
    netns: NetNs,
    target: SocketAddr,
    tls: TlsConnector,
) -> std::io::Result<()> {
    let far = netns.run(|| TcpStream::connect(target))??;
    far.set_nonblocking(true)?;
    let far = tokio::net::TcpStream::from_std(far)?;
    far.set_nodelay(true)?;
    plain.set_nodelay(true)?;
    let name = ServerName::IpAddress(target.ip().into());
    let (mut from_far, mut to_far) = tokio::io::split(tls.connect(name, far).await?);
    let (mut from_client, mut to_client) = plain.split();
    let up = async {
        if gather(&mut from_client, &mut to_far).await.is_err() {
            copy(&mut from_client, &mut sink()).await?;
        }
        to_far.shutdown().await
    };
    let down = async {
        // However the far end closes, what came before counts.
        let _ = copy(&mut from_far, &mut to_client).await;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}
