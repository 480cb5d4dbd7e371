//! The policies that workloads of this node refer to, where they are many, by what a connection must have for them to match.
//!
//! Workloads with equal lists of references share one selection: the pods of a deployment have the same.

use std::sync::Arc;

use rpds::RedBlackTreeSetSync;

use super::super::Map;
use super::{ByKey, PolicySet};
use crate::name::{PolicyName, Uid};
use crate::policy::Policy;
use crate::workload::Workload;

/// References of a workload that are looked at one by one: so few cost no more than finding the right ones.
const FEW: usize = 16;

/// Tells selections apart; never used again.
type Number = u64;

/// The selections of all workloads that have one.
#[derive(Clone, Debug, Default)]
pub(super) struct Selections {
    /// Each workload's references as it has them, and the selection that was made of the like.
    workloads: Map<Uid, (Arc<[PolicyName]>, Number)>,
    selections: Map<Number, Arc<Selection>>,
    numbers: Map<Arc<[PolicyName]>, Number>,
    /// Who refers to a policy, known or not.
    referring: Map<PolicyName, Vec<Number>>,
    next: Number,
}

/// What one list of references comes to.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Those that are known.
    pub(crate) policies: PolicySet,
    /// Those that are not.
    pub(crate) unknown: RedBlackTreeSetSync<PolicyName>,
    references: Arc<[PolicyName]>,
    /// How many workloads have it.
    workloads: usize,
}

impl Selections {
    /// The selection of exactly this version of a workload, if it has one.
    pub(super) fn of(&self, workload: &Workload) -> Option<&Selection> {
        if workload.authorization_policies.len() <= FEW {
            return None;
        }
        let (references, number) = self.workloads.get(&workload.uid)?;
        // A former version may refer to others.
        let same = Arc::ptr_eq(references, &workload.authorization_policies);
        self.selections.get(number).filter(|_| same).map(|selection| &**selection)
    }

    /// A workload of this node is thus.
    pub(super) fn put(&mut self, workload: &Workload, known: &ByKey) {
        let references = &workload.authorization_policies;
        if references.len() <= FEW {
            return self.remove(&workload.uid);
        }
        let before = self.workloads.get(&workload.uid).cloned();
        let number = match self.numbers.get(references) {
            Some(number) => *number,
            None => self.select(references, known),
        };
        self.workloads.insert_mut(workload.uid.clone(), (references.clone(), number));
        self.count(number, |workloads| workloads + 1);
        // Only now: what stays the same is not made anew.
        if let Some((_, former)) = before {
            self.leave(former);
        }
    }

    /// A workload is no more, or no longer of this node.
    pub(super) fn remove(&mut self, workload: &Uid) {
        if let Some((_, number)) = self.workloads.get(workload).cloned() {
            self.workloads.remove_mut(workload);
            self.leave(number);
        }
    }

    /// A policy has become known, in the place of another version if there was one.
    pub(super) fn learn(&mut self, policy: &Arc<Policy>) {
        self.each(&policy.key, |selection| {
            selection.unknown.remove_mut(&policy.key);
            selection.policies.put(policy);
        });
    }

    /// A policy is no longer known, or no longer thus.
    pub(super) fn forget(&mut self, policy: &Policy) {
        self.each(&policy.key, |selection| {
            selection.policies.remove(policy);
            selection.unknown.insert_mut(policy.key.clone());
        });
    }

    fn each(&mut self, policy: &PolicyName, mut change: impl FnMut(&mut Selection)) {
        for number in self.referring.get(policy).into_iter().flatten() {
            if let Some(selection) = self.selections.get_mut(number) {
                change(Arc::make_mut(selection));
            }
        }
    }

    /// A selection of no workload yet.
    fn select(&mut self, references: &Arc<[PolicyName]>, known: &ByKey) -> Number {
        let number = self.next;
        self.next += 1;
        let (mut policies, mut unknown) = (PolicySet::default(), RedBlackTreeSetSync::new_sync());
        for name in once(references) {
            match known.get(name) {
                Some(policy) => policies.put(policy),
                None => unknown.insert_mut(name.clone()),
            }
            self.referring
                .insert_with(name.clone(), |others| others.into_iter().flatten().copied().chain([number]).collect());
        }
        let selection = Selection { policies, unknown, references: references.clone(), workloads: 0 };
        self.selections.insert_mut(number, Arc::new(selection));
        self.numbers.insert_mut(references.clone(), number);
        number
    }

    /// One workload less has it.
    fn leave(&mut self, number: Number) {
        if self.count(number, |workloads| workloads.saturating_sub(1)) > 0 {
            return;
        }
        let Some(selection) = self.selections.get(&number).cloned() else {
            return;
        };
        self.selections.remove_mut(&number);
        self.numbers.remove_mut(&selection.references);
        for name in once(&selection.references) {
            let others: Vec<_> = self.referring.get(name).into_iter().flatten().copied().collect();
            let rest: Vec<_> = others.into_iter().filter(|other| *other != number).collect();
            if rest.is_empty() {
                self.referring.remove_mut(name);
            } else {
                self.referring.insert_mut(name.clone(), rest);
            }
        }
    }

    /// Changes how many workloads have a selection; tells how many do.
    fn count(&mut self, number: Number, change: impl FnOnce(usize) -> usize) -> usize {
        let Some(selection) = self.selections.get_mut(&number).map(Arc::make_mut) else {
            return 0;
        };
        selection.workloads = change(selection.workloads);
        selection.workloads
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.selections.is_empty() && self.numbers.is_empty() && self.referring.is_empty()
    }
}

/// Each name once.
fn once(references: &[PolicyName]) -> Vec<&PolicyName> {
    let mut names: Vec<_> = references.iter().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
