//! Policies by key and by what they apply to.

use std::sync::Arc;

use super::Map;
use crate::name::{Namespace, PolicyName, Uid};
use crate::policy::{Policy, PolicyScope};
use crate::workload::Workload;

mod index;
mod selection;

pub(crate) use index::{PolicySet, Probe};
pub(crate) use selection::Selection;
use selection::Selections;

type ByKey = Map<PolicyName, Arc<Policy>>;

/// All policies. Those that select workloads are reached by key, or by the workload that refers to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    by_key: ByKey,
    global: PolicySet,
    by_namespace: Map<Namespace, PolicySet>,
    selections: Selections,
}

impl Policies {
    pub(super) fn get(&self, key: &PolicyName) -> Option<&Arc<Policy>> {
        self.by_key.get(key)
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    /// Those of a namespace, and the global ones.
    pub(super) fn over<'a>(&'a self, namespace: &Namespace) -> impl Iterator<Item = &'a PolicySet> + use<'a> {
        self.by_namespace.get(namespace).into_iter().chain([&self.global])
    }

    /// What a workload of this node refers to, unless that is quickly looked at one by one.
    pub(super) fn selection(&self, workload: &Workload) -> Option<&Selection> {
        self.selections.of(workload)
    }

    /// A workload of this node is thus.
    pub(super) fn put_workload(&mut self, workload: &Workload) {
        self.selections.put(workload, &self.by_key);
    }

    /// A workload is no more, or not of this node.
    pub(super) fn remove_workload(&mut self, workload: &Uid) {
        self.selections.remove(workload);
    }

    pub(super) fn put(&mut self, policy: Arc<Policy>) {
        self.remove(&policy.key);
        self.selections.learn(&policy);
        match policy.scope {
            PolicyScope::Global => self.global.put(&policy),
            PolicyScope::Namespace => {
                let mut own = self.by_namespace.get(&policy.namespace).cloned().unwrap_or_default();
                own.put(&policy);
                self.by_namespace.insert_mut(policy.namespace.clone(), own);
            }
            PolicyScope::WorkloadSelector => {}
        }
        self.by_key.insert_mut(policy.key.clone(), policy);
    }

    /// Whether there was one to remove.
    pub(super) fn remove(&mut self, key: &PolicyName) -> bool {
        let Some(policy) = self.by_key.get(key).cloned() else {
            return false;
        };
        self.by_key.remove_mut(key);
        self.selections.forget(&policy);
        match policy.scope {
            PolicyScope::Global => self.global.remove(&policy),
            PolicyScope::Namespace => {
                let rest = self.by_namespace.get(&policy.namespace).cloned().map(|mut own| {
                    own.remove(&policy);
                    own
                });
                match rest.filter(|rest| !rest.is_empty()) {
                    Some(rest) => self.by_namespace.insert_mut(policy.namespace.clone(), rest),
                    None => {
                        self.by_namespace.remove_mut(&policy.namespace);
                    }
                }
            }
            PolicyScope::WorkloadSelector => {}
        }
        true
    }
}
