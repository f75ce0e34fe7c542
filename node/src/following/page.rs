//! What a page of the feed says, verified: nothing of it is believed that is not signed by whom it concerns.
//!
//! What does not verify is left out and the page is taken all the same: a super-peer that sends such a thing would send
//! it again, and nothing after it would ever be heard.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Stated, Wrap},
    cbor,
    credentials::Trust,
    endings::{Departure, ENDING_MAX_BYTES, RevocationNotice, Revoked},
    ids::{FileId, ID_BYTES},
    members::{ENROLMENT_MAX_BYTES, Enrolled, Enrolment},
    messages::{changes::Change, sync::Kind},
    records::{RECORD_MAX_BYTES, Record, SignedRecord},
    signing::{Signed, Statement},
};

use super::hiding::Hiding;

/// What the envelope around a record's body adds at most, in bytes.
const ENVELOPE_MAX_BYTES: usize = 256;
/// The longest wrap as it travels, in bytes.
const WRAP_MAX_BYTES: usize = Wrap::MAX_BYTES + ENVELOPE_MAX_BYTES;

/// One verified change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A file is new, changed or deleted.
    File(Box<Record>),
    /// A member is new or has a newer credential.
    Member(Box<Enrolled>),
    /// Keys of an audience for one of its readers.
    Wrap(Box<Stated<Wrap>>),
    /// A member has left.
    Departure(PeerId, Signed<Departure>),
    /// A member was expelled.
    Revocation(Box<Revoked>),
    /// A file is hidden from this node.
    ForgetFile(Box<Hiding>),
    /// A member is to be forgotten, by the id of its entry.
    ForgetMember([u8; ID_BYTES]),
}

/// Verifies one change. None for what is of no concern to a node: kinds of later versions, and the wish to forget the
/// end of a membership, which is final.
///
/// # Errors
/// In words, what is not genuine.
pub fn verify(change: Change, trust: &Trust) -> Result<Option<News>, String> {
    let misplaced = || "an entry does not belong under its id".to_owned();
    let (kind, id, payload) = match change {
        Change::Put { kind, id, payload } => (kind, *id, payload),
        Change::Forget { kind: Kind::FILE, id, place, handed_over } => {
            let hiding = Hiding { file: FileId::from_bytes(*id), place, handed_over };
            return Ok(Some(News::ForgetFile(Box::new(hiding))));
        }
        Change::Forget { kind: Kind::MEMBER, id, .. } => return Ok(Some(News::ForgetMember(*id))),
        Change::Forget { .. } => return Ok(None),
    };
    match kind {
        Kind::FILE => {
            let most = RECORD_MAX_BYTES + ENVELOPE_MAX_BYTES;
            let signed: SignedRecord = cbor::from_slice_within(&payload, most).map_err(text)?;
            let record = Record::verify(signed, trust).map_err(text)?;
            let placed = *record.file().as_bytes() == id;
            placed.then(|| Some(News::File(Box::new(record)))).ok_or_else(misplaced)
        }
        Kind::MEMBER => {
            let enrolment: Enrolment =
                cbor::from_slice_within(&payload, ENROLMENT_MAX_BYTES).map_err(text)?;
            let enrolled = enrolment.verify(trust).map_err(text)?;
            let placed = Enrolment::id_of(&enrolled.membership.peer) == id;
            placed.then(|| Some(News::Member(Box::new(enrolled)))).ok_or_else(misplaced)
        }
        Kind::DEPARTURE => {
            let signed: Signed<Departure> =
                cbor::from_slice_within(&payload, ENDING_MAX_BYTES).map_err(text)?;
            let member = Departure::verify(&signed, trust).map_err(text)?;
            let placed = Enrolment::id_of(&member) == id;
            placed.then(|| Some(News::Departure(member, signed))).ok_or_else(misplaced)
        }
        Kind::REVOCATION => {
            let notice: RevocationNotice =
                cbor::from_slice_within(&payload, ENDING_MAX_BYTES).map_err(text)?;
            let revoked = notice.verify(trust).map_err(text)?;
            let placed = Enrolment::id_of(&revoked.member) == id;
            placed.then(|| Some(News::Revocation(Box::new(revoked)))).ok_or_else(misplaced)
        }
        Kind::WRAP => {
            let signed: Signed<Wrap> = cbor::from_slice_within(&payload, WRAP_MAX_BYTES).map_err(text)?;
            let wrap = Wrap::verify(signed, trust).map_err(text)?;
            let placed = Wrap::id_of(&wrap.statement().audience, &wrap.statement().member) == id;
            placed.then(|| Some(News::Wrap(Box::new(wrap)))).ok_or_else(misplaced)
        }
        _ => Ok(None),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use serde_bytes::{ByteArray, ByteBuf};

    use super::*;

    fn world() -> (Trust, Keypair) {
        let root = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        (Trust::in_root(root.public().try_into_ed25519().unwrap()), root)
    }

    fn put(kind: Kind, id: [u8; 32], payload: Vec<u8>) -> Change {
        Change::Put { kind, id: ByteArray::new(id), payload: ByteBuf::from(payload) }
    }

    fn forget(kind: Kind) -> Change {
        Change::Forget { kind, id: ByteArray::new([1; 32]), place: None, handed_over: Vec::new() }
    }

    #[test]
    fn an_ending_is_taken_under_its_own_members_id_only() {
        let (trust, root) = world();
        let member = PeerId::random();
        let notice = cbor::to_vec(&RevocationNotice::by_root(member, &root, &trust));
        let right = put(Kind::REVOCATION, Enrolment::id_of(&member), notice.clone());
        assert!(
            matches!(verify(right, &trust), Ok(Some(News::Revocation(revoked))) if revoked.member == member)
        );
        let elsewhere = put(Kind::REVOCATION, Enrolment::id_of(&PeerId::random()), notice.clone());
        assert!(verify(elsewhere, &trust).is_err());
        assert!(verify(put(Kind::DEPARTURE, Enrolment::id_of(&member), notice), &trust).is_err());
    }

    #[test]
    fn anothers_signature_ends_nobody() {
        let (trust, _) = world();
        let (member, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let peer = member.public().to_peer_id();
        let signed = |key| cbor::to_vec(&Signed::new(&Departure { member: peer }, &trust.network, key));
        let id = Enrolment::id_of(&peer);
        assert!(verify(put(Kind::DEPARTURE, id, signed(&other)), &trust).is_err());
        assert!(matches!(
            verify(put(Kind::DEPARTURE, id, signed(&member)), &trust),
            Ok(Some(News::Departure(left, _))) if left == peer
        ));
    }

    #[test]
    fn what_ended_a_membership_is_never_forgotten_and_later_kinds_are_passed_over() {
        let (trust, _) = world();
        for kind in [Kind::DEPARTURE, Kind::REVOCATION, Kind(99)] {
            assert_eq!(verify(forget(kind), &trust), Ok(None));
        }
        assert_eq!(verify(put(Kind(99), [1; 32], vec![1, 2, 3]), &trust), Ok(None));
        let hiding = Hiding { file: FileId::from_bytes([1; 32]), place: None, handed_over: Vec::new() };
        assert_eq!(verify(forget(Kind::FILE), &trust), Ok(Some(News::ForgetFile(Box::new(hiding)))));
    }

    #[test]
    fn bytes_that_are_nothing_are_refused_and_not_a_panic() {
        let (trust, _) = world();
        for kind in [Kind::FILE, Kind::MEMBER, Kind::DEPARTURE, Kind::REVOCATION] {
            for payload in [vec![], vec![0xff; 100], vec![0xbf; 200_000]] {
                assert!(verify(put(kind, [0; 32], payload), &trust).is_err());
            }
        }
    }
}
