//! Several addresses of one host: the first that answers is it (RFC 8305 §5).
//!
//! The next address is tried when the one before has failed, or has not answered for a moment; those that were tried go on
//! meanwhile. Pure but for the time.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::timeout;

/// How long an address may be silent before the next is tried as well ("connection attempt delay", RFC 8305 §8).
const NEXT_AFTER: Duration = Duration::from_millis(250);

type Attempt<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// What `connect` comes to first at any of `addresses`, of which there is at least one.
///
/// # Errors
/// That of one of the last to fail, if all do.
pub(super) fn first<'a, T, F>(
    addresses: &'a [SocketAddr],
    connect: &'a (impl Fn(SocketAddr) -> F + Sync),
) -> Attempt<'a, T>
where
    T: Send + 'a,
    F: Future<Output = io::Result<T>> + Send + 'a,
{
    Box::pin(async move {
        let Some((address, rest)) = addresses.split_first() else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address"));
        };
        let mut own = pin!(connect(*address));
        if rest.is_empty() {
            return own.await;
        }
        match timeout(NEXT_AFTER, &mut own).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "trying the next address");
                return first(rest, connect).await;
            }
            Err(_) => {}
        }
        let mut others = first(rest, connect);
        tokio::select! {
            outcome = &mut own => match outcome {
                Ok(connected) => Ok(connected),
                Err(_) => others.await,
            },
            outcome = &mut others => match outcome {
                Ok(connected) => Ok(connected),
                Err(_) => own.await,
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What an address does: after how many milliseconds, and whether it answers then.
    type Plan = [(u64, bool)];

    /// Which address it was, after how long, and when each was tried.
    async fn race(plan: &Plan) -> (Result<u16, ()>, u128, Vec<u128>) {
        let addresses: Vec<SocketAddr> = (0..plan.len()).map(|n| ([192, 0, 2, 1], n as u16).into()).collect();
        let (begun, tried) = (Instant::now(), Mutex::new(Vec::new()));
        let connect = |address: SocketAddr| {
            tried.lock().unwrap().push(begun.elapsed().as_millis());
            let (after, answers) = plan[usize::from(address.port())];
            async move {
                sleep(Duration::from_millis(after)).await;
                if answers { Ok(address.port()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        };
        let outcome = first(&addresses, &connect).await.map_err(|_| ());
        let took = begun.elapsed().as_millis();
        (outcome, took, tried.into_inner().unwrap())
    }

    const NEVER: (u64, bool) = (1_000_000, false);

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_after_a_moment_of_silence() {
        assert_eq!(race(&[(10, true), (10, true)]).await, (Ok(0), 10, vec![0]));
        assert_eq!(race(&[NEVER, (10, true)]).await, (Ok(1), 260, vec![0, 250]));
        assert_eq!(race(&[NEVER, NEVER, (10, true), NEVER]).await, (Ok(2), 510, vec![0, 250, 500]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_brings_the_next_one_at_once() {
        assert_eq!(race(&[(10, false), (10, true)]).await, (Ok(1), 20, vec![0, 10]));
        assert_eq!(race(&[(10, false), (10, false), (10, true)]).await, (Ok(2), 30, vec![0, 10, 20]));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_may_still_win() {
        assert_eq!(race(&[(300, true), NEVER]).await, (Ok(0), 300, vec![0, 250]));
        assert_eq!(race(&[(300, true), (10, false)]).await, (Ok(0), 300, vec![0, 250]));
        assert_eq!(race(&[(300, false), (100, true)]).await, (Ok(1), 350, vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_when_all_have() {
        assert_eq!(race(&[(10, false), (400, false), (10, false)]).await.0, Err(()));
        assert_eq!(race(&[]).await.0, Err(()));
    }
}
