//! The node agent and the control plane, met as a ztunnel would meet them.

use std::error::Error;
use std::fs;
use std::io::{self, IoSliceMut, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg, send, socket,
};
use prost::Message;
use testkit::cni::CniError;
use testkit::control_plane::{Action, Match, Policy, Scope, Service, StringMatch};
use testkit::harness::{self, Outcome, test};
use testkit::mesh::{Capture, Mesh, MeshError, Node, Pod, PodSpec};
use testkit::zds::{AddWorkload, Payload, WorkloadRequest};
use testkit::ztunnel::{ZtunnelError, ZtunnelSpec};

/// Long enough for a loaded machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Makes this program play a part instead of running tests.
const PART: &str = "TESTKIT_TEST_PART";

fn main() -> ExitCode {
    if std::env::var_os(PART).is_some() {
        return ready_at_once();
    }
    harness::main(vec![
        test("a ztunnel that connects is told of every enrolled pod, with its namespace, then of the end", snapshot),
        test("a pod added later reaches the connected ztunnel before it is handed out", later),
        test("a pod that ztunnel refuses is reported with ztunnel's words", refused),
        test("a removed pod is taken from ztunnel, from the file, and its name is free again", removed),
        test("a ztunnel that connects again is told all anew", again),
        test("the control plane's file names every pod and follows every change", control_plane),
        test("a ztunnel is awaited until it is ready, asked, and stopped", process),
        test("a program that is no ztunnel is reported with what it wrote", no_ztunnel),
        test("a program that does not exist is reported by name", no_program),
    ])
}

/// What a fake ztunnel was told: the request, and the inode of the namespace that came along.
type Told = (Payload, Option<u64>);

/// A ztunnel that answers additions as given and acknowledges the rest.
fn fake_ztunnel(
    node: &Node,
    mesh: &Mesh,
    answer: &'static [u8],
) -> Result<(mpsc::Receiver<Told>, OwnedFd), Box<dyn Error>> {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(&mesh.directory().join(node.name()).join("ztunnel.sock"))?)?;
    send(connection.as_raw_fd(), &[8, 1], MsgFlags::empty())?;
    let (tell, told) = mpsc::channel();
    let served = connection.try_clone()?;
    let _thread: JoinHandle<()> = std::thread::spawn(move || {
        while let Ok(Some(request)) = receive(&served) {
            let answer = if matches!(request.0, Payload::Add(_)) { answer } else { SUCCESS };
            if tell.send(request).is_err() || send(served.as_raw_fd(), answer, MsgFlags::MSG_NOSIGNAL).is_err() {
                return;
            }
        }
    });
    Ok((told, connection))
}

const SUCCESS: &[u8] = &[10, 0];
const REFUSAL: &[u8] = b"\x0a\x0b\x0a\x09no thanks";

fn receive(connection: &OwnedFd) -> Result<Option<Told>, Box<dyn Error>> {
    let mut packet = [0; 1024];
    let mut slices = [IoSliceMut::new(&mut packet)];
    let mut space = nix::cmsg_space!(i32);
    let message = recvmsg::<()>(connection.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut inode = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the kernel has just made this descriptor for us.
                let netns = fs::File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
                inode = Some(netns.metadata()?.ino());
            }
        }
    }
    let length = message.bytes;
    let Some(packet) = packet.get(..length).filter(|packet| !packet.is_empty()) else { return Ok(None) };
    Ok(Some((WorkloadRequest::decode(packet)?.payload.ok_or("no payload")?, inode)))
}

fn spec(name: &str) -> PodSpec {
    PodSpec::new(name, "shop", "front", Capture::Enrolled)
}

fn check_addition(told: Told, pod: &Pod) -> Outcome {
    let (Payload::Add(AddWorkload { uid, workload_info: Some(info) }), Some(inode)) = told else {
        return Err(format!("not an addition: {told:?}").into());
    };
    assert_eq!((uid, info.name.as_str(), info.namespace.as_str()), (pod.zds_uid(), pod.name(), "shop"));
    assert_eq!(info.service_account, "front");
    assert_eq!(inode, fs::metadata(pod.netns_path())?.ino());
    Ok(())
}

fn snapshot() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let pod = node.add_pod(spec("one"))?;
    node.add_pod(PodSpec::new("two", "shop", "front", Capture::Off))?;
    let (told, _connection) = fake_ztunnel(&node, &mesh, SUCCESS)?;
    node.cni().wait_synced(1, DEADLINE)?;
    check_addition(told.recv_timeout(DEADLINE)?, &pod)?;
    assert!(matches!(told.recv_timeout(DEADLINE)?, (Payload::SnapshotSent(_), None)));
    Ok(())
}

fn later() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let (told, _connection) = fake_ztunnel(&node, &mesh, SUCCESS)?;
    node.cni().wait_synced(1, DEADLINE)?;
    let pod = node.add_pod(spec("one"))?;
    assert!(matches!(told.try_recv()?, (Payload::SnapshotSent(_), None)));
    check_addition(told.try_recv()?, &pod)
}

fn refused() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    node.add_pod(spec("in-snapshot"))?;
    let (_told, _connection) = fake_ztunnel(&node, &mesh, REFUSAL)?;
    node.cni().wait_synced(1, DEADLINE)?;
    assert_eq!(node.cni().snapshot_refusals(), ["no thanks"]);
    match node.add_pod(spec("later")) {
        Err(MeshError::Cni(CniError::Refused(text))) => assert_eq!(text, "no thanks"),
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(())
}

fn removed() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let pod = node.add_pod(spec("one"))?;
    let (told, _connection) = fake_ztunnel(&node, &mesh, SUCCESS)?;
    node.cni().wait_synced(1, DEADLINE)?;
    assert!(matches!(node.add_pod(spec("one")), Err(MeshError::Name { .. })));
    node.remove_pod(&pod)?;
    let last = told.try_iter().last().ok_or("nothing was told")?;
    assert!(matches!(&last, (Payload::Del(del), None) if del.uid == pod.zds_uid()), "{last:?}");
    assert!(!fs::read_to_string(mesh.control_plane().path())?.contains(&pod.workload_uid()));
    node.add_pod(spec("one"))?;
    Ok(())
}

fn again() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let pod = node.add_pod(spec("one"))?;
    for round in 1..=3 {
        let (told, connection) = fake_ztunnel(&node, &mesh, SUCCESS)?;
        node.cni().wait_synced(round, DEADLINE)?;
        check_addition(told.try_recv()?, &pod)?;
        nix::sys::socket::shutdown(connection.as_raw_fd(), nix::sys::socket::Shutdown::Both)?;
    }
    Ok(())
}

fn control_plane() -> Outcome {
    let mesh = Mesh::new()?;
    let pod = mesh.add_node("a")?.add_pod(spec("one"))?;
    let only_ops =
        Match { principals: vec![StringMatch::Prefix("cluster.local/ns/ops/".to_owned())], ..Match::default() };
    mesh.control_plane().update(|plane| {
        plane.services.push(Service::new("cart", "shop", [10, 96, 0, 1], &[&pod]).port(80, 8080));
        plane.policies.push(Policy {
            name: "only-ops".to_owned(),
            namespace: "shop".to_owned(),
            scope: Scope::WorkloadSelector,
            action: Action::Allow,
            dry_run: false,
            rules: vec![vec![vec![only_ops]]],
        });
        plane.selections.insert("one".to_owned(), vec!["shop/only-ops".to_owned()]);
    })?;
    let text = read(mesh.control_plane().path())?;
    for expected in [
        "- 10.1.1.1",
        "protocol: HBONE",
        "shop/cart.shop.svc.cluster.local:\n      80: 8080",
        "- /10.96.0.1",
        "- shop/only-ops",
        "!Prefix cluster.local/ns/ops/",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    mesh.control_plane().update(|plane| plane.services.clear())?;
    assert!(!read(mesh.control_plane().path())?.contains("cart.shop"));
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// A ztunnel that is ready and knows nothing else.
fn ready_at_once() -> ExitCode {
    let Ok(readiness) = TcpListener::bind("0.0.0.0:15021") else { return ExitCode::FAILURE };
    println!("mode {}", std::env::var("PROXY_MODE").unwrap_or_default());
    for stream in readiness.incoming().flatten() {
        let mut request = [0; 1024];
        let _ = (&stream).read(&mut request);
        let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n");
    }
    ExitCode::SUCCESS
}

fn process() -> Outcome {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let spec = ZtunnelSpec::new("/proc/self/exe").env(PART, "ready");
    let (one, two) = (node.start_ztunnel(&spec)?, node.start_ztunnel(&spec)?);
    let pod = node.add_pod(PodSpec::new("vm", "shop", "front", Capture::Dedicated))?;
    let dedicated = pod.start_dedicated_ztunnel(&spec)?;
    for (ztunnel, mode) in [(&one, "shared"), (&two, "shared"), (&dedicated, "dedicated")] {
        ztunnel.wait_ready(DEADLINE)?;
        assert_eq!(ztunnel.http_get(15021, "/healthz/ready")?.body, "ready\n");
        assert_eq!(ztunnel.wait_for_log("mode", DEADLINE)?, format!("mode {mode}"));
        assert!(ztunnel.open_fds()? >= 4, "three standard ones and a listener");
    }
    assert_eq!(one.stop(DEADLINE)?.signal(), Some(15));
    assert_eq!(two.kill()?.signal(), Some(9));
    let process = format!("/proc/{}", dedicated.pid());
    drop(dedicated);
    assert!(!Path::new(&process).exists(), "a dropped ztunnel is killed and reaped");
    Ok(())
}

fn no_ztunnel() -> Outcome {
    let mesh = Mesh::new()?;
    let ztunnel = mesh.add_node("a")?.start_ztunnel(&ZtunnelSpec::new("/usr/bin/env").env("RUST_LOG", "debug"))?;
    ztunnel.wait_for_log("PROXY_MODE=shared", DEADLINE)?;
    let Err(error) = ztunnel.wait_ready(DEADLINE) else { return Err("it cannot be ready".into()) };
    assert!(matches!(&error, ZtunnelError::Late { tail, .. } if tail.contains("RUST_LOG=debug")), "{error}");
    Ok(())
}

fn no_program() -> Outcome {
    let mesh = Mesh::new()?;
    let Err(error) = mesh.add_node("a")?.start_ztunnel(&ZtunnelSpec::new("/no/such/ztunnel")) else {
        return Err("it cannot be started".into());
    };
    assert!(error.to_string().contains("/no/such/ztunnel"), "{error}");
    Ok(())
}
