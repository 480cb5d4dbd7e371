use super::*;

fn received(name: &str, version: &str, verdict: Verdict) -> Received {
    Received { name: name.into(), version: version.into(), aliases: Vec::new(), verdict }
}

fn good(name: &str, version: &str) -> Received {
    received(name, version, Verdict::Accepted)
}

fn response(kind: Kind, nonce: &str, resources: Vec<Received>, removed: &[&str]) -> Response {
    Response { kind, nonce: nonce.into(), resources, removed: removed.iter().map(|n| Name::from(*n)).collect() }
}

fn error(settled: &Settled) -> Option<&str> {
    match &settled.answer {
        Request::Settle { error, .. } => error.as_deref(),
        other => panic!("{other:?}"),
    }
}

/// What the opening request of a type claims to hold.
fn claims(requests: &[Request], wanted: Kind) -> Vec<(String, String)> {
    let claim = |request: &Request| match request {
        Request::Open { kind, versions, .. } if *kind == wanted => {
            Some(versions.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
        }
        _ => None,
    };
    requests.iter().find_map(claim).unwrap()
}

#[test]
fn a_stream_begins_with_addresses_then_policies_and_claims_nothing_at_first() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let open = |kind| Request::Open { kind, subscribe: vec![], unsubscribe: vec![], versions: BTreeMap::new() };
    assert_eq!(all.open(), [open(Kind::Address), open(Kind::Authorization)]);
}

#[test]
fn a_response_is_acknowledged_by_its_nonce() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let settled = all.settle(Instant::now(), response(Kind::Address, "n1", vec![good("a", "1")], &[]));
    let answer = Request::Settle { url: Kind::Address.url().into(), nonce: "n1".into(), error: None };
    assert_eq!(settled, Settled { answer, woken: vec![] });
}

#[test]
fn a_refusal_names_each_bad_resource_and_the_good_ones_count() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let bad = |name: &str| received(name, "2", Verdict::Rejected(format!("{name} is odd")));
    let now = Instant::now();
    let _ = all.settle(now, response(Kind::Address, "n1", vec![good("a", "1"), good("b", "1")], &[]));
    let push = vec![bad("a"), good("b", "2"), bad("c")];
    let settled = all.settle(now, response(Kind::Address, "n2", push, &[]));
    assert_eq!(error(&settled), Some("a: a is odd; c: c is odd"));
    let held = [("a".into(), "1".into()), ("b".into(), "2".into())];
    assert_eq!(claims(&all.open(), Kind::Address), held, "the bad one keeps its version, the new one has none");
    assert_eq!(all.rejected().map(|(_, name, _)| name.to_string()).collect::<Vec<_>>(), ["a", "c"]);
    let settled = all.settle(now, response(Kind::Address, "n3", vec![good("a", "3")], &["c"]));
    assert_eq!((error(&settled), all.rejected().len()), (None, 0));
}

#[test]
fn a_flawed_resource_is_reported_and_its_version_counts() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let flawed = received("ns/p", "7", Verdict::Flawed("match 1 unreadable".into()));
    let settled = all.settle(Instant::now(), response(Kind::Authorization, "n", vec![flawed], &[]));
    assert_eq!(error(&settled), Some("ns/p: match 1 unreadable"));
    assert_eq!(claims(&all.open(), Kind::Authorization), [("ns/p".into(), "7".into())]);
    assert_eq!(all.rejected().len(), 1);
}

#[test]
fn a_refusal_of_a_thousand_resources_is_of_bounded_length() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let bad = (0..5_000).map(|i| received(&format!("name-{i}"), "", Verdict::Rejected("x".repeat(50)))).collect();
    let settled = all.settle(Instant::now(), response(Kind::Address, "n", bad, &[]));
    let text = error(&settled).unwrap();
    assert!(text.len() < MAX_NACK + 100 && text.contains("; and "), "{}", text.len());
    assert_eq!(all.rejected().len(), MAX_REJECTED);
}

#[test]
fn what_is_removed_is_not_claimed() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let now = Instant::now();
    let _ = all.settle(now, response(Kind::Address, "1", vec![good("a", "1"), good("b", "1")], &[]));
    let _ = all.settle(now, response(Kind::Address, "2", vec![], &["a", "never-seen"]));
    assert_eq!(claims(&all.open(), Kind::Address), [("b".into(), "1".into())]);
}

#[test]
fn it_is_synced_when_each_type_has_been_answered() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let now = Instant::now();
    let _ = all.settle(now, response(Kind::Address, "1", vec![], &[]));
    assert!(!all.is_synced());
    let bad = received("ns/p", "", Verdict::Rejected("odd".into()));
    let _ = all.settle(now, response(Kind::Authorization, "2", vec![bad], &[]));
    assert!(all.is_synced(), "a part that was rejected does not hold up the rest");
    let mut some = Subscriptions::new(Lookups::OnDemand);
    let _ = some.settle(now, response(Kind::Authorization, "1", vec![], &[]));
    assert!(some.is_synced(), "addresses that are looked up are not waited for");
}

#[test]
fn claims_are_bounded_and_what_is_left_out_and_not_repeated_is_swept() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let now = Instant::now();
    let name = |i: usize| format!("cluster//v1/Pod/ns/{i:0>1000}");
    let _ = all.settle(now, response(Kind::Address, "1", (0..5_000).map(|i| good(&name(i), "1")).collect(), &[]));
    let claimed: HashSet<String> = claims(&all.open(), Kind::Address).into_iter().map(|(name, _)| name).collect();
    let size: usize = claimed.iter().map(|name| name.len() + 1 + CLAIM_OVERHEAD).sum();
    assert!(size <= MAX_CLAIM && claimed.len() > 1_000, "{size}");
    let left_out: Vec<String> = (0..5_000).map(name).filter(|name| !claimed.contains(name)).collect();
    assert_eq!(all.next_sweep(), None, "nothing is swept before the control plane has spoken");

    // It repeats all but one of those that it does not know we hold.
    let repeated = left_out.iter().skip(1).map(|name| good(name, "1")).collect();
    let _ = all.settle(now, response(Kind::Address, "2", repeated, &[]));
    assert_eq!(all.next_sweep(), Some(now + SWEEP_AFTER));
    assert_eq!(all.sweep(now), []);
    let gone = all.sweep(now + SWEEP_AFTER);
    assert_eq!(gone, [(Kind::Address, Name::from(left_out[0].as_str()))]);
    assert_eq!((all.next_sweep(), all.held()), (None, 4_999));
}

#[test]
fn a_stream_that_ends_before_the_sweep_sweeps_nothing() {
    let mut all = Subscriptions::new(Lookups::Everything);
    let now = Instant::now();
    let names = (0..3).map(|i| good(&"n".repeat(MAX_CLAIM / 2 + i), "1")).collect();
    let _ = all.settle(now, response(Kind::Address, "1", names, &[]));
    all.open();
    let _ = all.settle(now, response(Kind::Address, "2", vec![], &[]));
    assert!(all.next_sweep().is_some());
    all.open();
    assert_eq!((all.next_sweep(), all.held()), (None, 3));
}

#[test]
fn addresses_on_demand_are_asked_for_once_and_settled_by_name_or_alias() {
    let mut some = Subscriptions::new(Lookups::OnDemand);
    let now = Instant::now();
    let opened = some.open();
    let star = vec![Name::from("*")];
    assert!(
        matches!(&opened[0], Request::Open { subscribe, unsubscribe, .. } if *subscribe == star && *unsubscribe == star)
    );
    assert!(matches!(&opened[1], Request::Open { subscribe, .. } if subscribe.is_empty()));

    let key: Name = "net/10.0.0.1".into();
    assert_eq!(some.demand(now, &key), Demanded::Ask(Request::Subscribe(vec![key.clone()])));
    assert_eq!(some.demand(now, &key), Demanded::Wait);
    // A stream that breaks while somebody waits: the next one asks again.
    assert!(matches!(&some.open()[0], Request::Open { subscribe, .. } if subscribe.contains(&key)));
    let aliased = Received { aliases: vec![key.to_string()], ..good("uid", "1") };
    assert_eq!(some.settle(now, response(Kind::Address, "1", vec![aliased], &[])).woken, [key]);
}

#[test]
fn an_absence_is_believed_for_a_while() {
    let mut some = Subscriptions::new(Lookups::OnDemand);
    let now = Instant::now();
    let key: Name = "net/10.0.0.9".into();
    assert!(matches!(some.demand(now, &key), Demanded::Ask(_)));
    assert_eq!(some.settle(now, response(Kind::Address, "1", vec![], &[&key])).woken, std::slice::from_ref(&key));
    assert_eq!(some.demand(now + ABSENCE - Duration::from_millis(1), &key), Demanded::Absent);
    assert!(matches!(some.demand(now + ABSENCE, &key), Demanded::Ask(_)));
    // It comes into being meanwhile.
    let _ = some.settle(now, response(Kind::Address, "2", vec![], &[&key]));
    let _ = some.settle(now, response(Kind::Address, "3", vec![good(&key, "1")], &[]));
    assert!(matches!(some.demand(now, &key), Demanded::Ask(_)));
}

#[test]
fn waiting_is_bounded() {
    let mut some = Subscriptions::new(Lookups::OnDemand);
    let now = Instant::now();
    for i in 0..MAX_WAITING {
        assert!(matches!(some.demand(now, &i.to_string().into()), Demanded::Ask(_)));
    }
    assert_eq!(some.demand(now, &"one more".into()), Demanded::Absent);
    some.give_up(&"0".into());
    assert!(matches!(some.demand(now, &"one more".into()), Demanded::Ask(_)));
}
