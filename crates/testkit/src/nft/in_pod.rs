//! The redirection rules around a ztunnel: those that the node agent lays into an enrolled pod (spec in-pod 5, the
//! nftables form), and the single one for a ztunnel that serves its own namespace (spec data-plane 2.5, last sentence).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::expr::{End, Is, Rule, Transport};
use super::{Chain, ChainKind, Hook, NftError, Ruleset};
use crate::link::{self, LinkError};

/// What ztunnel puts on the packets that it sends.
pub const ZTUNNEL_MARK: u32 = 0x539;
/// What an application's replies to ztunnel's spoofed connections get.
pub const REPLY_MARK: u32 = 0x111;
/// The bits of a mark that count.
pub const MARK_MASK: u32 = 0xfff;
/// Routing table that delivers those replies locally.
pub const REPLY_TABLE: u8 = 100;
/// Priority of the rule that leads to [`REPLY_TABLE`].
pub const REPLY_PRIORITY: u32 = 32764;
/// ztunnel's ports in a pod: outbound, inbound plaintext, inbound tunnels, DNS.
pub const OUTBOUND_PORT: u16 = 15001;
/// See [`OUTBOUND_PORT`].
pub const PLAINTEXT_PORT: u16 = 15006;
/// See [`OUTBOUND_PORT`].
pub const TUNNEL_PORT: u16 = 15008;
/// See [`OUTBOUND_PORT`].
pub const DNS_PORT: u16 = 15053;
/// Where the node's own probes come from.
pub const PROBE_SOURCE: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
/// As [`PROBE_SOURCE`].
pub const PROBE_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);

/// Whether name queries of a pod are sent to ztunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsCapture {
    /// They go where the pod sends them.
    #[default]
    Off,
    /// To port 15053, by UDP and by TCP.
    On,
}

/// Rules or routes of a pod could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Packet rules.
    #[error(transparent)]
    Rules(#[from] NftError),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] LinkError),
}

const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";
const IN: &str = "istio-prerouting";
const OUT: &str = "istio-output";
const NAT_PRIORITY: i32 = -100;
const MANGLE_PRIORITY: i32 = -150;
const RAW_PRIORITY: i32 = -300;

/// Redirects the traffic of the calling thread's namespace to a ztunnel inside it.
///
/// # Errors
/// [`RedirectError`] says which part the kernel refused.
pub fn install(dns: DnsCapture) -> Result<(), RedirectError> {
    let mut any = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    if link::ipv6_available() {
        any.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    for family in &any {
        link::add_mark_rule(*family, REPLY_MARK, MARK_MASK, REPLY_PRIORITY, REPLY_TABLE)?;
        link::add_local_default(*family, REPLY_TABLE)?;
    }
    let rules = mangle(nat(Ruleset::new("an enrolled pod"), &any, dns));
    let rules = if dns == DnsCapture::On { raw(rules) } else { rules };
    Ok(rules.apply()?)
}

/// Redirects only what leaves the calling thread's namespace: for a dedicated ztunnel in it, which marks its packets.
///
/// # Errors
/// [`RedirectError::Rules`].
pub fn install_dedicated() -> Result<(), RedirectError> {
    let rules = Ruleset::new("a namespace with a ztunnel of its own")
        .table(NAT)
        .chain(NAT, Chain::at("output", ChainKind::Nat, Hook::Output, NAT_PRIORITY))
        .rule(
            NAT,
            "output",
            foreign(Rule::new().leaving_by(Is::Other, "lo").transport(Transport::Tcp))
                .counter()
                .redirect(OUTBOUND_PORT),
        );
    Ok(rules.apply()?)
}

/// A table whose base chains do nothing but jump to one chain each.
fn table(rules: Ruleset, name: &str, kinds: [ChainKind; 2], priority: i32) -> Ruleset {
    let rules = rules.table(name).chain(name, Chain::called(IN)).chain(name, Chain::called(OUT));
    rules
        .chain(name, Chain::at("prerouting", kinds[0], Hook::Prerouting, priority))
        .chain(name, Chain::at("output", kinds[1], Hook::Output, priority))
        .rule(name, "prerouting", Rule::new().jump(IN))
        .rule(name, "output", Rule::new().jump(OUT))
}

/// Not sent by ztunnel.
fn foreign(rule: Rule) -> Rule {
    rule.mark(Is::Other, ZTUNNEL_MARK, MARK_MASK)
}

fn nat(rules: Ruleset, families: &[IpAddr], dns: DnsCapture) -> Ruleset {
    let tcp = || Rule::new().transport(Transport::Tcp);
    let udp = || Rule::new().transport(Transport::Udp);
    let mut rules = table(rules, NAT, [ChainKind::Nat; 2], NAT_PRIORITY);
    let locals: Vec<(IpAddr, IpAddr)> = families.iter().map(|family| special_addresses(*family)).collect();
    for &(_, probe) in &locals {
        rules = rules.rule(NAT, IN, tcp().address(End::Source, Is::Equal, probe).counter().accept()).rule(
            NAT,
            OUT,
            tcp().address(End::Destination, Is::Equal, probe).counter().accept(),
        );
    }
    for &(loopback, _) in &locals {
        let outside = tcp().address(End::Destination, Is::Other, loopback);
        let not_tunnel = outside.port(End::Destination, Is::Other, TUNNEL_PORT);
        rules = rules.rule(NAT, IN, foreign(not_tunnel).counter().redirect(PLAINTEXT_PORT));
    }
    if dns == DnsCapture::On {
        let query = udp().leaving_by(Is::Other, "lo").port(End::Destination, Is::Equal, 53);
        rules = rules.rule(NAT, OUT, foreign(query).counter().redirect(DNS_PORT));
        for &(loopback, _) in &locals {
            let query = tcp().address(End::Destination, Is::Other, loopback).port(End::Destination, Is::Equal, 53);
            rules = rules.rule(NAT, OUT, foreign(query).counter().redirect(DNS_PORT));
        }
    }
    rules = rules.rule(NAT, OUT, tcp().mark(Is::Equal, REPLY_MARK, MARK_MASK).counter().accept());
    for &(loopback, _) in &locals {
        let to_itself = Rule::new().leaving_by(Is::Equal, "lo").address(End::Destination, Is::Other, loopback);
        rules = rules.rule(NAT, OUT, to_itself.counter().accept());
    }
    for &(loopback, _) in &locals {
        let outbound = foreign(tcp().address(End::Destination, Is::Other, loopback));
        rules = rules.rule(NAT, OUT, outbound.counter().redirect(OUTBOUND_PORT));
    }
    rules
}

fn mangle(rules: Ruleset) -> Ruleset {
    let from_ztunnel = Rule::new().mark(Is::Equal, ZTUNNEL_MARK, MARK_MASK);
    let reply = Rule::new().connection_mark(REPLY_MARK, MARK_MASK);
    table(rules, MANGLE, [ChainKind::Filter, ChainKind::Route], MANGLE_PRIORITY)
        .rule(MANGLE, IN, from_ztunnel.counter().set_connection_mark(REPLY_MARK, MARK_MASK))
        .rule(MANGLE, OUT, reply.counter().restore_mark())
}

/// ztunnel's own queries are tracked apart, or their answers would be taken for answers to the pod's.
fn raw(rules: Ruleset) -> Ruleset {
    let udp = || Rule::new().transport(Transport::Udp);
    let sent = udp().port(End::Destination, Is::Equal, 53).mark(Is::Equal, ZTUNNEL_MARK, MARK_MASK);
    let answered = foreign(udp().port(End::Source, Is::Equal, 53));
    table(rules, RAW, [ChainKind::Filter; 2], RAW_PRIORITY).rule(RAW, OUT, sent.counter().set_zone(1)).rule(
        RAW,
        IN,
        answered.counter().set_zone(1),
    )
}

/// The one loopback address that is never redirected, and the probes' source.
fn special_addresses(family: IpAddr) -> (IpAddr, IpAddr) {
    match family {
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST.into(), PROBE_SOURCE.into()),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST.into(), PROBE_SOURCE_V6.into()),
    }
}
