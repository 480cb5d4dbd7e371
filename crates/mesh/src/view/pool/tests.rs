//! A pool always agrees with a plain map, and draws exactly by weight.

use std::collections::BTreeMap;

use super::*;
use crate::workload::Membership;

fn member(uid: &str, capacity: u32, eligible: bool) -> Member {
    let service = "ns/host".parse().unwrap();
    let workload = Workload {
        capacity,
        services: [Membership { service, ports: PortMap::default() }].into(),
        ..Workload::new(uid.into())
    };
    Member::new(Arc::new(workload), 0, eligible).unwrap()
}

/// How many points of the whole weight fall to each member.
fn shares(pool: &Pool) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for point in 0..pool.weight() {
        let drawn = pool.at(point).expect("every point below the weight belongs to a member");
        *shares.entry(drawn.workload.uid.to_string()).or_default() += 1;
    }
    shares
}

#[test]
fn every_eligible_member_gets_exactly_its_weight() {
    let mut pool = Pool::default();
    for (uid, capacity, eligible) in [("a", 1, true), ("b", 3, true), ("c", 0, true), ("d", 5, false)] {
        pool.put(member(uid, capacity, eligible));
    }
    assert_eq!(shares(&pool), BTreeMap::from([("a".into(), 1), ("b".into(), 3)]));
    assert_eq!(pool.weight(), 4);
    assert!(pool.at(4).is_none());
}

#[test]
fn the_points_of_a_member_are_those_that_draw_it() {
    let mut pool = Pool::default();
    for i in 0..200 {
        pool.put(member(&format!("uid-{i}"), i % 4, i % 5 > 0));
    }
    for i in 0..200 {
        let uid = format!("uid-{i}").as_str().into();
        let points: Vec<u64> =
            (0..pool.weight()).filter(|point| pool.at(*point).is_some_and(|m| m.workload.uid == uid)).collect();
        assert_eq!(pool.points(&uid).unwrap_or(0..0).collect::<Vec<_>>(), points, "{uid}");
    }
    assert_eq!(pool.points(&"uid-unknown".into()), None);
}

/// Children of the widest branch, and how many branches there are.
fn shape(branch: &Branch) -> (usize, usize) {
    let below = branch.children.iter().map(|child| match child {
        Child::Leaf(_) => (0, 0),
        Child::Branch(branch) => shape(branch),
    });
    below.fold((branch.children.len(), 1), |(widest, branches), (wide, below)| (widest.max(wide), branches + below))
}

#[test]
fn members_spread_over_branches_and_the_last_one_needs_none() {
    let mut pool = Pool::default();
    (0..1_000).for_each(|i| pool.put(member(&format!("uid-{i}"), 1, true)));
    let (widest, branches) = shape(&pool.0);
    assert!(widest <= 1 << LEVEL_BITS && branches > 1, "{widest} {branches}");
    (1..1_000).for_each(|i| pool.remove(&format!("uid-{i}").as_str().into()));
    assert_eq!((shape(&pool.0), pool.weight()), ((1, 1), 1));
}

#[test]
fn who_is_not_in_a_pool_or_has_no_weight_has_no_points() {
    let mut pool = Pool::default();
    (0..200).for_each(|i| pool.put(member(&format!("uid-{i}"), u32::from(i % 2 == 0), true)));
    for i in (1..200).step_by(2).chain(200..2_000) {
        assert_eq!(pool.points(&format!("uid-{i}").as_str().into()), None, "{i}");
    }
}

#[test]
fn an_empty_pool_has_nothing_to_draw() {
    let pool = Pool::default();
    assert!(pool.is_empty() && pool.at(0).is_none() && pool.get(&"a".into()).is_none());
}

#[test]
fn a_pool_agrees_with_a_plain_map_after_any_changes() {
    let mut model: BTreeMap<String, (u32, bool)> = BTreeMap::new();
    let mut pool = Pool::default();
    let mut seed = 1_u64;
    let mut next = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for step in 0..20_000 {
        let uid = format!("uid-{}", next(700));
        if next(3) == 0 {
            pool.remove(&uid.as_str().into());
            model.remove(&uid);
        } else {
            let (capacity, eligible) = (u32::try_from(next(4)).unwrap(), next(5) > 0);
            pool.put(member(&uid, capacity, eligible));
            model.insert(uid.clone(), (capacity, eligible));
        }
        let held = pool.get(&uid.as_str().into()).map(|m| (m.workload.capacity, m.eligible));
        assert_eq!(held, model.get(&uid).copied(), "{uid} after step {step}");
        if step % 1_000 == 0 {
            let all: BTreeMap<_, _> =
                pool.iter().map(|m| (m.workload.uid.to_string(), (m.workload.capacity, m.eligible))).collect();
            assert_eq!(all, model);
            let weights = model.iter().filter(|(_, (c, e))| *e && *c > 0);
            assert_eq!(shares(&pool), weights.map(|(uid, (c, _))| (uid.clone(), u64::from(*c))).collect());
        }
    }
}

#[test]
fn an_older_version_of_a_pool_never_changes() {
    let mut pool = Pool::default();
    (0..100).for_each(|i| pool.put(member(&format!("uid-{i}"), 1, true)));
    let before = pool.clone();
    (0..100).for_each(|i| pool.remove(&format!("uid-{i}").as_str().into()));
    assert!(pool.is_empty());
    assert_eq!(shares(&before).len(), 100);
}

#[test]
fn members_whose_hashes_are_equal_are_kept_apart() {
    let mut branch = Branch::default();
    for (uid, capacity) in [("a", 1), ("b", 2), ("c", 3)] {
        branch.put(member(uid, capacity, true), 7, HASH_BITS);
    }
    assert_eq!(branch.put(member("b", 5, true), 7, HASH_BITS), 2);
    assert_eq!(branch.weight, 9);
    assert_eq!(branch.find(&"c".into(), 7, HASH_BITS).unwrap().workload.capacity, 3);
    branch.remove(&"a".into(), 7, HASH_BITS);
    assert_eq!(branch.weight, 8);
    assert!(branch.find(&"a".into(), 7, HASH_BITS).is_none());
}
