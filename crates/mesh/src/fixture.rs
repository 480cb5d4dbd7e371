//! What the tests of this crate build their meshes from, and how they try every chance there is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::balance::Draw;
use crate::name::NamespacedHostname;
use crate::ports::PortMap;
use crate::service::Service;
use crate::view::{Change, State, View};
use crate::workload::{GatewayAddress, GatewayDestination, Locality, Membership, Protocol, Workload};

/// The network that everything is in unless a test says otherwise.
pub(crate) const NETWORK: &str = "net1";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `namespace/hostname`.
pub(crate) fn key(text: &str) -> NamespacedHostname {
    text.parse().unwrap()
}

pub(crate) fn ports(pairs: &[(u16, u16)]) -> PortMap {
    pairs.iter().copied().collect()
}

/// A pod in the mesh, in namespace `ns`, with a service account named like itself.
pub(crate) fn pod(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        name: name.into(),
        namespace: "ns".into(),
        service_account: name.into(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        network: NETWORK.into(),
        protocol: Protocol::Hbone,
        ..Workload::new(format!("c//v1/Pod/ns/{name}").as_str().into())
    }
}

/// A service `host.example` in namespace `ns`.
pub(crate) fn service(host: &str, vips: &[&str], service_ports: &[(u16, u16)]) -> Service {
    Service {
        name: host.into(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: ports(service_ports),
        ..Service::new(key(&format!("ns/{host}.example")))
    }
}

impl Workload {
    /// The same as an endpoint of `namespace/hostname`.
    pub(crate) fn of(mut self, service: &str, endpoint_ports: &[(u16, u16)]) -> Self {
        let membership = Membership { service: key(service), ports: ports(endpoint_ports) };
        self.services = self.services.iter().cloned().chain([membership]).collect();
        self
    }

    /// The same in another place.
    pub(crate) fn at(self, region: &str, zone: &str) -> Self {
        let locality = Locality { region: region.into(), zone: zone.into(), ..Locality::clone(&self.locality) }.into();
        Self { locality, ..self }
    }
}

/// A reference by `network/ip` or `namespace/hostname`.
pub(crate) fn gateway(destination: &str, hbone_port: u16) -> GatewayAddress {
    let destination = match destination.parse() {
        Ok(address) => GatewayDestination::Address(address),
        Err(_) => GatewayDestination::Hostname(key(destination)),
    };
    GatewayAddress { destination, hbone_port }
}

pub(crate) fn view(changes: impl IntoIterator<Item = Change>) -> View {
    let mut state = State::new(None);
    let _ = state.apply(changes);
    state.view()
}

/// A workload as a view holds it.
pub(crate) fn held(view: &View, name: &str) -> Arc<Workload> {
    view.workloads().find(|workload| &*workload.name == name).unwrap().clone()
}

/// For decisions that leave nothing to chance.
pub(crate) struct NoDraw;

impl Draw for NoDraw {
    fn below(&mut self, bound: u64) -> u64 {
        assert_eq!(bound, 1, "there is only one thing to choose");
        0
    }
}

/// Draws that a test wrote down.
pub(crate) struct Script(pub(crate) Vec<u64>);

impl Draw for Script {
    fn below(&mut self, bound: u64) -> u64 {
        let next = self.0.remove(0);
        assert!(next < bound, "the script says {next}, of {bound}");
        next
    }
}

/// Runs something for every sequence of draws that it may ask for; returns how probable each of its results is.
pub(crate) fn chances<T: Ord>(mut run: impl FnMut(&mut dyn Draw) -> T) -> BTreeMap<T, f64> {
    /// Draws what it drew before, then zeros.
    struct Path {
        drawn: Vec<(u64, u64)>,
        at: usize,
    }

    impl Draw for Path {
        fn below(&mut self, bound: u64) -> u64 {
            if self.at == self.drawn.len() {
                self.drawn.push((0, bound));
            }
            let (number, known) = self.drawn[self.at];
            assert_eq!(bound, known, "the same draws lead to the same question");
            self.at += 1;
            number
        }
    }

    let mut chances = BTreeMap::new();
    let mut path = Path { drawn: Vec::new(), at: 0 };
    loop {
        path.at = 0;
        let result = run(&mut path);
        let chance: f64 = path.drawn.iter().map(|(_, bound)| 1.0 / *bound as f64).product();
        *chances.entry(result).or_insert(0.0) += chance;
        while path.drawn.last().is_some_and(|(number, bound)| number + 1 == *bound) {
            path.drawn.pop();
        }
        match path.drawn.last_mut() {
            Some((number, _)) => *number += 1,
            None => return chances,
        }
    }
}

/// A small generator of reproducible numbers.
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64: every seed gives a good sequence.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}
