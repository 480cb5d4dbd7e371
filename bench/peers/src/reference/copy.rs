//! Copying between an app's socket and a stream of HTTP/2, which is given credit as its bytes are written.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Read at once from an app.
const CHUNK: usize = 64 * 1024;

/// Copies until both directions have ended, or one has failed.
pub(super) async fn copy(app: TcpStream, send: SendStream<Bytes>, receive: RecvStream) -> io::Result<()> {
    let (reader, writer) = app.into_split();
    tokio::try_join!(to_stream(reader, send), to_app(receive, writer)).map(|_| ())
}

async fn to_stream(app: OwnedReadHalf, mut stream: SendStream<Bytes>) -> io::Result<()> {
    loop {
        app.readable().await?;
        // Taken only once there is something to read, so that an idle connection holds none.
        let mut buffer = BytesMut::with_capacity(CHUNK);
        match app.try_read_buf(&mut buffer) {
            Ok(0) => return stream.send_data(Bytes::new(), true).map_err(io::Error::other),
            Ok(_) => send(&mut stream, buffer.freeze()).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                stream.send_reset(h2::Reason::CANCEL);
                return Err(error);
            }
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> io::Result<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => match poll_fn(|context| stream.poll_capacity(context)).await {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            },
            room => room,
        };
        stream.send_data(data.split_to(room.min(data.len())), false).map_err(io::Error::other)?;
    }
    Ok(())
}

async fn to_app(mut stream: RecvStream, mut app: OwnedWriteHalf) -> io::Result<()> {
    while let Some(data) = stream.data().await {
        let data = data.map_err(io::Error::other)?;
        app.write_all(&data).await?;
        stream.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
    }
    app.shutdown().await
}
