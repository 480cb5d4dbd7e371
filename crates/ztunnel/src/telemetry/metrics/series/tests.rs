use mesh::Locality;

use super::*;
use crate::telemetry::fixtures::{inbound, outbound, passthrough};

#[test]
fn flows_with_the_same_labels_share_a_series_whatever_their_addresses() {
    let table = Table::default();
    let first = table.series(&Arc::new(outbound()));
    let other = Flow { source_address: "10.9.9.9:1".parse().unwrap(), trace: TraceId(8), ..outbound() };
    assert!(Arc::ptr_eq(&first, &table.series(&Arc::new(other))));
}

#[test]
fn every_label_tells_series_apart() {
    let table = Table::default();
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
        source(|p| p.locality = Some(Locality { region: "r2".into(), ..Locality::default() })),
        source(|p| p.locality = Some(Locality { region: "r1".into(), zone: "z".into(), ..Locality::default() })),
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
    let table = Table::default();
    table.series(&Arc::new(outbound()));
    let mut flow = outbound();
    flow.source.pod = Some("another-pod".into());
    flow.source.identity = None;
    flow.destination.locality = Some(Locality { subzone: "s".into(), region: "r1".into(), ..Locality::default() });
    table.series(&Arc::new(flow));
    assert_eq!(table.all().len(), 1);
}

#[test]
fn flags_have_a_slot_each() {
    for (at, flag) in FLAGS.into_iter().enumerate() {
        assert_eq!(slot(flag), at);
    }
}

#[test]
fn beyond_the_bound_connections_are_counted_together() {
    let table = Table::default();
    let flow = |n: usize| {
        let mut flow = outbound();
        flow.source.workload = Some(n.to_string().into());
        Arc::new(flow)
    };
    for n in 0..MAX_SERIES {
        table.series(&flow(n)).opened();
    }
    assert_eq!(table.all().len(), MAX_SERIES);
    let (one, two) = (table.series(&flow(MAX_SERIES)), table.series(&flow(MAX_SERIES + 1)));
    assert!(Arc::ptr_eq(&one, &two));
    one.opened();
    assert_eq!(table.all().len(), MAX_SERIES + 1);
    assert!(!Arc::ptr_eq(&one, &table.series(&flow(0))), "known labels keep their series");
}
