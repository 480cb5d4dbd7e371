use super::*;

/// Feeds a whole conversation as the machine asks for it; yields what was said, how it ended, and what was left unread.
fn converse(mut bytes: &[u8]) -> (Vec<u8>, Result<Target, Violation>, &[u8]) {
    let mut machine = Negotiation::new();
    let mut said = Vec::new();
    loop {
        assert!((1..=MOST).contains(&machine.wants()), "{}", machine.wants());
        let (taken, rest) = bytes.split_at_checked(machine.wants()).expect("the client says enough");
        bytes = rest;
        match machine.take(taken) {
            Ok(Step::More) => {}
            Ok(Step::Say(words)) => said.extend(words),
            Ok(Step::Done(target)) => return (said, Ok(target), bytes),
            Err(violation) => return (said, Err(violation), bytes),
        }
    }
}

fn request(tail: &[u8]) -> (Vec<u8>, Result<Target, Violation>, &[u8]) {
    let whole = [&[5, 1, 0, 5, 1, 0], tail].concat();
    converse(whole.leak())
}

fn to(address: &str) -> Result<Target, Violation> {
    Ok(Target::Address(address.parse().unwrap()))
}

#[test]
fn every_type_of_address_is_understood() {
    assert_eq!(request(&[1, 10, 0, 0, 7, 0, 80]).1, to("10.0.0.7:80"));
    let mut v6 = vec![4];
    v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    v6.extend([0x1f, 0x90]);
    assert_eq!(request(&v6).1, to("[2001:db8::1]:8080"));
    let named = [&[3, 8], b"web.shop".as_slice(), &[0, 80]].concat();
    assert_eq!(request(&named).1, Ok(Target::Name("web.shop".to_owned(), 80)));
}

#[test]
fn an_address_has_one_form() {
    let mut mapped = vec![4];
    mapped.extend("::ffff:10.0.0.7".parse::<Ipv6Addr>().unwrap().octets());
    mapped.extend([0, 80]);
    assert_eq!(request(&mapped).1, to("10.0.0.7:80"));
    let text = [&[3, 8], b"10.0.0.7".as_slice(), &[0, 80]].concat();
    assert_eq!(request(&text).1, to("10.0.0.7:80"), "as text in a name too");
}

#[test]
fn what_follows_the_request_is_left_alone() {
    let (said, target, rest) = request(&[1, 10, 0, 0, 7, 0, 80, b'G', b'E', b'T']);
    assert_eq!((said, target), (vec![5, 0], to("10.0.0.7:80")));
    assert_eq!(rest, b"GET");
}

#[test]
fn the_longest_name_and_the_most_methods_fit() {
    let methods = [&[5, 255], [1; 254].as_slice(), &[0], &[5, 1, 0, 3, 255], &[b'x'; 255], &[0, 80]].concat();
    assert_eq!(converse(&methods).1, Ok(Target::Name("x".repeat(255), 80)));
}

#[test]
fn each_violation_is_answered_as_the_protocol_has_it() {
    let failed = |bytes: &[u8]| {
        let violation = converse(bytes).1.unwrap_err();
        (violation, violation.answer())
    };
    assert_eq!(failed(&[4, 1]), (Violation::Version(4), vec![]), "another protocol is not answered in this one");
    assert_eq!(failed(b"GE"), (Violation::Version(b'G'), vec![]));
    assert_eq!(failed(&[5, 0]), (Violation::NoMethods, vec![5, 0xff]));
    assert_eq!(failed(&[5, 2, 1, 2]), (Violation::NoAcceptableMethod, vec![5, 0xff]));
    let reply = |code| vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    assert_eq!(failed(&[5, 1, 0, 5, 2, 0, 1]), (Violation::Command(2), reply(7)));
    assert_eq!(failed(&[5, 1, 0, 5, 3, 0, 9]), (Violation::Command(3), reply(7)), "the command is looked at first");
    assert_eq!(failed(&[5, 1, 0, 5, 1, 0, 2]), (Violation::AddressType(2), reply(8)));
    assert_eq!(failed(&[5, 1, 0, 4, 1, 0, 1]), (Violation::RequestVersion(4), reply(1)));
    assert_eq!(failed(&[5, 1, 0, 5, 1, 0, 3, 0]), (Violation::Name, reply(1)));
    assert_eq!(failed(&[5, 1, 0, 5, 1, 0, 3, 2, 0xc3, 0x28, 0, 80]), (Violation::Name, reply(1)));
}

#[test]
fn any_bytes_come_to_an_end() {
    // Every two first bytes, and every request head, with nonsense behind them.
    for a in 0..=255_u8 {
        for b in 0..=255_u8 {
            let tail: Vec<u8> = (0..600_u32).map(|i| (i as u8).wrapping_mul(a).wrapping_add(b)).collect();
            let _ = converse(&[&[a, b], tail.as_slice()].concat());
            let _ = converse(&[&[5, 1, 0, 5, 1, a, b], tail.as_slice()].concat());
        }
    }
}
