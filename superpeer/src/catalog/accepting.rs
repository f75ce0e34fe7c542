//! What this super-peer accepts first: records from their owners, members, and endings of memberships.
//!
//! Each accepted change gets this super-peer's stamp, and an event of the audit trail in the same transaction. Both are
//! given back, to be pushed to the other super-peers. A member whose membership has ended changes nothing any more;
//! what another super-peer accepted from it before it knew still arrives, and the trail shows both moments.

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    credentials::{Membership, Role, Trust},
    endings::{Departure, RevocationError, RevocationNotice, Revoked},
    limits::FILES_PER_MEMBER_MAX,
    members::{Enrolled, Enrolment, EnrolmentError},
    messages::{index::Publication, sync::Entry},
    names::MemberName,
    records::{Record, SignedRecord},
    signing::{Signed, VerifyError},
};

use super::{
    Applied, Catalog, CatalogError, Context, Standing,
    payload::{Key, Payload, Verified},
    trail::Told,
    write::{Merged, Write},
};

/// Departures of peers that this catalog does not know as members. After a backup was restored there may be some;
/// anybody can make up more.
const STRAY_DEPARTURES_MAX: u64 = 10_000;

/// What became of a published record.
#[derive(Debug, Clone)]
pub struct Published {
    /// The answer for the publisher.
    pub outcome: Publication,
    /// What the other super-peers are to be told; empty where the record is not new.
    pub entries: Vec<Entry>,
    /// What it changed here: [`Applied::File`] of a record that was stored.
    pub applied: Option<Applied>,
}

impl Published {
    pub(super) fn refused(outcome: Publication) -> Self {
        Self { outcome, entries: Vec::new(), applied: None }
    }
}

/// Why a member is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The enrolment does not verify.
    #[error(transparent)]
    Invalid(#[from] EnrolmentError),
    /// The name belongs to another member.
    #[error("the name belongs to another member; choose another")]
    NameTaken,
    /// The name was that of a member that is gone.
    #[error("the name belonged to a member that is gone; only an invite made to replace it gives it again")]
    NameOfDeparted,
    /// The membership has ended.
    #[error("the membership of this machine has ended ({0})")]
    Ended(Standing),
    /// A newcomer's credential was issued by a super-peer whose own membership has ended.
    #[error("the credential was issued by a super-peer whose membership has ended")]
    IssuerEnded,
    /// It could not be stored.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// The end of a membership, as it stands in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub peer: PeerId,
    /// What it is now; [`Standing::Member`] only for a notice without effect.
    pub standing: Standing,
    /// What the other super-peers are to be told; empty where all was known.
    pub entries: Vec<Entry>,
}

/// Why a membership is not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Not signed by the member that leaves.
    #[error("the departure is not valid: {0}")]
    Departure(#[from] VerifyError),
    /// Not signed by who may revoke.
    #[error("the revocation is not valid: {0}")]
    Revocation(#[from] RevocationError),
    /// There is no such member.
    #[error("this super-peer does not know such a member")]
    UnknownMember,
    /// A super-peer is revoked by the root only.
    #[error("only the root can revoke a super-peer")]
    NotAllowed,
    /// It could not be stored.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What became of endings that a member brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// What the other super-peers are to be told.
    pub entries: Vec<Entry>,
    /// The memberships that ended by it.
    pub applied: Vec<Applied>,
}

impl Catalog {
    /// Stores records as the member that owns them; one outcome for each, in order, all durable on return.
    ///
    /// `publisher` is the verified credential of the connection that the records came over. It must be in the catalog:
    /// [`Self::meet`] it when it presents itself.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails: then none of the records is stored.
    pub fn publish(
        &mut self,
        publisher: &Membership,
        records: Vec<SignedRecord>,
        wall_ms: u64,
    ) -> Result<Vec<Published>, CatalogError> {
        let mut clock = self.clock;
        let mut write = Write::begin(&mut self.conn, &self.totals)?;
        let standing = write.standing_of(&publisher.peer)?;
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            let bytes = cbor::to_vec(&record);
            let checked = match check_publication(&write, publisher, standing, record, &bytes, &self.trust)? {
                Ok(record) => record,
                Err(outcome) => {
                    outcomes.push(Published::refused(outcome));
                    continue;
                }
            };
            let context = Context { trust: &self.trust, own: &self.own, now: clock.tick(wall_ms) };
            let new = Verified::stamped(Key::of_file(&checked), Payload::File(checked), bytes, &context);
            outcomes.push(write.publish(&new, &context)?);
        }
        self.totals = write.commit(clock.tick(wall_ms))?;
        self.clock = clock;
        Ok(outcomes)
    }

    /// Admits a member under a name that no other member has or had. The same enrolment again changes nothing.
    ///
    /// Gives what the other super-peers are to be told; nothing where all was known.
    ///
    /// # Errors
    /// [`EnrolError`]; then nothing is stored.
    pub fn enrol(&mut self, enrolment: Enrolment, wall_ms: u64) -> Result<Vec<Entry>, EnrolError> {
        let enrolled = enrolment.verify(&self.trust)?;
        self.transact(wall_ms, |write, context| {
            check_standing(write, &enrolled.membership)?;
            check_name(write, &enrolled.membership.name, &enrolled.membership.peer, false)?;
            Ok(store_member(write, enrolled, context)?)
        })
    }

    /// Takes note of a member that another super-peer admitted and that presents itself here, before that super-peer's
    /// push has arrived, or with a renewed credential.
    ///
    /// Gives what the other super-peers are to be told; nothing where the catalog knew as much.
    ///
    /// # Errors
    /// [`EnrolError`], never for the name: whoever holds a valid credential is a member unless that has
    /// [`Ended`](EnrolError::Ended). A newcomer's credential counts only if its issuer's own membership has not ended: a
    /// stolen super-peer's key still signs, and can put any date on what it signs.
    pub fn meet(&mut self, enrolment: Enrolment, wall_ms: u64) -> Result<Vec<Entry>, EnrolError> {
        let enrolled = enrolment.verify(&self.trust)?;
        self.transact(wall_ms, |write, context| {
            check_standing(write, &enrolled.membership)?;
            if write.standing_of(&enrolled.membership.peer)?.is_none()
                && let Some(issuer) = enrolled.membership.issuer
                && !write.standing_as(&issuer, Role::Superpeer)?.is_member()
            {
                return Err(EnrolError::IssuerEnded);
            }
            let issued_here = enrolled.membership.issuer == Some(context.own.public().to_peer_id());
            let entries = store_member(write, enrolled, context)?;
            if issued_here && !entries.is_empty() {
                // Issued here and not known here: this catalog was restored from a backup since.
                write.use_up_invites()?;
            }
            Ok(entries)
        })
    }

    /// Notes that a member leaves for good. Repeatable; of a member that was revoked nothing more is noted.
    ///
    /// # Errors
    /// [`EndError`]; then nothing is stored.
    pub fn depart(&mut self, departure: &Signed<Departure>, wall_ms: u64) -> Result<Ended, EndError> {
        let member = Departure::verify(departure, &self.trust)?;
        self.transact(wall_ms, |write, context| {
            if write.standing_of(&member)?.ok_or(EndError::UnknownMember)? == Standing::Revoked {
                return Ok(Ended { peer: member, standing: Standing::Revoked, entries: Vec::new() });
            }
            let entries = store_departure(write, member, departure, context)?;
            Ok(ended(write, member, entries)?)
        })
    }

    /// Notes that a member is one no more. Repeatable.
    ///
    /// # Errors
    /// [`EndError`]; then nothing is stored.
    pub fn revoke(&mut self, notice: RevocationNotice, wall_ms: u64) -> Result<Ended, EndError> {
        let revoked = notice.verify(&self.trust)?;
        self.transact(wall_ms, |write, context| {
            let role = write.role_of(&revoked.member)?.ok_or(EndError::UnknownMember)?;
            if !revoked.ends(role) {
                return Err(EndError::NotAllowed);
            }
            let peer = revoked.member;
            let entries = store_revocation(write, revoked, context)?;
            Ok(ended(write, peer, entries)?)
        })
    }

    /// Takes endings that a member remembers and this catalog may have lost, e.g. because it was restored from a backup.
    ///
    /// Unlike [`Self::depart`] and [`Self::revoke`] this takes endings of members that the catalog does not know, since it
    /// may have lost those too. What does not verify, or has no room, is left out.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails; then nothing is stored.
    pub fn take_back(
        &mut self,
        departures: &[Signed<Departure>],
        revocations: Vec<RevocationNotice>,
        wall_ms: u64,
    ) -> Result<TakenBack, CatalogError> {
        let left: Vec<_> = departures
            .iter()
            .filter_map(|departure| Some((Departure::verify(departure, &self.trust).ok()?, departure)))
            .collect();
        let revoked: Vec<Revoked> =
            revocations.into_iter().filter_map(|notice| notice.verify(&self.trust).ok()).collect();
        let mut taken = TakenBack::default();
        self.transact(wall_ms, |write, context| {
            let mut strays = write.stray_departures()?;
            for (member, departure) in left {
                let before = write.standing_of(&member)?;
                if before.is_none() && strays >= STRAY_DEPARTURES_MAX {
                    continue;
                }
                let entries = store_departure(write, member, departure, context)?;
                strays += u64::from(before.is_none() && !entries.is_empty());
                taken.add(write, member, before, entries)?;
            }
            for revoked in revoked {
                let (member, before) = (revoked.member, write.standing_of(&revoked.member)?);
                let entries = store_revocation(write, revoked, context)?;
                taken.add(write, member, before, entries)?;
            }
            Ok::<_, CatalogError>(())
        })?;
        Ok(taken)
    }
}

impl TakenBack {
    fn add(
        &mut self,
        write: &Write<'_>,
        peer: PeerId,
        before: Option<Standing>,
        entries: Vec<Entry>,
    ) -> Result<(), CatalogError> {
        let now = write.standing_of(&peer)?;
        if let Some(standing) = now.filter(|now| before != Some(*now) && !now.is_member()) {
            self.applied.push(Applied::Ended { peer, standing });
        }
        self.entries.extend(entries);
        Ok(())
    }
}

impl Write<'_> {
    /// Merges what a member publishes.
    pub(super) fn publish(
        &mut self,
        new: &Verified,
        context: &Context<'_>,
    ) -> Result<Published, CatalogError> {
        let stored = self.stored(&new.key, context.trust)?;
        let old = stored.as_ref().map(|(_, old)| &old.payload);
        let (merged, entries) = self.accept_over(stored.as_ref(), new, context)?;
        let outcome = match merged {
            Merged::Stored => Publication::Stored,
            Merged::Known => Publication::Known,
            Merged::Superseded => Publication::Superseded,
            Merged::NoRoom => Publication::TooMany,
        };
        let applied = match &new.payload {
            Payload::File(record) if merged == Merged::Stored => Some(Applied::of_file(old, record)),
            _ => None,
        };
        Ok(Published { outcome, entries, applied })
    }

    /// Merges what this super-peer accepts, with the event that tells of it; gives what the others are to be told.
    fn accept(
        &mut self,
        new: &Verified,
        context: &Context<'_>,
    ) -> Result<(Merged, Vec<Entry>), CatalogError> {
        let stored = self.stored(&new.key, context.trust)?;
        self.accept_over(stored.as_ref(), new, context)
    }

    fn accept_over(
        &mut self,
        stored: Option<&(i64, Verified)>,
        new: &Verified,
        context: &Context<'_>,
    ) -> Result<(Merged, Vec<Entry>), CatalogError> {
        let merged = self.merge_over(stored, new)?;
        if merged != Merged::Stored {
            return Ok((merged, Vec::new()));
        }
        let mut entries = vec![new.to_entry()];
        if let Some(told) = self.told(stored.map(|(_, old)| &old.payload), &new.payload)? {
            let event = told.event(new, context);
            // Without room for another event the change stands all the same.
            if self.merge(&event, context.trust)? == Merged::Stored {
                entries.push(event.to_entry());
            }
        }
        Ok((merged, entries))
    }

    fn told(&self, old: Option<&Payload>, new: &Payload) -> Result<Option<Told>, CatalogError> {
        Ok(match new {
            Payload::File(record) => {
                let old = old.and_then(|old| match old {
                    Payload::File(old) => Some(old.as_ref()),
                    _ => None,
                });
                Some(Told::of_file(old, record))
            }
            Payload::Member(enrolled) => Some(Told::of_member(old.is_some(), &enrolled.membership)),
            // Of two signatures under one departure the other may come to stand; nobody leaves twice.
            Payload::Departure(_) if old.is_some() => None,
            Payload::Departure(member) => Some(Told::of_departure(*member, self.name_of(member)?.as_ref())),
            Payload::Revocation(revoked) => {
                Some(Told::of_revocation(revoked.by, self.name_of(&revoked.member)?.as_ref()))
            }
            // Who is on a list is the owner's alone to know; what changes for a file is told of its record.
            Payload::Event(_) | Payload::Audience(_) | Payload::Wrap(_) | Payload::Unknown => None,
        })
    }
}

/// Decides whether a member may store this record, before it is merged.
fn check_publication(
    write: &Write<'_>,
    publisher: &Membership,
    standing: Option<Standing>,
    record: SignedRecord,
    bytes: &[u8],
    trust: &Trust,
) -> Result<Result<Box<Record>, Publication>, CatalogError> {
    let invalid = |why: String| Ok(Err(Publication::Invalid(why)));
    let record = match Record::verify(record, trust) {
        Ok(record) => Box::new(record),
        Err(error) => return invalid(error.to_string()),
    };
    if record.owner() != publisher.peer {
        return invalid("only a file's owner may change it".to_owned());
    }
    if let Err(why) = check_owner(standing) {
        return invalid(why);
    }
    if let Err(why) = write.check_access(&record)? {
        return invalid(why);
    }
    let key = Key::of_file(&record);
    let stored = write.bytes(&key)?;
    if stored.as_deref() == Some(bytes) {
        return Ok(Err(Publication::Known));
    }
    // A change to a file that is there is always possible: a full member must be able to delete.
    if stored.is_none() && write.owned_by(&publisher.peer)? >= FILES_PER_MEMBER_MAX {
        return Ok(Err(Publication::TooMany));
    }
    Ok(Ok(record))
}

/// Whether somebody of this standing may publish.
pub(super) fn check_owner(standing: Option<Standing>) -> Result<(), String> {
    match standing {
        Some(Standing::Member) => Ok(()),
        Some(ended) => Err(format!("the owner's membership has ended ({ended})")),
        None => Err("this super-peer does not know the owner as a member".to_owned()),
    }
}

fn check_standing(write: &Write<'_>, member: &Membership) -> Result<(), EnrolError> {
    match write.standing_as(&member.peer, member.role)? {
        Standing::Member => Ok(()),
        ended => Err(EnrolError::Ended(ended)),
    }
}

/// Merges a member's entry, and gives what the other super-peers are to be told.
pub(crate) fn store_member(
    write: &mut Write<'_>,
    enrolled: Enrolled,
    context: &Context<'_>,
) -> Result<Vec<Entry>, CatalogError> {
    let (key, bytes) = (Key::of_member(&enrolled), cbor::to_vec(enrolled.enrolment()));
    let payload = Payload::Member(Box::new(enrolled));
    Ok(write.accept(&Verified::stamped(key, payload, bytes, context), context)?.1)
}

fn store_departure(
    write: &mut Write<'_>,
    member: PeerId,
    departure: &Signed<Departure>,
    context: &Context<'_>,
) -> Result<Vec<Entry>, CatalogError> {
    let (key, bytes) = (Key::of_departure(&member), cbor::to_vec(departure));
    Ok(write.accept(&Verified::stamped(key, Payload::Departure(member), bytes, context), context)?.1)
}

fn store_revocation(
    write: &mut Write<'_>,
    revoked: Revoked,
    context: &Context<'_>,
) -> Result<Vec<Entry>, CatalogError> {
    let (key, bytes) = (Key::of_revocation(&revoked.member), cbor::to_vec(revoked.notice()));
    let payload = Payload::Revocation(Box::new(revoked));
    Ok(write.accept(&Verified::stamped(key, payload, bytes, context), context)?.1)
}

fn ended(write: &Write<'_>, peer: PeerId, entries: Vec<Entry>) -> Result<Ended, CatalogError> {
    let standing = write.standing_of(&peer)?.unwrap_or(Standing::Member);
    Ok(Ended { peer, standing, entries })
}

/// Whether a name may be given to a peer: nobody else has it, and nobody else had it unless it is to be given again.
pub(crate) fn check_name(
    write: &Write<'_>,
    name: &MemberName,
    peer: &PeerId,
    again: bool,
) -> Result<(), EnrolError> {
    match write.name_holder(name, peer)? {
        Some(Standing::Member) => Err(EnrolError::NameTaken),
        Some(Standing::Left | Standing::Revoked) if !again => Err(EnrolError::NameOfDeparted),
        _ => Ok(()),
    }
}
