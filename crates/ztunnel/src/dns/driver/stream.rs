//! Queries over TCP (RFC 7766): several at a time on one connection, answered as they come.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use super::{LONGEST_QUERY, Open, Pod, Taken, later};
use crate::dns::counts::Transport;
use crate::net::listen::{Acceptor, Arrival};
use crate::net::original_dst::original_destination;

/// Connections of one pod; more are closed as they come. Resolvers use one, for a moment.
const MOST_CONNECTIONS: usize = 128;
/// Queries of one connection that are answered at a time; the next is read when one has been.
const MOST_AT_A_TIME: usize = 32;
/// How long a connection may be silent between queries (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long a query may take to arrive once it has begun, and an answer to be taken.
const FRAME: Duration = Duration::from_secs(5);

pub(super) async fn serve(pod: Arc<Pod>, mut acceptor: Acceptor) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let arrival = acceptor.next().await;
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let pod = Arc::clone(&pod);
        let connection = async move {
            converse(pod, arrival).await;
            drop(permit);
        };
        connections.spawn(connection.in_current_span());
    }
}

async fn converse(pod: Arc<Pod>, arrival: Arrival) {
    let target = original_destination(&arrival.socket, arrival.local);
    let addressed = Some(target).filter(|target| *target != arrival.local);
    let Ok(stream) = TcpStream::from_std(arrival.socket) else { return };
    let (mut input, output) = stream.into_split();
    let (answers, queue) = mpsc::channel(MOST_AT_A_TIME);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(output, queue));
    let room = Arc::new(Semaphore::new(MOST_AT_A_TIME));
    // Room is taken before a query is read and given back when its answer has been queued, so that the queue never
    // overflows but by what is already written.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while tasks.try_join_next().is_some() {}
        let Some(message) = read(&mut input).await else { break };
        let (taken, answer) = {
            let mut desk = pod.desk();
            let taken = pod.take(&mut desk, &message, Transport::Tcp);
            let answer = matches!(taken, Taken::Answered).then(|| framed(&desk.answers.out));
            (taken, answer)
        };
        match taken {
            // Whoever sends what is no query knows no end of it either.
            Taken::Ignored => break,
            Taken::Answered => {
                let Some(answer) = answer else { break };
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
            Taken::Open(query, open) => {
                let transport = Transport::Tcp;
                let one = Open { message: message.into(), query, transport, addressed, _permit: open };
                let (pod, answers) = (Arc::clone(&pod), answers.clone());
                let task = async move {
                    let (sent, mut waiting) = mpsc::channel(1);
                    let find = async move { later::answer(&pod, &one, move |m| drop(sent.try_send(framed(m)))).await };
                    let pass = async {
                        if let Some(answer) = waiting.recv().await {
                            let _ = answers.send(answer).await; // a connection that is gone needs none
                        }
                        drop(permit);
                    };
                    tokio::join!(find, pass);
                };
                tasks.spawn(task.in_current_span());
            }
        }
    }
    // The client has said all that it will: what it waits for still comes.
    drop(answers);
    while tasks.join_next().await.is_some() {}
}

/// The next query; `None` at the end, and for what does not come in time.
async fn read(input: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    let first = timeout(IDLE, input.read(&mut length[..1])).await.ok()?.ok()?;
    let rest = async {
        if first == 0 {
            return None;
        }
        input.read_exact(&mut length[1..]).await.ok()?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > LONGEST_QUERY {
            return None;
        }
        let mut message = vec![0; length];
        input.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    timeout(FRAME, rest).await.ok()?
}

async fn write(mut output: OwnedWriteHalf, mut answers: mpsc::Receiver<Vec<u8>>) {
    while let Some(answer) = answers.recv().await {
        match timeout(FRAME, output.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message.get(..length.into()).unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// What comes of a frame of that length whose bytes come one by one with a pause between, and after how long.
    async fn trickled(length: u16, pause: Duration) -> (Option<usize>, Duration) {
        let (mut client, mut server) = duplex(1);
        let frame = [&length.to_be_bytes()[..], &vec![b'x'; length.into()]].concat();
        let client = tokio::spawn(async move {
            for byte in frame {
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        });
        let begun = Instant::now();
        let read = read(&mut server).await.map(|message| message.len());
        client.abort();
        (read, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_may_come_byte_by_byte_but_not_for_ever() {
        assert_eq!(trickled(40, Duration::from_millis(100)).await.0, Some(40));
        let (read, after) = trickled(400, Duration::from_millis(100)).await;
        assert_eq!((read, after.as_secs()), (None, FRAME.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_longer_than_any_query_is_not_waited_for() {
        let (read, after) = trickled(u16::MAX, Duration::from_millis(100)).await;
        assert_eq!((read, after.as_secs()), (None, 0));
    }
}
