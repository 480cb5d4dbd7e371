use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::dns::wire::tests::{own, query, response};

fn asked() -> (Vec<u8>, Query) {
    let message = query("some.long.name.example", 16, [0; 3], &[]);
    let parsed = Query::parse(&message).unwrap();
    (message, parsed)
}

#[test]
fn a_query_is_sent_under_another_number_and_in_another_spelling_and_its_answer_comes_back_in_the_first() {
    let (message, parsed) = asked();
    let mut exchange = Exchange::new(&message, &parsed, &mut StdRng::seed_from_u64(1));
    let sent = exchange.message().to_vec();
    assert_ne!(sent[..2], message[..2]);
    assert_ne!(sent[12..], message[12..]);
    assert!(sent[12..].eq_ignore_ascii_case(&message[12..]));
    let mut answer = response(&sent, 0, [1, 0, 0], &own(16, 60, b"\x01x"));
    assert!(matches!(exchange.hear(&mut answer), Heard::Answer(_)));
    assert_eq!(answer, response(&message, 0, [1, 0, 0], &own(16, 60, b"\x01x")));
}

#[test]
fn a_signed_query_keeps_its_spelling() {
    let message = query("some.long.name.example", 16, [0, 0, 1], &own(250, 0, b"signature"));
    let parsed = Query::parse(&message).unwrap();
    let exchange = Exchange::new(&message, &parsed, &mut StdRng::seed_from_u64(1));
    assert_eq!(exchange.message()[2..], message[2..]);
}

#[test]
fn guesses_are_ignored_and_after_many_of_them_the_query_goes_where_nobody_can_guess() {
    let (message, parsed) = asked();
    let mut exchange = Exchange::new(&message, &parsed, &mut StdRng::seed_from_u64(1));
    let guess = response(&message, 0, [1, 0, 0], &own(16, 60, b"\x01x"));
    for _ in 0..MOST_FOREIGN {
        assert_eq!(exchange.hear(&mut guess.clone()), Heard::Nothing);
    }
    assert_eq!(exchange.hear(&mut guess.clone()), Heard::AskInOrder);
}

#[test]
fn whoever_does_not_keep_the_spelling_is_asked_in_order() {
    let (message, parsed) = asked();
    let mut exchange = Exchange::new(&message, &parsed, &mut StdRng::seed_from_u64(1));
    let mut lower = response(exchange.message(), 0, [1, 0, 0], &own(16, 60, b"\x01x"));
    lower[12..].make_ascii_lowercase();
    assert_eq!(exchange.hear(&mut lower.clone()), Heard::AskInOrder);
    assert!(exchange.hear_in_order(&mut lower).is_some());
    assert_eq!(lower[..36], response(&message, 0, [1, 0, 0], &[])[..36]);
}

#[test]
fn nonsense_is_told_from_an_answer() {
    let (message, parsed) = asked();
    let mut exchange = Exchange::new(&message, &parsed, &mut StdRng::seed_from_u64(1));
    let mut looped = response(exchange.message(), 0, [1, 0, 0], &own(16, 60, b"\x01x"));
    let at = message.len();
    looped[at..at + 2].copy_from_slice(&[0xc0, u8::try_from(at).unwrap()]);
    assert_eq!(exchange.hear(&mut looped), Heard::Nonsense);
}
