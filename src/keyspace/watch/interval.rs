//! Spans of keys, found by a key inside them: a treap ordered by (start, end) in which every node knows the
//! furthest end below it, so that a search leaves out every subtree that ends before the key.
//!
//! ```text
//!                 [f, m)  max: +inf
//!                /                \
//!        [b, z)  max: z        [k, +inf)  max: +inf        stab("g"): [f, m), [b, z)
//!        /
//!   [a, c)  max: c        <- left out, it ends before "g"
//! ```

use bytes::Bytes;

use super::range::End;

/// Spans with one value each. Insert, remove and each step of a search take the logarithm of the spans held.
#[derive(Debug)]
pub(super) struct IntervalTree<T> {
    nodes: Vec<Option<Node<T>>>,
    free: Vec<usize>,
    root: Option<usize>,
    sown: u64,
}

#[derive(Debug)]
struct Node<T> {
    start: Bytes,
    end: End,
    value: T,
    max: End,
    priority: u64,
    left: Option<usize>,
    right: Option<usize>,
}

impl<T> Default for IntervalTree<T> {
    fn default() -> Self {
        IntervalTree { nodes: Vec::new(), free: Vec::new(), root: None, sown: 0 }
    }
}

impl<T> IntervalTree<T> {
    /// Calls `found` with the value of every span that holds `key`, by ascending start.
    pub(super) fn stab(&self, key: &[u8], found: &mut impl FnMut(&T)) {
        self.stab_below(self.root, key, found);
    }

    fn stab_below(&self, at: Option<usize>, key: &[u8], found: &mut impl FnMut(&T)) {
        let Some(at) = at else { return };
        let node = self.node(at);
        if !node.max.is_after(key) {
            return;
        }
        self.stab_below(node.left, key, found);
        if node.start.as_ref() <= key {
            if node.end.is_after(key) {
                found(&node.value);
            }
            self.stab_below(node.right, key, found);
        }
    }

    /// The value of the span `[start, end)`, made by `make` if the span is new.
    pub(super) fn entry(&mut self, start: &Bytes, end: &End, make: impl FnOnce() -> T) -> &mut T {
        let at = match self.find(start, end) {
            Some(at) => at,
            None => self.insert(start.clone(), end.clone(), make()),
        };
        &mut self.node_mut(at).value
    }

    /// The value of the span, if it is held.
    pub(super) fn get_mut(&mut self, start: &Bytes, end: &End) -> Option<&mut T> {
        let at = self.find(start, end)?;
        Some(&mut self.node_mut(at).value)
    }

    /// Takes the span out.
    pub(super) fn remove(&mut self, start: &Bytes, end: &End) -> Option<T> {
        self.find(start, end)?;
        let (below, rest) = self.split(self.root, start, end, false);
        let (only, above) = self.split(rest, start, end, true);
        let at = only.expect("the span was found above");
        self.root = self.merge(below, above);
        self.free.push(at);
        self.nodes[at].take().map(|node| node.value)
    }

    fn find(&self, start: &Bytes, end: &End) -> Option<usize> {
        let mut at = self.root;
        while let Some(index) = at {
            let node = self.node(index);
            at = match (start, end).cmp(&(&node.start, &node.end)) {
                std::cmp::Ordering::Less => node.left,
                std::cmp::Ordering::Equal => return Some(index),
                std::cmp::Ordering::Greater => node.right,
            };
        }
        None
    }

    fn insert(&mut self, start: Bytes, end: End, value: T) -> usize {
        self.sown += 1;
        let (below, above) = self.split(self.root, &start, &end, false);
        let node = Node {
            max: end.clone(),
            start,
            end,
            value,
            priority: scatter(self.sown),
            left: None,
            right: None,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at] = Some(node);
                at
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        let left = self.merge(below, Some(at));
        self.root = self.merge(left, above);
        at
    }

    /// Cuts a subtree in two: what is before (start, end), itself included when `inclusive`, and the rest.
    fn split(
        &mut self,
        at: Option<usize>,
        start: &Bytes,
        end: &End,
        inclusive: bool,
    ) -> (Option<usize>, Option<usize>) {
        let Some(at) = at else { return (None, None) };
        let node = self.node(at);
        let here = (&node.start, &node.end);
        let goes_left = here < (start, end) || (inclusive && here == (start, end));
        if goes_left {
            let (left, right) = self.split(node.right, start, end, inclusive);
            self.node_mut(at).right = left;
            self.measure(at);
            (Some(at), right)
        } else {
            let (left, right) = self.split(node.left, start, end, inclusive);
            self.node_mut(at).left = right;
            self.measure(at);
            (left, Some(at))
        }
    }

    /// Joins two subtrees; everything in `left` is before everything in `right`.
    fn merge(&mut self, left: Option<usize>, right: Option<usize>) -> Option<usize> {
        let (Some(l), Some(r)) = (left, right) else {
            return left.or(right);
        };
        if self.node(l).priority >= self.node(r).priority {
            let joined = self.merge(self.node(l).right, right);
            self.node_mut(l).right = joined;
            self.measure(l);
            Some(l)
        } else {
            let joined = self.merge(left, self.node(r).left);
            self.node_mut(r).left = joined;
            self.measure(r);
            Some(r)
        }
    }

    fn measure(&mut self, at: usize) {
        let node = self.node(at);
        let below = [node.left, node.right].into_iter().flatten();
        let furthest = below.map(|child| &self.node(child).max).max();
        let max = match furthest {
            Some(furthest) => furthest.max(&node.end).clone(),
            None => node.end.clone(),
        };
        self.node_mut(at).max = max;
    }

    fn node(&self, at: usize) -> &Node<T> {
        self.nodes[at].as_ref().expect("a linked node is not on the free list")
    }

    fn node_mut(&mut self, at: usize) -> &mut Node<T> {
        self.nodes[at].as_mut().expect("a linked node is not on the free list")
    }
}

/// Spreads consecutive numbers over all bits (splitmix64): priorities that look random and always come out alike.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
