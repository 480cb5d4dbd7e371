//! The two sides of the driver: a node agent on a real socket, and proxies that only say what is done with them.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use istio_api::zds::WorkloadResponse;
use istio_api::zds::workload_request::Payload;
use istio_api::zds::workload_response::Payload as Answer;
use istio_api::zds::{AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest};
use prost::Message as _;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, listen, recv, sendmsg, socket_with,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::super::{Config, Observer, PodProxies, PodStates};
use super::super::run;
use crate::net::netns::Netns;
use crate::proxy::Shutdown;

/// A path for a socket, in a directory that goes away with this.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("ztunnel-inpod-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(unique);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("zds.sock")
    }

    /// A node agent that listens here.
    pub(super) fn agent(&self) -> Agent {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let _ = std::fs::remove_file(self.socket());
        bind(&socket, &SocketAddrUnix::new(self.socket()).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        Agent(watched(socket))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The listening side of a node agent.
pub(super) struct Agent(UnixDatagram);

impl Agent {
    /// A connection, after its hello.
    pub(super) async fn accept(&self) -> Talk {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = self.0.async_io(Interest::READABLE, || Ok(accept_with(&self.0, flags)?)).await.unwrap();
        let talk = Talk(watched(accepted));
        assert_eq!(talk.hear().await, [0x08, 0x01], "hello");
        talk
    }
}

/// One connection of a node agent.
pub(super) struct Talk(UnixDatagram);

impl Talk {
    pub(super) async fn say(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.0.async_io(Interest::WRITABLE, || self.try_say(packet, descriptors)).await.unwrap();
    }

    /// Says something if it can be said at once.
    pub(super) fn try_say(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
        sendmsg(&self.0, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next packet; empty at the end.
    pub(super) async fn hear(&self) -> Vec<u8> {
        let mut bytes = [0; 2048];
        let length =
            self.0.async_io(Interest::READABLE, || Ok(recv(&self.0, &mut bytes[..], RecvFlags::empty())?.0)).await;
        bytes[..length.or_else(reset_is_an_end).unwrap()].to_vec()
    }

    /// Says something and yields the error of its acknowledgement, empty for success.
    pub(super) async fn ask(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> String {
        self.say(packet, descriptors).await;
        self.answer().await
    }

    /// Says that a pod is there, and does not wait for an answer.
    pub(super) async fn say_add(&self, uid: &str) {
        self.say(&add(uid), &[own_namespace().as_fd()]).await;
    }

    /// Whether anything has come that was not heard yet.
    pub(super) fn has_heard(&self) -> bool {
        recv(&self.0, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
    }

    /// The error of the next acknowledgement, empty for success.
    pub(super) async fn answer(&self) -> String {
        let answer = self.hear().await;
        match WorkloadResponse::decode(&answer[..]).unwrap().payload {
            Some(Answer::Ack(ack)) => ack.error,
            None => panic!("no acknowledgement but {answer:?}"),
        }
    }

    pub(super) async fn add(&self, uid: &str) -> String {
        self.ask(&add(uid), &[own_namespace().as_fd()]).await
    }

    pub(super) async fn keep(&self, uid: &str) -> String {
        self.ask(&keep(uid), &[]).await
    }

    pub(super) async fn del(&self, uid: &str) -> String {
        self.ask(&request(Payload::Del(DelWorkload { uid: uid.into() })), &[]).await
    }

    pub(super) async fn snapshot_sent(&self) -> String {
        self.ask(&request(Payload::SnapshotSent(SnapshotSent {})), &[]).await
    }
}

/// A socket of any type; this one only lends its readiness.
fn watched(fd: OwnedFd) -> UnixDatagram {
    UnixDatagram::from_std(StdSocket::from(fd)).unwrap()
}

/// A connection that was closed with something unread is reset.
fn reset_is_an_end(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::ConnectionReset { Ok(0) } else { Err(error) }
}

pub(super) fn request(payload: Payload) -> Vec<u8> {
    WorkloadRequest { payload: Some(payload) }.encode_to_vec()
}

/// An Add of a pod that is named like its key.
pub(super) fn add(uid: &str) -> Vec<u8> {
    let info = WorkloadInfo { name: uid.into(), namespace: "ns".into(), service_account: "sa".into() };
    request(Payload::Add(AddWorkload { uid: uid.into(), workload_info: Some(info) }))
}

pub(super) fn keep(uid: &str) -> Vec<u8> {
    request(Payload::Keep(KeepWorkload { uid: uid.into() }))
}

pub(super) fn own_namespace() -> OwnedFd {
    std::fs::File::open("/proc/self/ns/net").unwrap().into()
}

/// Proxies that say what is done with them.
#[derive(Clone)]
pub(super) struct FakeProxies {
    said: mpsc::UnboundedSender<String>,
    /// Pods that cannot be started at present.
    occupied: Arc<Mutex<BTreeSet<String>>>,
    /// The namespaces that pods were started in.
    namespaces: Arc<Mutex<Vec<Weak<Netns>>>>,
    /// Pods without a certificate at present.
    uncertified: watch::Sender<BTreeSet<String>>,
}

impl PodProxies for FakeProxies {
    type Pod = (String, mpsc::UnboundedSender<String>);

    async fn start(&self, who: &mesh::LocalWorkload, netns: Arc<Netns>) -> Result<Self::Pod, String> {
        let name = who.name.to_string();
        if self.occupied.lock().unwrap().contains(&name) {
            let _ = self.said.send(format!("fail {name}"));
            return Err("address already in use".to_owned());
        }
        assert_eq!((who.namespace.as_str(), who.service_account.as_str()), ("ns", "sa"));
        self.namespaces.lock().unwrap().push(Arc::downgrade(&netns));
        let _ = self.said.send(format!("start {name}"));
        Ok((name, self.said.clone()))
    }

    async fn certified(&self, who: &mesh::LocalWorkload) {
        let mut uncertified = self.uncertified.subscribe();
        uncertified.wait_for(|names| !names.contains(&*who.name)).await.unwrap();
    }

    async fn stop((name, said): Self::Pod, how: Shutdown) {
        let _ = said.send(match how {
            Shutdown::Immediate => format!("cut {name}"),
            Shutdown::Graceful(deadline) => format!("drain {name} within {deadline:?}"),
        });
        if name == "stuck" {
            std::future::pending().await
        }
    }
}

/// What was last told about all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) ready: bool,
    pub(super) active: usize,
    pub(super) pending: usize,
    pub(super) started: usize,
    pub(super) stopped: usize,
}

impl Observer for watch::Sender<Told> {
    fn ready(&self, ready: bool) {
        self.send_modify(|told| told.ready = ready);
    }

    fn count(&self, active: usize, pending: usize) {
        self.send_modify(|told| (told.active, told.pending) = (active, pending));
    }

    fn started(&self) {
        self.send_modify(|told| told.started += 1);
    }

    fn stopped(&self) {
        self.send_modify(|told| told.stopped += 1);
    }
}

/// The driver at work, and everything that can be seen of it.
pub(super) struct Driven {
    pub(super) told: watch::Receiver<Told>,
    pub(super) states: PodStates,
    pub(super) drain: watch::Sender<bool>,
    pub(super) ended: JoinHandle<()>,
    said: mpsc::UnboundedReceiver<String>,
    proxies: FakeProxies,
}

impl Driven {
    pub(super) fn start(place: &Place) -> Self {
        Self::start_waiting(place, Duration::ZERO)
    }

    /// With answers about new pods that wait for their certificates.
    pub(super) fn start_waiting(place: &Place, certificate_wait: Duration) -> Self {
        let (sender, said) = mpsc::unbounded_channel();
        let proxies = FakeProxies {
            said: sender,
            occupied: Arc::default(),
            namespaces: Arc::default(),
            uncertified: watch::Sender::default(),
        };
        let (observer, told) = watch::channel(Told::default());
        let (drain, mut draining) = watch::channel(false);
        let draining = async move {
            // An error means that nobody can say so any more, which is the same.
            let _ = draining.wait_for(|draining| *draining).await;
        };
        let states = PodStates::default();
        let config = Config { socket: place.socket(), certificate_wait, drain_deadline: Duration::from_secs(7) };
        let ended = tokio::spawn(run(config, proxies.clone(), observer, states.clone(), draining));
        Self { told, states, drain, ended, said, proxies }
    }

    pub(super) fn told(&self) -> Told {
        *self.told.borrow()
    }

    /// Whether pods of this name can be started from now on.
    pub(super) fn occupy(&self, name: &str) {
        self.proxies.occupied.lock().unwrap().insert(name.to_owned());
    }

    pub(super) fn free(&self, name: &str) {
        self.proxies.occupied.lock().unwrap().remove(name);
    }

    /// Whether pods of this name have certificates from now on.
    pub(super) fn refuse_certificate(&self, name: &str) {
        self.proxies.uncertified.send_if_modified(|names| names.insert(name.to_owned()));
    }

    pub(super) fn certify(&self, name: &str) {
        self.proxies.uncertified.send_if_modified(|names| names.remove(name));
    }

    /// What was done with proxies next.
    pub(super) async fn next(&mut self) -> String {
        self.said.recv().await.unwrap()
    }

    /// What was done with proxies and not asked for yet.
    pub(super) fn so_far(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    /// How many of the namespaces that pods were started in are still held.
    pub(super) fn namespaces_held(&self) -> usize {
        self.proxies.namespaces.lock().unwrap().iter().filter(|netns| netns.strong_count() > 0).count()
    }
}
