//! The records in the order of their keys: a B+tree of handles.
//!
//! Leaves hold handles; a branch holds children, and between two of them a *fence*: a key, as short
//! as can be, above all of the left one's keys and not above the right one's. Follows Bayer and
//! Unterauer, "Prefix B-Trees", 1977. A node compares heads instead of keys (`heads.rs`), so that it
//! looks at one record where it ends, and at none on the way. Called by `records.rs`, whose slab
//! knows the keys; knows nothing of what else a record is.

use super::heads::{Heads, grow, shared_bytes};
use super::slab::{Handle, Slab};

/// Entries of a leaf, and children of a branch, at most. Below a quarter of it a node is joined
/// with a neighbour, where both fit one.
const WIDTH: usize = 128;

/// So many keys that were put into a leaf each behind the one before are taken for a run that goes
/// on: then the leaf is parted where the run is, and what lies behind it stays full.
const RISING_KEYS: u8 = 8;

/// The handles of all records, in the order of their keys. See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: Node,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

type Key = Box<[u8]>;

#[derive(Clone, Default, Debug)]
struct Leaf {
    heads: Heads,
    handles: Vec<Handle>,
    /// Where the last key was put in, and how many before it each stand behind the one before that.
    last: u8,
    rising: u8,
}

#[derive(Clone, Debug)]
struct Branch {
    /// Those of the fences.
    heads: Heads,
    /// One less than children: `fences[i]` stands between the children `i` and `i + 1`.
    fences: Vec<Key>,
    children: Vec<Node>,
}

/// What became of a record that was to be put in.
enum Inserted {
    /// Its key is that of this one.
    WasThere(Handle),
    Fits,
    /// It became too much for the node: its upper part, and the fence before that.
    Split(Key, Node),
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Node::Leaf(Leaf::default()), len: 0 }
    }
}

impl Tree {
    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The record of `key`.
    pub(super) fn get(&self, key: &[u8], slab: &Slab) -> Option<Handle> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Branch(branch) => node = &branch.children[branch.child_of(key)],
                Node::Leaf(leaf) => return leaf.find(key, slab).ok().map(|at| leaf.handles[at]),
            }
        }
    }

    /// Puts a record in.
    ///
    /// # Errors
    /// The record that has its key; nothing was done.
    pub(super) fn insert(&mut self, handle: Handle, slab: &Slab) -> Result<(), Handle> {
        match self.root.insert(handle, slab.key(handle), slab, true) {
            Inserted::WasThere(other) => return Err(other),
            Inserted::Fits => {}
            Inserted::Split(fence, upper) => {
                let lower = std::mem::replace(&mut self.root, Node::Leaf(Leaf::default()));
                self.root = Node::Branch(Branch::of(vec![fence], vec![lower, upper]));
            }
        }
        self.len += 1;
        Ok(())
    }

    /// The record of `key`, which is there, is another one from now on.
    pub(super) fn replace(&mut self, key: &[u8], handle: Handle, slab: &Slab) {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Branch(branch) => {
                    let child = branch.child_of(key);
                    node = &mut branch.children[child];
                }
                Node::Leaf(leaf) => {
                    let place = leaf.find(key, slab).expect("only a record that is there moves");
                    leaf.handles[place] = handle;
                    return;
                }
            }
        }
    }

    /// Takes the record of `key` out.
    pub(super) fn remove(&mut self, key: &[u8], slab: &Slab) -> Option<Handle> {
        let removed = self.root.remove(key, slab)?;
        self.len -= 1;
        if let Node::Branch(branch) = &mut self.root
            && branch.children.len() == 1
        {
            self.root = branch.children.pop().expect("there is one");
        }
        Some(removed)
    }

    /// All records, in the order of their keys.
    pub(super) fn iter(&self) -> Iter<'_> {
        let mut iter = Iter { branches: Vec::new(), handles: [].iter() };
        iter.descend(&self.root);
        iter
    }

    /// The records from `start` on, in order.
    pub(super) fn iter_from(&self, start: &[u8], slab: &Slab) -> Iter<'_> {
        self.iter_at(start, slab, |found| found)
    }

    /// The records behind `start`, in order.
    pub(super) fn iter_behind(&self, start: &[u8], slab: &Slab) -> Iter<'_> {
        self.iter_at(start, slab, |found| found + 1)
    }

    fn iter_at(&self, start: &[u8], slab: &Slab, begin: impl Fn(usize) -> usize) -> Iter<'_> {
        let mut iter = Iter { branches: Vec::new(), handles: [].iter() };
        let mut node = &self.root;
        loop {
            match node {
                Node::Branch(branch) => {
                    let child = branch.child_of(start);
                    iter.branches.push(branch.children[child + 1..].iter());
                    node = &branch.children[child];
                }
                Node::Leaf(leaf) => {
                    let place = leaf.find(start, slab).map_or_else(|missing| missing, begin);
                    iter.handles = leaf.handles[place..].iter();
                    return iter;
                }
            }
        }
    }

    /// The records below `end`, or all where there is none, from the last one down.
    pub(super) fn iter_down_from(&self, end: Option<&[u8]>, slab: &Slab) -> IterDown<'_> {
        let mut iter = IterDown { branches: Vec::new(), handles: [].iter() };
        let Some(end) = end else {
            iter.descend(&self.root);
            return iter;
        };
        let mut node = &self.root;
        loop {
            match node {
                Node::Branch(branch) => {
                    let child = branch.child_of(end);
                    iter.branches.push(branch.children[..child].iter());
                    node = &branch.children[child];
                }
                Node::Leaf(leaf) => {
                    let place = leaf.find(end, slab).unwrap_or_else(|missing| missing);
                    iter.handles = leaf.handles[..place].iter();
                    return iter;
                }
            }
        }
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }

    /// Takes everything apart, in pieces of bounded size; each says how many bytes it was.
    pub(super) fn into_pieces(self) -> IntoPieces {
        IntoPieces { branches: vec![vec![self.root].into_iter()] }
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.handles.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        use super::record::piece_bytes;
        match self {
            Node::Leaf(leaf) => {
                let handles = piece_bytes(leaf.handles.capacity() * size_of::<Handle>());
                handles + leaf.heads.heap_bytes()
            }
            Node::Branch(branch) => {
                let fences = branch.fences.iter().map(|fence| piece_bytes(fence.len()));
                let lists = piece_bytes(branch.fences.capacity() * size_of::<Key>())
                    + piece_bytes(branch.children.capacity() * size_of::<Node>());
                let children = branch.children.iter().map(Node::heap_bytes);
                fences.sum::<usize>() + lists + branch.heads.heap_bytes() + children.sum::<usize>()
            }
        }
    }

    /// `is_last`: nothing in the tree is behind this node. Keys that come in order are put in at
    /// its end; then what is full stays full, and a tree that is loaded from a file is dense. So it
    /// is where keys rise elsewhere, for leaves at least, which are nearly all of the tree.
    fn insert(&mut self, handle: Handle, key: &[u8], slab: &Slab, is_last: bool) -> Inserted {
        match self {
            Node::Leaf(leaf) => leaf.insert(handle, key, slab, is_last),
            Node::Branch(branch) => branch.insert(handle, key, slab, is_last),
        }
    }

    fn remove(&mut self, key: &[u8], slab: &Slab) -> Option<Handle> {
        match self {
            Node::Leaf(leaf) => {
                let place = leaf.find(key, slab).ok()?;
                leaf.heads.remove(place);
                Some(leaf.handles.remove(place))
            }
            Node::Branch(branch) => {
                let child = branch.child_of(key);
                let removed = branch.children[child].remove(key, slab)?;
                branch.join_small(child, slab);
                Some(removed)
            }
        }
    }

    /// Takes over all of the right neighbour, from which `fence` parts this node.
    fn join(&mut self, fence: Key, right: Node, slab: &Slab) {
        match (self, right) {
            (Node::Leaf(leaf), Node::Leaf(mut right)) => {
                leaf.handles.append(&mut right.handles);
                *leaf = Leaf::of(std::mem::take(&mut leaf.handles), slab);
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

impl Leaf {
    fn of(handles: Vec<Handle>, slab: &Slab) -> Leaf {
        let heads = Heads::of(handles.len(), |place| slab.key(handles[place]));
        Leaf { heads, handles, last: 0, rising: 0 }
    }

    fn find(&self, key: &[u8], slab: &Slab) -> Result<usize, usize> {
        self.heads.find(key, |place| slab.key(self.handles[place]))
    }

    fn insert(&mut self, handle: Handle, key: &[u8], slab: &Slab, is_last: bool) -> Inserted {
        let found = match self.handles.last() {
            Some(last) if is_last && slab.key(*last) < key => Err(self.handles.len()),
            _ => self.find(key, slab),
        };
        let place = match found {
            Ok(place) => return Inserted::WasThere(self.handles[place]),
            Err(place) => place,
        };
        if self.handles.len() < WIDTH {
            self.put(place, handle, slab);
            return Inserted::Fits;
        }
        let at = match is_last && place == WIDTH || self.rises_at(place) {
            true => place,
            false => WIDTH / 2,
        };
        let mut upper = Leaf::default();
        if at < WIDTH {
            upper = Leaf::of(self.handles.split_off(at), slab);
            self.handles.shrink_to_fit();
            let Leaf { handles, last, rising, .. } = std::mem::take(self);
            *self = Leaf { last, rising, ..Leaf::of(handles, slab) };
        }
        match place.checked_sub(at) {
            // Only what is full to the last has no room for one more.
            Some(place) if at == WIDTH || place > 0 => upper.put(place, handle, slab),
            _ => self.put(place, handle, slab),
        }
        let lowest = slab.key(upper.handles[0]);
        let highest = slab.key(self.handles[self.handles.len() - 1]);
        let fence = lowest[..=shared_bytes(highest, lowest)].into();
        Inserted::Split(fence, Node::Leaf(upper))
    }

    /// Whether a key that belongs at this place goes on with a run.
    fn rises_at(&self, place: usize) -> bool {
        self.rising >= RISING_KEYS && place == usize::from(self.last) + 1
    }

    fn put(&mut self, place: usize, handle: Handle, slab: &Slab) {
        let goes_on = place == usize::from(self.last) + 1;
        self.rising = if goes_on { self.rising.saturating_add(1) } else { 0 };
        self.last = place as u8;
        grow(&mut self.handles);
        self.handles.insert(place, handle);
        let handles = &self.handles;
        self.heads.insert(place, |place| slab.key(handles[place]));
    }
}

impl Branch {
    fn of(fences: Vec<Key>, children: Vec<Node>) -> Branch {
        assert_eq!(fences.len() + 1, children.len(), "a fence between each two children");
        Branch { heads: heads_of(&fences), fences, children }
    }

    /// Which child has `key`, if it is there.
    fn child_of(&self, key: &[u8]) -> usize {
        let found = self.heads.find(key, |place| &self.fences[place][..]);
        found.map_or_else(|missing| missing, |fence| fence + 1)
    }

    fn insert(&mut self, handle: Handle, key: &[u8], slab: &Slab, is_last: bool) -> Inserted {
        // Keys that come in order are all behind the last fence.
        let child = match self.fences.last() {
            Some(fence) if is_last && **fence <= *key => self.fences.len(),
            _ => self.child_of(key),
        };
        let is_last = is_last && child + 1 == self.children.len();
        let (fence, upper) = match self.children[child].insert(handle, key, slab, is_last) {
            Inserted::Split(fence, upper) => (fence, upper),
            done => return done,
        };
        grow(&mut self.fences);
        grow(&mut self.children);
        self.fences.insert(child, fence);
        self.children.insert(child + 1, upper);
        let fences = &self.fences;
        self.heads.insert(child, |place| &fences[place][..]);
        if self.children.len() <= WIDTH {
            return Inserted::Fits;
        }
        let at = if is_last { WIDTH } else { WIDTH / 2 };
        let children = self.children.split_off(at);
        let fences = self.fences.split_off(at);
        let fence = self.fences.pop().expect("the upper part has a fence before it");
        self.children.shrink_to_fit();
        self.fences.shrink_to_fit();
        self.heads = heads_of(&self.fences);
        Inserted::Split(fence, Node::Branch(Branch::of(fences, children)))
    }

    /// A record has left this child: joins it with a neighbour where it has become small, so that a
    /// tree that shrinks gives its memory back.
    fn join_small(&mut self, child: usize, slab: &Slab) {
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
                self.children[left].join(fence, right, slab);
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
pub(super) struct Iter<'a> {
    /// What is left of each branch above the handles.
    branches: Vec<std::slice::Iter<'a, Node>>,
    handles: std::slice::Iter<'a, Handle>,
}

impl<'a> Iter<'a> {
    fn descend(&mut self, node: &'a Node) {
        match node {
            Node::Branch(branch) => self.branches.push(branch.children.iter()),
            Node::Leaf(leaf) => self.handles = leaf.handles.iter(),
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        loop {
            if let Some(handle) = self.handles.next() {
                return Some(*handle);
            }
            match self.branches.last_mut()?.next() {
                Some(node) => self.descend(node),
                None => drop(self.branches.pop()),
            }
        }
    }
}

/// Walks a [`Tree`] from its end.
#[derive(Debug)]
pub(super) struct IterDown<'a> {
    /// What is left of each branch above the handles, to be taken from its end.
    branches: Vec<std::slice::Iter<'a, Node>>,
    handles: std::slice::Iter<'a, Handle>,
}

impl<'a> IterDown<'a> {
    fn descend(&mut self, node: &'a Node) {
        match node {
            Node::Branch(branch) => self.branches.push(branch.children.iter()),
            Node::Leaf(leaf) => self.handles = leaf.handles.iter(),
        }
    }
}

impl Iterator for IterDown<'_> {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        loop {
            if let Some(handle) = self.handles.next_back() {
                return Some(*handle);
            }
            match self.branches.last_mut()?.next_back() {
                Some(node) => self.descend(node),
                None => drop(self.branches.pop()),
            }
        }
    }
}

/// Takes a [`Tree`] apart, a leaf at a time.
#[derive(Debug)]
pub(super) struct IntoPieces {
    branches: Vec<std::vec::IntoIter<Node>>,
}

impl Iterator for IntoPieces {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            match self.branches.last_mut()?.next() {
                Some(Node::Branch(branch)) => self.branches.push(branch.children.into_iter()),
                Some(Node::Leaf(leaf)) => return Some(leaf.handles.len() * size_of::<Handle>()),
                None => drop(self.branches.pop()),
            }
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
