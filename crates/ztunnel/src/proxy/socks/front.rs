//! What a client waits to be told, before bytes flow or instead of them.

use std::io::Write;
use std::net::TcpStream as AppSocket;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Reply;
use crate::net::options::end_in_order;
use crate::proxy::{copy, driver};

/// How a connection out of a pod was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Front {
    /// It was captured: the client takes it for connected and is told nothing.
    Captured,
    /// By SOCKS5.
    Socks,
}

impl Front {
    /// The next hop has answered. To be called once, before any byte of it goes to the client.
    pub(in crate::proxy) fn welcome(self, mut app: &AppSocket) {
        if self == Self::Socks {
            // A few bytes into a buffer in which there were two; a client that has left shows when bytes are to flow.
            let _ = app.write(&Reply::Succeeded.bytes());
        }
    }

    /// There will be no connection. A captured client sees a reset.
    pub(in crate::proxy) fn turn_away(self, app: AppSocket, reply: Reply) {
        if self == Self::Socks
            && let Ok(app) = TcpStream::from_std(app)
        {
            driver::detach(close(app, reply.bytes().to_vec()));
        }
    }
}

/// Says something last. What the client has sent ahead must not turn the end into a reset that overtakes it.
pub(super) async fn close(mut app: TcpStream, last: Vec<u8>) {
    if app.write_all(&last).await.is_ok() {
        end_in_order(&app);
        let _ = app.shutdown().await;
        copy::linger(app).await;
    }
}
