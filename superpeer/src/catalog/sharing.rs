//! What this super-peer accepts of who may read what: audiences, and their members' keys.
//!
//! All of it is signed by the owner and valid by itself. Beyond that an owner is held here to what its own daemon does
//! anyway, so that a broken one harms itself alone: a rule stays as it is, keys are made for members that may have them,
//! and there are only so many of both.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Stated, Wrap},
    cbor,
    credentials::{Membership, Role},
    ids::AudienceId,
    messages::index::Publication,
    records::{Access, Record},
    signing::Signed,
};
use rusqlite::{OptionalExtension, params};

use super::{
    Catalog, CatalogError, Context, Published, Standing,
    accepting::check_owner,
    payload::{Key, Payload, Verified},
    write::Write,
};

/// Audiences that one member may make: far more lists than people tell apart.
pub const AUDIENCES_PER_MEMBER_MAX: u64 = 1000;
/// Members' keys that one member may make: a few hundred lists in a network of a thousand nodes, some 100 MB.
pub const WRAPS_PER_MEMBER_MAX: u64 = 250_000;

/// What became of a check: go on, or this answer.
type Checked = Result<Result<(), Publication>, CatalogError>;

/// An audience as it stands here.
struct Known {
    owner: PeerId,
    epoch: i64,
}

impl Catalog {
    /// Stores a member's audiences, then its wraps; one outcome for each, in that order, all durable on return.
    ///
    /// `publisher` is the verified credential of the connection that they came over.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails: then none of them is stored.
    pub fn publish_keys(
        &mut self,
        publisher: &Membership,
        audiences: Vec<Signed<Audience>>,
        wraps: Vec<Signed<Wrap>>,
        wall_ms: u64,
    ) -> Result<Vec<Published>, CatalogError> {
        self.transact(wall_ms, |write, context| {
            let owner = check_owner(write.standing_of(&publisher.peer)?);
            let mut outcomes = Vec::with_capacity(audiences.len() + wraps.len());
            let mut room = Room {
                audiences: AUDIENCES_PER_MEMBER_MAX.saturating_sub(write.audiences_of(&publisher.peer)?),
                wraps: WRAPS_PER_MEMBER_MAX.saturating_sub(write.wraps_of(&publisher.peer)?),
            };
            for signed in audiences {
                let bytes = cbor::to_vec(&signed);
                outcomes.push(match (&owner, Audience::verify(signed, context.trust)) {
                    (Err(why), _) => refused(why.clone()),
                    (_, Err(error)) => refused(error.to_string()),
                    (Ok(()), Ok(audience)) => {
                        write.publish_audience(publisher, audience, bytes, &mut room, context)?
                    }
                });
            }
            for signed in wraps {
                let bytes = cbor::to_vec(&signed);
                outcomes.push(match (&owner, Wrap::verify(signed, context.trust)) {
                    (Err(why), _) => refused(why.clone()),
                    (_, Err(error)) => refused(error.to_string()),
                    (Ok(()), Ok(wrap)) => write.publish_wrap(publisher, wrap, bytes, &mut room, context)?,
                });
            }
            Ok(outcomes)
        })
    }
}

/// How many more a member may make.
struct Room {
    audiences: u64,
    wraps: u64,
}

impl Write<'_> {
    fn publish_audience(
        &mut self,
        publisher: &Membership,
        audience: Stated<Audience>,
        bytes: Vec<u8>,
        room: &mut Room,
        context: &Context<'_>,
    ) -> Result<Published, CatalogError> {
        let key = Key::of_audience(audience.statement());
        let stored = self.stored(&key, context.trust)?;
        if audience.statement().origin.owner != publisher.peer {
            return Ok(refused("only an audience's owner may change it".to_owned()));
        }
        if let Some((_, Verified { payload: Payload::Audience(old), .. })) = &stored
            && old.statement().rule != audience.statement().rule
        {
            return Ok(refused("an audience's rule never changes".to_owned()));
        }
        if stored.is_none() {
            if room.audiences == 0 {
                return Ok(Published::refused(Publication::TooMany));
            }
            room.audiences -= 1;
        }
        self.publish(&Verified::stamped(key, Payload::Audience(Box::new(audience)), bytes, context), context)
    }

    fn publish_wrap(
        &mut self,
        publisher: &Membership,
        wrap: Stated<Wrap>,
        bytes: Vec<u8>,
        room: &mut Room,
        context: &Context<'_>,
    ) -> Result<Published, CatalogError> {
        let key = Key::of_wrap(wrap.statement());
        if let Err(outcome) = self.check_wrap(publisher, wrap.statement())? {
            return Ok(Published::refused(outcome));
        }
        if self.bytes(&key)?.is_none() {
            if room.wraps == 0 {
                return Ok(Published::refused(Publication::TooMany));
            }
            room.wraps -= 1;
        }
        self.publish(&Verified::stamped(key, Payload::Wrap(Box::new(wrap)), bytes, context), context)
    }

    fn check_wrap(&self, publisher: &Membership, wrap: &Wrap) -> Checked {
        let invalid = |why: &str| Ok(Err(Publication::Invalid(why.to_owned())));
        if wrap.origin.owner != publisher.peer {
            return invalid("only an audience's owner gives its keys");
        }
        let Some(audience) = self.audience(&wrap.audience)? else {
            return invalid("this super-peer does not know the audience; publish it first");
        };
        if i64::try_from(wrap.epoch).unwrap_or(i64::MAX) > audience.epoch {
            return invalid("the audience does not have this epoch yet; publish it first");
        }
        if !self.permits(&wrap.audience, &wrap.member)? && wrap.member != publisher.peer {
            return invalid("the audience does not permit this member");
        }
        match (self.role_of(&wrap.member)?, self.standing_of(&wrap.member)?) {
            (Some(Role::Node), Some(Standing::Member)) => Ok(Ok(())),
            (Some(Role::Superpeer), _) => invalid("a super-peer is given no keys"),
            (_, Some(_)) => invalid("the membership of whom the keys are for has ended"),
            (_, None) => invalid("this super-peer does not know whom the keys are for"),
        }
    }

    /// Whether a record's restriction is one that its owner can make here; else why not.
    ///
    /// An audience is published before the records that name it, so that nobody who may read them is left out.
    pub(super) fn check_access(&self, record: &Record) -> Result<Result<(), String>, CatalogError> {
        let Some(Access::Restricted { audience, epoch, .. }) = record.entry().map(|entry| &entry.access)
        else {
            return Ok(Ok(()));
        };
        Ok(match self.audience(audience)? {
            Some(known) if known.owner != record.owner() => {
                Err("the file's audience is not its owner's".to_owned())
            }
            Some(known) if i64::try_from(*epoch).unwrap_or(i64::MAX) > known.epoch => {
                Err("the file's audience does not have this epoch yet; publish it first".to_owned())
            }
            Some(_) => Ok(()),
            None => Err("this super-peer does not know the file's audience; publish it first".to_owned()),
        })
    }

    fn audience(&self, audience: &AudienceId) -> Result<Option<Known>, CatalogError> {
        let found: Option<(Vec<u8>, i64)> = self
            .tx()
            .prepare_cached("SELECT owner, epoch FROM audiences WHERE audience = ?1")?
            .query_row([audience.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((owner, epoch)) = found else { return Ok(None) };
        Ok(Some(Known { owner: PeerId::from_bytes(&owner).map_err(CatalogError::damaged)?, epoch }))
    }

    /// Whether an audience that is here lets a member read that is not its owner.
    fn permits(&self, audience: &AudienceId, member: &PeerId) -> Result<bool, CatalogError> {
        Ok(self
            .tx()
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM audiences AS a WHERE a.audience = ?1 AND a.only =
                     EXISTS (SELECT 1 FROM audience_members AS m WHERE m.audience = a.audience AND m.peer = ?2))",
            )?
            .query_row(params![audience.as_bytes(), member.to_bytes()], |row| row.get(0))?)
    }
}

fn refused(why: String) -> Published {
    Published::refused(Publication::Invalid(why))
}
