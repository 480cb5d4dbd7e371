//! The rules of a host whose apps share one ztunnel that runs beside them, in dedicated mode: what some or all of them open
//! goes to its port 15001, and what others send to chosen ports of theirs in plaintext to 15006.
//!
//! Tunnels come in at 15008 by themselves. ztunnel's own packets are told by their mark (`PACKET_MARK=1337`), whoever it
//! runs as. Forwarded traffic, such as that of containers with networks of their own, is left alone.

use crate::DnsCapture;
use crate::layout::{DNS_PORT, Layout, MARK_MASK, NAMES, OUTBOUND_PORT, PLAINTEXT_PORT, REPLY_MARK};
use crate::layout::{foreign, query, tcp};
use crate::nft::Ruleset;
use crate::nft::expr::{End, Is, Rule};

/// How many ports can be captured: each is a rule that every arriving connection is compared with.
pub const MOST_PORTS: usize = 64;

/// Whose connections are redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's that leave the host.
    All,
    /// A user's, wherever they go, so that a mesh can be tried within one machine.
    User(u32),
    /// Those of a control group (version 2) and the groups below it that leave the host.
    Cgroup {
        /// The inode of its folder.
        id: u64,
        /// How many folders it is below the root.
        level: u32,
    },
}

/// What a host redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whose connections.
    pub whose: Whose,
    /// Whether their name queries, too.
    pub dns: DnsCapture,
    /// Ports of this host at which plaintext goes to ztunnel first; at most [`MOST_PORTS`].
    pub inbound: Vec<u16>,
}

/// All tables of a host.
pub(crate) fn rules(layout: &Layout, rules: Ruleset, comment: &str, host: &Host) -> Ruleset {
    let mut rules = layout.marks(layout.nat(rules, comment), host.dns);
    for port in &host.inbound {
        let plaintext = tcp().port(End::Destination, Is::Equal, *port).for_us();
        let plaintext = foreign(plaintext).counter().redirect(PLAINTEXT_PORT);
        let comment = format!("plaintext for port {port} goes to ztunnel");
        rules = rules.rule(layout.nat, layout.arriving, plaintext.saying(&comment));
    }
    let reply = tcp().mark(Is::Equal, REPLY_MARK, MARK_MASK).counter().accept();
    rules = rules.rule(layout.nat, layout.sent, reply.saying("replies to ztunnel stay as they are"));
    if host.dns == DnsCapture::On {
        let by_tcp = foreign(host.whose.tcp().port(End::Destination, Is::Equal, NAMES)).counter().redirect(DNS_PORT);
        rules = rules.rule(layout.nat, layout.sent, query(host.whose.any())).rule(
            layout.nat,
            layout.sent,
            by_tcp.saying("name queries by TCP go to ztunnel"),
        );
    }
    let outbound = foreign(host.whose.tcp().port(End::Destination, Is::Other, OUTBOUND_PORT));
    let outbound = outbound.counter().redirect(OUTBOUND_PORT);
    rules.rule(layout.nat, layout.sent, outbound.saying("what apps open goes to ztunnel"))
}

impl Whose {
    /// Their packets.
    fn any(self) -> Rule {
        match self {
            Whose::All => Rule::new(),
            Whose::User(user) => Rule::new().user(user),
            Whose::Cgroup { id, level } => Rule::new().cgroup(id, level),
        }
    }

    /// Their TCP packets, as far as they are redirected.
    fn tcp(self) -> Rule {
        let tcp = self.any().transport(crate::nft::expr::Transport::Tcp);
        match self {
            Whose::All | Whose::Cgroup { .. } => tcp.leaving_by(Is::Other, "lo"),
            Whose::User(_) => tcp,
        }
    }
}
