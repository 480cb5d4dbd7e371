//! A persistent set of endpoints from which one is drawn by weight.
//!
//! A hash trie over workload keys whose branches know the weight below them: putting, removing, finding and drawing
//! all cost the logarithm of the set's size, and two versions of a set share all but one path.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::name::Uid;
use crate::ports::PortMap;
use crate::workload::Workload;

/// Bits of the hash that one level of the trie consumes.
const LEVEL_BITS: u32 = 5;
/// Bits of a hash; below the level that consumes the last of them, keys are compared one by one.
const HASH_BITS: u32 = u64::BITS;

/// An endpoint of a service.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The workload behind it.
    pub(crate) workload: Arc<Workload>,
    /// Which of the workload's memberships makes it an endpoint.
    membership: u32,
    /// Whether it takes part in load balancing.
    pub(crate) eligible: bool,
}

impl Member {
    /// `membership` counts in [`Workload::services`].
    pub(crate) fn new(workload: Arc<Workload>, membership: usize, eligible: bool) -> Option<Self> {
        workload.services.get(membership)?;
        Some(Self { workload, membership: u32::try_from(membership).ok()?, eligible })
    }

    /// Service port to target port.
    pub(crate) fn ports(&self) -> &PortMap {
        &self.workload.services.get(self.membership as usize).expect("checked when the member was made").ports
    }

    pub(crate) fn weight(&self) -> u64 {
        if self.eligible { u64::from(self.workload.capacity) } else { 0 }
    }
}

/// A set of members, at most one of each workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Branch);

#[derive(Clone, Debug, Default)]
struct Branch {
    /// Of all members below.
    weight: u64,
    /// Which of the children there are; they are all there in a branch below the last bit of the hash.
    present: u32,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Leaf(Member),
    Branch(Arc<Branch>),
}

impl Child {
    fn weight(&self) -> u64 {
        match self {
            Self::Leaf(member) => member.weight(),
            Self::Branch(branch) => branch.weight,
        }
    }
}

fn hash(uid: &Uid) -> u64 {
    let mut hasher = FxHasher::default();
    uid.hash(&mut hasher);
    hasher.finish()
}

impl Pool {
    /// Total weight of the eligible members.
    pub(crate) fn weight(&self) -> u64 {
        self.0.weight
    }

    /// Whether it has no member, eligible or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.children.is_empty()
    }

    /// Puts a member in the place of an older one of the same workload.
    pub(crate) fn put(&mut self, member: Member) {
        let hash = hash(&member.workload.uid);
        self.0.put(member, hash, 0);
    }

    /// Removes the member of a workload, if there is one.
    pub(crate) fn remove(&mut self, uid: &Uid) {
        let hash = hash(uid);
        if self.0.find(uid, hash, 0).is_some() {
            self.0.remove(uid, hash, 0);
        }
    }

    /// The member of a workload.
    pub(crate) fn get(&self, uid: &Uid) -> Option<&Member> {
        self.0.find(uid, hash(uid), 0)
    }

    /// All members, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        Iter { stack: vec![self.0.children.iter()] }
    }

    /// The eligible member in whose weight `point` falls when all weights are laid end to end.
    pub(crate) fn at(&self, point: u64) -> Option<&Member> {
        self.0.at(point)
    }

    /// The points that fall in the weight of a workload's member; `None` if it has no weight.
    pub(crate) fn points(&self, uid: &Uid) -> Option<Range<u64>> {
        self.0.points(uid, hash(uid), 0)
    }
}

impl Branch {
    /// Where the child for a hash is or would be; `None` where the hash has no bits left.
    fn position(&self, hash: u64, shift: u32) -> Option<(u32, usize)> {
        if shift >= HASH_BITS {
            return None;
        }
        let bit = 1 << ((hash >> shift) & ((1 << LEVEL_BITS) - 1));
        Some((bit, (self.present & (bit - 1)).count_ones() as usize))
    }

    /// The child that holds or would hold a workload.
    fn index(&self, uid: &Uid, hash: u64, shift: u32) -> Option<usize> {
        match self.position(hash, shift) {
            Some((bit, index)) => (self.present & bit != 0).then_some(index),
            None => self.children.iter().position(|c| matches!(c, Child::Leaf(m) if m.workload.uid == *uid)),
        }
    }

    fn find(&self, uid: &Uid, hash: u64, shift: u32) -> Option<&Member> {
        match self.children.get(self.index(uid, hash, shift)?)? {
            Child::Leaf(member) => (member.workload.uid == *uid).then_some(member),
            Child::Branch(branch) => branch.find(uid, hash, shift + LEVEL_BITS),
        }
    }

    fn points(&self, uid: &Uid, hash: u64, shift: u32) -> Option<Range<u64>> {
        let index = self.index(uid, hash, shift)?;
        let before: u64 = self.children.iter().take(index).map(Child::weight).sum();
        let points = match self.children.get(index)? {
            Child::Leaf(member) if member.workload.uid == *uid && member.weight() > 0 => 0..member.weight(),
            Child::Leaf(_) => return None,
            Child::Branch(branch) => branch.points(uid, hash, shift + LEVEL_BITS)?,
        };
        Some(before + points.start..before + points.end)
    }

    /// Returns the weight of the member replaced, if there was one.
    fn put(&mut self, member: Member, hash: u64, shift: u32) -> u64 {
        let new = member.weight();
        let old = match self.index(&member.workload.uid, hash, shift).and_then(|index| self.children.get_mut(index)) {
            None => {
                let at = match self.position(hash, shift) {
                    Some((bit, index)) => {
                        self.present |= bit;
                        index
                    }
                    None => self.children.len(),
                };
                // Most services have few endpoints, and there are many services: no room is kept for more.
                self.children.reserve_exact(1);
                self.children.insert(at, Child::Leaf(member));
                0
            }
            Some(Child::Branch(branch)) => Arc::make_mut(branch).put(member, hash, shift + LEVEL_BITS),
            Some(Child::Leaf(leaf)) if leaf.workload.uid == member.workload.uid => {
                let old = leaf.weight();
                *leaf = member;
                old
            }
            Some(child) => {
                let mut branch = Branch::default();
                if let Child::Leaf(leaf) = child {
                    branch.put(leaf.clone(), self::hash(&leaf.workload.uid), shift + LEVEL_BITS);
                }
                branch.put(member, hash, shift + LEVEL_BITS);
                *child = Child::Branch(Arc::new(branch));
                0
            }
        };
        self.weight = self.weight - old + new;
        old
    }

    /// Returns the weight of the member removed; it must be there.
    fn remove(&mut self, uid: &Uid, hash: u64, shift: u32) -> u64 {
        let Some(index) = self.index(uid, hash, shift) else {
            return 0;
        };
        let Some(child) = self.children.get_mut(index) else {
            return 0;
        };
        let (gone, empty) = match child {
            Child::Leaf(member) => (member.weight(), true),
            Child::Branch(branch) => {
                let gone = Arc::make_mut(branch).remove(uid, hash, shift + LEVEL_BITS);
                let only = match &branch.children[..] {
                    [Child::Leaf(only)] => Some(only.clone()),
                    _ => None,
                };
                let empty = branch.children.is_empty();
                if let Some(only) = only {
                    *child = Child::Leaf(only);
                }
                (gone, empty)
            }
        };
        if empty {
            self.children.remove(index);
            if let Some((bit, _)) = self.position(hash, shift) {
                self.present &= !bit;
            }
        }
        self.weight -= gone;
        gone
    }

    fn at(&self, mut point: u64) -> Option<&Member> {
        for child in &self.children {
            let weight = child.weight();
            if point < weight {
                return match child {
                    Child::Leaf(member) => Some(member),
                    Child::Branch(branch) => branch.at(point),
                };
            }
            point -= weight;
        }
        None
    }
}

struct Iter<'a> {
    stack: Vec<std::slice::Iter<'a, Child>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Member;

    fn next(&mut self) -> Option<&'a Member> {
        loop {
            match self.stack.last_mut()?.next() {
                None => {
                    self.stack.pop();
                }
                Some(Child::Leaf(member)) => return Some(member),
                Some(Child::Branch(branch)) => self.stack.push(branch.children.iter()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
