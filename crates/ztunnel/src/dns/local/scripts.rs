//! Scripts in `scripts/`: a mesh, queries, and the messages that are to answer them, as `dig` would print them.
//!
//! A line each: `service` makes the mesh, `reset` starts over, and `name type options -> answer` asks from a pod of `ns1`.
//! Options of queries: `tcp`, `cd` and `norec` (flags), `edns=SIZE`, `do`, `version=NUMBER`, `class=NUMBER`. An answer is its
//! code and flags, then its records, those of the authority section after `auth`, and EDNS. What names mean is tested with
//! `mesh::lookup`.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use mesh::lookup::{Families, Search};
use mesh::view::{Change, State};
use mesh::{Service, Uid};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::dns::wire::query::Fault;
use crate::dns::wire::tests::query;
use crate::dns::wire::{HEADER, flag, number, reply};

const KINDS: [(u16, &str); 8] =
    [(1, "A"), (5, "CNAME"), (6, "SOA"), (12, "PTR"), (16, "TXT"), (28, "AAAA"), (33, "SRV"), (252, "AXFR")];
const FLAGS: [(u16, &str); 6] =
    [(0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra"), (0x0020, "ad"), (0x0010, "cd")];
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

fn run(text: &str) {
    let mut services: Vec<Change> = Vec::new();
    let mut asked = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some((question, wanted)) = line.split_once("->") {
            asked += 1;
            assert_eq!(ask(&services, question.trim()), wanted.trim(), "line {}: {line}", number + 1);
            continue;
        }
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["reset"] => services.clear(),
            ["service", name, vips @ ..] => {
                let mut addresses = Vec::new();
                for vip in vips {
                    match vip.split_once('*') {
                        // 10.0.0.0*40 stands for so many addresses.
                        Some((first, count)) => {
                            let first = u32::from(first.parse::<Ipv4Addr>().unwrap());
                            let all = first..first + count.parse::<u32>().unwrap();
                            addresses.extend(all.map(|n| format!("/{}", Ipv4Addr::from(n)).parse().unwrap()));
                        }
                        None => addresses.push(format!("/{vip}").parse().unwrap()),
                    }
                }
                let vips = addresses.into_iter().collect();
                services.push(Service { vips, ..Service::new(name.parse().unwrap()) }.into());
            }
            _ => panic!("line {}: {line}", number + 1),
        }
    }
    assert!(asked > 0);
}

fn ask(services: &[Change], question: &str) -> String {
    let mut state = State::new(None);
    let _ = state.apply(services.iter().cloned());
    let view = state.view();
    let settings = LookupSettings {
        domain: "cluster.local".into(),
        search: Search::OfPod,
        preferred: None,
        families: Families::Dual,
        on_demand: false,
    };
    let client = Workload { namespace: "ns1".into(), ..Workload::new(Uid::from("client")) };
    let (message, transport) = message(question);
    let mut answers = Answers::default();
    match Query::parse(&message) {
        Ok(query) => {
            let (view, client, settings, learnt) = (&view, &client, &settings, &Learnt::default());
            let asked = Asked { view, client, settings, learnt, message: &message, query: &query, transport };
            match answers.answer(&asked, &mut StdRng::seed_from_u64(1)) {
                Step::Told(_) => {}
                Step::Forward(Standing::Exists) => return "forward, it exists".to_owned(),
                Step::Forward(Standing::Stranger) => return "forward".to_owned(),
                Step::Need(need) => panic!("{need:?}"),
            }
        }
        Err(Fault::Ignore) => return "nothing".to_owned(),
        Err(Fault::Answer(rcode)) => reply::refuse(&mut answers.out, &message, rcode),
    }
    assert_eq!(answers.out[..2], message[..2], "the number of the query");
    show(&answers.out)
}

fn message(question: &str) -> (Vec<u8>, Transport) {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [name, kind, options @ ..] = words.as_slice() else { panic!("{question}") };
    let kind = KINDS.iter().find(|(_, name)| name == kind).unwrap().0;
    let (mut flags, mut class, mut edns, mut transport) = (flag::RECURSION_DESIRED, 1u16, None, Transport::Udp);
    for option in options {
        let edns_or = |edns: Option<(u16, u8, u8)>| edns.unwrap_or((1232, 0, 0));
        match option.split_once('=').unwrap_or((option, "")) {
            ("tcp", _) => transport = Transport::Tcp,
            ("cd", _) => flags |= flag::CHECKING_DISABLED,
            ("norec", _) => flags &= !flag::RECURSION_DESIRED,
            ("class", number) => class = number.parse().unwrap(),
            ("edns", size) => edns = Some((size.parse().unwrap(), edns_or(edns).1, edns_or(edns).2)),
            ("version", number) => edns = Some((edns_or(edns).0, number.parse().unwrap(), edns_or(edns).2)),
            ("do", _) => edns = Some((edns_or(edns).0, edns_or(edns).1, 0x80)),
            _ => panic!("{question}"),
        }
    }
    let mut rest = Vec::new();
    if let Some((size, version, dnssec)) = edns {
        rest.extend([0, 0, 41]);
        rest.extend(size.to_be_bytes());
        rest.extend([0, version, dnssec, 0, 0, 0]);
    }
    let name = name.trim_end_matches('.');
    let mut message = query(name, kind, [0, 0, u16::from(edns.is_some())], &rest);
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    let class_at = message.len() - rest.len() - 2;
    message[class_at..class_at + 2].copy_from_slice(&class.to_be_bytes());
    (message, transport)
}

fn show(message: &[u8]) -> String {
    let flags = number(message, 2).unwrap();
    assert!(flags & flag::RESPONSE != 0);
    let mut text = CODES[usize::from(flags & flag::RCODE)].to_owned();
    for (bit, name) in FLAGS {
        if flags & bit != 0 {
            let _ = write!(text, " {name}");
        }
    }
    let mut at = HEADER;
    if number(message, 4) == Some(1) {
        at = name(message, at).1 + 4;
    }
    let mut shown = Vec::new();
    for (section, place) in ["", "auth ", ""].into_iter().zip([6, 8, 10]) {
        for _ in 0..number(message, place).unwrap() {
            let (owner, end) = name(message, at);
            let (kind, class) = (number(message, end).unwrap(), number(message, end + 2).unwrap());
            let ttl = u32::from_be_bytes(message[end + 4..end + 8].try_into().unwrap());
            let start = end + 10;
            at = start + usize::from(number(message, end + 8).unwrap());
            let data = &message[start..at];
            shown.push(match kind {
                41 => format!("edns={class} code={} version={} do={}", ttl >> 24, (ttl >> 16) & 0xff, (ttl >> 15) & 1),
                1 => format!("{owner} {ttl} A {}", Ipv4Addr::from(<[u8; 4]>::try_from(data).unwrap())),
                28 => format!("{owner} {ttl} AAAA {}", Ipv6Addr::from(<[u8; 16]>::try_from(data).unwrap())),
                5 => format!("{owner} {ttl} CNAME {}", name(message, start).0),
                12 => format!("{owner} {ttl} PTR {}", name(message, start).0),
                6 => format!("{section}{owner} {ttl} SOA"),
                other => panic!("no such record is made: {other}"),
            });
        }
    }
    assert_eq!(at, message.len());
    // Addresses are told in random order: of several, how many there are is enough.
    let addresses = shown.iter().filter(|record| record.contains(" A ")).count();
    if addresses > 1 {
        shown.retain(|record| !record.contains(" A "));
        shown.insert(0, format!("{addresses} addresses"));
    }
    let records: String = shown.iter().fold(String::new(), |all, record| all + "; " + record);
    text + &records
}

/// A name and where it ends.
fn name(message: &[u8], start: usize) -> (String, usize) {
    let (mut text, mut at, mut end) = (String::new(), start, None);
    while message[at] != 0 {
        if message[at] >= 0xc0 {
            end.get_or_insert(at + 2);
            at = usize::from(number(message, at).unwrap() & 0x3fff);
            continue;
        }
        let next = at + 1 + usize::from(message[at]);
        text += std::str::from_utf8(&message[at + 1..next]).unwrap();
        text.push('.');
        at = next;
    }
    (if text.is_empty() { ".".to_owned() } else { text }, end.unwrap_or(at + 1))
}

#[test]
fn answers_have_the_form_that_resolvers_expect() {
    run(include_str!("scripts/answers.txt"));
}

#[test]
fn answers_keep_to_what_clients_take() {
    run(include_str!("scripts/sizes.txt"));
}

#[test]
fn what_makes_no_sense_or_is_not_the_meshs_is_told_so_or_left_to_others() {
    run(include_str!("scripts/others.txt"));
}
