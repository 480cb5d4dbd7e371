use super::*;

fn tunnels() -> Arc<Tunnels> {
    Arc::new(Tunnels::new(Allowance::new(1000), None))
}

fn holding(to_app: usize, to_peer: usize, half_closed: bool) -> Holding {
    Holding { to_app, to_peer, half_closed }
}

#[test]
fn numbers_are_seen_once_told_and_are_those_of_all_tunnels() {
    let tunnels = tunnels();
    let (mut one, mut other) = (tunnels.census(Reporter::Source), tunnels.census(Reporter::Source));
    let mut far = tunnels.census(Reporter::Destination);
    for census in [&mut one, &mut other, &mut far] {
        census.opened();
        census.changed(Holding::default(), holding(10, 1, true));
    }
    assert_eq!(tunnels.gauge(0, STREAMS), 0, "not told yet");
    [&mut one, &mut other, &mut far].into_iter().for_each(|census| census.tell_with(100));
    let all = |end| [TUNNELS, STREAMS, HALF_CLOSED, TO_APP, TO_PEER].map(|gauge| tunnels.gauge(end, gauge));
    assert_eq!((all(0), all(1)), ([2, 2, 2, 20, 202], [1, 1, 1, 10, 101]));
    assert_eq!(tunnels.load(), 3 * STREAM + 20 + 202 + 10 + 101);
    other.changed(holding(10, 1, true), holding(4, 0, false));
    other.tell_with(0);
    assert_eq!(all(0), [2, 2, 1, 14, 101]);
}

#[test]
fn a_tunnel_that_is_dropped_leaves_its_ends_and_nothing_else() {
    let tunnels = tunnels();
    let mut census = tunnels.census(Reporter::Source);
    for (how, _) in StreamEnd::ALL {
        census.opened();
        census.changed(Holding::default(), holding(5, 5, true));
        census.ended(holding(5, 5, true), how);
    }
    census.opened();
    census.changed(Holding::default(), holding(7, 7, false));
    census.tell_with(9);
    drop(census);
    assert!((0..GAUGES).all(|gauge| tunnels.gauge(0, gauge) == 0));
    assert!((0..ENDS).all(|how| tunnels.ended(0, how) == 1), "each way of ending has a number of its own");
}

#[test]
fn threads_count_apart_and_are_added_up() {
    let tunnels = tunnels();
    let censuses: Vec<Census> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| tunnels.census(Reporter::Source))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(tunnels.gauge(0, TUNNELS), 3);
    drop(censuses);
    assert_eq!(tunnels.gauge(0, TUNNELS), 0);
}
