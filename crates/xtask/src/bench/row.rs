//! The rows of the benchmark: what is done, by whom.

use super::contender::{Contender, KEEPERS, MIXED, PASSTHROUGH, TUNNELS};
use super::growth::{Growth, Mix};
use super::load::Load;

/// A row: a name for the command line, and what it measures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) kind: Kind,
}

/// How a row is measured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Contenders take turns under a load.
    Turns(Load, &'static [Contender]),
    /// As `Turns`, between two pods of one node.
    SameNode(Load, &'static [Contender]),
    /// Resident memory for each of some idle connections.
    IdleConnections,
    /// Resident memory for each of some tunnels without connections.
    IdleTunnels,
    /// Resident memory before and after much data.
    AfterBulk,
    /// Time, memory and CPU that a large mesh costs, told by discovery.
    LargeMesh,
    /// Queries for names of the mesh.
    Names,
    /// Resident memory and descriptors for each of many pods.
    Pods,
    /// A neighbour's latency while another pod opens connections without end.
    Storm,
    /// Latency of requests while metrics are scraped.
    Scrape,
    /// Resident memory and series after connections between ever-changing names.
    Churn,
    /// First and later connections to many destinations.
    Destinations,
    /// Latency of requests while workloads come, change and go.
    Flapping,
    /// Latency of requests while all that is known is dumped.
    Dump,
    /// Costs at several sizes, and the order in which they grow.
    Growth(Growth),
}

impl Row {
    pub(super) fn contenders(&self) -> &'static [Contender] {
        match self.kind {
            Kind::Turns(_, contenders) | Kind::SameNode(_, contenders) => contenders,
            Kind::IdleConnections | Kind::IdleTunnels | Kind::AfterBulk => &KEEPERS,
            Kind::LargeMesh
            | Kind::Names
            | Kind::Pods
            | Kind::Storm
            | Kind::Scrape
            | Kind::Churn
            | Kind::Destinations
            | Kind::Flapping
            | Kind::Dump
            | Kind::Growth(_) => &[],
        }
    }
}

const fn turns(name: &'static str, says: &'static str, load: Load, contenders: &'static [Contender]) -> Row {
    Row { name, says, kind: Kind::Turns(load, contenders) }
}

const fn same_node(name: &'static str, says: &'static str, load: Load, contenders: &'static [Contender]) -> Row {
    Row { name, says, kind: Kind::SameNode(load, contenders) }
}

const fn memory(name: &'static str, says: &'static str, kind: Kind) -> Row {
    Row { name, says, kind }
}

const fn growth(name: &'static str, says: &'static str, growth: Growth) -> Row {
    memory(name, says, Kind::Growth(growth))
}

const ONE_UP: Load = Load::Upload { streams: 1 };
const ONE_DOWN: Load = Load::Download { streams: 1 };
const MANY_REQUESTS: Load = Load::Requests { clients: 16 };

/// All rows, in the order in which they run.
pub(super) const ROWS: [Row; 32] = [
    turns("throughput-1", "one stream from client to server", ONE_UP, &TUNNELS),
    turns("throughput-8", "eight streams from client to server", Load::Upload { streams: 8 }, &TUNNELS),
    turns("reverse-1", "one stream from server to client", ONE_DOWN, &TUNNELS),
    turns("requests-16", "small requests on 16 kept connections", MANY_REQUESTS, &TUNNELS),
    turns("requests-128", "small requests on 128 kept connections", Load::Requests { clients: 128 }, &TUNNELS),
    turns("requests-1", "small requests on one kept connection", Load::Requests { clients: 1 }, &TUNNELS),
    turns("connections-16", "a new connection per request, 16 at a time", Load::Connections { clients: 16 }, &TUNNELS),
    turns("passthrough", "one stream to a server outside the mesh", ONE_UP, &PASSTHROUGH),
    turns("mixed-throughput", "one stream, with a ztunnel at one end only", ONE_UP, &MIXED),
    turns("mixed-reverse", "one reverse stream, with a ztunnel at one end only", ONE_DOWN, &MIXED),
    turns("mixed-requests", "requests on 16 connections, with a ztunnel at one end only", MANY_REQUESTS, &MIXED),
    same_node("same-node", "one stream between two pods of a node", ONE_UP, &TUNNELS),
    memory("connections-many", "first and later connections to 100 destinations", Kind::Destinations),
    memory("idle-connections", "memory of an idle connection after 64 KiB each way", Kind::IdleConnections),
    memory("idle-tunnels", "memory of a tunnel without connections", Kind::IdleTunnels),
    memory("after-bulk", "memory that stays some seconds after much data", Kind::AfterBulk),
    memory("large-mesh", "100,000 workloads and 10,000 services by discovery, then one at a time", Kind::LargeMesh),
    memory("dns-local", "names of 1,000 services, answered in the pod that asks", Kind::Names),
    memory("pods", "memory and descriptors of each of 250 pods without connections", Kind::Pods),
    memory("storm", "a neighbour of a pod that opens 5,000 connections a second", Kind::Storm),
    memory("scrape", "requests on 8 kept connections while 50,000 series are scraped", Kind::Scrape),
    memory("churn", "memory and series after 200,000 connections to ever-changing names", Kind::Churn),
    memory("flapping", "requests while 500 of 100,000 workloads come, change or go a second", Kind::Flapping),
    memory("dump", "requests while what is known of 100,000 workloads is dumped", Kind::Dump),
    growth("growth-mesh", "the cost of 1,000 to 100,000 workloads, and of a change among them", Growth::Mesh),
    growth("growth-services", "the cost of 1,000 to 100,000 services beside 1,000 workloads", Growth::Services),
    growth(
        "growth-policies",
        "the cost of a connection by policies that select its destination, its namespace or others there",
        Growth::Policies(Mix::Thirds),
    ),
    growth("growth-policies-wide", "the same, all of them for the namespace", Growth::Policies(Mix::Wide)),
    growth("growth-policies-selecting", "the same, all of them selecting it", Growth::Policies(Mix::Selecting)),
    growth("growth-endpoints", "the cost of a connection by the endpoints of its service", Growth::Endpoints),
    growth("growth-pods", "the cost of a node's pods without connections", Growth::Pods),
    growth("growth-workers", "what is left for each worker thread to do, by how many there are", Growth::Workers),
];
