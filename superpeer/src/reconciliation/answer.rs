//! The half of a reconciliation that answers: what differs from what the other super-peer says it has.
//!
//! It keeps nothing between requests, so a super-peer answers any number of sessions and none can be left hanging.

use quarta_protocols::{
    limits::{SYNC_BRANCHES_MAX, SYNC_ITEMS_MAX},
    messages::sync::{Item, Packed, Position, Response},
};

use super::Trie;

/// Answers *branches*; none where the prefixes are not such of this level, or too many.
pub fn branches(trie: &Trie, level: u8, prefixes: &[u16]) -> Option<Response> {
    if prefixes.len() > SYNC_BRANCHES_MAX {
        return None;
    }
    let sums: Option<Vec<_>> = prefixes.iter().map(|prefix| trie.branches(level, *prefix)).collect();
    Some(Response::Branches(sums?.into_iter().flatten().collect()))
}

/// A stretch of positions over some leaves: from one in the first up to one in the last of them, and all between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The leaves, ascending, at least one.
    leaves: Vec<u16>,
    /// The first place in the first of them.
    from: u32,
    /// The last place in the last of them.
    to: u32,
}

impl Stretch {
    /// Checks a stretch; none where the leaves do not ascend, or there is nothing between its ends.
    pub fn new(leaves: Vec<u16>, from: u32, to: u32) -> Option<Self> {
        let ascending = !leaves.is_empty() && leaves.is_sorted_by(|a, b| a < b);
        (ascending && (leaves.len() > 1 || from <= to)).then_some(Self { leaves, from, to })
    }

    /// Its leaves.
    pub fn leaves(&self) -> &[u16] {
        &self.leaves
    }

    /// Its ends: the first place in the first leaf, the last place in the last one.
    pub const fn ends(&self) -> (u32, u32) {
        (self.from, self.to)
    }

    /// What it covers, leaf by leaf, both ends included.
    pub fn ranges(&self) -> impl Iterator<Item = (Position, Position)> + '_ {
        let last = self.leaves.len().saturating_sub(1);
        self.leaves.iter().enumerate().map(move |(at, leaf)| {
            let from = if at == 0 { self.from } else { 0 };
            let to = if at == last { self.to } else { u32::MAX };
            (Position::at(*leaf, from), Position::at(*leaf, to))
        })
    }

    /// Whether a position is within it.
    pub fn covers(&self, position: Position) -> bool {
        let Ok(at) = self.leaves.binary_search(&position.leaf()) else { return false };
        (at > 0 || position.place() >= self.from)
            && (at + 1 < self.leaves.len() || position.place() <= self.to)
    }

    /// What is left of it from a position on; none where nothing is.
    #[must_use]
    pub fn from(&self, position: Position) -> Option<Self> {
        let at = self.leaves.partition_point(|leaf| *leaf < position.leaf());
        let leaves = self.leaves[at..].to_vec();
        let from = if leaves.first() == Some(&position.leaf()) { position.place() } else { 0 };
        let from = if at == 0 { from.max(self.from) } else { from };
        Self::new(leaves, from, self.to)
    }

    /// What lies before a position; none where nothing does.
    #[must_use]
    pub fn before(&self, position: Position) -> Option<Self> {
        let end = self.leaves.partition_point(|leaf| *leaf < position.leaf());
        let whole = || Self::new(self.leaves[..end].to_vec(), self.from, u32::MAX);
        match (self.leaves.get(end), position.place().checked_sub(1)) {
            (Some(leaf), Some(to)) if *leaf == position.leaf() => {
                let to = if end + 1 == self.leaves.len() { to.min(self.to) } else { to };
                Self::new(self.leaves[..=end].to_vec(), self.from, to).or_else(whole)
            }
            (None, _) => Some(self.clone()),
            _ => whole(),
        }
    }
}

/// Items in order, as far as they were read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items {
    /// The items, ascending.
    pub items: Vec<Item>,
    /// The first position that was not read; none where all were.
    pub unread: Option<Position>,
}

/// How many own items to read in order to answer *leaves* with so many of the asker's: one more than can be offered.
pub const fn items_to_read(asked: usize) -> usize {
    asked + SYNC_ITEMS_MAX + 1
}

/// Answers *leaves*: compares the asking super-peer's items in a stretch with the own ones there, both ascending.
///
/// Where both have something else at a position the own one is offered: the asker merges it and then knows whether to
/// push what it has.
pub fn leaves(asked: &[Item], own: &Items) -> Response {
    let mut offered: Vec<Position> = Vec::new();
    let (own, mut until) = (&own.items, own.unread);
    for item in own.iter().filter(|item| asked.binary_search(item).is_err()) {
        if offered.last() == Some(&item.position) {
            continue;
        }
        if offered.len() == SYNC_ITEMS_MAX {
            until = Some(item.position);
            break;
        }
        offered.push(item.position);
    }
    let mut wanted = vec![0; asked.len().div_ceil(8)];
    for (at, item) in asked.iter().enumerate() {
        let compared = until.is_none_or(|until| item.position < until);
        if compared && own.binary_search(item).is_err() && offered.binary_search(&item.position).is_err() {
            wanted[at / 8] |= 0x80 >> (at % 8);
        }
    }
    Response::Leaves { offered: Packed(offered), wanted, until }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(place: u32, tag: u64) -> Item {
        Item { position: Position::at(3, place), tag }
    }

    fn own(items: Vec<Item>) -> Items {
        Items { items, unread: None }
    }

    #[test]
    fn each_side_is_told_what_only_the_other_has_and_a_differing_version_comes_from_the_asked() {
        let Response::Leaves { offered, wanted, until } =
            leaves(&[item(1, 1), item(2, 2), item(4, 4)], &own(vec![item(1, 1), item(2, 9), item(3, 3)]))
        else {
            panic!("leaves are answered with leaves");
        };
        assert_eq!(offered.0, [Position::at(3, 2), Position::at(3, 3)]);
        assert_eq!((wanted, until), (vec![0b0010_0000], None));
    }

    #[test]
    fn more_than_fits_is_offered_in_parts() {
        let items: Vec<Item> = (0..).take(SYNC_ITEMS_MAX + 5).map(|place| item(place, 1)).collect();
        let late = item(u32::MAX, 1);
        let first_left = items[SYNC_ITEMS_MAX].position;
        let Response::Leaves { offered, wanted, until } = leaves(&[late], &own(items)) else {
            panic!("leaves are answered with leaves");
        };
        assert_eq!(offered.0.len(), SYNC_ITEMS_MAX);
        assert_eq!((wanted, until), (vec![0], Some(first_left)));
    }

    #[test]
    fn what_was_not_read_is_not_told_to_be_lacking() {
        let own = Items { items: vec![item(1, 1)], unread: Some(Position::at(3, 5)) };
        let Response::Leaves { wanted, until, .. } = leaves(&[item(2, 2), item(7, 7)], &own) else {
            panic!("leaves are answered with leaves");
        };
        assert_eq!((wanted, until), (vec![0b1000_0000], Some(Position::at(3, 5))));
    }

    #[test]
    fn a_stretch_is_cut_at_any_position_without_gap_or_overlap() {
        let stretch = Stretch::new(vec![2, 5, 9], 10, 20).unwrap();
        let edges = [0, 9, 10, 11, 19, 20, 21, u32::MAX];
        for cut in (1..=10).flat_map(|leaf| edges.map(|place| Position::at(leaf, place))) {
            let (before, after) = (stretch.before(cut), stretch.from(cut));
            for position in (1..=10).flat_map(|leaf| edges.map(|place| Position::at(leaf, place))) {
                let within = |part: &Option<Stretch>| part.as_ref().is_some_and(|part| part.covers(position));
                let covered = stretch.covers(position);
                assert_eq!(within(&before), covered && position < cut, "{position:?} before {cut:?}");
                assert_eq!(within(&after), covered && position >= cut, "{position:?} from {cut:?}");
                let in_ranges = stretch.ranges().any(|(from, to)| (from..=to).contains(&position));
                assert_eq!(in_ranges, covered, "{position:?}");
            }
        }
        assert_eq!(Stretch::new(vec![4, 4], 0, 9), None);
        assert_eq!(Stretch::new(vec![4], 9, 8), None);
    }

    #[test]
    fn prefixes_that_are_none_are_not_answered() {
        let trie = Trie::default();
        assert!(branches(&trie, 3, &[0, 0xfff]).is_some());
        assert!(branches(&trie, 3, &[0x1000]).is_none());
        assert!(branches(&trie, 4, &[0]).is_none());
        assert!(branches(&trie, 3, &vec![0; SYNC_BRANCHES_MAX + 1]).is_none());
    }
}
