//! File records: the owner-signed catalog entries, each valid by itself, merged the same everywhere and in any order.
//!
//! ```text
//! Record = { body, signature }            signature by the last owner over body
//! body   = Body (CBOR) = { file, origin: { owner, nonce }, links: [Link…], revision, state }
//! Link   = { body, signature }            signature by the owner so far, or by the root for a member that is gone
//! ```
//!
//! The file id is the hash of the network, the first owner and a nonce, so that nobody can claim another's file. Each
//! hand-over adds a *link*; following them from the first owner gives the present one, whose signature covers all of
//! it. No history need be kept and no index trusted: whoever holds one record can tell that it is genuine.
//!
//! Two genuine records of a file can still differ, because one is older, or because an owner signed two. The merge
//! ([`Record::supersedes`]) is a total order on a file's records, so every member ends at the same one. A record's place in
//! that order is a value of its own, [`Precedence`].

mod precedence;

use libp2p::{PeerId, identity::Keypair};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    audiences::SEALED_ACCESS_MAX_BYTES,
    cbor,
    content::{ContentKey, FILE_MAX_BYTES, MANIFEST_MAX_BYTES},
    credentials::Trust,
    ids::{AudienceId, ContentId, FileId, NetworkId, RecordHash, Sha256, public_key_of},
    lately::Mark,
    names::FileName,
    signing::{Signed, Statement, VerifyError},
};

pub use self::precedence::Precedence;
use self::precedence::Step;

/// Most hand-overs a record can carry; after that the file is added anew.
pub const LINKS_MAX: usize = 64;
/// Candidates that one link lists: enough that a draw is a draw, and a link stays small.
pub const CANDIDATES_MAX: usize = 16;
/// Longest media type, in bytes.
pub const MEDIA_TYPE_MAX_BYTES: usize = 127;
/// The largest encoded record body. Records travel in pages, so this bounds a page's memory.
pub const RECORD_MAX_BYTES: usize = 48 * 1024;

/// Where a file id comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Who added the file.
    pub owner: PeerId,
    /// 128 random bits.
    pub nonce: ByteArray<16>,
}

impl Origin {
    /// The file's id.
    pub fn file_id(&self, network: &NetworkId) -> FileId {
        FileId::derive(network, &self.owner, &self.nonce)
    }
}

/// One hand-over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    /// The file handed over.
    pub file: FileId,
    /// Its place among the file's links, from 0.
    pub place: u32,
    /// Who owned the file until now.
    pub from: PeerId,
    /// Who owns it from now on.
    pub to: PeerId,
    /// The hash of the link before, so that a link fits one history only; none for the first.
    pub previous: Option<RecordHash>,
    /// Whether the root signed in place of a member that is gone.
    pub by_root: bool,
    /// Among whom a leaving owner drew; empty for a gift.
    #[serde(default, deserialize_with = "cbor::at_most::<CANDIDATES_MAX, _, _>")]
    pub candidates: Vec<PeerId>,
}

impl Statement for Link {
    const DOMAIN: &'static str = "quarta/file-link/1";
    const MAX_BYTES: usize = 2048;
}

/// How a file's content is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everybody who may hold the record may read: key, checksum and type stand in it.
    Open {
        /// The content's key.
        key: ContentKey,
        /// The plaintext's SHA-256.
        sha256: Sha256,
        /// The media type, e.g. `image/png`, where known.
        media_type: Option<String>,
    },
    /// Only an audience may read: key, checksum and type are sealed together under the audience's key.
    Restricted {
        /// The audience: see [`crate::audiences`].
        audience: AudienceId,
        /// Which of the audience's keys.
        epoch: u64,
        /// The sealed key, checksum and type: [`crate::audiences::EpochKey::seal`], at most
        /// [`crate::audiences::SEALED_ACCESS_MAX_BYTES`].
        sealed: ByteBuf,
    },
}

/// What a file's bytes are and how to get at them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The file's name in its owner's library.
    pub name: FileName,
    /// The plaintext's size, in bytes.
    pub size_bytes: u64,
    /// The sealed form to fetch.
    pub content: ContentId,
    /// The manifest itself where it lists one chunk; asked from holders otherwise.
    pub manifest: Option<ByteBuf>,
    /// How to open it.
    pub access: Access,
}

/// What the owner says of the file in this revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It exists.
    Present(Entry),
    /// It is deleted, for ever.
    Deleted,
}

/// The signed part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The file.
    pub file: FileId,
    /// What the id is derived from.
    pub origin: Origin,
    /// The hand-overs so far, oldest first.
    #[serde(default, deserialize_with = "cbor::at_most::<LINKS_MAX, _, _>")]
    pub links: Vec<Signed<Link>>,
    /// Counts the changes, from 1.
    pub revision: u64,
    /// The file as of this revision.
    pub state: State,
}

impl Statement for Body {
    const DOMAIN: &'static str = "quarta/file-record/1";
    const MAX_BYTES: usize = RECORD_MAX_BYTES;
}

/// A record as it travels, not yet verified.
pub type SignedRecord = Signed<Body>;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not signed by its owner, or malformed.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The id is not derived from the first owner and nonce.
    #[error("the file id does not belong to its first owner")]
    ForeignId,
    /// A hand-over is not in its place, or not signed by who could hand over.
    #[error("hand-over {0} is not valid")]
    BadLink(usize),
    /// A value outside what a record may say.
    #[error("the record's {0} is not possible")]
    Impossible(&'static str),
}

/// A verified record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    body: Body,
    links: Vec<(Link, RecordHash)>,
    hash: RecordHash,
    signed: SignedRecord,
}

impl Record {
    /// Signs a record as its present owner.
    ///
    /// # Errors
    /// [`RecordError`] for a body that others would refuse, so that no such record leaves its maker.
    pub fn sign(body: &Body, trust: &Trust, owner: &Keypair) -> Result<Self, RecordError> {
        Self::verify(SignedRecord::new(body, &trust.network, owner), trust)
    }

    /// Verifies a record by itself: its id, every hand-over, the owner's signature, and that its values are possible.
    ///
    /// # Errors
    /// [`RecordError`] with the first reason found.
    pub fn verify(signed: SignedRecord, trust: &Trust) -> Result<Self, RecordError> {
        let mark = Mark::of(&cbor::to_vec(&signed));
        if let Some(record) = trust.records.get(&mark) {
            return Ok(record);
        }
        let record = Self::verify_anew(signed, trust)?;
        trust.records.keep([(mark, record.clone())]);
        Ok(record)
    }

    fn verify_anew(signed: SignedRecord, trust: &Trust) -> Result<Self, RecordError> {
        // The owner is only known after the links, which stand inside: peek, follow them, then check the signature
        // over the same bytes before anything else of the body counts.
        let claimed = signed.peek().map_err(VerifyError::from)?;
        if claimed.origin.file_id(&trust.network) != claimed.file {
            return Err(RecordError::ForeignId);
        }
        let links = follow(&claimed, trust)?;
        let owner = links.last().map_or(claimed.origin.owner, |(link, _)| link.to);
        let key = public_key_of(&owner).map_err(|_| VerifyError::BadSignature)?;
        let body = signed.verify(&trust.network, &key)?;
        check_values(&body)?;
        let hash = RecordHash::of(signed.body());
        Ok(Self { body, links, hash, signed })
    }

    /// The file.
    pub const fn file(&self) -> FileId {
        self.body.file
    }

    /// The present owner.
    pub fn owner(&self) -> PeerId {
        self.links.last().map_or(self.body.origin.owner, |(link, _)| link.to)
    }

    /// The hand-overs so far, oldest first, each with the hash that names it.
    pub fn links(&self) -> &[(Link, RecordHash)] {
        &self.links
    }

    /// The link by which the present owner, or the root in its place, hands the file over; `candidates` are those of a
    /// draw, and empty for a gift.
    pub fn link_to(&self, to: PeerId, by_root: bool, candidates: Vec<PeerId>) -> Link {
        Link {
            file: self.body.file,
            place: u32::try_from(self.links.len()).unwrap_or(u32::MAX),
            from: self.owner(),
            to,
            previous: self.links.last().map(|(_, hash)| *hash),
            by_root,
            candidates,
        }
    }

    /// Whether a link is among the hand-overs so far.
    pub fn carries(&self, link: &Signed<Link>) -> bool {
        let hash = RecordHash::of(link.body());
        self.links.iter().any(|(_, known)| *known == hash)
    }

    /// The signed part.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The file as of this revision, unless it is deleted.
    pub const fn entry(&self) -> Option<&Entry> {
        match &self.body.state {
            State::Present(entry) => Some(entry),
            State::Deleted => None,
        }
    }

    /// The hash of the signed bytes: names this exact revision.
    pub const fn hash(&self) -> RecordHash {
        self.hash
    }

    /// The record as it travels.
    pub const fn signed(&self) -> &SignedRecord {
        &self.signed
    }

    /// Whether this record takes the place of `other`, which must be of the same file.
    ///
    /// At the first differing link the root's wins, then the lower hash; else more links, then a deletion, then the
    /// higher revision, then the higher hash. This is a total order, so a merge is commutative, associative and
    /// idempotent, and no clock has a say.
    pub fn supersedes(&self, other: &Self) -> bool {
        debug_assert_eq!(self.file(), other.file(), "records of different files are never merged");
        self.precedence() > other.precedence()
    }

    /// To whom a signed hand-over gives this file, so that every record with it supersedes this one: the next one, or one
    /// that counts more than the one that this record has in its place. None where it shows no such thing.
    ///
    /// It is the proof for an owner that a file is not its own any more, where it is not shown the record.
    pub fn handed_on_by(&self, link: &Signed<Link>, trust: &Trust) -> Option<PeerId> {
        let place = link.peek().ok()?.place as usize;
        let before = self.links.get(..place)?;
        let found = follow_one(link, self.file(), self.body.origin.owner, before, trust)?;
        let counts_more = self.links.get(place).is_none_or(|known| Step::of(&found) > Step::of(known));
        counts_more.then_some(found.0.to)
    }
}

/// Follows a body's hand-overs from the first owner.
fn follow(body: &Body, trust: &Trust) -> Result<Vec<(Link, RecordHash)>, RecordError> {
    let mut links = Vec::with_capacity(body.links.len());
    for (at, signed) in body.links.iter().enumerate() {
        let next = follow_one(signed, body.file, body.origin.owner, &links, trust);
        links.push(next.ok_or(RecordError::BadLink(at))?);
    }
    Ok(links)
}

/// Verifies the hand-over that comes after these, with the hash that names it.
fn follow_one(
    signed: &Signed<Link>,
    file: FileId,
    first: PeerId,
    before: &[(Link, RecordHash)],
    trust: &Trust,
) -> Option<(Link, RecordHash)> {
    let owner = before.last().map_or(first, |(link, _)| link.to);
    let key = if signed.peek().ok()?.by_root { trust.root.clone() } else { public_key_of(&owner).ok()? };
    let link = signed.verify(&trust.network, &key).ok()?;
    let in_place = link.file == file
        && link.place as usize == before.len()
        && link.from == owner
        && link.to != owner
        && link.previous == before.last().map(|(_, hash)| *hash);
    (in_place && public_key_of(&link.to).is_ok()).then(|| (link, RecordHash::of(signed.body())))
}

fn check_values(body: &Body) -> Result<(), RecordError> {
    let possible = |holds: bool, what| if holds { Ok(()) } else { Err(RecordError::Impossible(what)) };
    possible(body.revision > 0, "revision")?;
    let State::Present(entry) = &body.state else { return Ok(()) };
    possible(entry.size_bytes <= FILE_MAX_BYTES, "size")?;
    if let Some(manifest) = &entry.manifest {
        possible(manifest.len() <= MANIFEST_MAX_BYTES.min(RECORD_MAX_BYTES), "manifest")?;
        let manifest = crate::content::Manifest::verify(manifest, &entry.content)
            .map_err(|_| RecordError::Impossible("manifest"))?;
        possible(manifest.geometry().size_bytes() == entry.size_bytes, "size")?;
    }
    match &entry.access {
        Access::Open { media_type: Some(media_type), .. } => {
            let printable = media_type.bytes().all(|b| b.is_ascii_graphic());
            possible(media_type.len() <= MEDIA_TYPE_MAX_BYTES && printable, "media type")?;
        }
        Access::Open { .. } => {}
        Access::Restricted { epoch, sealed, .. } => {
            possible(*epoch > 0, "epoch")?;
            possible(sealed.len() <= SEALED_ACCESS_MAX_BYTES, "sealed access")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct World {
        root: Keypair,
        members: Vec<Keypair>,
        trust: Trust,
    }

    fn seeded(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    fn world() -> World {
        let root = seeded(200);
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        World { root, members: (1..=4).map(seeded).collect(), trust }
    }

    fn entry(name: &str) -> Entry {
        Entry {
            name: FileName::new(name).unwrap(),
            size_bytes: 3,
            content: ContentId::from_bytes([9; 32]),
            manifest: None,
            access: Access::Open {
                key: ContentKey::from_bytes([1; 32]),
                sha256: Sha256::from_bytes([2; 32]),
                media_type: Some("text/plain".into()),
            },
        }
    }

    impl World {
        fn peer(&self, member: usize) -> PeerId {
            self.members[member].public().to_peer_id()
        }

        fn body(&self, revision: u64, state: State) -> Body {
            let origin = Origin { owner: self.peer(0), nonce: ByteArray::new([3; 16]) };
            Body { file: origin.file_id(&self.trust.network), origin, links: Vec::new(), revision, state }
        }

        /// Adds a hand-over by the owner so far or by the root.
        fn hand_over(&self, body: &mut Body, from: usize, to: usize, by_root: bool) {
            let link = Link {
                file: body.file,
                place: u32::try_from(body.links.len()).unwrap(),
                from: self.peer(from),
                to: self.peer(to),
                previous: body.links.last().map(|l| RecordHash::of(l.body())),
                by_root,
                candidates: Vec::new(),
            };
            let signer = if by_root { &self.root } else { &self.members[from] };
            body.links.push(Signed::new(&link, &self.trust.network, signer));
        }
    }

    #[test]
    fn an_owners_record_is_genuine_and_anybody_elses_is_not() {
        let w = world();
        let body = w.body(1, State::Present(entry("plano.csv")));
        let record = Record::sign(&body, &w.trust, &w.members[0]).unwrap();
        assert_eq!(record.owner(), w.peer(0));
        for other in [&w.members[1], &w.root] {
            assert_eq!(
                Record::sign(&body, &w.trust, other),
                Err(RecordError::Signature(VerifyError::BadSignature))
            );
        }
    }

    #[test]
    fn nobody_can_claim_another_members_file_id() {
        let w = world();
        let mut body = w.body(1, State::Deleted);
        body.origin.owner = w.peer(1);
        assert_eq!(Record::sign(&body, &w.trust, &w.members[1]), Err(RecordError::ForeignId));
    }

    #[test]
    fn after_a_hand_over_only_the_new_owner_can_change_the_file() {
        let w = world();
        let mut body = w.body(2, State::Present(entry("a")));
        w.hand_over(&mut body, 0, 1, false);
        assert!(Record::sign(&body, &w.trust, &w.members[0]).is_err());
        assert_eq!(Record::sign(&body, &w.trust, &w.members[1]).unwrap().owner(), w.peer(1));
    }

    #[test]
    fn links_out_of_place_or_by_strangers_are_refused() {
        let w = world();
        // Member 2 hands over what member 0 owns.
        let mut stolen = w.body(2, State::Deleted);
        w.hand_over(&mut stolen, 2, 1, false);
        assert_eq!(Record::sign(&stolen, &w.trust, &w.members[1]), Err(RecordError::BadLink(0)));
        // A genuine link in another place.
        let mut shuffled = w.body(3, State::Deleted);
        w.hand_over(&mut shuffled, 0, 1, false);
        w.hand_over(&mut shuffled, 1, 2, false);
        shuffled.links.swap(0, 1);
        assert_eq!(Record::sign(&shuffled, &w.trust, &w.members[2]), Err(RecordError::BadLink(0)));
        // A link that says it is by the root and is not.
        let mut forged = w.body(2, State::Deleted);
        w.hand_over(&mut forged, 0, 1, false);
        let claim = Link { by_root: true, ..forged.links[0].peek().unwrap() };
        forged.links[0] = Signed::new(&claim, &w.trust.network, &w.members[0]);
        assert_eq!(Record::sign(&forged, &w.trust, &w.members[1]), Err(RecordError::BadLink(0)));
    }

    #[test]
    fn the_root_can_assign_a_gone_members_file_and_its_link_wins() {
        let w = world();
        let (mut by_owner, mut by_root) = (w.body(9, State::Deleted), w.body(2, State::Present(entry("a"))));
        w.hand_over(&mut by_owner, 0, 1, false);
        w.hand_over(&mut by_owner, 1, 3, false);
        w.hand_over(&mut by_root, 0, 2, true);
        let by_owner = Record::sign(&by_owner, &w.trust, &w.members[3]).unwrap();
        let by_root = Record::sign(&by_root, &w.trust, &w.members[2]).unwrap();
        assert!(by_root.supersedes(&by_owner) && !by_owner.supersedes(&by_root));
    }

    #[test]
    fn a_deletion_is_final_whatever_revision_follows() {
        let w = world();
        let deleted = Record::sign(&w.body(2, State::Deleted), &w.trust, &w.members[0]).unwrap();
        let later = w.body(99, State::Present(entry("a")));
        let later = Record::sign(&later, &w.trust, &w.members[0]).unwrap();
        assert!(deleted.supersedes(&later) && !later.supersedes(&deleted));
    }

    #[test]
    fn impossible_values_are_refused_though_well_signed() {
        let w = world();
        let sign =
            |revision, entry| Record::sign(&w.body(revision, State::Present(entry)), &w.trust, &w.members[0]);
        assert_eq!(sign(0, entry("a")), Err(RecordError::Impossible("revision")));
        let huge = Entry { size_bytes: FILE_MAX_BYTES + 1, ..entry("a") };
        assert_eq!(sign(1, huge), Err(RecordError::Impossible("size")));
        let foreign = Entry { manifest: Some(ByteBuf::from(vec![1; 42])), ..entry("a") };
        assert_eq!(sign(1, foreign), Err(RecordError::Impossible("manifest")));
        let mut odd = entry("a");
        odd.access = Access::Open {
            key: ContentKey::from_bytes([1; 32]),
            sha256: Sha256::from_bytes([2; 32]),
            media_type: Some("text/html\r\nX: y".into()),
        };
        assert_eq!(sign(1, odd), Err(RecordError::Impossible("media type")));
    }

    #[test]
    fn a_records_bytes_are_held_still() {
        let w = world();
        let record =
            Record::sign(&w.body(1, State::Present(entry("plano.csv"))), &w.trust, &w.members[0]).unwrap();
        let bytes = cbor::to_vec(record.signed());
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), GOLDEN_RECORD);
        assert_eq!(record.hash().to_string(), GOLDEN_HASH);
        let again = cbor::from_slice(&bytes).unwrap();
        assert_eq!(Record::verify(again, &w.trust).unwrap(), record);
    }

    #[test]
    fn an_owner_believes_its_own_hand_over_and_the_roots_and_no_strangers() {
        let w = world();
        let own = Record::sign(&w.body(7, State::Present(entry("a"))), &w.trust, &w.members[0]).unwrap();
        let link_of = |from: usize, by_root: bool| {
            let mut body = w.body(8, State::Deleted);
            w.hand_over(&mut body, from, 1, by_root);
            body.links[0].clone()
        };
        assert_eq!(own.handed_on_by(&link_of(0, false), &w.trust), Some(w.peer(1)));
        assert_eq!(own.handed_on_by(&link_of(0, true), &w.trust), Some(w.peer(1)));
        assert_eq!(own.handed_on_by(&link_of(2, false), &w.trust), None, "a stranger's");
        assert_eq!(own.handed_on_by(&link_of(2, true), &w.trust), None, "the root's, for another owner");
        // What it gave away and was given back is its own again.
        let mut back = w.body(9, State::Present(entry("a")));
        w.hand_over(&mut back, 0, 1, false);
        w.hand_over(&mut back, 1, 0, false);
        let back = Record::sign(&back, &w.trust, &w.members[0]).unwrap();
        assert_eq!(back.handed_on_by(&back.body().links[0], &w.trust), None);
        let mut later = back.body().clone();
        w.hand_over(&mut later, 0, 2, true);
        assert_eq!(back.handed_on_by(&later.links[2], &w.trust), Some(w.peer(2)));
        assert_eq!(own.handed_on_by(&later.links[2], &w.trust), None, "what lies between is not known");
    }

    const GOLDEN_RECORD: &str = "a264626f6479590158a56466696c655820b633eeb2fd96bfec902a229c727f65759690369016cc7600c0e3dcdde55278df666f726967696ea2656f776e657258260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c656e6f6e63655003030303030303030303030303030303656c696e6b7380687265766973696f6e01657374617465a16770726573656e74a5646e616d6569706c616e6f2e6373766a73697a655f62797465730367636f6e74656e7458200909090909090909090909090909090909090909090909090909090909090909686d616e6966657374f666616363657373a1646f70656ea3636b65795820010101010101010101010101010101010101010101010101010101010101010166736861323536582002020202020202020202020202020202020202020202020202020202020202026a6d656469615f747970656a746578742f706c61696e697369676e61747572655840a86afd5648b487c93f72be57b0e3a0135f2e8af189c1e4ae4796c06be9f5e2f4b6c781743af13262f60286569012b57dc38d3dd2274768c4b433996b08dd0f08";
    const GOLDEN_HASH: &str = "d8402884159dc21289d43ad1bd872688ded068720fa2d24ed41d86eb12fb3fb3";

    /// Every way the file of [`world`] can look after up to two hand-overs.
    fn any_record() -> impl Strategy<Value = Record> {
        let hand_overs = prop::collection::vec((1usize..4, any::<bool>()), 0..3);
        (hand_overs, 1u64..4, any::<bool>(), 0u8..3).prop_map(|(hand_overs, revision, deleted, name)| {
            let w = world();
            let state = if deleted { State::Deleted } else { State::Present(entry(&format!("f{name}"))) };
            let mut body = w.body(revision, state);
            let mut owner = 0;
            for (to, by_root) in hand_overs {
                if to != owner {
                    w.hand_over(&mut body, owner, to, by_root);
                    owner = to;
                }
            }
            Record::sign(&body, &w.trust, &w.members[owner]).unwrap()
        })
    }

    fn merge(records: &[Record]) -> Record {
        let newer = |best: Record, next: &Record| if next.supersedes(&best) { next.clone() } else { best };
        records[1..].iter().fold(records[0].clone(), newer)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_order_and_any_duplicates_end_at_the_same_record(
            records in prop::collection::vec(any_record(), 1..7), seed: u64,
        ) {
            let best = merge(&records);
            let mut shuffled: Vec<Record> = records.iter().chain(&records).cloned().collect();
            let len = shuffled.len();
            for i in 0..len {
                let j = (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i as u64 * 7919) >> 33) as usize % len;
                shuffled.swap(i, j);
            }
            prop_assert_eq!(merge(&shuffled).hash(), best.hash());
            for record in &records {
                prop_assert!(!record.supersedes(&best));
            }
        }

        #[test]
        fn a_precedence_says_of_two_records_what_they_say_themselves_also_where_only_bytes_are_at_hand(
            a in any_record(), b in any_record(),
        ) {
            let claimed = |record: &Record| Precedence::claimed(record.signed()).unwrap();
            prop_assert_eq!(claimed(&a), a.precedence());
            prop_assert_eq!(claimed(&a) > claimed(&b), a.supersedes(&b));
            let again: Precedence = cbor::from_slice(&cbor::to_vec(&a.precedence())).unwrap();
            prop_assert_eq!(again, a.precedence());
        }

        #[test]
        fn a_hand_over_shows_that_a_record_is_old_where_every_record_with_it_supersedes_that(
            a in any_record(), b in any_record(),
        ) {
            let w = world();
            let shown = b.body().links.iter().any(|link| a.handed_on_by(link, &w.trust).is_some());
            prop_assert_eq!(shown, a.links() != b.links() && b.supersedes(&a));
        }

        #[test]
        fn two_records_never_supersede_each_other(a in any_record(), b in any_record(), c in any_record()) {
            prop_assert!(!a.supersedes(&a));
            prop_assert_eq!(a.supersedes(&b) || b.supersedes(&a), a.hash() != b.hash());
            if a.supersedes(&b) && b.supersedes(&c) {
                prop_assert!(a.supersedes(&c));
            }
        }
    }
}
