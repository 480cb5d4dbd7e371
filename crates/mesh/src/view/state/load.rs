//! Very many workloads that are all new: what the first push of a control plane brings.
//!
//! One after the other they would touch every index at a place of its own, each time far from the last, and waiting for
//! memory would be most of the work. Here each index is filled by itself, in the order in which it keeps its keys.
//! Workloads that share a key stay in their order, so that it comes to the same view.

use std::sync::Arc;

use super::{State, addresses, hostname, join, put};
use crate::view::by_uid::ByUid;
use crate::view::map;
use crate::workload::Workload;

impl State {
    /// Puts workloads of which none is known.
    pub(super) fn load(&mut self, workloads: Vec<Arc<Workload>>) {
        let mut by_uid: Vec<_> = workloads.iter().map(|workload| (map::order(&workload.uid), workload)).collect();
        by_uid.sort_unstable_by_key(|(order, workload)| (*order, &workload.uid));
        if by_uid.windows(2).any(|two| two[0].0 == two[1].0 && two[0].1.uid == two[1].1.uid) {
            // Twice the same workload: its older version has to be forgotten.
            return workloads.into_iter().for_each(|workload| self.put_workload(workload));
        }
        let view = &mut self.view;
        for (_, workload) in by_uid {
            view.workloads.insert_mut(ByUid(workload.clone()), ());
        }
        let each = |workload| addresses(workload).enumerate();
        let addressed =
            workloads.iter().flat_map(|workload| each(workload).map(move |(n, key)| (key.ip, (workload, n))));
        for (workload, index) in in_order(addressed.map(|(ip, rest)| (map::order(&ip), rest))) {
            if let Some(key) = addresses(workload).nth(index) {
                view.addresses.put(&key, workload);
            }
        }
        let here = workloads.iter().filter(|workload| self.node.as_ref().is_none_or(|node| *node == workload.node));
        for workload in here {
            put(&mut view.locals, workload.local(), workload);
            view.policies.put_workload(workload);
        }
        for (key, workload) in workloads.iter().filter_map(|workload| Some((hostname(workload)?, workload))) {
            put(&mut view.hostnames, key, workload);
        }
        let memberships =
            workloads.iter().flat_map(|w| w.services.iter().enumerate().map(move |(index, m)| (m, (w, index))));
        for (workload, index) in in_order(memberships.map(|(membership, rest)| (map::order(&membership.service), rest)))
        {
            join(view, workload, index);
        }
    }
}

/// Sorted by a number; what has the same stays in its order.
fn in_order<T>(all: impl Iterator<Item = (u32, T)>) -> impl Iterator<Item = T> {
    let mut all: Vec<(u32, T)> = all.collect();
    all.sort_by_key(|(order, _)| *order);
    all.into_iter().map(|(_, one)| one)
}
