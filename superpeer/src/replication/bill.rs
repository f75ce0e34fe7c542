//! What keeping copies costs, and how far it has got.

use super::{book::Book, presence::Hold};

/// The network's storage bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// How many copies of each file there should be.
    pub target: u32,
    /// How many before any file gets more.
    pub floor: u32,
    /// Contents that are to be kept: one for each file, but for those that share one.
    pub contents: u64,
    /// Contents that have not been looked at yet since the start.
    pub unseen: u64,
    /// Contents with fewer copies than the target, those below the floor included.
    pub below_target: u64,
    /// Contents with fewer copies than the floor, those without any included.
    pub below_floor: u64,
    /// Contents of which no copy counts: every node that holds one is gone.
    pub without_copy: u64,
    /// Copies that count, on nodes that are there or away for a moment.
    pub copies: u64,
    /// The plaintexts' sizes together, in bytes.
    pub plain_bytes: u64,
    /// What the copies that count take, in bytes: owners' and readers' files and sealed replicas.
    pub stored_bytes: u64,
    /// What they would take if every file had exactly its target, in bytes.
    pub wanted_bytes: u64,
    /// Copies that nodes were told to make and have not yet; by this super-peer.
    pub under_way: u64,
    /// Contents of which there are too many copies, one of which goes when others have confirmed theirs; by this
    /// super-peer.
    pub in_excess: u64,
    /// Why repairs wait, if they do.
    pub hold: Option<Hold>,
}

impl Bill {
    pub(super) fn of(
        book: &Book,
        target: u32,
        floor: u32,
        under_way: usize,
        in_excess: usize,
        hold: Option<Hold>,
    ) -> Self {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut bill = Self {
            target,
            floor,
            contents: wide(book.len()),
            under_way: wide(under_way),
            in_excess: wide(in_excess),
            hold,
            ..Self::default()
        };
        for kept in book.iter() {
            bill.plain_bytes = bill.plain_bytes.saturating_add(kept.size_bytes);
            bill.wanted_bytes =
                bill.wanted_bytes.saturating_add(kept.size_bytes.saturating_mul(u64::from(target)));
            let Some(copies) = kept.copies else {
                bill.unseen += 1;
                continue;
            };
            bill.copies += u64::from(copies);
            bill.stored_bytes =
                bill.stored_bytes.saturating_add(kept.size_bytes.saturating_mul(u64::from(copies)));
            bill.below_target += u64::from(copies < target);
            bill.below_floor += u64::from(copies < floor);
            bill.without_copy += u64::from(copies == 0);
        }
        bill
    }
}
