//! The list a node reports: what it holds, as full pages or as changes since a position.
//!
//! A node numbers every change of its list: a *position* is (epoch, revision). A fresh epoch follows an unclean start,
//! after which no earlier position means anything. A list is transferred in pages of which each stands for itself:
//!
//! - a *full* page lists the entries after a key, in key order, and is complete when it says so;
//! - a *delta* page has everything that changed after a position.
//!
//! The count and digest of the whole list let the receiver check that what it built is what the node holds. The digest
//! is the XOR of a hash of every entry: it can be kept up to date with each change, and guards against mistakes, not
//! against the node itself, which is the only authority on its own list.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::{
    cbor,
    content::FILE_MAX_BYTES,
    ids::{ContentId, FileId, ID_BYTES, Sha256},
    limits::INVENTORY_PAGE_ENTRIES,
    names::FileName,
};

/// How far a node's list has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Random, new after an unclean start.
    pub epoch: u64,
    /// Counts the changes within an epoch.
    pub revision: u64,
}

/// How much of a content a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// All of it, verified.
    Complete,
    /// That many verified chunks.
    Partial(u32),
}

/// Which entry of a list: a file in the library, or a content in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A file of the library.
    Library(FileId),
    /// A sealed content of the vault.
    Vault(ContentId),
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A plaintext file of the library.
    Library {
        /// The file.
        file: FileId,
        /// Its name at its owner's.
        name: FileName,
        /// Its size, in bytes.
        size_bytes: u64,
        /// Its checksum; none for a restricted file.
        sha256: Option<Sha256>,
        /// The content this copy can serve.
        content: ContentId,
        /// How much of it is here.
        completeness: Completeness,
    },
    /// A sealed replica in the vault.
    Vault {
        /// The content.
        content: ContentId,
        /// The plaintext's size, in bytes.
        size_bytes: u64,
        /// How much of it is here.
        completeness: Completeness,
    },
}

impl Item {
    /// Which entry this is.
    pub const fn key(&self) -> Key {
        match self {
            Self::Library { file, .. } => Key::Library(*file),
            Self::Vault { content, .. } => Key::Vault(*content),
        }
    }

    /// The content held.
    pub const fn content(&self) -> ContentId {
        match self {
            Self::Library { content, .. } | Self::Vault { content, .. } => *content,
        }
    }

    /// The plaintext's size, in bytes.
    pub const fn size_bytes(&self) -> u64 {
        match self {
            Self::Library { size_bytes, .. } | Self::Vault { size_bytes, .. } => *size_bytes,
        }
    }

    /// How much is held.
    pub const fn completeness(&self) -> Completeness {
        match self {
            Self::Library { completeness, .. } | Self::Vault { completeness, .. } => *completeness,
        }
    }

    /// Whether the entry can be true at all.
    pub const fn is_possible(&self) -> bool {
        self.size_bytes() <= FILE_MAX_BYTES
    }
}

/// Count and digest of a whole list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Entries in the list.
    pub count: u64,
    digest: ByteArray<ID_BYTES>,
}

impl Summary {
    /// Accounts for an entry that came.
    pub fn add(&mut self, item: &Item) {
        self.count += 1;
        self.toggle(item);
    }

    /// Accounts for an entry that went.
    pub fn remove(&mut self, item: &Item) {
        self.count = self.count.saturating_sub(1);
        self.toggle(item);
    }

    fn toggle(&mut self, item: &Item) {
        let hash = blake3::derive_key("quarta 2026 inventory item v1", &cbor::to_vec(item));
        for (byte, other) in self.digest.iter_mut().zip(hash) {
            *byte ^= other;
        }
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Summary({}, {})", self.count, data_encoding::HEXLOWER.encode(&self.digest[..4]))
    }
}

/// What a page covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// The list from its beginning, or after this key.
    Full {
        /// The last key of the page before; none for the first page.
        after: Option<Key>,
    },
    /// The changes after this position.
    Since(Position),
}

/// A page of a node's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What it covers.
    pub coverage: Coverage,
    /// Where the list stood when this page was made.
    pub position: Position,
    /// Whether nothing follows.
    pub last: bool,
    /// Entries that are in the list; in key order for full pages.
    #[serde(deserialize_with = "cbor::at_most::<INVENTORY_PAGE_ENTRIES, _, _>")]
    pub present: Vec<Item>,
    /// Entries that left the list; only in delta pages.
    #[serde(deserialize_with = "cbor::at_most::<INVENTORY_PAGE_ENTRIES, _, _>")]
    pub gone: Vec<Key>,
    /// The whole list at `position`.
    pub summary: Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(n: u8) -> Item {
        Item::Library {
            file: FileId::from_bytes([n; 32]),
            name: FileName::new("a.txt").unwrap(),
            size_bytes: 1,
            sha256: Some(Sha256::from_bytes([n; 32])),
            content: ContentId::from_bytes([n; 32]),
            completeness: Completeness::Complete,
        }
    }

    #[test]
    fn a_summary_depends_on_the_entries_and_not_on_their_order() {
        let (mut forth, mut back) = (Summary::default(), Summary::default());
        (0..9).for_each(|n| forth.add(&item(n)));
        (0..9).rev().for_each(|n| back.add(&item(n)));
        assert_eq!(forth, back);
        forth.remove(&item(3));
        assert_ne!(forth, back);
        forth.add(&item(3));
        assert_eq!(forth, back);
    }

    #[test]
    fn a_page_of_the_longest_names_fits_its_message_when_filled_by_bytes() {
        let longest = Item::Library {
            file: FileId::from_bytes([1; 32]),
            name: FileName::new(
                &["n".repeat(200), "n".repeat(200), "n".repeat(200), "n".repeat(200), "n".repeat(200)]
                    .join("/"),
            )
            .unwrap(),
            size_bytes: FILE_MAX_BYTES,
            sha256: Some(Sha256::from_bytes([1; 32])),
            content: ContentId::from_bytes([1; 32]),
            completeness: Completeness::Partial(u32::MAX),
        };
        assert!(cbor::to_vec(&longest).len() < 2048);
    }
}
