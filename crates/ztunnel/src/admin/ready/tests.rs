use super::*;
use crate::telemetry::fixtures::{log, logged};

#[test]
fn it_is_ready_when_all_tasks_are_done_and_as_long_as_they_stay_so() {
    let ready = Ready::default();
    let state = ready.task(TaskName::StateManager);
    let pods = ready.task(TaskName::WorkloadProxyManager);
    assert_eq!(ready.readiness(), Readiness::Pending(vec![TaskName::StateManager, TaskName::WorkloadProxyManager]));
    pods.done();
    assert_eq!(ready.readiness(), Readiness::Pending(vec![TaskName::StateManager]));
    state.done();
    assert_eq!(ready.readiness(), Readiness::Ready);
    pods.pending();
    assert_eq!(ready.readiness(), Readiness::Pending(vec![TaskName::WorkloadProxyManager]));
    pods.done();
    ready.drain();
    assert_eq!(ready.readiness(), Readiness::Draining);
}

#[test]
fn a_task_that_is_given_up_stays_pending() {
    let ready = Ready::default();
    drop(ready.task(TaskName::Proxy));
    assert_eq!(ready.readiness(), Readiness::Pending(vec![TaskName::Proxy]));
}

#[test]
fn names_are_in_alphabetical_order() {
    let all = [TaskName::DnsProxy, TaskName::Proxy, TaskName::StateManager, TaskName::WorkloadProxyManager];
    assert!(all.is_sorted() && all.map(TaskName::as_str).is_sorted());
}

#[test]
fn each_completion_is_logged_once() {
    let (logging, output) = log(Default::default());
    tracing::subscriber::with_default(logging.subscriber(), || {
        let ready = Ready::default();
        let [state, proxy] = [TaskName::StateManager, TaskName::Proxy].map(|name| ready.task(name));
        state.done();
        state.done();
        proxy.done();
    });
    let text = logged(&logging, &output);
    let lines: Vec<_> = text.lines().map(|line| line.split('\t').nth(3).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("Task 'state manager' complete ("), "{text}");
    assert!(lines[0].ends_with("), still awaiting 1 tasks"), "{text}");
    assert!(lines[1].starts_with("Task 'proxy' complete (") && lines[1].ends_with("), marking server ready"), "{text}");
}
