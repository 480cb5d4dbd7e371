//! Each test plays a node agent on a real socket. Where time matters its clock does not take any; everywhere else
//! nothing waits for longer than the first reconnects take.

mod fakes;

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use istio_api::zds::workload_request::Payload;
use istio_api::zds::{AddWorkload, SnapshotSent};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

use self::fakes::{Driven, Place, Told, add, keep, own_namespace, request};

/// So that a test which would wait for ever fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a clock that takes time.
fn play(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test waits for ever") });
}

/// Runs a test on a clock that jumps to the next deadline whenever everybody waits.
fn play_fast(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

/// A descriptor that is told from all others of this process by its name.
fn wrong(name: &str) -> OwnedFd {
    memfd_create(name, MemfdFlags::CLOEXEC).unwrap()
}

/// How many descriptors of this process have that name.
fn open_of(name: &str) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|to| to.to_string_lossy().contains(name))
        .count()
}

#[test]
fn pods_are_started_acknowledged_and_reported() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        assert_eq!(driven.told(), Told::default());
        assert_eq!(talk.add("a").await, "");
        assert_eq!(talk.add("b").await, "");
        assert_eq!(driven.so_far(), ["start a", "start b"]);
        assert!(!driven.told().ready, "the snapshot is not complete");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.told(), Told { ready: true, active: 2, started: 2, ..Told::default() });
        assert_eq!(talk.del("a").await, "");
        assert_eq!(driven.next().await, "cut a");
        assert_eq!(driven.told(), Told { ready: true, active: 1, started: 2, stopped: 1, ..Told::default() });
    });
}

#[test]
fn the_dump_tells_pods_that_run_from_pods_that_wait() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let driven = Driven::start(&place);
        driven.occupy("b");
        let talk = agent.accept().await;
        talk.add("a").await;
        talk.add("b").await;
        let info = |name| json!({ "name": name, "namespace": "ns", "serviceAccount": "sa" });
        let expected = json!({
            "a": { "state": "Up", "info": info("a"), "connections": { "inbound": [], "outbound": [] } },
            "b": { "state": "Pending", "info": info("b") },
        });
        assert_eq!(driven.states.dump(|_| json!({ "inbound": [], "outbound": [] })), expected);
        talk.del("b").await;
        assert_eq!(driven.states.dump(|_| json!(null)).as_object().unwrap().len(), 1);
    });
}

#[test]
fn a_namespace_is_let_go_with_its_pod_and_held_once() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let driven = Driven::start(&place);
        let talk = agent.accept().await;
        for _ in 0..3 {
            assert_eq!(talk.add("a").await, "");
        }
        assert_eq!(driven.namespaces_held(), 1);
        talk.del("a").await;
        assert_eq!(driven.namespaces_held(), 0);
    });
}

#[test]
fn a_pod_that_cannot_be_started_is_refused_and_tried_again_until_it_can() {
    play_fast(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        driven.occupy("a");
        let talk = agent.accept().await;
        assert_eq!(talk.add("a").await, "failure to start proxy : address already in use");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.next().await, "fail a");
        assert_eq!(driven.told(), Told { pending: 1, ..Told::default() });
        assert_eq!(driven.next().await, "fail a");
        assert!(!driven.told().ready);
        driven.free("a");
        let mut next = driven.next().await;
        if next == "fail a" {
            next = driven.next().await; // it was being tried
        }
        assert_eq!(next, "start a");
        driven.told.wait_for(|told| told.ready).await.unwrap();
        assert_eq!(driven.told(), Told { ready: true, active: 1, started: 1, ..Told::default() });
    });
}

#[test]
fn a_pod_that_is_deleted_while_it_waits_is_not_tried_again() {
    play_fast(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        for name in ["a", "b"] {
            driven.occupy(name);
        }
        let talk = agent.accept().await;
        talk.add("a").await;
        talk.snapshot_sent().await;
        assert_eq!(talk.del("a").await, "");
        assert!(driven.told().ready);
        driven.so_far();
        talk.add("b").await;
        assert_eq!([driven.next().await, driven.next().await, driven.next().await], ["fail b"; 3]);
    });
}

#[test]
fn a_pod_that_waits_is_tried_again_while_the_agent_is_away() {
    play_fast(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        driven.occupy("a");
        let talk = agent.accept().await;
        talk.add("a").await;
        drop((talk, agent));
        assert_eq!(driven.next().await, "fail a");
        driven.free("a");
        while driven.next().await != "start a" {}
        let agent = place.agent();
        let talk = agent.accept().await;
        assert_eq!(talk.keep("a").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.told(), Told { ready: true, active: 1, started: 1, ..Told::default() });
    });
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_conversation_goes_on() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        let nobody = request(Payload::Add(AddWorkload { uid: "x".into(), workload_info: None }));
        let error = talk.ask(&nobody, &[own_namespace().as_fd()]).await;
        assert_eq!(error, "failure to process message : workload_info is required but not present");
        assert_eq!(talk.keep("").await, "failure to process message : uid is required but not present");
        assert_eq!(talk.add("a").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(talk.snapshot_sent().await, "failure to process message : pod snapshot received already");
        assert_eq!(talk.keep("a").await, "failure to process message : pod keep received after snapshot");
        assert!(driven.told().ready);
        assert_eq!(talk.add("b").await, "");
        assert_eq!(driven.so_far(), ["start a", "start b"]);
    });
}

#[test]
fn a_descriptor_that_is_no_network_namespace_is_refused_and_closed() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        let memfd = wrong("inpod-no-namespace");
        let error = talk.ask(&add("a"), &[memfd.as_fd()]).await;
        assert_eq!(error, "failure to start proxy : the descriptor is not a network namespace");
        assert_eq!(open_of("inpod-no-namespace"), 1, "only ours");
        assert_eq!(talk.snapshot_sent().await, "");
        assert!(driven.told().ready, "there is nothing to try again");
        assert_eq!(talk.add("a").await, "");
        assert_eq!(driven.so_far(), ["start a"]);
    });
}

#[test]
fn a_pod_that_runs_outlives_a_bad_add_of_itself() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        for uid in ["a", "b"] {
            talk.add(uid).await;
        }
        talk.snapshot_sent().await;
        drop(talk);
        let talk = agent.accept().await;
        assert_ne!(talk.ask(&add("a"), &[wrong("inpod-bad-add").as_fd()]).await, "");
        let nobody = request(Payload::Add(AddWorkload { uid: "b".into(), workload_info: None }));
        assert_ne!(talk.ask(&nobody, &[own_namespace().as_fd()]).await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.so_far(), ["start a", "start b"]);
        assert_eq!(driven.told().active, 2);
    });
}

#[test]
fn packets_that_break_the_agreement_cost_the_conversation_but_no_pod_and_no_descriptor() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        talk.add("runs").await;
        drop(talk);
        let name = "inpod-broken-packet";
        let memfd = wrong(name);
        let mut oversized = add("a");
        oversized.resize(super::zds::MAX_PACKET + 1, 0);
        for (packet, descriptors, error) in [
            (add("a"), 0, "No control message"),
            (add("a"), 2, "Expected 1 FD, got 2"),
            (add("a"), 4, "Expected 1 FD, got 4"),
            (add("a"), 8, "received truncated message"),
            (keep("runs"), 1, "Unexpected control message"),
            (oversized, 1, "received truncated message"),
            (vec![], 1, "no payload"),
            (vec![0xff; 40], 1, "not a ZDS request"),
            (add("a")[..9].to_vec(), 1, "not a ZDS request"),
        ] {
            let talk = agent.accept().await;
            assert!(!driven.told().ready);
            assert_eq!(talk.keep("runs").await, "");
            assert_eq!(talk.snapshot_sent().await, "");
            let told = talk.ask(&packet, &vec![memfd.as_fd(); descriptors]).await;
            assert!(told.starts_with(&format!("failure to read message : {error}")), "{told}");
            assert!(talk.hear().await.is_empty(), "the conversation ends after {error}");
            assert_eq!(open_of(name), 1, "only ours is open after {error}");
        }
        let talk = agent.accept().await;
        assert_eq!(talk.keep("runs").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.so_far(), ["start runs"]);
        assert_eq!(driven.told(), Told { ready: true, active: 1, started: 1, ..Told::default() });
    });
}

#[test]
fn an_agent_that_goes_away_and_comes_back_finds_its_pods_running() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        for uid in ["a", "b", "c"] {
            talk.add(uid).await;
        }
        talk.snapshot_sent().await;
        drop((talk, agent));
        driven.told.wait_for(|told| !told.ready).await.unwrap();
        let agent = place.agent();
        let talk = agent.accept().await;
        talk.add("a").await;
        talk.keep("b").await;
        assert_eq!(driven.so_far(), ["start a", "start b", "start c"]);
        talk.snapshot_sent().await;
        assert_eq!(driven.next().await, "cut c");
        assert_eq!(driven.told(), Told { ready: true, active: 2, started: 3, stopped: 1, ..Told::default() });
    });
}

#[test]
fn requests_are_carried_out_while_an_answer_waits_and_answered_in_their_order() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start_waiting(&place, PATIENCE);
        let talk = agent.accept().await;
        talk.snapshot_sent().await;
        driven.refuse_certificate("slow");
        talk.say_add("slow").await;
        talk.say_add("quick").await;
        talk.say(&keep(""), &[]).await;
        assert_eq!([driven.next().await, driven.next().await], ["start slow", "start quick"]);
        driven.told.wait_for(|told| told.active == 2).await.unwrap();
        assert!(!talk.has_heard(), "the first answer is not due");
        driven.certify("slow");
        assert_eq!([talk.answer().await, talk.answer().await], ["", ""]);
        assert!(talk.answer().await.contains("keep received after snapshot"), "the last request was refused");
    });
}

#[test]
fn answers_wait_for_certificates_so_long_and_no_longer() {
    play_fast(async {
        let place = Place::new();
        let agent = place.agent();
        let driven = Driven::start_waiting(&place, Duration::from_secs(3));
        let talk = agent.accept().await;
        talk.snapshot_sent().await;
        let uids = ["a", "b", "c"];
        let began = tokio::time::Instant::now();
        for uid in uids {
            driven.refuse_certificate(uid);
            talk.say_add(uid).await;
        }
        for _ in uids {
            assert_eq!(talk.answer().await, "");
        }
        assert_eq!(began.elapsed().as_secs(), 3, "they wait at the same time");
    });
}

#[test]
fn pods_of_a_snapshot_are_answered_without_their_certificates() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let driven = Driven::start_waiting(&place, 10 * PATIENCE);
        driven.refuse_certificate("a");
        let talk = agent.accept().await;
        assert_eq!(talk.add("a").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert!(driven.told().ready);
    });
}

#[test]
fn a_broken_packet_is_told_after_everything_that_came_before_it() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let driven = Driven::start_waiting(&place, 10 * PATIENCE);
        driven.refuse_certificate("a");
        let talk = agent.accept().await;
        talk.snapshot_sent().await;
        talk.say_add("a").await;
        talk.say(&[0xff; 3], &[]).await;
        assert_eq!(talk.answer().await, "");
        assert!(talk.answer().await.starts_with("failure to read message"));
        assert!(talk.hear().await.is_empty(), "the conversation ends");
    });
}

#[test]
fn an_agent_that_hangs_is_left_for_the_one_that_took_its_place() {
    play_fast(async {
        let place = Place::new();
        let old = place.agent();
        let mut driven = Driven::start(&place);
        let hanging = old.accept().await;
        hanging.add("a").await;
        hanging.snapshot_sent().await;
        let new = place.agent();
        let talk = new.accept().await;
        assert!(hanging.hear().await.is_empty(), "nobody talks to it any more");
        assert_eq!(talk.keep("a").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(driven.so_far(), ["start a"]);
    });
}

#[test]
fn an_agent_that_floods_costs_no_pod_no_descriptor_and_gets_every_answer() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        talk.add("runs").await;
        talk.snapshot_sent().await;
        let memfd = wrong("inpod-flood");
        let requests = 500;
        tokio::join!(
            async {
                for _ in 0..requests {
                    talk.say(&add("runs"), &[memfd.as_fd()]).await;
                }
            },
            async {
                for _ in 0..requests {
                    assert!(talk.answer().await.contains("not a network namespace"));
                }
            }
        );
        assert_eq!(open_of("inpod-flood"), 1, "only ours");
        assert_eq!(talk.add("more").await, "");
        assert_eq!(driven.so_far(), ["start runs", "start more"]);
        assert!(driven.told().ready);
    });
}

/// Something that an agent might say, with about one byte in ten wrong, or cut short.
fn garbled(random: &mut StdRng) -> Vec<u8> {
    let snapshot = request(Payload::SnapshotSent(SnapshotSent {}));
    let mut packet = [add("runs"), add("other"), keep("runs"), keep(""), snapshot][random.random_range(0..5)].clone();
    if random.random_bool(0.3) {
        packet.truncate(random.random_range(0..=packet.len()));
    }
    for byte in &mut packet {
        if random.random_bool(0.1) {
            *byte = random.random();
        }
    }
    packet
}

#[test]
fn random_packets_with_random_descriptors_leave_pods_alone_and_no_descriptor_open() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        talk.add("runs").await;
        drop(talk);
        let memfd = wrong("inpod-random");
        let mut random = StdRng::seed_from_u64(42);
        for _ in 0..100 {
            let talk = agent.accept().await;
            assert_eq!(talk.keep("runs").await, "");
            assert_eq!(talk.snapshot_sent().await, "", "a pod that runs is known after whatever was said before");
            for _ in 0..random.random_range(1..5) {
                let descriptors = vec![memfd.as_fd(); random.random_range(0..6)];
                if talk.try_say(&garbled(&mut random), &descriptors).is_err() {
                    break; // the conversation is over
                }
            }
        }
        let talk = agent.accept().await;
        assert_eq!(talk.keep("runs").await, "");
        assert_eq!(talk.snapshot_sent().await, "");
        assert_eq!(open_of("inpod-random"), 1, "only ours");
        assert!(driven.told().ready);
        assert_eq!(driven.so_far(), ["start runs"], "no other pod came with a namespace");
    });
}

#[test]
fn an_agent_that_is_not_there_yet_is_waited_for() {
    play_fast(async {
        let place = Place::new();
        let driven = Driven::start(&place);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let agent = place.agent();
        let talk = agent.accept().await;
        talk.snapshot_sent().await;
        assert!(driven.told().ready);
    });
}

#[test]
fn a_drain_leaves_the_agent_and_drains_every_pod_within_the_deadline() {
    play(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        for uid in ["a", "b"] {
            talk.add(uid).await;
        }
        driven.so_far();
        driven.drain.send_replace(true);
        assert!(talk.hear().await.is_empty(), "the conversation ends");
        (&mut driven.ended).await.unwrap();
        let mut drained = driven.so_far();
        drained.sort();
        assert_eq!(drained, ["drain a within 7s", "drain b within 7s"]);
        assert_eq!(driven.told().stopped, 2);
    });
}

#[test]
fn a_drain_ends_even_if_a_pod_does_not() {
    play_fast(async {
        let place = Place::new();
        let agent = place.agent();
        let mut driven = Driven::start(&place);
        let talk = agent.accept().await;
        for uid in ["stuck", "a"] {
            talk.add(uid).await;
        }
        driven.so_far();
        driven.drain.send_replace(true);
        (&mut driven.ended).await.unwrap();
        let mut drained = driven.so_far();
        drained.sort();
        assert_eq!(drained, ["drain a within 7s", "drain stuck within 7s"]);
    });
}
