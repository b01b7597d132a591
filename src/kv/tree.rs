//! An ordered map from byte strings: the B+tree that the store's records are in.
//!
//! It does what `BTreeMap<Box<[u8]>, V>` does, with half the cache misses, because its nodes compare
//! heads instead of keys (`heads.rs`), and in less memory. Leaves hold the entries; a branch
//! holds children, and between two of them a *fence*: a key, as short as can be, above all of the
//! left one's keys and not above the right one's. Follows Bayer and Unterauer, "Prefix B-Trees",
//! 1977. Called by `store.rs` and `capture.rs`; knows nothing of records.

use super::heads::{Heads, grow, shared_bytes};

/// Entries of a leaf, and children of a branch, at most. Below a quarter of it a node is joined
/// with a neighbour, where both fit one.
const WIDTH: usize = 64;

/// An ordered map from byte strings. See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Tree<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node<V> {
    Leaf(Leaf<V>),
    Branch(Branch<V>),
}

type Key = Box<[u8]>;

#[derive(Clone, Debug)]
struct Leaf<V> {
    heads: Heads,
    entries: Vec<(Key, V)>,
}

#[derive(Clone, Debug)]
struct Branch<V> {
    /// Those of the fences.
    heads: Heads,
    /// One less than children: `fences[i]` stands between the children `i` and `i + 1`.
    fences: Vec<Key>,
    children: Vec<Node<V>>,
}

/// What became too much for a node: its upper part, and the fence before it.
type Split<V> = Option<(Key, Node<V>)>;

impl<V> Default for Tree<V> {
    fn default() -> Tree<V> {
        Tree::new()
    }
}

impl<V> Tree<V> {
    /// An empty map.
    pub(super) fn new() -> Tree<V> {
        Tree { root: Node::Leaf(Leaf::of(Vec::new())), len: 0 }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Branch(branch) => node = &branch.children[branch.child_of(key)],
                Node::Leaf(leaf) => {
                    let place = leaf.find(key).ok()?;
                    return Some(&leaf.entries[place].1);
                }
            }
        }
    }

    /// The value of `key`, to be changed.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Branch(branch) => {
                    let child = branch.child_of(key);
                    node = &mut branch.children[child];
                }
                Node::Leaf(leaf) => {
                    let place = leaf.find(key).ok()?;
                    return Some(&mut leaf.entries[place].1);
                }
            }
        }
    }

    /// Gives `key` a value; returns the one that it had.
    pub(super) fn insert(&mut self, key: Key, value: V) -> Option<V> {
        let (before, split) = self.root.insert(key, value, true);
        if let Some((fence, upper)) = split {
            let lower = std::mem::replace(&mut self.root, Node::Leaf(Leaf::of(Vec::new())));
            self.root = Node::Branch(Branch::of(vec![fence], vec![lower, upper]));
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes `key` out, with its value.
    pub(super) fn remove_entry(&mut self, key: &[u8]) -> Option<(Key, V)> {
        let removed = self.root.remove(key)?;
        self.len -= 1;
        if let Node::Branch(branch) = &mut self.root
            && branch.children.len() == 1
        {
            self.root = branch.children.pop().expect("there is one");
        }
        Some(removed)
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Takes the first entry out.
    pub(super) fn pop_first(&mut self) -> Option<(Key, V)> {
        let first = self.iter().next()?.0.to_vec();
        self.remove_entry(&first)
    }

    /// All entries, in the order of their keys.
    pub(super) fn iter(&self) -> Iter<'_, V> {
        let mut iter = Iter { branches: Vec::new(), entries: [].iter() };
        iter.descend(&self.root);
        iter
    }

    /// The entries from `start` on, in order.
    pub(super) fn iter_from(&self, start: &[u8]) -> Iter<'_, V> {
        self.iter_at(start, |found| found)
    }

    /// The entries behind `start`, in order.
    pub(super) fn iter_behind(&self, start: &[u8]) -> Iter<'_, V> {
        self.iter_at(start, |found| found + 1)
    }

    fn iter_at(&self, start: &[u8], begin: impl Fn(usize) -> usize) -> Iter<'_, V> {
        let mut iter = Iter { branches: Vec::new(), entries: [].iter() };
        let mut node = &self.root;
        loop {
            match node {
                Node::Branch(branch) => {
                    let child = branch.child_of(start);
                    iter.branches.push(branch.children[child + 1..].iter());
                    node = &branch.children[child];
                }
                Node::Leaf(leaf) => {
                    let place = leaf.find(start).map_or_else(|missing| missing, begin);
                    iter.entries = leaf.entries[place..].iter();
                    return iter;
                }
            }
        }
    }
}

impl<V> Node<V> {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.entries.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    /// `is_last`: nothing in the tree is behind this node. Keys that come in order are put in at
    /// its end; then what is full stays full, and a tree that is loaded from a file is dense.
    fn insert(&mut self, key: Key, value: V, is_last: bool) -> (Option<V>, Split<V>) {
        match self {
            Node::Leaf(leaf) => leaf.insert(key, value, is_last),
            Node::Branch(branch) => branch.insert(key, value, is_last),
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<(Key, V)> {
        match self {
            Node::Leaf(leaf) => {
                let place = leaf.find(key).ok()?;
                leaf.heads.remove(place);
                Some(leaf.entries.remove(place))
            }
            Node::Branch(branch) => {
                let child = branch.child_of(key);
                let removed = branch.children[child].remove(key)?;
                branch.join_small(child);
                Some(removed)
            }
        }
    }

    /// Takes over all of the right neighbour, from which `fence` parts this node.
    fn join(&mut self, fence: Key, right: Node<V>) {
        match (self, right) {
            (Node::Leaf(leaf), Node::Leaf(mut right)) => {
                leaf.entries.append(&mut right.entries);
                *leaf = Leaf::of(std::mem::take(&mut leaf.entries));
            }
            (Node::Branch(branch), Node::Branch(mut right)) => {
                branch.fences.push(fence);
                branch.fences.append(&mut right.fences);
                branch.children.append(&mut right.children);
                branch.heads = heads_of(&branch.fences);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

impl<V> Leaf<V> {
    fn of(entries: Vec<(Key, V)>) -> Leaf<V> {
        let heads = Heads::of(entries.len(), |place| &entries[place].0[..]);
        Leaf { heads, entries }
    }

    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.find(key, |place| &self.entries[place].0[..])
    }

    fn insert(&mut self, key: Key, value: V, is_last: bool) -> (Option<V>, Split<V>) {
        let place = match self.find(&key) {
            Ok(place) => {
                let before = std::mem::replace(&mut self.entries[place].1, value);
                return (Some(before), None);
            }
            Err(place) => place,
        };
        if self.entries.len() < WIDTH {
            self.put(place, key, value);
            return (None, None);
        }
        let at = if is_last && place == WIDTH { WIDTH } else { WIDTH / 2 };
        let mut upper = Leaf::of(self.entries.split_off(at));
        *self = Leaf::of(std::mem::take(&mut self.entries));
        self.entries.shrink_to_fit();
        match place.checked_sub(at) {
            Some(place) if at == WIDTH || place > 0 => upper.put(place, key, value),
            _ => self.put(place, key, value),
        }
        let lowest = &upper.entries[0].0;
        let highest = &self.entries[self.entries.len() - 1].0;
        let fence = lowest[..=shared_bytes(highest, lowest)].into();
        (None, Some((fence, Node::Leaf(upper))))
    }

    fn put(&mut self, place: usize, key: Key, value: V) {
        grow(&mut self.entries);
        self.entries.insert(place, (key, value));
        let entries = &self.entries;
        self.heads.insert(place, |place| &entries[place].0[..]);
    }
}

impl<V> Branch<V> {
    fn of(fences: Vec<Key>, children: Vec<Node<V>>) -> Branch<V> {
        assert_eq!(fences.len() + 1, children.len(), "a fence between each two children");
        Branch { heads: heads_of(&fences), fences, children }
    }

    /// Which child has `key`, if it is there.
    fn child_of(&self, key: &[u8]) -> usize {
        let found = self.heads.find(key, |place| &self.fences[place][..]);
        found.map_or_else(|missing| missing, |fence| fence + 1)
    }

    fn insert(&mut self, key: Key, value: V, is_last: bool) -> (Option<V>, Split<V>) {
        let child = self.child_of(&key);
        let is_last = is_last && child + 1 == self.children.len();
        let (before, split) = self.children[child].insert(key, value, is_last);
        let Some((fence, upper)) = split else {
            return (before, None);
        };
        grow(&mut self.fences);
        grow(&mut self.children);
        self.fences.insert(child, fence);
        self.children.insert(child + 1, upper);
        let fences = &self.fences;
        self.heads.insert(child, |place| &fences[place][..]);
        if self.children.len() <= WIDTH {
            return (before, None);
        }
        let at = if is_last { WIDTH } else { WIDTH / 2 };
        let children = self.children.split_off(at);
        let fences = self.fences.split_off(at);
        let fence = self.fences.pop().expect("the upper part has a fence before it");
        self.children.shrink_to_fit();
        self.fences.shrink_to_fit();
        self.heads = heads_of(&self.fences);
        (before, Some((fence, Node::Branch(Branch::of(fences, children)))))
    }

    /// An entry has left this child: joins it with a neighbour where it has become small, so that a
    /// tree that shrinks gives its memory back.
    fn join_small(&mut self, child: usize) {
        if self.children[child].len() >= WIDTH / 4 {
            return;
        }
        for left in [child.wrapping_sub(1), child] {
            let (Some(one), Some(other)) =
                (self.children.get(left), self.children.get(left.wrapping_add(1)))
            else {
                continue;
            };
            if one.len() + other.len() <= WIDTH {
                let fence = self.fences.remove(left);
                self.heads.remove(left);
                let right = self.children.remove(left + 1);
                self.children[left].join(fence, right);
                return;
            }
        }
    }
}

fn heads_of(fences: &[Key]) -> Heads {
    Heads::of(fences.len(), |place| &fences[place][..])
}

/// Walks a [`Tree`].
#[derive(Debug)]
pub(super) struct Iter<'a, V> {
    /// What is left of each branch above the entries.
    branches: Vec<std::slice::Iter<'a, Node<V>>>,
    entries: std::slice::Iter<'a, (Key, V)>,
}

impl<'a, V> Iter<'a, V> {
    fn descend(&mut self, node: &'a Node<V>) {
        match node {
            Node::Branch(branch) => self.branches.push(branch.children.iter()),
            Node::Leaf(leaf) => self.entries = leaf.entries.iter(),
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a [u8], &'a V);

    fn next(&mut self) -> Option<(&'a [u8], &'a V)> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            match self.branches.last_mut()?.next() {
                Some(node) => self.descend(node),
                None => drop(self.branches.pop()),
            }
        }
    }
}

/// Takes a [`Tree`] apart, in order.
#[derive(Debug)]
pub(super) struct IntoIter<V> {
    branches: Vec<std::vec::IntoIter<Node<V>>>,
    entries: std::vec::IntoIter<(Key, V)>,
    left: usize,
}

impl<V> IntoIterator for Tree<V> {
    type Item = (Key, V);
    type IntoIter = IntoIter<V>;

    fn into_iter(self) -> IntoIter<V> {
        let branches = vec![vec![self.root].into_iter()];
        IntoIter { branches, entries: Vec::new().into_iter(), left: self.len }
    }
}

impl<V> Iterator for IntoIter<V> {
    type Item = (Key, V);

    fn next(&mut self) -> Option<(Key, V)> {
        loop {
            if let Some(entry) = self.entries.next() {
                self.left -= 1;
                return Some(entry);
            }
            match self.branches.last_mut()?.next() {
                Some(Node::Branch(branch)) => self.branches.push(branch.children.into_iter()),
                Some(Node::Leaf(leaf)) => self.entries = leaf.entries.into_iter(),
                None => drop(self.branches.pop()),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<V> ExactSizeIterator for IntoIter<V> {}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
