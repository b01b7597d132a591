//! The tree against the standard library's map, with keys that share beginnings or don't, heads or
//! not, in every order.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::kv::record::{NEVER, RecordRef};
use crate::types::Revision;

type Model = BTreeMap<Vec<u8>, Handle>;

/// A tree, and the slab that knows its keys.
#[derive(Default)]
struct Plot {
    tree: Tree,
    slab: Slab,
    model: Model,
}

impl Plot {
    fn filled(keys: impl Iterator<Item = Vec<u8>>) -> Plot {
        let mut plot = Plot::default();
        keys.for_each(|key| plot.insert(&key));
        plot.check();
        plot
    }

    fn insert(&mut self, key: &[u8]) {
        let revision = Revision(1);
        let handle = self.slab.put(RecordRef { key, value: b"", revision, deadline: NEVER });
        match self.tree.insert(handle, &self.slab) {
            Ok(()) => assert_eq!(self.model.insert(key.into(), handle), None),
            Err(other) => {
                assert_eq!(self.model.get(key), Some(&other));
                self.slab.free(handle);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let removed = self.tree.remove(key, &self.slab);
        assert_eq!(removed, self.model.remove(key));
        if let Some(handle) = removed {
            self.slab.free(handle);
        }
    }

    /// The record of a key moves elsewhere.
    fn replace(&mut self, key: &[u8]) {
        let Some(handle) = self.model.get_mut(key) else { return };
        let record = self.slab.record(*handle);
        let value = vec![1; (record.value.len() + 8) % 64];
        let (revision, deadline) = (record.revision, record.deadline);
        let moved = self.slab.put(RecordRef { key, value: &value, revision, deadline });
        self.tree.replace(key, moved, &self.slab);
        self.slab.free(std::mem::replace(handle, moved));
    }

    /// Every node keeps what the searches rely on.
    fn check(&self) {
        let depth = depth_of(&self.tree.root);
        let count = check_node(&self.tree.root, None, None, depth, &self.slab);
        assert_eq!((count, self.tree.len()), (self.model.len(), self.model.len()));
        assert!(self.tree.iter().eq(self.model.values().copied()));
        let down = self.tree.iter_down_from(None, &self.slab);
        assert!(down.eq(self.model.values().rev().copied()));
    }
}

fn depth_of(node: &Node) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Branch(branch) => 1 + depth_of(&branch.children[0]),
    }
}

/// `from <= key < to` for every key below this node. Returns how many there are.
fn check_node(
    node: &Node,
    from: Option<&[u8]>,
    to: Option<&[u8]>,
    depth: usize,
    slab: &Slab,
) -> usize {
    assert!(node.len() <= WIDTH);
    let is_within = |key: &[u8]| {
        assert!(from.is_none_or(|from| from <= key) && to.is_none_or(|to| key < to));
    };
    match node {
        Node::Leaf(leaf) => {
            assert_eq!(depth, 1, "all leaves are at the same depth");
            let keys: Vec<_> = leaf.handles.iter().map(|handle| slab.key(*handle)).collect();
            assert!(keys.is_sorted_by(|one, other| one < other));
            for (place, key) in keys.iter().enumerate() {
                is_within(key);
                assert_eq!(leaf.find(key, slab), Ok(place));
            }
            keys.len()
        }
        Node::Branch(branch) => {
            assert_eq!(branch.fences.len() + 1, branch.children.len());
            branch.fences.iter().for_each(|fence| is_within(fence));
            let fence = |place: usize| branch.fences.get(place).map(|fence| &fence[..]);
            let children = branch.children.iter().enumerate();
            let counts = children.map(|(place, child)| {
                let lower = place.checked_sub(1).and_then(fence).or(from);
                check_node(child, lower, fence(place).or(to), depth - 1, slab)
            });
            counts.sum()
        }
    }
}

#[test]
fn insert_in_order_leaves_full_nodes_and_backwards_half_full_ones() {
    let numbered = |number: usize| format!("key:{number:012}").into_bytes();
    let plot = Plot::filled((0..10_000).map(numbered));
    let Node::Branch(root) = &plot.tree.root else { panic!("so many records fit no leaf") };
    let first = &root.children[0];
    assert_eq!(first.len(), WIDTH, "what is full stays full");
    Plot::filled((0..10_000).rev().map(numbered));
}

#[test]
fn remove_joins_nodes_until_a_leaf_is_left() {
    for step in [1, 7, 4999] {
        let mut plot = Plot::filled((0..5000).map(|n| format!("{n:05}").into_bytes()));
        for number in 0..5000 {
            plot.remove(format!("{:05}", number * step % 5000).as_bytes());
            if number % 97 == 0 {
                plot.check();
            }
        }
        assert!(matches!(plot.tree.root, Node::Leaf(_)) || depth_of(&plot.tree.root) <= 2);
        assert_eq!(plot.tree.iter().count(), 0);
    }
}

#[test]
fn into_pieces_comes_to_every_leaf() {
    let keys = (0..3000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec());
    let bytes: usize = Plot::filled(keys).tree.into_pieces().sum();
    assert_eq!(bytes, 3000 * size_of::<Handle>());
}

/// Keys of few letters, so that they meet; of one or both beginnings, longer and shorter than what
/// a node skips; and with zeros at their end, which no head shows.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let beginning = prop_oneof![
        Just(&b""[..]),
        Just(&b"user:"[..]),
        Just(&b"a long beginning that is more than a node skips:"[..]),
    ];
    let rest = prop_oneof![
        prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..12),
        (0..3000_u32).prop_map(|number| format!("{number:06}").into_bytes()),
    ];
    (beginning, rest).prop_map(|(beginning, rest)| [beginning, &rest].concat())
}

proptest! {
    #[test]
    fn tree_does_what_the_standard_map_does(
        steps in prop::collection::vec((0..12_u8, any_key()), 0..1500),
    ) {
        let mut plot = Plot::default();
        for (what, key) in &steps {
            let key = &key[..];
            let Plot { tree, slab, model } = &plot;
            match what {
                0..=5 => plot.insert(key),
                6..=8 => plot.remove(key),
                9 => plot.replace(key),
                10 => {
                    let below = tree.iter_down_from(Some(key), slab).take(3);
                    let expected = model.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key)));
                    prop_assert!(below.eq(expected.rev().take(3).map(|(_, handle)| *handle)));
                }
                _ => {
                    let from = tree.iter_from(key, slab).take(3);
                    let expected = model.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
                    prop_assert!(from.eq(expected.take(3).map(|(_, handle)| *handle)));
                }
            }
            let Plot { tree, slab, model } = &plot;
            prop_assert_eq!(tree.get(key, slab), model.get(key).copied());
            let mut expected = model.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded));
            let expected = expected.next().map(|(_, handle)| *handle);
            prop_assert_eq!(tree.iter_behind(key, slab).next(), expected);
        }
        plot.check();
    }
}
