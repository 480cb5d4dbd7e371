//! Policies by key and by what they apply to.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Map;
use crate::name::{Namespace, PolicyName};
use crate::policy::{Policy, PolicyScope};

/// All policies. Those that select workloads are reached by key only.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    by_key: Map<PolicyName, Arc<Policy>>,
    global: RedBlackTreeMapSync<PolicyName, Arc<Policy>>,
    by_namespace: Map<Namespace, RedBlackTreeMapSync<PolicyName, Arc<Policy>>>,
}

impl Policies {
    pub(super) fn get(&self, key: &PolicyName) -> Option<&Arc<Policy>> {
        self.by_key.get(key)
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    pub(super) fn over<'a>(&'a self, namespace: &Namespace) -> impl Iterator<Item = &'a Arc<Policy>> + use<'a> {
        self.by_namespace.get(namespace).into_iter().flat_map(|own| own.values()).chain(self.global.values())
    }

    pub(super) fn put(&mut self, policy: Arc<Policy>) {
        self.remove(&policy.key);
        let key = policy.key.clone();
        match policy.scope {
            PolicyScope::Global => self.global.insert_mut(key.clone(), policy.clone()),
            PolicyScope::Namespace => {
                let own = self.by_namespace.get(&policy.namespace).cloned().unwrap_or_default();
                self.by_namespace.insert_mut(policy.namespace.clone(), own.insert(key.clone(), policy.clone()));
            }
            PolicyScope::WorkloadSelector => {}
        }
        self.by_key.insert_mut(key, policy);
    }

    /// Whether there was one to remove.
    pub(super) fn remove(&mut self, key: &PolicyName) -> bool {
        let Some(policy) = self.by_key.get(key).cloned() else {
            return false;
        };
        self.by_key.remove_mut(key);
        match policy.scope {
            PolicyScope::Global => {
                self.global.remove_mut(key);
            }
            PolicyScope::Namespace => {
                let rest = self.by_namespace.get(&policy.namespace).map(|own| own.remove(key));
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
