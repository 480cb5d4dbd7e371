use rustix::process::{Signal as Kind, getpid, kill_process};

use super::*;

/// One test, since a signal reaches everybody in the process who waits for it.
#[tokio::test]
async fn signals_and_requests_end_the_process_and_a_second_interrupt_insists() {
    let request = Request::default();
    let mut signals = Signals::watch().unwrap();
    request.clone().ask();
    assert_eq!(signals.reason(&request).await, Reason::Requested);

    kill_process(getpid(), Kind::TERM).unwrap();
    assert_eq!(signals.reason(&request).await, Reason::Terminated);

    kill_process(getpid(), Kind::INT).unwrap();
    assert_eq!(signals.reason(&request).await, Reason::Interrupted);
    let (once, twice) = (&mut Box::pin(signals.insisted()), Kind::INT);
    assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut *once).await.is_err(), "one is not two");
    kill_process(getpid(), twice).unwrap();
    once.await;
}
