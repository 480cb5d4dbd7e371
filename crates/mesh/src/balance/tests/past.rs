//! What earlier attempts change about a choice: who has been tried is out, who failed lately is avoided within bounds.

use std::time::Duration;

use super::*;
use crate::retry::{Pick, PickRole};

/// Endpoints, who has failed, what has been tried, and who may be chosen then.
type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a str);

fn pick(name: &str) -> Pick {
    Pick {
        service: "ns/web.example".parse().unwrap(),
        port: 80,
        uid: format!("c//v1/Pod/ns/{name}").as_str().into(),
        role: PickRole::Endpoint,
        others: Others::Left,
    }
}

/// Who may be chosen, with what chance, and whether there was anything else; in words.
fn spread(view: &View, failed: &[&str], tried: &[&str]) -> String {
    let now = Instant::now();
    let mut failures = Failures::default();
    failed.iter().for_each(|name| failures.failed(&pick(name), now));
    let tried: Vec<Pick> = tried.iter().map(|name| pick(name)).collect();
    let past = Past { failures: &failures, tried: &tried, now: now + Duration::from_millis(1) };
    let service = view.services().next().unwrap();
    let all = chances(|draw| {
        let chosen = choose(view, service, &held(view, "client"), (80, PortRule::Declared), &past, draw);
        chosen.map_or("none".to_owned(), |chosen| {
            let last = if chosen.others == Others::None { " (last)" } else { "" };
            format!("{}{last}", chosen.workload.name)
        })
    });
    let words: Vec<String> = all.iter().map(|(who, chance)| format!("{who} {:.0}%", chance * 100.0)).collect();
    words.join(", ")
}

fn mesh(service: Service, endpoints: &[Workload]) -> View {
    view([service.into(), client().into()].into_iter().chain(endpoints.iter().cloned().map(Change::from)))
}

fn endpoints(names: &[&str]) -> Vec<Workload> {
    names.iter().enumerate().map(|(i, name)| server(name, &format!("10.0.1.{i}"))).collect()
}

#[test]
fn who_has_been_tried_is_out_and_who_failed_is_avoided_up_to_a_half() {
    let rows: &[Row] = &[
        (&["a", "b", "c"], &[], &[], "a 33%, b 33%, c 33%"),
        (&["a", "b", "c"], &["b"], &[], "a 50%, c 50%"),
        (&["a", "b", "c"], &[], &["b"], "a 50%, c 50%"),
        (&["a", "b", "c"], &[], &["b", "c"], "a (last) 100%"),
        (&["a", "b", "c"], &[], &["a", "b", "c"], "none 100%"),
        // At most half of them: one of three, two of four, and never the last.
        (&["a", "b", "c"], &["a", "a", "b"], &[], "b 50%, c 50%"),
        (&["a", "b", "c", "d"], &["a", "b", "c"], &[], "c 50%, d 50%"),
        (&["a"], &["a"], &[], "a (last) 100%"),
        (&["a", "b"], &["a"], &[], "b 100%"),
        (&["a", "b"], &["a", "b"], &[], "b 100%"),
        // What is avoided is better than nothing.
        (&["a", "b"], &["a"], &["b"], "a (last) 100%"),
        // Who is no endpoint any more does not count.
        (&["a", "b"], &["gone", "a"], &[], "b 100%"),
        (&["a", "b", "c", "d", "e", "f"], &["a", "b", "c"], &[], "d 33%, e 33%, f 33%"),
    ];
    for (names, failed, tried, expected) in rows {
        let view = mesh(web(Mode::Standard, &[]), &endpoints(names));
        // Equally long avoided ones may be told apart in any order; a second failure makes no difference while one lasts.
        let spread = spread(&view, failed, tried);
        let swapped = spread.replace('a', "?").replace('b', "a").replace('?', "b");
        assert!(spread == *expected || swapped == *expected, "{names:?} {failed:?} {tried:?}: {spread}");
    }
}

#[test]
fn what_was_tried_for_another_port_or_service_is_a_choice_all_the_same() {
    let view = mesh(web(Mode::Standard, &[]), &endpoints(&["a", "b"]));
    let service = view.services().next().unwrap();
    for (tried, expected) in [
        (Pick { port: 81, ..pick("a") }, 2),
        (Pick { service: "ns/other.example".parse().unwrap(), ..pick("a") }, 2),
        (pick("a"), 1),
    ] {
        let past = Past { failures: &Failures::default(), tried: std::slice::from_ref(&tried), now: Instant::now() };
        let all = chances(|draw| {
            let chosen = choose(&view, service, &held(&view, "client"), (80, PortRule::Declared), &past, draw);
            chosen.map(|chosen| chosen.workload.name.to_string())
        });
        assert_eq!(all.len(), expected, "{tried:?}");
    }
}

#[test]
fn shares_of_those_left_follow_their_capacities() {
    let heavy = Workload { capacity: 3, ..server("a", "10.0.0.2") };
    let view = mesh(web(Mode::Standard, &[]), &[heavy, server("b", "10.0.0.3"), server("c", "10.0.0.4")]);
    assert_eq!(spread(&view, &["b"], &[]), "a 75%, c 25%");
    assert_eq!(spread(&view, &["a"], &[]), "b 50%, c 50%");
}

#[test]
fn where_the_nearest_failed_the_next_nearest_serve_unless_locality_is_strict() {
    let near = || server("near", "10.0.0.2").at("eu", "a");
    let region = || server("region", "10.0.0.3").at("eu", "b");
    let far = || server("far", "10.0.0.4").at("us", "c");
    let scopes = &[Scope::Region, Scope::Zone];
    let failover = mesh(web(Mode::Failover, scopes), &[near(), region(), far()]);
    assert_eq!(spread(&failover, &[], &[]), "near 100%");
    assert_eq!(spread(&failover, &["near"], &[]), "region 100%");
    assert_eq!(spread(&failover, &["near"], &["region"]), "far 100%");
    let strict = mesh(web(Mode::Strict, scopes), &[near(), region(), far()]);
    assert_eq!(spread(&strict, &["near"], &[]), "near (last) 100%");
    assert_eq!(spread(&strict, &[], &["near"]), "none 100%");
}

#[test]
fn endpoints_of_no_weight_are_no_alternative() {
    let idle = Workload { capacity: 0, ..server("b", "10.0.0.3") };
    let view = mesh(web(Mode::Standard, &[]), &[server("a", "10.0.0.2"), idle]);
    assert_eq!(spread(&view, &["a"], &[]), "a (last) 100%");
}
