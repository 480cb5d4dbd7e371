//! Baggage is read as it is written, and hostile baggage is harmless.

use super::*;
use crate::workload::Deployment;
use crate::workload::Locality;

fn read(line: &str) -> Baggage {
    parse([line.as_bytes()]).unwrap()
}

/// A workload of that canonical name.
fn called(name: &str) -> Workload {
    let deployment = Deployment { canonical_name: name.into(), ..Deployment::default() };
    Workload { deployment: deployment.into(), ..Workload::new("u".into()) }
}

fn named() -> Workload {
    Workload {
        namespace: "shop".into(),
        deployment: Deployment {
            workload_name: "cart-v1".into(),
            workload_type: WorkloadType::CronJob,
            canonical_name: "cart".into(),
            canonical_revision: "v1".into(),
            ..Deployment::default()
        }
        .into(),
        locality: Locality { region: "eu".into(), zone: "eu-1".into(), subzone: "rack".into() }.into(),
        ..Workload::new("u".into())
    }
}

#[test]
fn a_workload_is_written_in_the_agreed_order() {
    assert_eq!(
        write(&named()),
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.cronjob.name=cart-v1,service.name=cart,\
         service.version=v1,cloud.region=eu,cloud.availability_zone=eu-1"
    );
}

#[test]
fn absent_parts_are_left_out() {
    let bare = || Deployment { cluster_id: "".into(), ..Deployment::default() };
    let of = |deployment: Deployment| Workload { deployment: deployment.into(), ..Workload::new("u".into()) };
    assert_eq!(write(&of(bare())), "");
    assert_eq!(write(&of(Deployment { canonical_name: "cart".into(), ..bare() })), "service.name=cart");
}

#[test]
fn what_is_written_is_read_back() {
    let baggage = read(&write(&named()));
    assert_eq!(
        baggage,
        Baggage {
            cluster: Some("Kubernetes".into()),
            namespace: Some("shop".into()),
            workload_name: Some("cart-v1".into()),
            service_name: Some("cart".into()),
            revision: Some("v1".into()),
            region: Some("eu".into()),
            zone: Some("eu-1".into()),
        }
    );
}

#[test]
fn values_that_are_illegal_in_a_header_are_encoded_and_come_back() {
    for value in ["a,b", "a=b", "a;b", "a b", "100%", "\"q\"", "é", "back\\slash"] {
        let written = write(&called(value));
        assert!(written.bytes().all(|b| b.is_ascii_graphic()), "{written:?}");
        assert_eq!(read(&written).service_name.as_deref(), Some(value));
    }
    let control = write(&called("a\r\nb"));
    assert!(control.ends_with("service.name=a%0D%0Ab"), "{control}");
    assert_eq!(read(&control).service_name.as_deref(), Some("a%0D%0Ab"), "control characters are not let in");
}

#[test]
fn every_kind_of_owner_is_the_workload_name() {
    for kind in ["deployment", "cronjob", "pod", "job"] {
        assert_eq!(read(&format!("k8s.{kind}.name=x")).workload_name.as_deref(), Some("x"));
    }
    assert_eq!(read("k8s.robot.name=x,k8s.name=y,k8s.=z,other=1"), Baggage::default());
}

#[test]
fn later_values_win_over_lines_and_an_empty_one_means_absent() {
    let two = parse([&b"service.name=a,service.version=1"[..], b"service.name=b"]).unwrap();
    assert_eq!((two.service_name.as_deref(), two.revision.as_deref()), (Some("b"), Some("1")));
    assert_eq!(read("service.name=a,service.name=").service_name, None);
}

#[test]
fn spaces_and_properties_are_not_part_of_a_value() {
    let baggage = read(" service.name = a ;p=1 , service.version=2");
    assert_eq!((baggage.service_name.as_deref(), baggage.revision.as_deref()), (Some("a"), Some("2")));
}

#[test]
fn a_line_that_is_not_visible_ascii_spoils_all() {
    assert_eq!(parse([&b"service.name=a"[..], b"service.version=\xff"]), Err(InvalidBaggage));
    assert_eq!(parse([&b"service.name=a\0"[..]]), Err(InvalidBaggage));
}

#[test]
fn odd_members_are_skipped_and_odd_escapes_left_alone() {
    assert_eq!(read(",,=,=x,service.name,;"), Baggage::default());
    for value in ["%", "%4", "%zz", "a%ff"] {
        assert_eq!(read(&format!("service.name={value}")).service_name.as_deref(), Some(value));
    }
}

#[test]
fn members_beyond_the_limit_are_not_read() {
    let line = "x=1,".repeat(MAX_MEMBERS) + "service.name=late";
    assert_eq!(read(&line), Baggage::default());
    let full = vec!["x=1"; MAX_MEMBERS - 1].join(",");
    let lines = [full.as_bytes(), b"service.name=last", b"service.version=late"];
    let last = Baggage { service_name: Some("last".into()), ..Baggage::default() };
    assert_eq!(parse(lines), Ok(last), "of all lines together");
}
