//! Names compare and print as the protocol expects.

use std::collections::HashSet;
use std::sync::Arc;

use super::*;

#[test]
fn host_names_differ_in_neither_case_nor_final_dot() {
    let set = HashSet::from([Hostname::from("Web.Example.COM.")]);
    assert!(set.contains(&Hostname::from("web.example.com")));
    assert!(set.contains("web.example.com"), "a lookup by text uses the undotted form");
    assert!(!set.contains(&Hostname::from("web.example.co")));
    assert!(Hostname::from("A.example") < Hostname::from("b.example.") && Hostname::from("b") > Hostname::from("A"));
}

#[test]
fn a_host_name_keeps_its_final_dot_for_the_resolver() {
    assert_eq!(Hostname::from("Legacy.example.net.").as_str(), "legacy.example.net.");
}

#[test]
fn a_namespaced_host_name_splits_at_the_first_slash() {
    let parsed: NamespacedHostname = "shop/cart/x".parse().unwrap();
    assert_eq!((parsed.namespace.as_str(), parsed.hostname.as_str()), ("shop", "cart/x"));
    let error = "cart".parse::<NamespacedHostname>().unwrap_err();
    assert_eq!(error.to_string(), "failed to parse namespaced hostname: cart");
}

#[test]
fn a_name_that_ends_or_begins_another_takes_no_memory_of_its_own_and_any_other_name_is_as_good() {
    let key: Arc<str> = "cluster//Pod/shop/cart-0".into();
    let name = Text::part_of(&key, "cart-0");
    assert_eq!((name.as_str(), Arc::strong_count(&key)), ("cart-0", 2));
    let cluster = Text::part_of(&key, "cluster");
    assert_eq!((cluster.as_str(), Arc::strong_count(&key)), ("cluster", 3));
    let other = Text::part_of(&key, "cart-1");
    assert_eq!((other.as_str(), Arc::strong_count(&key)), ("cart-1", 3));
    assert_eq!((Text::part_of(&key, "").as_str(), Text::part_of(&"x".into(), "xx").as_str()), ("", "xx"));
    assert!(name == Text::from("cart-0") && name != other);
    assert_eq!(Text::from("cart-0".to_owned()), name, "wherever the text comes from");
}

#[test]
fn the_local_workload_prints_as_in_error_texts() {
    let who = LocalWorkload { name: "cart-0".into(), namespace: "shop".into(), service_account: "cart".into() };
    assert_eq!(who.to_string(), "cart.shop (cart-0)");
}
