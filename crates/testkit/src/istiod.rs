//! A stand-in for istiod: discovery, the mesh CA and the check of tokens, over TLS, with faults to order.
//!
//! It tells the state of a mesh's [`ControlPlane`](crate::control_plane::ControlPlane) by delta discovery and signs
//! certificates for the pods of the mesh. It is one program for the whole mesh, though reached on each node under the
//! node's own address, so that no route to it can be missing. How it behaves may be changed at any time
//! ([`Istiod::update`]); what it did is counted ([`Istiod::tally`]).
//!
//! What it deliberately is not: a judge of who may ask for which identity beyond the pods of the mesh.

mod ads;
mod authority;
mod ca;
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

pub use authority::Authority;

use crate::control_plane::resources::{Resource, Resources};
use crate::mesh::{Mesh, MeshError, Node, World};
use crate::ztunnel::ZtunnelSpec;

/// Where it listens on each node.
pub const PORT: u16 = 15012;
/// Resources sent by themselves that a stream has not taken yet; one that is further behind ends.
const SINGLE: usize = 1_024;
/// The name that it proves.
pub const NAME: &str = "istiod.istio-system.svc";

/// The stand-in could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IstiodError {
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A socket, a thread or a file.
    #[error("istiod cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A key or a certificate.
    #[error("istiod cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

fn system(action: &'static str) -> impl Fn(io::Error) -> IstiodError {
    move |source| IstiodError::System { action, source }
}

/// What a service does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// What it should.
    #[default]
    None,
    /// Refuses them.
    Refuse,
    /// Takes them and never answers.
    Silent,
    /// Takes its time.
    Slow(Duration),
    /// Answers with what means nothing.
    Garbage,
    /// CA: signs for somebody else.
    WrongSan,
    /// CA: certificates that have expired.
    Expired,
}

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Whether connections are taken; existing ones end when it is not.
    pub up: bool,
    /// Of discovery.
    pub discovery: Fault,
    /// Of the CA.
    pub ca: Fault,
    /// Longest lifetime of certificates.
    pub ttl: Duration,
    /// Tokens that are accepted.
    pub tokens: BTreeSet<String>,
    /// Who signs.
    pub signer: Arc<Authority>,
    /// Whom clients shall trust.
    pub roots: Vec<Arc<Authority>>,
    /// The name in its own certificate.
    pub server_name: String,
    /// Sent beside what the mesh says, or instead: by type URL and name.
    pub extra: Arc<Resources>,
}

/// What it has done.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Streams of discovery that were opened.
    pub streams: usize,
    /// When the newest of them was first asked for something.
    pub asked: Option<Instant>,
    /// Resources that were sent.
    pub resources: usize,
    /// Refusals that clients sent, in order.
    pub refusals: Vec<String>,
    /// Responses that clients accepted.
    pub accepted: usize,
    /// Certificates that were signed.
    pub certificates: usize,
    /// Those of them that were as they should be, in order.
    pub issued: Vec<Issued>,
    /// Requests for certificates, answered or not.
    pub requests: usize,
    /// Calls whose token was not accepted.
    pub unauthenticated: usize,
}

/// A certificate that was signed for whom it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// For whom.
    pub identity: String,
    /// Its number.
    pub serial: u64,
    /// When it was signed.
    pub at: SystemTime,
    /// When it ends, a second too early at most.
    pub until: SystemTime,
}

/// A running stand-in; it ends when this is dropped.
#[derive(Debug)]
pub struct Istiod {
    shared: Arc<Shared>,
    directory: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    behaviour: watch::Sender<Behaviour>,
    tally: Mutex<Tally>,
    counted: Condvar,
    /// The push for the next client that has nothing and asks for everything.
    prepared: Mutex<Option<ads::Prepared>>,
    /// Resources that are sent by themselves, or taken away.
    single: broadcast::Sender<(&'static str, String, Option<Resource>)>,
    /// Nodes on which it listens.
    nodes: Mutex<BTreeSet<String>>,
}

impl Shared {
    fn count<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        let result = change(&mut lock(&self.tally));
        self.counted.notify_all();
        result
    }

    /// Whether a call may be answered.
    fn admits(&self, metadata: &tonic::metadata::MetadataMap) -> Result<(), tonic::Status> {
        let bearer = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|bearer| bearer.strip_prefix("Bearer "));
        let cluster = metadata.get("clusterid").is_some();
        if cluster && token.is_some_and(|token| self.behaviour.borrow().tokens.contains(token)) {
            return Ok(());
        }
        self.count(|tally| tally.unauthenticated += 1);
        Err(tonic::Status::unauthenticated("request authenticate failure"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Istiod {
    /// Starts one for `mesh`, with a root of its own and the token `token-1`.
    ///
    /// # Errors
    /// [`IstiodError`].
    pub fn start(mesh: &Mesh) -> Result<Istiod, IstiodError> {
        let root = Arc::new(Authority::new("mesh root A")?);
        let behaviour = Behaviour {
            up: true,
            discovery: Fault::None,
            ca: Fault::None,
            ttl: Duration::from_secs(24 * 3600),
            tokens: BTreeSet::from(["token-1".to_owned()]),
            signer: root.clone(),
            roots: vec![root],
            server_name: NAME.to_owned(),
            extra: Arc::default(),
        };
        let world = mesh.world().clone();
        let directory = mesh.directory().join("istiod");
        fs::create_dir_all(&directory).map_err(system("make its directory"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let shared = Shared {
            world,
            behaviour: watch::Sender::new(behaviour),
            tally: Mutex::default(),
            counted: Condvar::new(),
            prepared: Mutex::default(),
            single: broadcast::Sender::new(SINGLE),
            nodes: Mutex::default(),
        };
        let runtime = Some(runtime.map_err(system("start its thread"))?);
        let istiod = Istiod { shared: Arc::new(shared), directory, runtime };
        istiod.write("token", "token-1\n")?;
        istiod.write_roots()?;
        Ok(istiod)
    }

    /// `spec` for a ztunnel on `node` that is run by this control plane.
    ///
    /// # Errors
    /// [`IstiodError`] if it cannot listen there.
    pub fn ztunnel(&self, node: &Node, spec: &ZtunnelSpec) -> Result<ZtunnelSpec, IstiodError> {
        let address = SocketAddr::new(node.gateway(), PORT);
        if lock(&self.shared.nodes).insert(node.name().to_owned()) {
            self.listen(node, address)?;
        }
        let url = format!("https://{address}");
        let file = |name: &str| self.directory.join(name).display().to_string();
        let roots = file("root-cert.pem");
        let settings =
            [("XDS_ADDRESS", url.as_str()), ("CA_ADDRESS", &url), ("FAKE_CA", "false"), ("LOCAL_XDS_PATH", "")];
        let settings = settings.into_iter().fold(spec.clone(), |spec, (name, value)| spec.env(name, value));
        Ok(settings
            .env("ALT_XDS_HOSTNAME", NAME)
            .env("ALT_CA_HOSTNAME", NAME)
            .env("XDS_ROOT_CA", &roots)
            .env("CA_ROOT_CA", &roots)
            .env("AUTH_TOKEN", &file("token")))
    }

    fn listen(&self, node: &Node, address: SocketAddr) -> Result<(), IstiodError> {
        let bind = || -> io::Result<std::net::TcpListener> {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = node.netns().run(bind).and_then(|bound| bound).map_err(system("listen on a node"))?;
        let shared = self.shared.clone();
        if let Some(runtime) = &self.runtime {
            runtime.spawn(server::serve(shared, listener));
        }
        Ok(())
    }

    /// Changes how it behaves; files that ztunnels read follow.
    ///
    /// # Errors
    /// [`IstiodError`] if a file cannot be written.
    pub fn update(&self, change: impl FnOnce(&mut Behaviour)) -> Result<(), IstiodError> {
        self.shared.behaviour.send_modify(change);
        self.write_roots()
    }

    /// Takes connections no more, and ends those there are.
    ///
    /// # Errors
    /// As for [`Istiod::update`].
    pub fn down(&self) -> Result<(), IstiodError> {
        self.update(|behaviour| behaviour.up = false)
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// As for [`Istiod::update`].
    pub fn up(&self) -> Result<(), IstiodError> {
        self.update(|behaviour| behaviour.up = true)
    }

    /// Replaces the token that ztunnels read, and accepts no other.
    ///
    /// # Errors
    /// As for [`Istiod::update`].
    pub fn rotate_token(&self, token: &str) -> Result<(), IstiodError> {
        self.write("token", &format!("{token}\n"))?;
        self.update(|behaviour| behaviour.tokens = BTreeSet::from([token.to_owned()]))
    }

    /// Sends a resource that the mesh does not know of.
    ///
    /// # Errors
    /// As for [`Istiod::update`].
    pub fn inject(&self, url: &'static str, name: &str, payload: impl Into<Bytes>) -> Result<(), IstiodError> {
        let resource = Resource::of(payload);
        self.update(|behaviour| {
            Arc::make_mut(&mut behaviour.extra).insert((url, name.to_owned()), resource);
        })
    }

    /// Sends a resource by itself on every stream, as istiod does when one workload changes, whatever the mesh says of it.
    ///
    /// The mesh is not looked through, so that many can be sent in a large one.
    pub fn push(&self, url: &'static str, name: &str, resource: Resource) {
        let _ = self.shared.single.send((url, name.to_owned(), Some(resource))); // without streams there is nobody to tell
    }

    /// Takes a resource away by itself, as [`Istiod::push`] sends one.
    pub fn withdraw(&self, url: &'static str, name: &str) {
        let _ = self.shared.single.send((url, name.to_owned(), None)); // as above
    }

    /// Encodes what the next client is told of workloads and services if it has nothing and asks for everything, so that
    /// telling it takes no longer than sending. A change before then makes it void.
    pub fn prepare(&self) {
        *lock(&self.shared.prepared) = Some(ads::Prepared::new(&self.shared));
    }

    /// Who signs at present.
    pub fn signer(&self) -> Arc<Authority> {
        self.shared.behaviour.borrow().signer.clone()
    }

    /// What it has done so far.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// Waits until that is true of what it has done, at most so long; tells whether it is.
    pub fn wait_for(&self, deadline: Duration, mut done: impl FnMut(&Tally) -> bool) -> bool {
        let tally = lock(&self.shared.tally);
        let waited = self.shared.counted.wait_timeout_while(tally, deadline, |tally| !done(tally));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Where its files are: `token` and `root-cert.pem`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn write_roots(&self) -> Result<(), IstiodError> {
        let bundle: String = self.shared.behaviour.borrow().roots.iter().map(|root| root.pem()).collect();
        let path = self.directory.join("root-cert.pem");
        if fs::read_to_string(path).is_ok_and(|there| there == bundle) {
            return Ok(());
        }
        self.write("root-cert.pem", &bundle)
    }

    /// Replaces a file as a whole.
    fn write(&self, name: &str, text: &str) -> Result<(), IstiodError> {
        let fresh = self.directory.join(format!(".{name}"));
        fs::write(&fresh, text).map_err(system("write a file"))?;
        fs::rename(fresh, self.directory.join(name)).map_err(system("replace a file"))
    }
}

impl Drop for Istiod {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Names in the server's certificate: its own and the address under which it is reached.
fn server_names(behaviour: &Behaviour, address: IpAddr) -> Vec<String> {
    let wrong = behaviour.server_name != NAME;
    std::iter::once(behaviour.server_name.clone()).chain((!wrong).then(|| address.to_string())).collect()
}
