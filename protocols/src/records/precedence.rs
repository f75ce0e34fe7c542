//! Where a record stands among all that its file has had and will have: the order by which records merge, as a value.
//!
//! Whoever has two records needs none of this, as [`Record::supersedes`] compares them. From whom a file is hidden is
//! given no record, and still has to tell what is old from what is new: its super-peers have heard of the file's changes
//! at different times, and it follows now the one, now the other. So it is told the record's precedence instead.
//!
//! What that gives away is how often the file changed and changed hands, whether the root had a hand in it, and whether it
//! is deleted; of names, contents, owners and readers nothing.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{LINKS_MAX, Link, Record, SignedRecord, State};
use crate::{
    cbor::{self, DecodeError},
    ids::RecordHash,
};

/// A record's place in the total order of the records of one file; the greater one supersedes. Means nothing between
/// files.
///
/// The order of the fields is the order in which they count: hand-overs, then a deletion, then the revision, then the
/// hash. Hand-overs compare as words do: at the first that differs the root's wins, then the lower hash; else the more,
/// the better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Precedence {
    #[serde(default, deserialize_with = "cbor::at_most::<LINKS_MAX, _, _>")]
    links: Vec<Step>,
    deleted: bool,
    revision: u64,
    hash: RecordHash,
}

/// A hand-over, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Step {
    by_root: bool,
    hash: RecordHash,
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        self.by_root.cmp(&other.by_root).then(other.hash.cmp(&self.hash))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Step {
    pub(super) const fn of((link, hash): &(Link, RecordHash)) -> Self {
        Self { by_root: link.by_root, hash: *hash }
    }
}

impl Record {
    /// Where this record stands among those of its file.
    pub fn precedence(&self) -> Precedence {
        Precedence {
            links: self.links.iter().map(Step::of).collect(),
            deleted: matches!(self.body.state, State::Deleted),
            revision: self.body.revision,
            hash: self.hash,
        }
    }
}

impl Precedence {
    /// What a record that is not verified here says of its place: for whoever has verified it before.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no record.
    pub fn claimed(signed: &SignedRecord) -> Result<Self, DecodeError> {
        let body = signed.peek()?;
        let steps = body.links.iter().map(|link| {
            let hash = RecordHash::of(link.body());
            Ok(Step { by_root: link.peek()?.by_root, hash })
        });
        Ok(Self {
            links: steps.collect::<Result<_, DecodeError>>()?,
            deleted: matches!(body.state, State::Deleted),
            revision: body.revision,
            hash: RecordHash::of(signed.body()),
        })
    }
}
