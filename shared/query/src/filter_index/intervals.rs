//! Interval tree: which of many closed intervals hold a number. A treap, whose nodes know the greatest end below them.

/// No node.
const NONE: u32 = u32::MAX;

/// Intervals, each of a slot.
#[derive(Debug)]
pub struct Intervals {
    nodes: Vec<Interval>,
    free: Vec<u32>,
    root: u32,
    /// State of the generator of priorities, which keep the tree shallow whatever the order of inserts is.
    random: u64,
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    low: u128,
    high: u128,
    /// The greatest end of this one and those below.
    highest: u128,
    slot: u32,
    priority: u32,
    left: u32,
    right: u32,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NONE, random: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Intervals {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root == NONE
    }

    /// Adds the interval from `low` to `high`, both of which are in it.
    pub fn insert(&mut self, low: u128, high: u128, slot: u32) {
        let priority = self.priority();
        let node = Interval { low, high, highest: high, slot, priority, left: NONE, right: NONE };
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("memory holds fewer intervals")
            }
        };
        let (less, rest) = self.split(self.root, (low, high, slot));
        let with_less = self.merge(less, index);
        self.root = self.merge(with_less, rest);
    }

    /// Removes an interval of a slot, if it is there.
    pub fn remove(&mut self, low: u128, high: u128, slot: u32) {
        self.root = self.without(self.root, (low, high, slot));
    }

    /// Calls `found` with the slot of each interval that `place` is in.
    pub fn visit(&self, place: u128, found: &mut impl FnMut(u32)) {
        self.visit_below(self.root, place, found);
    }

    /// How many hold `place`, counted up to `most`.
    pub fn count(&self, place: u128, most: usize) -> usize {
        self.count_below(self.root, place, most)
    }

    fn count_below(&self, mut index: u32, place: u128, most: usize) -> usize {
        let mut count = 0;
        while let Some(node) = self.nodes.get(index as usize) {
            if node.highest < place || count >= most {
                break;
            }
            count += self.count_below(node.left, place, most - count);
            if place < node.low {
                break;
            }
            count += usize::from(place <= node.high);
            index = node.right;
        }
        count.min(most)
    }

    fn visit_below(&self, mut index: u32, place: u128, found: &mut impl FnMut(u32)) {
        while let Some(node) = self.nodes.get(index as usize) {
            if node.highest < place {
                return;
            }
            self.visit_below(node.left, place, found);
            if place < node.low {
                return;
            }
            if place <= node.high {
                found(node.slot);
            }
            index = node.right;
        }
    }

    /// Those below `index` that are less than `key`, and the others.
    fn split(&mut self, index: u32, key: (u128, u128, u32)) -> (u32, u32) {
        let Some(node) = self.nodes.get(index as usize).copied() else { return (NONE, NONE) };
        if node.key() < key {
            let (less, rest) = self.split(node.right, key);
            self.nodes[index as usize].right = less;
            self.update(index);
            (index, rest)
        } else {
            let (less, rest) = self.split(node.left, key);
            self.nodes[index as usize].left = rest;
            self.update(index);
            (less, index)
        }
    }

    /// Joins two trees; all of `left` are less than those of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE || right == NONE {
            return left.min(right);
        }
        if self.nodes[left as usize].priority > self.nodes[right as usize].priority {
            let below = self.merge(self.nodes[left as usize].right, right);
            self.nodes[left as usize].right = below;
            self.update(left);
            left
        } else {
            let below = self.merge(left, self.nodes[right as usize].left);
            self.nodes[right as usize].left = below;
            self.update(right);
            right
        }
    }

    /// The tree below `index` without `key`.
    fn without(&mut self, index: u32, key: (u128, u128, u32)) -> u32 {
        let Some(node) = self.nodes.get(index as usize).copied() else { return NONE };
        match key.cmp(&node.key()) {
            std::cmp::Ordering::Equal => {
                self.free.push(index);
                return self.merge(node.left, node.right);
            }
            std::cmp::Ordering::Less => self.nodes[index as usize].left = self.without(node.left, key),
            std::cmp::Ordering::Greater => self.nodes[index as usize].right = self.without(node.right, key),
        }
        self.update(index);
        index
    }

    fn update(&mut self, index: u32) {
        let node = self.nodes[index as usize];
        let below = |index: u32| self.nodes.get(index as usize).map_or(0, |node| node.highest);
        self.nodes[index as usize].highest = node.high.max(below(node.left)).max(below(node.right));
    }

    /// Source: George Marsaglia, "Xorshift RNGs", 2003.
    fn priority(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}

impl Interval {
    fn key(&self) -> (u128, u128, u32) {
        (self.low, self.high, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_that_hold_a_place_are_found(steps in prop::collection::vec((0..20_u8, 0..20_u8, any::<bool>()), 0..200)) {
            let (mut tree, mut plain) = (Intervals::default(), Vec::new());
            for (slot, (one, other, removes)) in (0..).zip(steps) {
                let (low, high) = (one.min(other).into(), one.max(other).into());
                tree.insert(low, high, slot);
                plain.push((low, high, slot));
                if removes {
                    let (low, high, slot) = plain.swap_remove(usize::from(one) % plain.len());
                    tree.remove(low, high, slot);
                }
                for place in 0..21 {
                    let mut found = Vec::new();
                    tree.visit(place, &mut |slot| found.push(slot));
                    found.sort_unstable();
                    let holds = |(low, high, _): &&(u128, u128, u32)| (*low..=*high).contains(&place);
                    let mut expected: Vec<u32> = plain.iter().filter(holds).map(|(.., slot)| *slot).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(tree.count(place, 5), expected.len().min(5));
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(tree.is_empty(), plain.is_empty());
        }
    }

    #[test]
    fn a_tree_of_many_is_shallow() {
        let mut tree = Intervals::default();
        (0..100_000).for_each(|slot| tree.insert(slot.into(), slot.into(), slot));
        fn depth(tree: &Intervals, index: u32) -> usize {
            tree.nodes.get(index as usize).map_or(0, |node| 1 + depth(tree, node.left).max(depth(tree, node.right)))
        }
        let depth = depth(&tree, tree.root);
        assert!(depth < 70, "{depth}");
    }
}
