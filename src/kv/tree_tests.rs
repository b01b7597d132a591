//! The tree against the standard library's map, with keys that share beginnings or don't, heads or
//! not, in every order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Key, u32>;

fn key(bytes: &[u8]) -> Key {
    bytes.into()
}

/// Every node keeps what the searches rely on.
fn check(tree: &Tree<u32>, model: &Model) {
    let depth = depth_of(&tree.root);
    let count = check_node(&tree.root, None, None, depth);
    assert_eq!((count, tree.len()), (model.len(), model.len()));
    let expected = || model.iter().map(|(key, value)| (&key[..], value));
    assert!(tree.iter().eq(expected()));
    assert!(tree.iter_down_from(None).eq(expected().rev()));
}

fn depth_of(node: &Node<u32>) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Branch(branch) => 1 + depth_of(&branch.children[0]),
    }
}

/// `from <= key < to` for every key below this node. Returns how many there are.
fn check_node(node: &Node<u32>, from: Option<&[u8]>, to: Option<&[u8]>, depth: usize) -> usize {
    assert!(node.len() <= WIDTH);
    let is_within = |key: &[u8]| {
        assert!(from.is_none_or(|from| from <= key) && to.is_none_or(|to| key < to));
    };
    match node {
        Node::Leaf(leaf) => {
            assert_eq!(depth, 1, "all leaves are at the same depth");
            assert!(leaf.entries.is_sorted_by(|one, other| one.0 < other.0));
            for (place, (key, _)) in leaf.entries.iter().enumerate() {
                is_within(key);
                assert_eq!(leaf.find(key), Ok(place));
            }
            leaf.entries.len()
        }
        Node::Branch(branch) => {
            assert_eq!(branch.fences.len() + 1, branch.children.len());
            branch.fences.iter().for_each(|fence| is_within(fence));
            let fence = |place: usize| branch.fences.get(place).map(|fence| &fence[..]);
            let children = branch.children.iter().enumerate();
            let counts = children.map(|(place, child)| {
                let lower = place.checked_sub(1).and_then(fence).or(from);
                check_node(child, lower, fence(place).or(to), depth - 1)
            });
            counts.sum()
        }
    }
}

fn filled(keys: impl Iterator<Item = Vec<u8>>) -> (Tree<u32>, Model) {
    let (mut tree, mut model) = (Tree::new(), Model::new());
    for (value, bytes) in keys.enumerate() {
        let value = value as u32;
        assert_eq!(tree.insert(key(&bytes), value), model.insert(key(&bytes), value));
    }
    check(&tree, &model);
    (tree, model)
}

#[test]
fn insert_in_order_leaves_full_nodes_and_backwards_half_full_ones() {
    let numbered = |number: usize| format!("key:{number:012}").into_bytes();
    let (tree, _) = filled((0..10_000).map(numbered));
    let Node::Branch(root) = &tree.root else { panic!("so many entries fit no leaf") };
    let first = &root.children[0];
    assert_eq!(first.len(), WIDTH, "what is full stays full");
    filled((0..10_000).rev().map(numbered));
}

#[test]
fn remove_joins_nodes_until_a_leaf_is_left() {
    for step in [1, 7, 4999] {
        let (mut tree, mut model) = filled((0..5000).map(|n| format!("{n:05}").into_bytes()));
        for number in 0..5000 {
            let gone = format!("{:05}", number * step % 5000).into_bytes();
            assert_eq!(tree.remove_entry(&gone), model.remove_entry(&gone[..]));
            if number % 97 == 0 {
                check(&tree, &model);
            }
        }
        assert!(matches!(tree.root, Node::Leaf(_)) || depth_of(&tree.root) <= 2);
        assert_eq!(tree.iter().count(), 0);
    }
}

#[test]
fn pop_first_and_into_iter_give_all_in_order() {
    let keys = || (0..3000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec());
    let (mut tree, mut model) = filled(keys());
    for _ in 0..1000 {
        assert_eq!(tree.pop_first(), model.pop_first());
    }
    check(&tree, &model);
    let taken = tree.into_iter();
    assert_eq!(taken.len(), 2000);
    assert!(taken.eq(model));
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
        steps in prop::collection::vec((0..11_u8, any_key()), 0..1500),
    ) {
        let (mut tree, mut model) = (Tree::new(), Model::new());
        for (number, (what, bytes)) in steps.iter().enumerate() {
            let value = number as u32;
            match what {
                0..=5 => {
                    prop_assert_eq!(
                        tree.insert(key(bytes), value), model.insert(key(bytes), value)
                    );
                }
                6..=8 => prop_assert_eq!(tree.remove(bytes), model.remove(&bytes[..])),
                9 => {
                    let below = tree.iter_down_from(Some(bytes)).take(3);
                    let expected = model.range::<[u8], _>((
                        std::ops::Bound::Unbounded, std::ops::Bound::Excluded(&bytes[..]),
                    ));
                    let expected = expected.rev().take(3).map(|(key, value)| (&key[..], value));
                    prop_assert!(below.eq(expected));
                }
                _ => {
                    let from = tree.iter_from(bytes).take(3).map(|(key, _)| key.to_vec());
                    let expected = model.range::<[u8], _>((std::ops::Bound::Included(&bytes[..]), std::ops::Bound::Unbounded)).take(3);
                    prop_assert!(from.eq(expected.map(|(key, _)| key.to_vec())));
                }
            }
            prop_assert_eq!(tree.get(bytes), model.get(&bytes[..]));
            prop_assert_eq!(tree.get_mut(bytes), model.get_mut(&bytes[..]));
            let behind = tree.iter_behind(bytes).next().map(|(key, _)| key.to_vec());
            let mut expected = model.range::<[u8], _>((
                std::ops::Bound::Excluded(&bytes[..]), std::ops::Bound::Unbounded,
            ));
            prop_assert_eq!(behind, expected.next().map(|(key, _)| key.to_vec()));
        }
        check(&tree, &model);
    }
}
