//! What all redirection has in common: marks, ports, the shape of the tables, and the way back for replies to connections
//! under a foreign address (spec in-pod 5).

use crate::DnsCapture;
use crate::nft::expr::{End, Is, Rule, Transport};
use crate::nft::{Chain, ChainKind, Hook, Ruleset};
use crate::routes::ReplyRoute;

/// What ztunnel puts on the packets that it sends.
pub const ZTUNNEL_MARK: u32 = 0x539;
/// What an application's replies to ztunnel's spoofed connections get.
pub const REPLY_MARK: u32 = 0x111;
/// The bits of a mark that count.
pub const MARK_MASK: u32 = 0xfff;
/// ztunnel's ports: outbound, inbound plaintext, inbound tunnels, DNS.
pub const OUTBOUND_PORT: u16 = 15001;
/// See [`OUTBOUND_PORT`].
pub const PLAINTEXT_PORT: u16 = 15006;
/// See [`OUTBOUND_PORT`].
pub const TUNNEL_PORT: u16 = 15008;
/// See [`OUTBOUND_PORT`].
pub const DNS_PORT: u16 = 15053;
/// Where name servers listen.
pub(crate) const NAMES: u16 = 53;

const NAT_PRIORITY: i32 = -100;
const MANGLE_PRIORITY: i32 = -150;
const RAW_PRIORITY: i32 = -300;

/// Whose rules they are: names of tables and chains, and where replies are looked up.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Changes destinations.
    pub nat: &'static str,
    /// Marks packets.
    pub mangle: &'static str,
    /// Keeps ztunnel's name queries apart.
    pub raw: &'static str,
    /// The chain of each table for what arrives.
    pub(crate) arriving: &'static str,
    /// The chain of each table for what is sent from here.
    pub(crate) sent: &'static str,
    /// For replies to connections under a foreign address.
    pub replies: ReplyRoute,
}

/// As the node agent calls them.
pub const NODE_AGENT: Layout = Layout {
    nat: "istio-ambient-nat",
    mangle: "istio-ambient-mangle",
    raw: "istio-ambient-raw",
    arriving: "istio-prerouting",
    sent: "istio-output",
    replies: ReplyRoute { mark: REPLY_MARK, mask: MARK_MASK, priority: 32764, table: 100 },
};

/// As ztunnel calls its own. Routing rule and table are others than the node agent's, so that removing them removes ours.
pub const ZTUNNEL: Layout = Layout {
    nat: "ztunnel-nat",
    mangle: "ztunnel-mangle",
    raw: "ztunnel-raw",
    arriving: "redirect-arriving",
    sent: "redirect-sent",
    replies: ReplyRoute { mark: REPLY_MARK, mask: MARK_MASK, priority: 32763, table: 115 },
};

impl Layout {
    /// All its tables.
    #[must_use]
    pub fn tables(&self) -> [&'static str; 3] {
        [self.nat, self.mangle, self.raw]
    }

    /// The table for the rules that follow, empty.
    pub(crate) fn nat(&self, rules: Ruleset, comment: &str) -> Ruleset {
        self.table(rules.described_table(self.nat, comment), self.nat, [ChainKind::Nat; 2], NAT_PRIORITY)
    }

    /// The marks by which replies find their way, and which keep name queries apart.
    pub(crate) fn marks(&self, rules: Ruleset, dns: DnsCapture) -> Ruleset {
        let rules = self.replies(rules);
        if dns == DnsCapture::On { self.queries(rules) } else { rules }
    }

    /// A table whose base chains do nothing but jump to one chain each.
    fn table(&self, rules: Ruleset, name: &str, kinds: [ChainKind; 2], priority: i32) -> Ruleset {
        let rules = rules.chain(name, Chain::called(self.arriving)).chain(name, Chain::called(self.sent));
        rules
            .chain(name, Chain::at("prerouting", kinds[0], Hook::Prerouting, priority))
            .chain(name, Chain::at("output", kinds[1], Hook::Output, priority))
            .rule(name, "prerouting", Rule::new().jump(self.arriving))
            .rule(name, "output", Rule::new().jump(self.sent))
    }

    fn replies(&self, rules: Ruleset) -> Ruleset {
        let name = self.mangle;
        let from_ztunnel = Rule::new().mark(Is::Equal, ZTUNNEL_MARK, MARK_MASK);
        let reply = Rule::new().connection_mark(REPLY_MARK, MARK_MASK);
        let rules = self.table(rules.table(name), name, [ChainKind::Filter, ChainKind::Route], MANGLE_PRIORITY);
        let noted = from_ztunnel.counter().set_connection_mark(REPLY_MARK, MARK_MASK);
        let led = reply.counter().restore_mark();
        rules.rule(name, self.arriving, noted.saying("ztunnel's connections to apps are noted")).rule(
            name,
            self.sent,
            led.saying("apps' replies to those go back to ztunnel"),
        )
    }

    /// ztunnel's own queries are tracked apart, or their answers would be taken for answers to the apps'.
    fn queries(&self, rules: Ruleset) -> Ruleset {
        let name = self.raw;
        let udp = || Rule::new().transport(Transport::Udp);
        let sent = udp().port(End::Destination, Is::Equal, NAMES).mark(Is::Equal, ZTUNNEL_MARK, MARK_MASK);
        let answered = foreign(udp().port(End::Source, Is::Equal, NAMES));
        self.table(rules.table(name), name, [ChainKind::Filter; 2], RAW_PRIORITY)
            .rule(name, self.sent, sent.counter().set_zone(1).saying("ztunnel's own name queries are tracked apart"))
            .rule(name, self.arriving, answered.counter().set_zone(1).saying("and so are the answers to them"))
    }
}

/// Not sent by ztunnel.
pub(crate) fn foreign(rule: Rule) -> Rule {
    rule.mark(Is::Other, ZTUNNEL_MARK, MARK_MASK)
}

/// TCP.
pub(crate) fn tcp() -> Rule {
    Rule::new().transport(Transport::Tcp)
}

/// A name query by UDP that leaves by the wire and is not ztunnel's.
pub(crate) fn query(who: Rule) -> Rule {
    let query = who.leaving_by(Is::Other, "lo").transport(Transport::Udp).port(End::Destination, Is::Equal, NAMES);
    foreign(query).counter().redirect(DNS_PORT).saying("name queries by UDP go to ztunnel")
}
