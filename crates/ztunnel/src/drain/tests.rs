use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_graceful_drain_is_complete_when_the_last_watcher_is_dropped() {
    let (trigger, mut watcher) = channel();
    let (kept, mut dropped) = (watcher.clone(), trigger.watcher());
    let drain = tokio::spawn(trigger.drain(Mode::Graceful(DEADLINE)));
    assert_eq!(watcher.begun().await, Notice::Finish);
    assert_eq!(dropped.begun().await, Notice::Finish);
    drop((watcher, dropped));
    tokio::time::advance(DEADLINE - Duration::from_millis(1)).await;
    assert!(!drain.is_finished());
    drop(kept);
    assert_eq!(drain.await.unwrap(), Drained::Complete);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_by_the_deadline_is_cut() {
    let (trigger, mut watcher) = channel();
    let begin = tokio::time::Instant::now();
    let drain = tokio::spawn(trigger.drain(Mode::Graceful(DEADLINE)));
    assert_eq!(watcher.begun().await, Notice::Finish);
    watcher.cut().await;
    assert_eq!(begin.elapsed(), DEADLINE);
    drop(watcher);
    assert_eq!(drain.await.unwrap(), Drained::Cut);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_drain_never_says_finish() {
    let (trigger, mut watcher) = channel();
    let drain = tokio::spawn(trigger.drain(Mode::Immediate));
    assert_eq!(watcher.begun().await, Notice::Cut);
    watcher.cut().await;
    drop(watcher);
    assert_eq!(drain.await.unwrap(), Drained::Complete);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_hold_a_drain_up_for_ever() {
    let (trigger, _watcher) = channel();
    let begin = tokio::time::Instant::now();
    assert_eq!(trigger.drain(Mode::Graceful(DEADLINE)).await, Drained::Abandoned);
    assert_eq!(begin.elapsed(), DEADLINE + FORCED_END);
}

#[tokio::test]
async fn a_drain_without_watchers_is_complete_at_once() {
    let (trigger, watcher) = channel();
    drop(watcher);
    assert_eq!(trigger.drain(Mode::Graceful(DEADLINE)).await, Drained::Complete);
}

#[tokio::test]
async fn a_dropped_trigger_means_at_once() {
    let (trigger, mut watcher) = channel();
    drop(trigger);
    assert_eq!(watcher.begun().await, Notice::Cut);
    watcher.cut().await;
}

#[tokio::test]
async fn who_looks_late_is_told_too() {
    let (trigger, watcher) = channel();
    let drain = tokio::spawn(trigger.drain(Mode::Graceful(DEADLINE)));
    let mut early = watcher.clone();
    early.begun().await;
    assert_eq!(watcher.clone().begun().await, Notice::Finish);
    drop((early, watcher));
    assert_eq!(drain.await.unwrap(), Drained::Complete);
}
