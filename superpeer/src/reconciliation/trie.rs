//! What the entries below each prefix of positions come to.

use std::{array, sync::Arc};

use quarta_protocols::messages::sync::{BRANCHES, Item, LEAVES, LEVELS};

/// Leaves in a block: what a transaction copies when it first changes a leaf of it, 4 KiB. All leaves below a prefix of two
/// digits.
const BLOCK_LEAVES: usize = 256;

/// What the entries of one leaf come to: the XOR of their tags, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    tags: u64,
    count: u32,
}

impl Sum {
    fn toggle(&mut self, tag: u64, came: bool) {
        self.tags ^= tag;
        self.count = if came { self.count.saturating_add(1) } else { self.count.saturating_sub(1) };
    }
}

/// Some neighbouring leaves.
#[derive(Clone, PartialEq, Eq)]
struct Block {
    /// What all of them come to.
    all: Sum,
    leaves: [Sum; BLOCK_LEAVES],
}

/// The sums of all leaves and blocks; those of the other levels are folded from them when they are asked for.
///
/// A clone is a snapshot: it shares the blocks that are not changed afterwards, so that a transaction that may be
/// rolled back works on one, and sessions read another beside the writer.
#[derive(Clone, PartialEq, Eq)]
pub struct Trie {
    blocks: Arc<Vec<Arc<Block>>>,
}

impl Default for Trie {
    fn default() -> Self {
        let empty = Arc::new(Block { all: Sum::default(), leaves: [Sum::default(); BLOCK_LEAVES] });
        Self { blocks: Arc::new(vec![empty; LEAVES / BLOCK_LEAVES]) }
    }
}

impl Trie {
    /// Accounts for an entry that came or, called again, went.
    pub fn toggle(&mut self, item: Item, came: bool) {
        let [block, leaf] = item.position.leaf().to_be_bytes().map(usize::from);
        let block = Arc::make_mut(&mut Arc::make_mut(&mut self.blocks)[block]);
        block.all.toggle(item.tag, came);
        block.leaves[leaf].toggle(item.tag, came);
    }

    /// What the branches below a prefix of `level` hexadecimal digits come to; none where there is no such prefix.
    ///
    /// This reads as many sums as a block has leaves at most.
    pub fn branches(&self, level: u8, prefix: u16) -> Option<[u64; BRANCHES]> {
        let digits = u32::from(level);
        if level >= LEVELS || usize::from(prefix) >= BRANCHES.pow(digits) {
            return None;
        }
        let width = LEAVES / BRANCHES.pow(digits + 1);
        let first = usize::from(prefix) * width * BRANCHES;
        Some(array::from_fn(|branch| self.fold(first + branch * width, width)))
    }

    fn fold(&self, first: usize, width: usize) -> u64 {
        let (block, leaf) = (first / BLOCK_LEAVES, first % BLOCK_LEAVES);
        if width < BLOCK_LEAVES {
            folded(self.blocks[block].leaves[leaf..leaf + width].iter())
        } else {
            folded(self.blocks[block..block + width / BLOCK_LEAVES].iter().map(|block| &block.all))
        }
    }
}

/// What some sums come to, as one number.
fn folded<'a>(sums: impl Iterator<Item = &'a Sum>) -> u64 {
    let mut all = Sum::default();
    for sum in sums {
        all.tags ^= sum.tags;
        all.count = all.count.wrapping_add(sum.count);
    }
    // Entries whose tags cancel each other out still count.
    all.tags.wrapping_add(u64::from(all.count))
}

impl std::fmt::Debug for Trie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trie")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quarta_protocols::messages::sync::Position;

    use super::*;

    fn item(leaf: u16, tag: u64) -> Item {
        Item { position: Position::at(leaf, 0), tag }
    }

    #[test]
    fn a_difference_shows_on_its_way_from_the_root_and_nowhere_else() {
        let (empty, mut trie) = (Trie::default(), Trie::default());
        trie.toggle(item(0xbeef, 7), true);
        for (level, prefix, branch) in [(0, 0, 0xb), (1, 0xb, 0xe), (2, 0xbe, 0xe), (3, 0xbee, 0xf)] {
            let (ours, theirs) =
                (trie.branches(level, prefix).unwrap(), empty.branches(level, prefix).unwrap());
            let differing: Vec<usize> = (0..BRANCHES).filter(|at| ours[*at] != theirs[*at]).collect();
            assert_eq!(differing, [branch], "level {level}");
        }
        trie.toggle(item(0xbeef, 7), false);
        assert_eq!(trie, empty);
    }

    #[test]
    fn there_is_nothing_below_leaves_and_beside_the_tree() {
        let trie = Trie::default();
        assert_eq!(trie.branches(LEVELS, 0), None);
        assert_eq!(trie.branches(1, 16), None);
        assert!(trie.branches(3, 0xfff).is_some());
    }

    #[test]
    fn entries_whose_tags_cancel_each_other_out_are_seen() {
        let mut trie = Trie::default();
        for tag in [1, 2, 3] {
            trie.toggle(item(5, tag), true);
        }
        assert_ne!(trie.branches(0, 0), Trie::default().branches(0, 0));
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let mut trie = Trie::default();
        trie.toggle(item(1, 1), true);
        let snapshot = trie.clone();
        trie.toggle(item(2, 2), true);
        assert_ne!(snapshot, trie);
        trie.toggle(item(2, 2), false);
        assert_eq!(snapshot, trie);
    }

    proptest! {
        #[test]
        fn a_branch_comes_to_what_its_leaves_come_to(
            items in prop::collection::vec((any::<u16>(), any::<u64>()), 0..50),
            level in 0..LEVELS,
            branch in 0..BRANCHES,
        ) {
            let mut trie = Trie::default();
            for (leaf, tag) in &items {
                trie.toggle(item(*leaf, *tag), true);
            }
            // Below the first prefix of each level.
            let width = LEAVES / BRANCHES.pow(u32::from(level) + 1);
            let below = |leaf: u16| (branch * width..(branch + 1) * width).contains(&usize::from(leaf));
            let (tags, count) = items
                .iter()
                .filter(|(leaf, _)| below(*leaf))
                .fold((0, 0), |(tags, count), (_, tag)| (tags ^ tag, count + 1));
            prop_assert_eq!(trie.branches(level, 0).unwrap()[branch], u64::wrapping_add(tags, count));
        }

        #[test]
        fn the_order_of_entries_does_not_count(items in prop::collection::vec((any::<u16>(), any::<u64>()), 0..50)) {
            let (mut there, mut back) = (Trie::default(), Trie::default());
            for (leaf, tag) in &items {
                there.toggle(item(*leaf, *tag), true);
            }
            for (leaf, tag) in items.iter().rev() {
                back.toggle(item(*leaf, *tag), true);
            }
            prop_assert_eq!(there, back);
        }
    }
}
