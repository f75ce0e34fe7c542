//! The changes feed: what each member is told of the catalog and of the other members, and when. Pure.
//!
//! A member asks for what came after its cursor (see [`quarta_protocols::messages::changes`]). What is guaranteed:
//!
//! - **Nothing is left out.** Catalog entries are numbered by the store in the order of its commits, changed ones anew, so
//!   that "after *n*" is complete; members' condition is numbered likewise by [`Conditions`], within a run of the process.
//! - **A cursor of a lost future is noticed.** The store remembers its runs with the number at which each began. A cursor of
//!   a run that it does not know, or beyond that run's end, comes from a store that was restored from a backup since:
//!   [`Beginning::restart`].
//! - **Only what a member may see** ([`told`]): files, members, departures, revocations, and the keys that are for it; of a
//!   file that is hidden from it, that it is to forget it and how far the file had come, unless nobody was ever shown it
//!   but those who still are. A file gets a new number when its audience arrives, so it does not matter which of the two
//!   comes first. Events of the audit trail and kinds of later versions stay among super-peers. Who is no member any more
//!   is shown nothing: the service does not answer it at all.
//! - **Idle members cost next to nothing.** [`Waiting`] keeps one question for each open; [`Conditions`] holds back what
//!   changes all the time.

mod conditions;
mod waiting;

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    limits::RECORD_PAGE_ENTRIES,
    messages::changes::{self, Cursor},
    records::{Link, Precedence, SignedRecord},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};

use crate::catalog::{Change, Shown};

pub use self::{
    conditions::{Conditions, TELL_AGAIN_AFTER},
    waiting::{Effect, FOLLOWERS_MAX, GATHER, Input, Waiting},
};

/// Payloads in one page, in bytes: the one that reaches this is the last. Far below what a message may hold, so that a
/// page gets over a branch's slow line within the seconds that its node waits.
pub const PAGE_BYTES: usize = 128 * 1024;
/// Catalog entries looked at for one page.
pub const PAGE_ENTRIES: usize = RECORD_PAGE_ENTRIES;
/// Members in one page: with the most and longest addresses they stay below [`PAGE_BYTES`].
pub const PAGE_MEMBERS: usize = 64;

/// How far a feed has got, or how far a member has followed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Head {
    /// The last number of the catalog's entries.
    pub sequence: u64,
    /// The last number of the members' condition, within the run.
    pub condition: u64,
}

impl Head {
    /// Whether there is something after `seen`.
    pub const fn is_after(self, seen: Self) -> bool {
        self.sequence > seen.sequence || self.condition > seen.condition
    }
}

/// Which feed this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The store's id.
    pub store: [u8; 16],
    /// The id of this run of the process.
    pub run: u64,
}

/// Where a member's page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Beginning {
    /// After what.
    pub seen: Head,
    /// Whether the member's cursor is none of this store's, so that the feed begins anew.
    pub restart: bool,
}

impl Source {
    /// Where the page after a member's cursor begins. `known`: the store knows the cursor's run, and that run came as far
    /// as the cursor.
    pub fn begin(&self, since: Option<&Cursor>, known: bool) -> Beginning {
        let Some(cursor) = since else { return Beginning::default() };
        if *cursor.store != self.store || !known {
            return Beginning { seen: Head::default(), restart: true };
        }
        // Conditions are numbered anew in each run.
        let condition = if cursor.run == self.run { cursor.condition } else { 0 };
        Beginning { seen: Head { sequence: cursor.sequence, condition }, restart: false }
    }

    /// The cursor of a page that ends at `head`.
    pub fn cursor(&self, head: Head) -> Cursor {
        Cursor {
            store: ByteArray::new(self.store),
            run: self.run,
            sequence: head.sequence,
            condition: head.condition,
        }
    }
}

/// What a member is told of a change of the catalog; none where it does not concern it.
pub fn told(change: &Change, member: &PeerId) -> Option<changes::Change> {
    let id = ByteArray::new(change.id);
    match change.sight.of(member) {
        Shown::Yes => Some(changes::Change::Put {
            kind: change.kind,
            id,
            payload: ByteBuf::from(change.payload.clone()),
        }),
        Shown::Hidden => Some(hidden(change, member)),
        Shown::No => None,
    }
}

/// That a member is to forget a file, with what makes it no matter when it hears so: how far the file had come, and, for
/// whoever owned it once, that it is another's now.
fn hidden(change: &Change, member: &PeerId) -> changes::Change {
    let record: Option<SignedRecord> = cbor::from_slice(&change.payload).ok();
    let body = record.as_ref().and_then(|record| record.peek().ok());
    let given_away = |link: &Signed<Link>| link.peek().is_ok_and(|link| link.from == *member);
    changes::Change::Forget {
        kind: change.kind,
        id: ByteArray::new(change.id),
        place: record.and_then(|record| Precedence::claimed(&record).ok()),
        handed_over: body.map_or_else(Vec::new, |body| body.links.into_iter().filter(given_away).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quarta_protocols::{
        audiences::Rule,
        credentials::{Role, UnixSeconds},
        limits::{ADDRESSES_MAX, PAGE_MESSAGE_BYTES},
        messages::{
            changes::{Request, Response},
            index::{ListedMember, MemberState},
            sync::Kind,
        },
        names::MemberName,
        records::RECORD_MAX_BYTES,
    };

    use super::{changes::Change, *};
    use crate::catalog::{self, Sight};

    const SOURCE: Source = Source { store: [7; 16], run: 3 };

    fn cursor(store: u8, run: u64) -> Cursor {
        Cursor { store: ByteArray::new([store; 16]), run, sequence: 40, condition: 5 }
    }

    #[test]
    fn a_cursor_of_this_run_goes_on_and_one_of_an_earlier_run_hears_all_conditions_again() {
        let begin = |cursor: Cursor| SOURCE.begin(Some(&cursor), true);
        let seen = |condition| Beginning { seen: Head { sequence: 40, condition }, restart: false };
        assert_eq!(begin(cursor(7, 3)), seen(5));
        assert_eq!(begin(cursor(7, 2)), seen(0));
        assert_eq!(SOURCE.begin(None, false), Beginning::default());
    }

    #[test]
    fn a_cursor_of_another_store_or_of_a_lost_future_begins_anew() {
        let anew = Beginning { seen: Head::default(), restart: true };
        assert_eq!(SOURCE.begin(Some(&cursor(8, 3)), true), anew);
        assert_eq!(SOURCE.begin(Some(&cursor(7, 9)), false), anew);
    }

    fn member(seed: u8) -> PeerId {
        libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
    }

    fn change(kind: Kind, sight: Sight) -> catalog::Change {
        catalog::Change { sequence: 1, kind, id: [7; 32], payload: vec![1], sight }
    }

    #[test]
    fn what_concerns_super_peers_only_is_told_to_nobody() {
        assert_eq!(told(&change(Kind(u16::MAX), Sight::Nobody), &member(1)), None);
        assert!(matches!(
            told(&change(Kind::MEMBER, Sight::Everyone), &member(1)),
            Some(Change::Put { kind: Kind::MEMBER, .. })
        ));
    }

    #[test]
    fn a_list_and_keys_are_told_to_whom_they_belong() {
        let keys = change(Kind::WRAP, Sight::These(vec![member(1), member(2)]));
        assert!(matches!(told(&keys, &member(2)), Some(Change::Put { kind: Kind::WRAP, .. })));
        assert_eq!(told(&keys, &member(3)), None);
    }

    #[test]
    fn a_restricted_file_is_shown_to_its_readers_and_the_others_forget_what_they_may_have_seen() {
        let file = |rule: Option<Rule>, always| {
            let sight = Sight::Restricted { owner: member(1), rule: rule.map(Arc::new), always };
            change(Kind::FILE, sight)
        };
        let but = || Some(Rule::EveryoneBut(vec![member(1), member(2)]));
        let put = |told: Option<Change>| matches!(told, Some(Change::Put { .. }));
        let forget = |told: Option<Change>| matches!(told, Some(Change::Forget { kind: Kind::FILE, .. }));
        assert!(put(told(&file(but(), false), &member(3))));
        assert!(put(told(&file(but(), false), &member(1))), "the owner always");
        assert!(forget(told(&file(but(), false), &member(2))));
        assert_eq!(told(&file(but(), true), &member(2)), None, "it never saw the file");
        let only = Some(Rule::Only(vec![member(2)]));
        assert!(put(told(&file(only.clone(), false), &member(2))));
        assert!(forget(told(&file(only, false), &member(3))));
        // Before the audience is here.
        assert!(put(told(&file(None, false), &member(1))));
        assert_eq!(told(&file(None, false), &member(3)), None);
    }

    #[test]
    fn an_exchange_without_news_is_small() {
        let follow = Request::Follow { since: Some(cursor(0xff, u64::MAX)), wait_ms: 10_000 };
        let nothing = Response::Page {
            cursor: cursor(0xff, u64::MAX),
            restart: false,
            changes: Vec::new(),
            members: Vec::new(),
            more: false,
        };
        assert!(cbor::to_vec(&follow).len() + cbor::to_vec(&nothing).len() <= 256);
    }

    #[test]
    fn the_fullest_page_fits_its_message() {
        let change = |bytes| Change::Put {
            kind: Kind(u16::MAX),
            id: ByteArray::new([0xff; 32]),
            payload: ByteBuf::from(vec![0xff; bytes]),
        };
        // As many as may be, and a last one of the largest kind that a catalog takes.
        let mut changes = vec![change(PAGE_BYTES / PAGE_ENTRIES); PAGE_ENTRIES - 1];
        changes.push(change(RECORD_MAX_BYTES + 64 * 1024));
        let address = "/dns4/".to_owned() + &"a".repeat(63) + "/udp/65535/quic-v1";
        let member = ListedMember {
            peer: libp2p::PeerId::random(),
            name: MemberName::new(&"m".repeat(40)).unwrap(),
            role: Role::Superpeer,
            state: MemberState::Suspect,
            last_seen: Some(UnixSeconds(u64::MAX)),
            version: "v".repeat(32),
            files: u64::MAX,
            stored_bytes: u64::MAX,
            free_bytes: u64::MAX,
            addresses: vec![address.parse().unwrap(); ADDRESSES_MAX],
            relayed: true,
        };
        let members = vec![member; PAGE_MEMBERS];
        assert!(cbor::to_vec(&members).len() <= PAGE_BYTES, "{}", cbor::to_vec(&members).len());
        let page =
            Response::Page { cursor: cursor(7, u64::MAX), restart: true, changes, members, more: true };
        assert!(cbor::to_vec(&page).len() <= PAGE_MESSAGE_BYTES, "{}", cbor::to_vec(&page).len());
    }
}
