use super::answer::{Answer, NoAnswer, age, cut, readdress, to_no_data_if_absent};
use super::query::{Extras, Fault, Query};
use super::reply::{Reply, refuse};
use super::*;

/// A query by its question, and records as hexadecimal text behind it.
pub(crate) fn query(name: &str, kind: u16, counts: [u16; 3], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1];
    counts.iter().for_each(|count| message.extend(count.to_be_bytes()));
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(rest);
    message
}

/// EDNS: size 1232, version, DO, options.
pub(crate) fn opt(version: u8, dnssec: u8, options: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 41, 4, 208, 0, version, dnssec, 0, 0, options.len() as u8];
    record.extend(options);
    record
}

/// A record of the question's name.
pub(crate) fn own(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// The answer to a query: flags, counts, records.
pub(crate) fn response(question: &[u8], flags: u16, counts: [u16; 3], records: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    for (place, count) in message[6..12].chunks_exact_mut(2).zip(counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    message.extend(records);
    message
}

fn refused(message: &[u8]) -> Option<Fault> {
    Query::parse(message).err()
}

#[test]
fn a_query_says_what_it_asks_and_by_which_edns() {
    let plain = query("Web.ns1", 28, [0; 3], &[]);
    let parsed = Query::parse(&plain).unwrap();
    assert_eq!((parsed.id, parsed.kind, parsed.class, parsed.extras), (0x1234, 28, 1, Extras::None));
    assert_eq!((parsed.question_end(), parsed.udp_size()), (plain.len(), 512));
    let mut name = String::from("left over");
    assert!(parsed.write_name(&plain, &mut name));
    assert_eq!((name.as_str(), parsed.shown_name(&plain)), ("web.ns1", "web.ns1.".to_owned()));

    let with = query("", 2, [0, 0, 1], &opt(0, 0x80, &[0, 10, 0, 0]));
    let parsed = Query::parse(&with).unwrap();
    assert_eq!((parsed.udp_size(), parsed.extras), (1232, Extras::Options));
    assert!(parsed.edns.unwrap().dnssec && parsed.write_name(&with, &mut name) && name.is_empty());
    let signed = query("a", 1, [0, 0, 2], &[opt(0, 0, &[]), own(250, 0, b"signature")].concat());
    assert_eq!(Query::parse(&signed).unwrap().extras, Extras::Records);
}

#[test]
fn names_that_no_host_has_are_shown_and_not_taken_for_others() {
    let mut message = query("a b", 1, [0; 3], &[]);
    let mut name = String::new();
    assert!(!Query::parse(&message).unwrap().write_name(&message, &mut name));
    message[HEADER + 2] = b'.';
    let parsed = Query::parse(&message).unwrap();
    assert!(!parsed.write_name(&message, &mut name));
    message[HEADER + 2] = 0;
    assert_eq!(parsed.shown_name(&message), "a\\x00b.");
}

#[test]
fn what_makes_no_sense_is_answered_by_what_is_wrong_and_answers_are_not_answered() {
    let good = query("a.b", 1, [0; 3], &[]);
    for length in 0..HEADER {
        assert_eq!(refused(&good[..length]), Some(Fault::Ignore));
    }
    for length in HEADER..good.len() {
        assert_eq!(refused(&good[..length]), Some(Fault::Answer(Rcode::FormErr)), "{length}");
    }
    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        refused(&message)
    };
    assert_eq!(changed(2, 0x80), Some(Fault::Ignore));
    assert_eq!(changed(2, 0x28), Some(Fault::Answer(Rcode::NotImp)));
    let malformed = Some(Fault::Answer(Rcode::FormErr));
    assert_eq!([changed(5, 0), changed(5, 2), changed(12, 0xc0), changed(12, 64), changed(11, 1)], [malformed; 5]);
    assert_eq!(refused(&[&good[..], &[0]].concat()), malformed, "bytes behind the end");
    assert_eq!(refused(&query("a", 252, [0; 3], &[])), Some(Fault::Answer(Rcode::Refused)));
    let two = [opt(0, 0, &[]), opt(0, 0, &[])].concat();
    assert_eq!(refused(&query("a", 1, [0, 0, 2], &two)), malformed);
    assert_eq!(refused(&query("a", 1, [0, 0, 1], &opt(1, 0, &[]))), Some(Fault::Answer(Rcode::BadVers)));
    let looped = [0xc0, 19, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(&query("a", 1, [0, 0, 1], &looped)), malformed);
}

#[test]
fn the_longest_name_is_read_and_a_longer_one_is_not() {
    let labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert!(refused(&query(&labels, 1, [0; 3], &[])).is_none());
    assert!(refused(&query(&format!("{labels}d"), 1, [0; 3], &[])).is_some());
    assert!(refused(&query(&vec!["a"; 127].join("."), 1, [0; 3], &[])).is_none());
    assert!(refused(&query(&vec!["a"; 255].join("."), 1, [0; 3], &[])).is_some());
}

#[test]
fn an_answer_of_our_own_has_the_question_as_it_was_asked_and_whole_records() {
    let message = query("WeB", 1, [0, 0, 1], &opt(0, 0x80, &[]));
    let parsed = Query::parse(&message).unwrap();
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, &message, &parsed, 512);
    let owner = reply.canonical("web.ns1").unwrap();
    reply.address(Some(owner), "10.0.0.1".parse().unwrap()).unwrap();
    reply.address(None, "fd00::1".parse().unwrap()).unwrap();
    reply.finish(Rcode::NoError);
    assert_eq!(out[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 3, 0, 0, 0, 1]);
    assert_eq!(out[12..21], message[12..21]);
    assert!(out.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]));
    // Read by the other half: the records are where they are said to be.
    let read = Answer::parse(&out, &message, &parsed).unwrap();
    assert_eq!((read.ttl, read.ttls.len()), (Some(30), 3));
    assert_eq!(out[usize::from(owner)..][..9], *b"\x03web\x03ns1\0");

    for limit in [60, 75, 76, 91] {
        let mut reply = Reply::new(&mut out, &message, &parsed, limit);
        let told = (1..9).take_while(|n| reply.address(None, [10, 0, 0, *n].into()).is_ok()).count();
        reply.finish(Rcode::NoError);
        assert!(out.len() <= limit && told == (limit - 21 - 11) / 16, "{limit}: {told}");
        assert_eq!(out[2] & 2, 2, "it says that it is cut off");
        assert_eq!(number(&out, 6).map(usize::from), Some(told));
    }
}

#[test]
fn that_there_is_nothing_is_said_for_a_time() {
    let message = query("web.ns1", 1, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    let mut out = Vec::new();
    for (rcode, byte) in [(Rcode::NoError, 0x80), (Rcode::NxDomain, 0x83)] {
        Reply::new(&mut out, &message, &parsed, 512).finish(rcode);
        assert_eq!(out[2..12], [0x85, byte, 0, 1, 0, 0, 0, 1, 0, 0]);
        let read = Answer::parse(&out, &message, &parsed).unwrap();
        assert_eq!((read.rcode, read.ttl), (rcode as u16, Some(reply::NEGATIVE_TTL)));
    }
    Reply::new(&mut out, &message, &parsed, 512).fail(Rcode::ServFail);
    assert_eq!((out[2..12].to_vec(), out.len()), (vec![0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0], message.len()));
    refuse(&mut out, &message, Rcode::NotImp);
    assert_eq!(out, [0x12, 0x34, 0x81, 0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    refuse(&mut out, &message, Rcode::BadVers);
    assert_eq!(out[11..], [1, 0, 0, 41, 16, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn a_name_that_is_none_is_not_told() {
    let message = query("a", 12, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    let mut out = Vec::new();
    for name in ["", "a..b", &"a".repeat(64), &vec!["a"; 200].join(".")] {
        let mut reply = Reply::new(&mut out, &message, &parsed, LARGEST);
        assert!(reply.pointer(name).is_err(), "{name}");
        reply.finish(Rcode::NoError);
        assert_eq!(number(&out, 6), Some(0));
    }
}

#[test]
fn an_answer_is_kept_for_its_shortest_time_and_a_denial_for_what_it_says() {
    let message = query("a.example", 16, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    let read =
        |flags, counts, records: &[u8]| Answer::parse(&response(&message, flags, counts, records), &message, &parsed);
    let two = [own(16, 300, b"\x01x"), own(46, 60, b"sig")].concat();
    assert_eq!(read(0, [2, 0, 0], &two).unwrap().ttl, Some(60));
    let with_opt = [own(16, 300, b"\x01x"), opt(0, 0, &[])].concat();
    let answer = read(0, [1, 0, 1], &with_opt).unwrap();
    assert_eq!((answer.ttl, answer.ttls.len()), (Some(300), 1), "EDNS has no time to live");
    let mut soa = vec![0; 22];
    soa[18..].copy_from_slice(&20u32.to_be_bytes());
    let zone = own(6, 900, &soa);
    assert_eq!(read(3, [0, 1, 0], &zone).unwrap().ttl, Some(20));
    assert_eq!(read(0, [0, 1, 0], &zone).unwrap().ttl, Some(20));
    assert_eq!(read(2, [0, 1, 0], &zone).unwrap().ttl, None, "a failure");
    assert_eq!(read(3, [0, 0, 0], &[]).unwrap().ttl, None, "for an unknown time");
    assert_eq!(read(flag::TRUNCATED, [2, 0, 0], &two[..20]).unwrap_err(), NoAnswer::Malformed);
    assert_eq!(read(flag::TRUNCATED, [2, 0, 0], &own(16, 300, b"\x01x")).unwrap().ttl, None);
    assert_eq!(read(0, [1, 0, 0], &own(16, 0, b"\x01x")).unwrap().ttl, None);
    assert_eq!(read(0, [1, 0, 0], &own(16, u32::MAX, b"\x01x")).unwrap().ttl, None);
    assert_eq!(read(0, [3, 0, 0], &two).unwrap_err(), NoAnswer::Malformed);
}

#[test]
fn what_answers_something_else_is_no_answer() {
    let message = query("a.example", 1, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    let good = response(&message, 0, [1, 0, 0], &own(1, 60, &[192, 0, 2, 1]));
    let changed = |at: usize, byte: u8| {
        let mut other = good.clone();
        other[at] = byte;
        Answer::parse(&other, &message, &parsed).unwrap_err()
    };
    for (at, byte) in [(0, 9), (2, 1), (5, 0), (13, b'b'), (HEADER + 12, 28)] {
        assert_eq!(changed(at, byte), NoAnswer::Foreign, "{at}");
    }
    assert_eq!(changed(13, b'A'), NoAnswer::Respelled);
    assert_eq!(Answer::parse(&[], &message, &parsed), Err(NoAnswer::Foreign));
}

#[test]
fn an_answer_is_made_one_for_another_client_without_touching_its_data() {
    let message = query("A.eXample", 1, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    let mut other = message.clone();
    other[0] = 0xff;
    other[12..23].copy_from_slice(b"\x01a\x07example\0");
    let mut answer = response(&other, 3, [1, 0, 0], &own(99, 60, b"EXAMPLE\xc0\x0c"));
    let data = answer[answer.len() - 9..].to_vec();
    readdress(&mut answer, &parsed, &message);
    assert_eq!(answer[..2], message[..2]);
    assert_eq!(answer[12..23], message[12..23]);
    let ttls = [u16::try_from(message.len() + 6).unwrap()];
    age(&mut answer, &ttls, 50);
    assert_eq!(answer[message.len() + 6..][..4], [0, 0, 0, 10]);
    age(&mut answer, &ttls, 50);
    assert_eq!(answer[message.len() + 6..][..4], [0; 4]);
    assert!(answer.ends_with(&data));
    to_no_data_if_absent(&mut answer);
    assert_eq!(answer[3] & 15, 0);
    cut(&mut answer, &parsed, message.len() + 1);
    assert_eq!((answer.len(), answer[2] & 2, number(&answer, 6)), (message.len(), 2, Some(0)));
}
