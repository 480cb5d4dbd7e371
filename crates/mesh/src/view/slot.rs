//! What shares one key of an index: nearly always one object, rarely several.
//!
//! Objects stay in the order in which they first came; an update keeps its place, so that it never decides a tie.

use std::sync::Arc;

use crate::name::Namespace;
use crate::service::Service;
use crate::workload::{Protocol, Workload};

/// The objects under one key; never none while it is in an index.
#[derive(Clone, Debug)]
pub(super) enum Slot<T> {
    One(Arc<T>),
    Many(Arc<Vec<Arc<T>>>),
}

/// An object that can be told from another version of itself and from others.
pub(super) trait Keyed {
    /// Whether both are versions of one object.
    fn same(&self, other: &Self) -> bool;
}

impl Keyed for Workload {
    fn same(&self, other: &Self) -> bool {
        self.uid == other.uid
    }
}

impl Keyed for Service {
    fn same(&self, other: &Self) -> bool {
        self.hostname == other.hostname && self.namespace == other.namespace
    }
}

impl<T: Keyed + Clone> Slot<T> {
    /// All objects, in the order in which they first came.
    pub(super) fn as_slice(&self) -> &[Arc<T>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Puts an object in the place of its older version, else behind all others.
    pub(super) fn with(slot: Option<&Self>, object: &Arc<T>) -> Self {
        let Some(slot) = slot else {
            return Self::One(object.clone());
        };
        let mut all = slot.as_slice().to_vec();
        match all.iter_mut().find(|old| old.same(object)) {
            Some(old) => *old = object.clone(),
            None => all.push(object.clone()),
        }
        Self::of(all).unwrap_or_else(|| Self::One(object.clone()))
    }

    /// Without an object; `None` if it was the only one.
    pub(super) fn without(&self, object: &T) -> Option<Self> {
        Self::of(self.as_slice().iter().filter(|other| !other.same(object)).cloned().collect())
    }

    fn of(mut all: Vec<Arc<T>>) -> Option<Self> {
        match all.len() {
            0 | 1 => all.pop().map(Self::One),
            _ => Some(Self::Many(Arc::new(all))),
        }
    }
}

impl Slot<Workload> {
    /// Of workloads that claim the same key the one that is most likely meant: pods before other things, tunnelled
    /// ones before others, then the latest (spec data-plane 4.1).
    pub(super) fn likeliest(&self) -> Option<&Arc<Workload>> {
        let rank = |workload: &Workload| {
            // The core group is empty; its version may follow.
            let pod = ["//Pod/", "//v1/Pod/"].iter().any(|kind| workload.uid.as_str().contains(kind));
            2 * u8::from(pod) + u8::from(workload.protocol == Protocol::Hbone)
        };
        // Of several greatest elements, `max_by_key` returns the last.
        self.as_slice().iter().max_by_key(|workload| rank(workload))
    }
}

impl Slot<Service> {
    /// Of services that share a name or an address the one that a client means: one of its namespace, else a canonical
    /// one, else the first (spec data-plane 4.2). Within one namespace the latest is meant.
    pub(super) fn best(&self, client: Option<&Namespace>) -> Option<&Arc<Service>> {
        let visible = || self.as_slice().iter().filter(|s| client.is_none_or(|client| s.visible_to(client)));
        let own = visible().rfind(|s| client == Some(&s.namespace));
        own.or_else(|| visible().rfind(|s| s.canonical)).or_else(|| {
            let first = visible().next()?;
            visible().rfind(|s| s.namespace == first.namespace)
        })
    }
}
