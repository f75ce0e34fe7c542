//! What becomes of a copy when the record of its file changes. Pure: the record that the copy belongs to, the record that
//! holds now, whose copy it is and whether this node can open what holds now; nothing else has a say.
//!
//! ```text
//! what holds now                    owner's copy   reader's copy
//! the same record                   keep           keep
//! the same content, another record  note           note
//! another content, same readers     follow, the old content is served until the new one is here
//! another content, other readers    follow, the old content is served to nobody from now on
//! … that this node cannot open      wait, likewise
//! deleted                           to the trash   to the trash
//! hidden from this node             keep           erase
//! ```
//!
//! A change that takes a reader away is told apart from an ordinary update by the *audience*: a rule never changes, so a
//! file whose list changes moves to another audience. What somebody may not read any more must not be had from anybody,
//! so its old content goes at once; an update, whose old content was everybody's anyway, is make-before-break.
//!
//! **An owner's file is touched by nothing but its own signature.** That a file is *hidden* is only a super-peer's word, so
//! it never concerns a copy of the owner's; a deletion is signed by the owner itself, perhaps before its data folder was
//! restored from a backup.

use quarta_protocols::records::{Access, Entry, Record};

/// Whose copy it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This node owns the file.
    Owner,
    /// Another member does.
    Reader,
}

/// What holds of a file now.
#[derive(Debug, Clone, Copy)]
pub enum Now<'a> {
    /// This record. `opens`: whether this node can open its content; always so for an open file.
    Record {
        /// The record.
        record: &'a Record,
        /// Whether this node has the key.
        opens: bool,
    },
    /// The file is hidden from this node.
    Hidden,
}

/// What happens to the old content while a copy is not up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// It is served to whoever fetches it.
    Served,
    /// It is served to nobody any more.
    Withheld,
}

/// What becomes of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it is up to date, or none of a super-peer's business.
    Keep,
    /// The content is the same and the record newer: the copy is noted with it.
    Note,
    /// The new content is got, and the old one goes to the trash when it is here.
    Follow(Meanwhile),
    /// There is a new content that this node cannot open yet: the copy stays, and is decided on again.
    Wait(Meanwhile),
    /// The file is deleted: the copy goes to the trash.
    Trash,
    /// The file was taken away from this node: the copy is erased, with what the trash has of the file.
    Erase,
}

impl Fate {
    /// Whether the copy may be offered and served until its fate has come about.
    pub const fn is_served(self) -> bool {
        match self {
            Self::Keep | Self::Note | Self::Follow(Meanwhile::Served) | Self::Wait(Meanwhile::Served) => true,
            Self::Follow(Meanwhile::Withheld)
            | Self::Wait(Meanwhile::Withheld)
            | Self::Trash
            | Self::Erase => false,
        }
    }
}

/// Decides. `held` is the record that the copy belongs to, of the same file as `now`.
pub fn fate(held: &Record, now: Now<'_>, role: Role) -> Fate {
    let (record, opens) = match (now, role) {
        (Now::Hidden, Role::Owner) => return Fate::Keep,
        (Now::Hidden, Role::Reader) => return Fate::Erase,
        (Now::Record { record, opens }, _) => (record, opens),
    };
    // What was heard late changes nothing.
    if !record.supersedes(held) {
        return Fate::Keep;
    }
    let Some(entry) = record.entry() else { return Fate::Trash };
    let Some(before) = held.entry() else { return Fate::Trash };
    if entry.content == before.content {
        return Fate::Note;
    }
    let meanwhile = if restricts(before, entry) { Meanwhile::Withheld } else { Meanwhile::Served };
    if opens { Fate::Follow(meanwhile) } else { Fate::Wait(meanwhile) }
}

/// Whether the change from one entry to the next can have taken somebody's access away.
pub fn restricts(before: &Entry, now: &Entry) -> bool {
    match (&before.access, &now.access) {
        (_, Access::Open { .. }) => false,
        (Access::Open { .. }, Access::Restricted { .. }) => true,
        (Access::Restricted { audience: before, .. }, Access::Restricted { audience: now, .. }) => {
            before != now
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use proptest::prelude::*;
    use quarta_protocols::{
        content::ContentKey,
        credentials::Trust,
        ids::{AudienceId, ContentId, Sha256},
        names::FileName,
        records::{Body, Origin, State},
    };
    use serde_bytes::{ByteArray, ByteBuf};

    use super::*;

    struct World {
        owner: Keypair,
        trust: Trust,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Open,
        For(u8),
        Deleted,
    }

    fn world() -> World {
        let root = Keypair::ed25519_from_bytes([9; 32]).unwrap();
        let owner = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        World { owner, trust: Trust::in_root(root.public().try_into_ed25519().unwrap()) }
    }

    impl World {
        fn record(&self, revision: u64, kind: Kind, content: u8) -> Record {
            let origin = Origin { owner: self.owner.public().to_peer_id(), nonce: ByteArray::new([3; 16]) };
            let access = match kind {
                Kind::Open => Some(Access::Open {
                    key: ContentKey::from_bytes([content; 32]),
                    sha256: Sha256::from_bytes([content; 32]),
                    media_type: None,
                }),
                Kind::For(audience) => Some(Access::Restricted {
                    audience: AudienceId::from_bytes([audience; 32]),
                    epoch: 1,
                    sealed: ByteBuf::from(vec![0; 16]),
                }),
                Kind::Deleted => None,
            };
            let state = access.map_or(State::Deleted, |access| {
                State::Present(Entry {
                    name: FileName::new("plano.csv").unwrap(),
                    size_bytes: 3,
                    content: ContentId::from_bytes([content; 32]),
                    manifest: None,
                    access,
                })
            });
            let file = origin.file_id(&self.trust.network);
            let body = Body { file, origin, links: Vec::new(), revision, state };
            Record::sign(&body, &self.trust, &self.owner).unwrap()
        }
    }

    fn after(held: &Record, now: &Record, opens: bool, role: Role) -> Fate {
        fate(held, Now::Record { record: now, opens }, role)
    }

    #[test]
    fn a_reader_follows_its_owners_updates_and_serves_the_old_content_meanwhile() {
        let w = world();
        let (first, second) = (w.record(1, Kind::Open, 1), w.record(2, Kind::Open, 2));
        assert_eq!(after(&first, &second, true, Role::Reader), Fate::Follow(Meanwhile::Served));
        assert_eq!(after(&second, &first, true, Role::Reader), Fate::Keep, "what was heard late");
        let renamed = w.record(2, Kind::Open, 1);
        assert_eq!(after(&first, &renamed, true, Role::Reader), Fate::Note);
    }

    #[test]
    fn a_deletion_moves_every_copy_to_the_trash_and_nothing_comes_after_it() {
        let w = world();
        let (held, gone) = (w.record(5, Kind::Open, 1), w.record(2, Kind::Deleted, 0));
        for role in [Role::Owner, Role::Reader] {
            assert_eq!(after(&held, &gone, true, role), Fate::Trash);
            assert_eq!(after(&gone, &held, true, role), Fate::Keep);
        }
    }

    #[test]
    fn a_hidden_file_is_erased_at_its_readers_and_never_at_its_owner() {
        let held = world().record(1, Kind::For(1), 1);
        assert_eq!(fate(&held, Now::Hidden, Role::Reader), Fate::Erase);
        assert_eq!(fate(&held, Now::Hidden, Role::Owner), Fate::Keep);
    }

    #[test]
    fn the_old_content_of_a_restriction_is_served_to_nobody() {
        let w = world();
        let open = w.record(1, Kind::Open, 1);
        let (first, second) = (w.record(2, Kind::For(1), 2), w.record(3, Kind::For(2), 3));
        for (held, now) in [(&open, &first), (&first, &second)] {
            assert_eq!(after(held, now, true, Role::Reader), Fate::Follow(Meanwhile::Withheld));
            assert_eq!(after(held, now, false, Role::Reader), Fate::Wait(Meanwhile::Withheld));
        }
        let updated = w.record(3, Kind::For(1), 4);
        assert_eq!(after(&first, &updated, true, Role::Reader), Fate::Follow(Meanwhile::Served));
        let lifted = w.record(4, Kind::Open, 5);
        assert_eq!(after(&second, &lifted, true, Role::Reader), Fate::Follow(Meanwhile::Served));
    }

    proptest! {
        /// Whatever is heard in whatever order: once the newest record is noted, nothing is left to be done, and what
        /// was taken away is not served on the way.
        #[test]
        fn a_copy_settles_with_the_newest_record(
            history in proptest::collection::vec((0u8..5, 0u8..4), 1..8), order in any::<u64>(),
        ) {
            let w = world();
            let kinds = [Kind::Open, Kind::For(1), Kind::For(2), Kind::Open, Kind::Deleted];
            let records: Vec<Record> = (1..).zip(&history)
                .map(|(revision, (kind, content))| w.record(revision, kinds[usize::from(*kind)], *content))
                .collect();
            let newest = records.iter().fold(&records[0], |best, next| if next.supersedes(best) { next } else { best });
            let mut held = records[usize::try_from(order % records.len() as u64).unwrap()].clone();
            for now in records.iter().chain([newest]) {
                match after(&held, now, true, Role::Reader) {
                    Fate::Keep => prop_assert!(!now.supersedes(&held)),
                    Fate::Note | Fate::Follow(_) => held = now.clone(),
                    Fate::Trash => {
                        prop_assert!(now.entry().is_none() || held.entry().is_none());
                        held = now.clone();
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(held.hash(), newest.hash());
            prop_assert_eq!(after(&held, newest, true, Role::Reader), Fate::Keep);
        }
    }
}
