//! What is to be kept: the content of every file, and what has become of contents that no file has any more.
//!
//! Follows the catalog: it is told each record as it stands after a change, and compares with what it had.
//!
//! A content belongs to the first file that named it. An honest content has one file, since every content is sealed under
//! a key of its own; but anybody can sign a record that names somebody else's content, and such a record must neither
//! keep what its owner has withdrawn nor take from it what its owner keeps.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::{Duration, Instant},
};

use quarta_protocols::{
    ids::{AudienceId, ContentId, FileId},
    messages::vault::DropReason,
    records::{Access, Body, State},
};

/// For how long it is remembered why a content is kept no longer; what a node that is away longer still keeps of it is
/// found as a content without a file.
const RETIRED_KEPT: Duration = Duration::from_hours(24);

/// What a record says of its file, as far as copies are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The file.
    pub file: FileId,
    /// Its content; none where it is deleted.
    pub present: Option<Present>,
}

/// The content of a file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// The content.
    pub content: ContentId,
    /// The plaintext's size, in bytes.
    pub size_bytes: u64,
    /// Who may read it; none where everybody may.
    pub audience: Option<AudienceId>,
}

impl From<&Body> for Told {
    fn from(body: &Body) -> Self {
        let present = match &body.state {
            State::Present(entry) => Some(Present {
                content: entry.content,
                size_bytes: entry.size_bytes,
                audience: match &entry.access {
                    Access::Open { .. } => None,
                    Access::Restricted { audience, .. } => Some(*audience),
                },
            }),
            State::Deleted => None,
        };
        Self { file: body.file, present }
    }
}

/// A content that is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    file: FileId,
    /// The plaintext's size, in bytes.
    pub(super) size_bytes: u64,
    /// When it was first heard of.
    pub(super) since: Instant,
    /// How many copies there were when it was last looked at; none before that.
    pub(super) copies: Option<u32>,
}

/// A content that is to be kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retired {
    /// Why, as its holders are told.
    pub(super) reason: DropReason,
    /// What its file has instead, of which there must be enough copies first.
    pub(super) successor: Option<ContentId>,
    since: Instant,
}

/// All that is to be kept.
#[derive(Debug, Default)]
pub(super) struct Book {
    files: HashMap<FileId, (ContentId, Option<AudienceId>)>,
    kept: BTreeMap<ContentId, Kept>,
    retired: HashMap<ContentId, Retired>,
}

impl Book {
    /// Takes in a record; gives the content that it retires.
    pub(super) fn tell(&mut self, now: Instant, told: &Told) -> Option<(ContentId, Kept)> {
        let before = match told.present {
            Some(present) => self.files.insert(told.file, (present.content, present.audience)),
            None => self.files.remove(&told.file),
        };
        let retired = before
            .filter(|(content, _)| told.present.is_none_or(|present| present.content != *content))
            .and_then(|(content, audience)| self.retire(now, told, content, audience));
        if let Some(present) = told.present
            && !self.retired.contains_key(&present.content)
        {
            let new = Kept { file: told.file, size_bytes: present.size_bytes, since: now, copies: None };
            self.kept.entry(present.content).or_insert(new);
        }
        retired
    }

    fn retire(
        &mut self,
        now: Instant,
        told: &Told,
        content: ContentId,
        audience: Option<AudienceId>,
    ) -> Option<(ContentId, Kept)> {
        let kept = self.kept.get(&content).copied().filter(|kept| kept.file == told.file)?;
        self.kept.remove(&content);
        let restricted =
            told.present.is_some_and(|present| present.audience.is_some() && present.audience != audience);
        let (reason, successor) = match told.present {
            _ if restricted => (DropReason::Withdrawn, None),
            Some(present) => (DropReason::Replaced, Some(present.content)),
            None => (DropReason::Replaced, None),
        };
        self.retired.insert(content, Retired { reason, successor, since: now });
        Some((content, kept))
    }

    /// Forgets why contents went that went long ago.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.retired.retain(|_, retired| now.saturating_duration_since(retired.since) < RETIRED_KEPT);
    }

    pub(super) fn kept(&self, content: &ContentId) -> Option<&Kept> {
        self.kept.get(content)
    }

    pub(super) fn kept_mut(&mut self, content: &ContentId) -> Option<&mut Kept> {
        self.kept.get_mut(content)
    }

    pub(super) fn retired(&self, content: &ContentId) -> Option<Retired> {
        self.retired.get(content).copied()
    }

    /// The content of a file.
    pub(super) fn content_of(&self, file: &FileId) -> Option<ContentId> {
        self.files.get(file).map(|(content, _)| *content)
    }

    /// At most `limit` contents after this one, or from the first on.
    pub(super) fn after(&self, content: Option<ContentId>, limit: usize) -> Vec<ContentId> {
        let from = content.map_or(Bound::Unbounded, Bound::Excluded);
        self.kept.range((from, Bound::Unbounded)).take(limit).map(|(content, _)| *content).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.values()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 7;

    fn told(file: u8, content: u8, audience: Option<u8>) -> Told {
        let content = ContentId::from_bytes([content; 32]);
        let audience = audience.map(|id| AudienceId::from_bytes([id; 32]));
        let present = Some(Present { content, size_bytes: SIZE, audience });
        Told { file: FileId::from_bytes([file; 32]), present }
    }

    fn deleted(file: u8) -> Told {
        Told { present: None, ..told(file, 0, None) }
    }

    fn content(number: u8) -> ContentId {
        ContentId::from_bytes([number; 32])
    }

    fn reason(book: &Book, number: u8) -> Option<(DropReason, Option<ContentId>)> {
        assert!(book.kept(&content(number)).is_none());
        book.retired(&content(number)).map(|retired| (retired.reason, retired.successor))
    }

    #[test]
    fn a_content_goes_when_its_file_is_updated_restricted_or_deleted() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.tell(now, &told(1, 1, None));
        assert_eq!(book.kept(&content(1)).unwrap().size_bytes, SIZE);
        assert!(book.tell(now, &told(1, 1, None)).is_none(), "renamed");
        assert_eq!(book.tell(now, &told(1, 2, None)).unwrap().0, content(1));
        assert_eq!(reason(&book, 1), Some((DropReason::Replaced, Some(content(2)))));
        book.tell(now, &told(1, 3, Some(1)));
        assert_eq!(reason(&book, 2), Some((DropReason::Withdrawn, None)));
        book.tell(now, &told(1, 4, Some(1)));
        assert_eq!(reason(&book, 3), Some((DropReason::Replaced, Some(content(4)))), "the same readers");
        book.tell(now, &told(1, 5, Some(2)));
        assert_eq!(reason(&book, 4), Some((DropReason::Withdrawn, None)));
        book.tell(now, &told(1, 6, None));
        assert_eq!(reason(&book, 5), Some((DropReason::Replaced, Some(content(6)))), "for everybody again");
        book.tell(now, &deleted(1));
        assert_eq!(reason(&book, 6), Some((DropReason::Replaced, None)));
        assert_eq!(book.len(), 0);
        book.forget_old(now + RETIRED_KEPT);
        assert_eq!(reason(&book, 6), None);
    }

    #[test]
    fn another_members_record_neither_keeps_a_withdrawn_content_nor_takes_one_that_is_kept() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.tell(now, &told(1, 1, None));
        book.tell(now, &told(2, 1, None));
        book.tell(now, &told(2, 9, Some(1)));
        assert!(book.kept(&content(1)).is_some(), "the second file's owner has no say");
        book.tell(now, &told(3, 1, None));
        book.tell(now, &told(1, 2, Some(1)));
        assert_eq!(reason(&book, 1), Some((DropReason::Withdrawn, None)), "though a third file names it");
        book.tell(now, &told(4, 1, None));
        assert!(book.kept(&content(1)).is_none(), "nor does a later one bring it back");
    }
}
