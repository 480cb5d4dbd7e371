use mesh::connect::TraceId;
use mesh::{Locality, Party, SecurityPolicy};

use super::super::labels::Shown;
use super::*;
use crate::telemetry::fixtures::{inbound, outbound, passthrough};

#[test]
fn flows_with_the_same_labels_share_a_series_whatever_their_addresses() {
    let table = Table::new(Settings::default());
    let first = table.series(&Arc::new(outbound()));
    let other = Flow { source_address: "10.9.9.9:1".parse().unwrap(), trace: TraceId(8), ..outbound() };
    assert!(Arc::ptr_eq(&first, &table.series(&Arc::new(other))));
}

#[test]
fn every_label_tells_series_apart() {
    let table = Table::new(Settings::default());
    let base = outbound();
    let source = |change: fn(&mut Party)| {
        let mut flow = outbound();
        change(&mut flow.source);
        flow
    };
    let mut distinct = vec![
        source(|p| p.workload = None),
        source(|p| p.canonical_service = Some("x".into())),
        source(|p| p.canonical_revision = Some("v2".into())),
        source(|p| p.namespace = Some("x".into())),
        source(|p| p.principal = None),
        source(|p| p.app = Some("x".into())),
        source(|p| p.version = Some("v2".into())),
        source(|p| p.cluster = Some("x".into())),
        source(|p| p.locality = Some(Locality { region: "r2".into(), ..Locality::default() }.into())),
        source(|p| p.locality = Some(Locality { region: "r1".into(), zone: "z".into(), ..Locality::default() }.into())),
        Flow { service: None, ..outbound() },
        Flow { security: SecurityPolicy::Unknown, ..outbound() },
        Flow { destination: Party::default(), ..outbound() },
        inbound(),
        passthrough(),
    ];
    distinct.push(base);
    for flow in &distinct {
        table.series(&Arc::new(flow.clone()));
    }
    assert_eq!(table.all().len(), distinct.len());
}

#[test]
fn what_labels_do_not_show_does_not_tell_series_apart() {
    let table = Table::new(Settings::default());
    table.series(&Arc::new(outbound()));
    let mut flow = outbound();
    flow.source.pod = Some("another-pod".into());
    flow.destination.locality =
        Some(Locality { subzone: "s".into(), region: "r1".into(), ..Locality::default() }.into());
    table.series(&Arc::new(flow));
    assert_eq!(table.all().len(), 1);
}

#[test]
fn flags_have_a_slot_each() {
    for (at, flag) in FLAGS.into_iter().enumerate() {
        assert_eq!(slot(flag), at);
    }
}

fn from(workload: usize) -> Arc<Flow> {
    let mut flow = outbound();
    flow.source.workload = Some(workload.to_string().into());
    Arc::new(flow)
}

#[test]
fn beyond_the_bound_connections_are_counted_together() {
    let most = 10;
    let table = Table::new(Settings { most, ..Settings::default() });
    for n in 0..most {
        table.series(&from(n)).opened();
    }
    assert_eq!((table.all().len(), table.overflowed()), (most, 0));
    let (one, two) = (table.series(&from(most)), table.series(&from(most + 1)));
    assert!(Arc::ptr_eq(&one, &two));
    one.opened();
    assert_eq!((table.all().len(), table.overflowed()), (most + 1, 1));
    assert!(!Arc::ptr_eq(&one, &table.series(&from(0))), "known labels keep their series");
}

/// Sweeps after which a series that nobody uses is gone.
fn let_time_pass(table: &Table) {
    for _ in 0..6 {
        table.sweep();
    }
}

#[test]
fn a_series_is_forgotten_when_nobody_has_used_it_for_a_while_and_comes_back_at_zero() {
    let table = Table::new(Settings::default());
    table.series(&from(1)).opened();
    table.sweep();
    assert_eq!(table.all().len(), 1, "its last connection has only just ended");
    let_time_pass(&table);
    assert_eq!((table.all().len(), table.evicted()), (0, 1));
    assert_eq!(table.series(&from(1)).opened.load(Ordering::Relaxed), 0);
}

#[test]
fn a_series_of_a_live_connection_is_never_forgotten_nor_one_that_is_used_now_and_then() {
    let table = Table::new(Settings::default());
    let live = table.series(&from(1));
    for _ in 0..20 {
        table.series(&from(2)).opened();
        table.sweep();
    }
    assert_eq!((table.all().len(), table.evicted()), (2, 0));
    assert!(Arc::ptr_eq(&live, &table.series(&from(1))));
    drop(live);
    let_time_pass(&table);
    assert_eq!(table.all().len(), 0);
}

#[test]
fn connections_between_ever_changing_workloads_leave_no_more_than_the_bound_and_then_nothing() {
    let most = 1_000;
    let table = Table::new(Settings { most, ..Settings::default() });
    let mut counted = 0;
    for n in 0..200_000 {
        let series = table.series(&from(n));
        series.opened();
        series.closed(ResponseFlag::None);
        if n % 500 == 0 {
            table.sweep();
        }
        if n % 10_000 == 0 {
            assert!(table.all().len() <= most + 1);
            counted += 1;
        }
    }
    assert_eq!(counted, 20);
    assert!(table.evicted() > 50_000, "{} of them were told apart", table.evicted());
    let_time_pass(&table);
    assert_eq!(table.all().len(), 1, "only what was counted together is left");
    assert!(table.capacity() < most, "the room that they took is given back");
    assert_eq!(table.evicted() + table.overflowed(), 200_000, "every connection was counted");
}

#[test]
fn series_that_differ_in_labels_that_are_not_shown_are_one() {
    let labels = Shown::only(["source_workload", "destination_zone"]).unwrap();
    let table = Table::new(Settings { labels, ..Settings::default() });
    let one = table.series(&from(1));
    let other = Flow { destination: Party::default(), ..Flow::clone(&from(1)) };
    assert!(Arc::ptr_eq(&one, &table.series(&Arc::new(other))));
    assert!(!Arc::ptr_eq(&one, &table.series(&from(2))));
    assert_eq!(Shown::only(["source_workload", "nonsense"]), Err("nonsense"));
}
