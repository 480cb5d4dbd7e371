//! Pods that come before the control plane says who they are, and node agents that say what they should not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use testkit::apps::{connect, serve_echo};
use testkit::harness::{Test, long_test, test};
use testkit::mesh::{Capture, Pod, PodSpec};

use super::{DEADLINE, Governed, Outcome, at, eventually, metric, two_nodes};

/// Certificates of a day.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// More than any first connection may take.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Test> {
    vec![
        test("first connections of pods that nobody knows yet wait for the control plane, and none fails", || {
            let governed = Governed::start(DAY, &[])?;
            let pods = prepare(&governed, 20)?;
            let zt = &governed.mesh.zt_a;
            first_connections(&governed, &pods, || {
                eventually("every connection waits", || {
                    metric(zt, "istio_unknown_workload_waiting", &[]).is_ok_and(|waiting| waiting == 20)
                })?;
                pods.iter().try_for_each(Pod::announce)?;
                Ok(())
            })?;
            assert_eq!(waits(&governed, "announced")?, 20);
            assert_eq!(metric(zt, "istio_unknown_workload_waiting", &[])?, 0);
            Ok(())
        }),
        long_test("a hundred pods whose announcements come eight seconds late lose no first connection", || {
            let governed = Governed::start(DAY, &[])?;
            let pods = prepare(&governed, 100)?;
            let late = Duration::from_secs(8);
            let began = Instant::now();
            first_connections(&governed, &pods, || {
                println!("all were added within {:?}", began.elapsed());
                let span = Duration::from_secs(2);
                for (pod, n) in pods.iter().zip(0_u32..) {
                    let due = began + late + span * n / 100;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    pod.announce()?;
                }
                Ok(())
            })?;
            assert_eq!(waits(&governed, "announced")?, 100);
            Ok(())
        }),
        test(
            "a connection of a pod that is never announced is refused after the time set for that, and counted",
            || {
                let governed = Governed::start(DAY, &[("UNKNOWN_WORKLOAD_TIMEOUT", "50ms")])?;
                let pods = prepare(&governed, 1)?;
                pods[0].enrol()?;
                let refused = connect(&pods[0], at(&governed.mesh.server, 9000))?.read(&mut [0]);
                assert!(!matches!(refused, Ok(1..)), "{refused:?}");
                assert_eq!(waits(&governed, "timed_out")?, 1);
                governed.mesh.zt_a.wait_for_log("failed to fetch information about local workload", DEADLINE)?;
                Ok(())
            },
        ),
        test("the node agent is answered when a new pod has its certificate, if that is asked for", || {
            let governed = Governed::start(DAY, &[("INPOD_CERTIFICATE_WAIT", "4s")])?;
            let pods = prepare(&governed, 1)?;
            let before = governed.istiod.tally().certificates;
            pods[0].announce()?;
            pods[0].enrol()?;
            assert_eq!(governed.istiod.tally().certificates, before + 1);
            Ok(())
        }),
        two_nodes("a node agent that goes mad disturbs no pod that runs and leaves no descriptor behind", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            let mut says = |text: &[u8; 4]| -> Outcome {
                let mut heard = [0; 4];
                open.write_all(text)?;
                open.read_exact(&mut heard)?;
                assert_eq!(&heard, text);
                Ok(())
            };
            says(b"open")?;
            let (cni, zt) = (mesh.a.cni(), &mesh.zt_a);
            let before = zt.open_fds()?;
            let (null, netns) = (File::open("/dev/null")?, mesh.client.netns().clone());
            let add = add_packet(&mesh.client.zds_uid());
            let [null, netns] = [null.as_fd(), netns.as_fd()];
            let cases: [(&[u8], &[BorrowedFd<'_>], usize); 9] = [
                (&add[..add.len() / 2], &[netns], 1),
                (&add, &[], 1),
                (&add, &[null], 3),
                (&add, &[netns, netns], 1),
                (&add, &[netns; 40], 1),
                (&add, &[netns], 300),
                (&[0x1a, 0x00], &[netns], 1),
                (&[0x1a, 0x00], &[], 300),
                (&[0xff; 9000], &[null], 1),
            ];
            for (packet, descriptors, times) in cases {
                let synced = cni.snapshots();
                cni.misbehave(packet, descriptors, times)?;
                cni.wait_synced(synced + 1, DEADLINE)?;
                says(b"on..")?;
            }
            eventually("no descriptor is left", || zt.open_fds().is_ok_and(|now| now <= before))?;
            assert_eq!(metric(zt, "workload_manager_proxies_stopped_total", &[])?, 0);
            assert_eq!(metric(zt, "workload_manager_active_proxy_count", &[])?, 1);
            zt.wait_ready(DEADLINE)?;
            Ok(())
        }),
    ]
}

/// Pods on the first node, of which nobody has been told; each with a service account of its own, and so a certificate.
fn prepare(governed: &Governed, count: usize) -> Outcome<Vec<Pod>> {
    let prepare = |n| -> Outcome<Pod> {
        let (name, account) = (format!("late-{n}"), format!("account-{n}"));
        Ok(governed.mesh.a.prepare_pod(PodSpec::new(&name, "shop", &account, Capture::Enrolled))?)
    };
    (0..count).map(prepare).collect()
}

/// Has pods enrolled as fast as that goes, each of which connects at once, and checks that each is answered after
/// `meanwhile`.
fn first_connections(governed: &Governed, pods: &[Pod], meanwhile: impl FnOnce() -> Outcome) -> Outcome {
    let server = at(&governed.mesh.server, 9000);
    let _echo = serve_echo(&governed.mesh.server, 9000)?;
    std::thread::scope(|scope| {
        let mut first = Vec::new();
        for pod in pods {
            pod.enrol()?;
            first.push(scope.spawn(move || -> std::io::Result<[u8; 5]> {
                let mut stream = connect(pod, server)?;
                stream.set_read_timeout(Some(FIRST_ANSWER))?;
                let mut heard = [0; 5];
                stream.write_all(b"hello")?;
                stream.read_exact(&mut heard)?;
                Ok(heard)
            }));
        }
        meanwhile()?;
        for (pod, first) in pods.iter().zip(first) {
            let heard = first.join().map_err(|_| "a client panicked")?;
            assert_eq!(heard.map_err(|error| format!("{}: {error}", pod.name()))?, *b"hello");
        }
        Ok(())
    })
}

fn waits(governed: &Governed, outcome: &str) -> Outcome<u64> {
    let outcome = format!("outcome=\"{outcome}\"");
    metric(&governed.mesh.zt_a, "istio_unknown_workload_wait_duration_seconds_count", &[&outcome])
}

/// An addition of the pod with this key, as bytes: field 1 of a request, with a key and an empty description.
fn add_packet(uid: &str) -> Vec<u8> {
    let length = u8::try_from(uid.len()).expect("short");
    let add = [&[0x0a, length], uid.as_bytes(), &[0x12, 0x00]].concat();
    [&[0x0a, u8::try_from(add.len()).expect("short")], &add[..]].concat()
}
