//! A persistent hash map for very many small entries.
//!
//! A trie over hashes whose leaves hold up to [`LEAF`] entries in one piece, so that an entry costs little more than what
//! it consists of, and a change copies a few small nodes. A clone shares everything with its original; where nobody
//! shares, changes are made in place. The hash is quick and has no key: what is hashed comes from the control plane, of
//! which nobody can have so many names that keys of one hash matter. Entries are in no order.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;

/// Bits of the hash that one level of the trie consumes: few, since a change copies a branch on every level.
const BITS: u32 = 3;
const FAN_OUT: usize = 1 << BITS;
/// Levels after which a hash has no bits left; leaves below are as large as they have to be.
const LEVELS: u32 = u32::BITS.div_ceil(BITS);
/// Entries of a leaf that is not split: searched one by one, and copied by a change of one of them.
const LEAF: usize = 16;

/// A map; cloning it costs next to nothing.
pub(crate) struct Map<K, V> {
    root: Node<K, V>,
    size: usize,
}

enum Node<K, V> {
    Leaf(Arc<Vec<Entry<K, V>>>),
    Branch(Arc<[Node<K, V>; FAN_OUT]>),
}

/// With the hash of the key, so that other keys need not be looked at: each would be a piece of memory far away.
#[derive(Clone)]
struct Entry<K, V> {
    hash: u32,
    key: K,
    value: V,
}

impl<K, V> Entry<K, V> {
    fn is<Q: Eq + ?Sized>(&self, hash: u32, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.hash == hash && self.key.borrow() == key
    }
}

#[allow(clippy::cast_possible_truncation)] // half of its bits tell four thousand million keys apart
fn hash<Q: Hash + ?Sized>(key: &Q) -> u32 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish() as u32
}

/// Keys in the order of this number lie side by side in every map.
pub(super) fn order<Q: Hash + ?Sized>(key: &Q) -> u32 {
    // The lowest bits choose the branch at the top.
    hash(key).reverse_bits()
}

/// Which child of a branch on that level a hash belongs to.
fn child(hash: u32, level: u32) -> usize {
    (hash >> (level * BITS)) as usize % FAN_OUT
}

impl<K, V> Map<K, V> {
    /// Whether it has no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// All entries.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        Iter { branches: vec![std::slice::from_ref(&self.root).iter()], leaf: [].iter(), left: self.size }
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Hash + Eq, V> Map<K, V> {
    /// The value of a key.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The key as it is kept.
    pub(crate) fn key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.entry(key).map(|entry| &entry.key)
    }

    fn entry<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Entry<K, V>>
    where
        K: Borrow<Q>,
    {
        self.entry_of(key, hash(key))
    }

    fn entry_of<Q: Eq + ?Sized>(&self, key: &Q, hash: u32) -> Option<&Entry<K, V>>
    where
        K: Borrow<Q>,
    {
        let mut node = &self.root;
        for level in 0.. {
            match node {
                Node::Branch(children) => node = &children[child(hash, level)],
                Node::Leaf(entries) => return entries.iter().find(|entry| entry.is(hash, key)),
            }
        }
        None
    }

    /// Whether there is an entry of that key.
    pub(crate) fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Map<K, V> {
    /// Puts an entry in the place of the one of an equal key, if there is one.
    pub(crate) fn insert_mut(&mut self, key: K, value: V) {
        self.insert_with(key, |_| value);
    }

    /// The same with a value that depends on the former one.
    pub(crate) fn insert_with(&mut self, key: K, value: impl FnOnce(Option<&V>) -> V) {
        let hash = hash(&key);
        self.size += usize::from(self.root.insert(key, value, hash, 0));
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let hash = hash(key);
        self.entry_of(key, hash)?; // before anything is copied
        let mut node = &mut self.root;
        for level in 0.. {
            match node {
                Node::Branch(children) => node = &mut Arc::make_mut(children)[child(hash, level)],
                Node::Leaf(entries) => {
                    let entry = Arc::make_mut(entries).iter_mut().find(|entry| entry.is(hash, key));
                    return entry.map(|entry| &mut entry.value);
                }
            }
        }
        None
    }

    /// Removes the entry of a key; tells whether there was one.
    pub(crate) fn remove_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let hash = hash(key);
        let there = self.entry_of(key, hash).is_some();
        if there {
            self.root.remove(key, hash, 0);
            self.size -= 1;
        }
        there
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Node<K, V> {
    /// Whether there is one more entry now.
    fn insert(&mut self, key: K, value: impl FnOnce(Option<&V>) -> V, hash: u32, level: u32) -> bool {
        let entries = match self {
            Self::Branch(children) => {
                return Arc::make_mut(children)[child(hash, level)].insert(key, value, hash, level + 1);
            }
            Self::Leaf(entries) => Arc::make_mut(entries),
        };
        if let Some(old) = entries.iter_mut().find(|entry| entry.is(hash, &key)) {
            // With the new key: as a rule it shares its text with the new value.
            *old = Entry { hash, key, value: value(Some(&old.value)) };
            return false;
        }
        entries.reserve_exact(1);
        entries.push(Entry { hash, key, value: value(None) });
        if entries.len() > LEAF && level < LEVELS {
            let all = std::mem::take(entries);
            *self = Self::split(all, level);
        }
        true
    }

    fn split(all: Vec<Entry<K, V>>, level: u32) -> Self {
        let mut sizes = [0; FAN_OUT];
        all.iter().for_each(|entry| sizes[child(entry.hash, level)] += 1);
        let mut parts: [Vec<Entry<K, V>>; FAN_OUT] = sizes.map(Vec::with_capacity);
        for entry in all {
            parts[child(entry.hash, level)].push(entry);
        }
        Self::Branch(Arc::new(parts.map(|part| Self::Leaf(Arc::new(part)))))
    }

    /// Removes an entry that is there.
    fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, hash: u32, level: u32)
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Leaf(entries) => Arc::make_mut(entries).retain(|entry| !entry.is(hash, key)),
            Self::Branch(children) => {
                let children = Arc::make_mut(children);
                children[child(hash, level)].remove(key, hash, level + 1);
                // Half a leaf of room, so that a branch is not made and taken apart in turns.
                let leaves =
                    || children.iter().map(|child| if let Self::Leaf(leaf) = child { Some(leaf) } else { None });
                if leaves()
                    .map(|leaf| leaf.map(|leaf| leaf.len()))
                    .sum::<Option<usize>>()
                    .is_some_and(|n| n <= LEAF / 2)
                {
                    let all = leaves().flatten().flat_map(|leaf| leaf.iter().cloned()).collect();
                    *self = Self::Leaf(Arc::new(all));
                }
            }
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), size: 0 }
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), size: self.size }
    }
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(entries.clone()),
            Self::Branch(children) => Self::Branch(children.clone()),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Entries in no order.
pub(crate) struct Iter<'a, K, V> {
    /// What is left of each branch above the leaf.
    branches: Vec<std::slice::Iter<'a, Node<K, V>>>,
    leaf: std::slice::Iter<'a, Entry<K, V>>,
    left: usize,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                self.left -= 1;
                return Some((&entry.key, &entry.value));
            }
            match self.branches.last_mut()?.next() {
                None => drop(self.branches.pop()),
                Some(Node::Leaf(entries)) => self.leaf = entries.iter(),
                Some(Node::Branch(children)) => self.branches.push(children.iter()),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Numbers that look random, always the same.
    fn numbers() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(0x9E37_79B9_7F4A_7C15_u64), |last| {
            Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        })
        .map(|number| number >> 33)
    }

    fn entries(map: &Map<u64, u64>) -> BTreeMap<u64, u64> {
        assert_eq!(map.iter().count(), map.size);
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    #[test]
    fn it_does_what_a_map_does_and_its_clones_stay_as_they_were() {
        let (mut map, mut model) = (Map::default(), BTreeMap::new());
        let mut clones = Vec::new();
        for (step, number) in numbers().take(20_000).enumerate() {
            let key = number % 1_500;
            // It grows for a while and shrinks for a while.
            if (number / 1_500 % 8 < 5) == (step / 4_000 % 2 == 0) {
                map.insert_mut(key, number);
                model.insert(key, number);
            } else if number % 7 == 0 {
                assert_eq!(map.get_mut(&key).map(|value| *value += 1), model.get_mut(&key).map(|value| *value += 1));
            } else {
                assert_eq!(map.remove_mut(&key), model.remove(&key).is_some());
            }
            assert_eq!((map.get(&key), map.size), (model.get(&key), model.len()));
            if step % 1_000 == 0 {
                clones.push((map.clone(), model.clone()));
            }
        }
        for (map, model) in clones.iter().chain([&(map, model)]) {
            assert_eq!(entries(map), *model);
        }
    }

    /// Entries of the fullest leaf, and how many branches there are.
    fn shape(node: &Node<u64, u64>) -> (usize, usize) {
        match node {
            Node::Leaf(entries) => (entries.len(), 0),
            Node::Branch(children) => children
                .iter()
                .map(shape)
                .fold((0, 1), |(fullest, branches), (leaf, below)| (fullest.max(leaf), branches + below)),
        }
    }

    #[test]
    fn entries_spread_over_small_leaves_and_come_together_again() {
        let (leaf, all) = (LEAF as u64, 10_000);
        let mut map = Map::default();
        assert!(map.is_empty());
        (0..leaf).for_each(|key| map.insert_mut(key, key));
        assert_eq!(shape(&map.root), (LEAF, 0), "a leaf may be full");
        map.insert_mut(leaf, leaf);
        assert_eq!(shape(&map.root).1, 1, "and not more");
        (leaf..all).for_each(|key| map.insert_mut(key, key));
        let full = shape(&map.root);
        assert!(full.0 <= LEAF && full.1 < 10_000 / LEAF, "{full:?}");
        for key in (0..all).filter(|key| key % 4 != 0) {
            assert!(map.remove_mut(&key));
            assert!(key % 100 != 1 || shape(&map.root).0 <= LEAF, "what comes together is no more than a leaf");
        }
        let thin = shape(&map.root);
        assert!(thin.1 < full.1, "{thin:?}");
        (1..all).for_each(|key| _ = map.remove_mut(&key));
        assert_eq!((shape(&map.root), map.is_empty()), ((1, 0), false));
    }

    #[test]
    fn entries_are_counted_as_they_are_told() {
        let mut map = Map::default();
        (0..100).for_each(|key| map.insert_mut(key, 2 * key));
        let mut all = map.iter();
        for left in (0..100).rev() {
            assert!(all.next().is_some());
            assert_eq!((all.len(), all.size_hint()), (left, (left, Some(left))));
        }
        let mut one = Map::default();
        one.insert_mut(1, 2);
        assert_eq!(format!("{one:?}"), "{1: 2}");
    }

    /// A key whose hash is the same for all.
    #[derive(Clone, PartialEq, Eq)]
    struct Alike(u32);

    impl Hash for Alike {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_by_what_they_are() {
        let mut map = Map::default();
        for number in 0..100 {
            map.insert_mut(Alike(number), number);
        }
        assert!((0..100).all(|number| map.get(&Alike(number)) == Some(&number)));
        assert!((0..100).all(|number| map.remove_mut(&Alike(number))));
        assert_eq!((map.size, map.iter().count()), (0, 0));
    }
}
