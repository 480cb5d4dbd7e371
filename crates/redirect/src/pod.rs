//! The rules of an enrolled pod, in whose namespace a ztunnel listens (spec in-pod 5, the nftables form).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layout::{DNS_PORT, MARK_MASK, NODE_AGENT, OUTBOUND_PORT, PLAINTEXT_PORT, REPLY_MARK, TUNNEL_PORT};
use crate::layout::{Layout, NAMES, foreign, query, tcp};
use crate::nft::Ruleset;
use crate::nft::expr::{End, Is, Rule};
use crate::routes::families;
use crate::{DnsCapture, RedirectError};

/// Where the node's own probes come from.
pub const PROBE_SOURCE: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
/// As [`PROBE_SOURCE`].
pub const PROBE_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);

/// Redirects the traffic of the calling thread's namespace to a ztunnel inside it, as the node agent does.
///
/// # Errors
/// [`RedirectError`] says which part the kernel refused.
pub fn install_as_node_agent(dns: DnsCapture) -> Result<(), RedirectError> {
    NODE_AGENT.replies.add()?;
    Ok(rules(&NODE_AGENT, Ruleset::new("an enrolled pod"), "", dns).apply()?)
}

/// All tables of a pod.
pub(crate) fn rules(layout: &Layout, rules: Ruleset, comment: &str, dns: DnsCapture) -> Ruleset {
    let rules = layout.marks(nat(layout, layout.nat(rules, comment)), dns);
    let rules = if dns == DnsCapture::On { names(layout, rules) } else { rules };
    outbound(layout, rules)
}

/// What arrives.
fn nat(layout: &Layout, mut rules: Ruleset) -> Ruleset {
    for (_, probe) in special_addresses() {
        let from = tcp().address(End::Source, Is::Equal, probe).counter().accept();
        let to = tcp().address(End::Destination, Is::Equal, probe).counter().accept();
        rules = rules.rule(layout.nat, layout.arriving, from.saying("the node's probes reach apps")).rule(
            layout.nat,
            layout.sent,
            to.saying("and are answered"),
        );
    }
    for (loopback, _) in special_addresses() {
        let outside = tcp().address(End::Destination, Is::Other, loopback);
        let not_tunnel = outside.port(End::Destination, Is::Other, TUNNEL_PORT);
        let plaintext = foreign(not_tunnel).counter().redirect(PLAINTEXT_PORT);
        rules = rules.rule(layout.nat, layout.arriving, plaintext.saying("plaintext for apps goes to ztunnel"));
    }
    rules
}

/// Name queries that apps send.
fn names(layout: &Layout, rules: Ruleset) -> Ruleset {
    let mut rules = rules.rule(layout.nat, layout.sent, query(Rule::new()));
    for (loopback, _) in special_addresses() {
        let query = tcp().address(End::Destination, Is::Other, loopback).port(End::Destination, Is::Equal, NAMES);
        let query = foreign(query).counter().redirect(DNS_PORT);
        rules = rules.rule(layout.nat, layout.sent, query.saying("name queries by TCP go to ztunnel"));
    }
    rules
}

/// Everything else that apps send.
fn outbound(layout: &Layout, rules: Ruleset) -> Ruleset {
    let reply = tcp().mark(Is::Equal, REPLY_MARK, MARK_MASK).counter().accept();
    let mut rules = rules.rule(layout.nat, layout.sent, reply.saying("replies to ztunnel stay as they are"));
    for (loopback, _) in special_addresses() {
        let to_itself = Rule::new().leaving_by(Is::Equal, "lo").address(End::Destination, Is::Other, loopback);
        let to_itself = to_itself.counter().accept();
        rules = rules.rule(layout.nat, layout.sent, to_itself.saying("the pod reaches itself directly"));
    }
    for (loopback, _) in special_addresses() {
        let outbound = foreign(tcp().address(End::Destination, Is::Other, loopback)).counter().redirect(OUTBOUND_PORT);
        rules = rules.rule(layout.nat, layout.sent, outbound.saying("what apps open goes to ztunnel"));
    }
    rules
}

/// For each family, the one loopback address that is never redirected, and the probes' source.
fn special_addresses() -> impl Iterator<Item = (IpAddr, IpAddr)> {
    families().into_iter().map(|family| match family {
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), PROBE_SOURCE.into()),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), PROBE_SOURCE_V6.into()),
    })
}
