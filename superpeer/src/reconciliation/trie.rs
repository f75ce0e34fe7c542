//! What the entries below each prefix of positions come to.

use std::{array, sync::Arc};

use quarta_protocols::messages::sync::{BRANCHES, Item, LEAVES, LEVELS};

/// Leaves in a block: what a transaction copies when it first changes a leaf of it, 4 KiB.
const BLOCK_LEAVES: usize = 256;

/// What the entries of one leaf come to: the XOR of their tags, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    tags: u64,
    count: u32,
}

/// The sums of all leaves; those of the upper levels are folded from them when they are asked for.
///
/// A clone is a snapshot: it shares the blocks that are not changed afterwards, so that a transaction that may be
/// rolled back works on one, and sessions read another beside the writer.
#[derive(Clone, PartialEq, Eq)]
pub struct Trie {
    blocks: Vec<Arc<[Sum; BLOCK_LEAVES]>>,
}

impl Default for Trie {
    fn default() -> Self {
        let empty = Arc::new([Sum::default(); BLOCK_LEAVES]);
        Self { blocks: vec![empty; LEAVES / BLOCK_LEAVES] }
    }
}

impl Trie {
    /// Accounts for an entry that came or, called again, went.
    pub fn toggle(&mut self, item: Item, came: bool) {
        let [block, leaf] = item.position.leaf().to_be_bytes().map(usize::from);
        let sum = &mut Arc::make_mut(&mut self.blocks[block])[leaf];
        sum.tags ^= item.tag;
        sum.count = if came { sum.count.saturating_add(1) } else { sum.count.saturating_sub(1) };
    }

    /// What the branches below a prefix of `level` hexadecimal digits come to; none where there is no such prefix.
    ///
    /// Above the last level this reads as many leaves as are below the prefix: 65 536 for the root, in some 50 µs.
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
        let mut all = Sum::default();
        for leaf in first..first + width {
            let sum = self.blocks[leaf / BLOCK_LEAVES][leaf % BLOCK_LEAVES];
            all.tags ^= sum.tags;
            all.count = all.count.wrapping_add(sum.count);
        }
        // Entries whose tags cancel each other out still count.
        all.tags.wrapping_add(u64::from(all.count))
    }
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
