//! Who takes part: proxies in pairs of pods, all of them set up at once so that they can take turns.

use std::path::{Path, PathBuf};

use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::redirect::{OUTBOUND_PORT, TUNNEL_PORT};
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

use super::process::Running;
use super::{DEADLINE, Outcome, load};

/// A pair of pods on two nodes, and what stands between them and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Party {
    /// Nothing.
    Plain,
    /// Two relays.
    Relay,
    /// Two relays with sealed records between them.
    Sealed,
    /// One relay, in the client's pod.
    RelayAlone,
    /// Two conventional proxies.
    Reference,
    /// Two ztunnels.
    Ztunnel,
    /// Two ztunnels of another build.
    Other,
}

/// One who is measured: connections go from a pod of one party to a pod of the same or another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) near: Party,
    pub(super) far: Party,
}

impl Contender {
    const fn pair(name: &'static str, party: Party) -> Self {
        Self { name, near: party, far: party }
    }

    const fn mixed(name: &'static str, near: Party, far: Party) -> Self {
        Self { name, near, far }
    }
}

pub(super) const REFERENCE: &str = "reference";
pub(super) const SEALED: &str = "seal-only";
pub(super) const RELAY: &str = "one relay";

/// For everything that goes from mesh to mesh.
pub(super) const TUNNELS: [Contender; 6] = [
    Contender::pair("direct", Party::Plain),
    Contender::pair("two relays", Party::Relay),
    Contender::pair(SEALED, Party::Sealed),
    Contender::pair(REFERENCE, Party::Reference),
    Contender::pair("ztunnel", Party::Ztunnel),
    Contender::pair("other", Party::Other),
];

/// For what leaves the mesh.
pub(super) const PASSTHROUGH: [Contender; 5] = [
    Contender::pair("direct", Party::Plain),
    Contender::mixed(RELAY, Party::RelayAlone, Party::Plain),
    Contender::mixed(REFERENCE, Party::Reference, Party::Plain),
    Contender::mixed("ztunnel", Party::Ztunnel, Party::Plain),
    Contender::mixed("other", Party::Other, Party::Plain),
];

/// A ztunnel opposite a conventional proxy.
pub(super) const MIXED: [Contender; 5] = [
    Contender::pair(REFERENCE, Party::Reference),
    Contender::mixed("ztunnel → reference", Party::Ztunnel, Party::Reference),
    Contender::mixed("reference → ztunnel", Party::Reference, Party::Ztunnel),
    Contender::mixed("other → reference", Party::Other, Party::Reference),
    Contender::mixed("reference → other", Party::Reference, Party::Other),
];

/// For what proxies keep in memory.
pub(super) const KEEPERS: [Contender; 3] = [
    Contender::pair(REFERENCE, Party::Reference),
    Contender::pair("ztunnel", Party::Ztunnel),
    Contender::pair("other", Party::Other),
];

/// The programs that are measured.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) ztunnel: PathBuf,
    pub(super) other: Option<PathBuf>,
    pub(super) reference: PathBuf,
    pub(super) relay: PathBuf,
    /// More settings for ztunnels.
    pub(super) environment: Vec<(String, String)>,
    /// Worker threads of every proxy and relay.
    pub(super) threads: usize,
    /// Connections that share a tunnel, if not as usual.
    pub(super) streams_per_tunnel: Option<usize>,
}

impl Programs {
    /// Whether there is a program for this party.
    pub(super) fn has(&self, party: Party) -> bool {
        party != Party::Other || self.other.is_some()
    }
}

/// A party at work, with the servers that all loads need.
pub(super) struct Standing {
    // Processes end before the namespaces they live in.
    proxies: Proxies,
    _servers: Vec<Running>,
    pub(super) client: Pod,
    pub(super) server: Pod,
}

enum Proxies {
    None,
    Programs(Vec<Running>),
    /// The second serves the server's node, if that is another one.
    Ztunnels(Ztunnel, Option<Ztunnel>),
}

impl Standing {
    /// Process of the proxy in the client's pod.
    pub(super) fn near_pid(&self) -> Option<u32> {
        match &self.proxies {
            Proxies::None => None,
            Proxies::Programs(running) => running.first().map(Running::pid),
            Proxies::Ztunnels(near, _) => Some(near.pid()),
        }
    }

    /// Process of the proxy in the server's pod, unless it is the one that is near as well.
    pub(super) fn far_pid(&self) -> Option<u32> {
        match &self.proxies {
            Proxies::None => None,
            Proxies::Programs(running) => running.get(1).map(Running::pid),
            Proxies::Ztunnels(_, far) => far.as_ref().map(Ztunnel::pid),
        }
    }
}

/// Where the two pods of a party are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nodes {
    /// On a node each.
    Two,
    /// On the same.
    One,
}

/// All parties that some rows need, in one mesh and under one congestion control.
pub(super) struct Stage {
    parties: Vec<(Party, Standing)>,
    _mesh: Mesh,
}

impl Stage {
    /// Sets everything up and waits until it is ready.
    pub(super) fn set(programs: &Programs, parties: &[Party], congestion: &str, nodes: Nodes) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let mut pods = Vec::new();
        for &party in parties {
            let a = mesh.add_node(&format!("{}-a", slug(party)))?;
            let b = match nodes {
                Nodes::Two => mesh.add_node(&format!("{}-b", slug(party)))?,
                Nodes::One => a.clone(),
            };
            let capture = match party {
                Party::Plain => Capture::Off,
                Party::Ztunnel | Party::Other => Capture::Enrolled,
                Party::Relay | Party::Sealed | Party::RelayAlone | Party::Reference => Capture::Redirected,
            };
            let pod = |end: &str, account| PodSpec::new(&format!("{}-{end}", slug(party)), "shop", account, capture);
            let (client, server) = (a.add_pod(pod("client", "front"))?, b.add_pod(pod("server", "back"))?);
            client.set_congestion_control(congestion)?;
            server.set_congestion_control(congestion)?;
            pods.push((party, client, server));
        }
        let outside: Vec<String> =
            pods.iter().filter(|(party, ..)| *party == Party::Plain).map(|(.., pod)| pod.ip().to_string()).collect();
        let mut standing = Vec::new();
        for (party, client, server) in pods {
            let proxies = start(programs, party, &client, &server, &outside)?;
            let servers = load::servers(&server, mesh.directory())?;
            standing.push((party, Standing { proxies, _servers: servers, client, server }));
        }
        Ok(Self { parties: standing, _mesh: mesh })
    }

    pub(super) fn party(&self, party: Party) -> Outcome<&Standing> {
        let found = self.parties.iter().find(|(of, _)| *of == party);
        found.map(|(_, standing)| standing).ok_or_else(|| format!("{party:?} has not been set up").into())
    }
}

fn start(programs: &Programs, party: Party, client: &Pod, server: &Pod, outside: &[String]) -> Outcome<Proxies> {
    let own = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let threads = programs.threads;
    let listening = |pod: &Pod, port: u16, program: &Path, flags: &[String]| -> Outcome<Running> {
        let running = Running::start(pod, program, flags)?;
        load::await_listener(pod, port).map(|()| running)
    };
    let relay = |pod: &Pod, role: &str| {
        let port = if role.starts_with("inbound") { TUNNEL_PORT } else { OUTBOUND_PORT };
        listening(pod, port, &programs.relay, &own(&format!("--threads {threads} --role {role}")))
    };
    let reference = |pod: &Pod, account: &str| {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        let mut flags = own(&format!("--threads {threads} --identity {identity}"));
        flags.extend(outside.iter().flat_map(|ip| ["--plain".to_owned(), ip.clone()]));
        if let Some(streams) = programs.streams_per_tunnel {
            flags.extend(["--streams-per-tunnel".to_owned(), streams.to_string()]);
        }
        // It opens the port for tunnels last.
        listening(pod, TUNNEL_PORT, &programs.reference, &flags)
    };
    Ok(match party {
        Party::Plain => Proxies::None,
        Party::Relay => Proxies::Programs(vec![relay(client, "outbound")?, relay(server, "inbound")?]),
        Party::Sealed => {
            Proxies::Programs(vec![relay(client, "outbound --sealed")?, relay(server, "inbound --sealed")?])
        }
        Party::RelayAlone => Proxies::Programs(vec![relay(client, "passthrough")?]),
        Party::Reference => Proxies::Programs(vec![reference(client, "front")?, reference(server, "back")?]),
        Party::Ztunnel => ztunnels(programs, &programs.ztunnel, client, server)?,
        Party::Other => {
            ztunnels(programs, programs.other.as_deref().ok_or("there is no other ztunnel")?, client, server)?
        }
    })
}

fn ztunnels(programs: &Programs, program: &Path, client: &Pod, server: &Pod) -> Outcome<Proxies> {
    let mut spec = ZtunnelSpec::new(program)
        // The reference writes no access log either; `--set RUST_LOG=info` shows what it costs.
        .env("RUST_LOG", "warn")
        .env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
    if let Some(streams) = programs.streams_per_tunnel {
        spec = spec.env("POOL_MAX_STREAMS_PER_CONNECTION", &streams.to_string());
    }
    for (name, value) in &programs.environment {
        spec = spec.env(name, value);
    }
    let near = client.node().start_ztunnel(&spec)?;
    let other = client.node().name() != server.node().name();
    let far = other.then(|| server.node().start_ztunnel(&spec)).transpose()?;
    std::iter::once(&near).chain(&far).try_for_each(|ztunnel| ztunnel.wait_ready(DEADLINE))?;
    Ok(Proxies::Ztunnels(near, far))
}

fn slug(party: Party) -> &'static str {
    match party {
        Party::Plain => "plain",
        Party::Relay => "relay",
        Party::Sealed => "sealed",
        Party::RelayAlone => "alone",
        Party::Reference => "reference",
        Party::Ztunnel => "ours",
        Party::Other => "other",
    }
}
