//! Who may see what: the SQL that hides restricted files, and what the feed needs to tell each member its part.
//!
//! A restricted file is seen by its owner, and by those whom its audience permits once that is here. An audience counts
//! for its own owner's files only: nobody learns anything of another's list by naming it in a record.

use std::{collections::HashMap, sync::Arc};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Rule, Wrap},
    cbor,
    ids::AudienceId,
    messages::sync::Kind,
    signing::Signed,
};

use super::{CatalogError, Reader};

/// For whom the catalog is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Viewer {
    /// Whoever runs this super-peer.
    Administrator,
    /// A member.
    Member(PeerId),
}

impl Viewer {
    /// The value of [`shown_to`]'s parameter; none where everything is shown.
    pub(super) fn parameter(self) -> Option<Vec<u8>> {
        match self {
            Self::Administrator => None,
            Self::Member(peer) => Some(peer.to_bytes()),
        }
    }
}

/// Whether a row of `files` is shown to the member in the parameter `viewer`, in SQL.
pub(super) fn shown_to(viewer: &str) -> String {
    format!(
        "NOT EXISTS (
             SELECT 1 FROM restrictions AS r WHERE r.row = files.row AND r.owner <> {viewer} AND NOT EXISTS (
                 SELECT 1 FROM audiences AS a WHERE a.audience = r.audience AND a.owner = r.owner AND a.only =
                     EXISTS (SELECT 1 FROM audience_members AS m WHERE m.audience = a.audience AND m.peer = {viewer})))"
    )
}

/// Who may see an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Every member.
    Everyone,
    /// Super-peers only.
    Nobody,
    /// These: keys, or a list, which concern nobody else.
    These(Vec<PeerId>),
    /// The owner of a restricted file, and those whom the rule permits.
    Restricted {
        /// The owner.
        owner: PeerId,
        /// The rule; none while the audience is not here.
        rule: Option<Arc<Rule>>,
        /// Whether nobody else has ever seen the file: there is nothing that they would have to forget.
        always: bool,
    },
}

/// What a member is told of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// All of it.
    Yes,
    /// That it is hidden from it, since it may have seen the file before.
    Hidden,
    /// Nothing.
    No,
}

impl Sight {
    /// What a member is told.
    ///
    /// While a file's audience is not here, nobody is told to forget the file: whoever may read it would erase a copy
    /// that it has to fetch again a moment later. Audiences are accepted before the records that name them, and arrive
    /// with them.
    pub fn of(&self, member: &PeerId) -> Shown {
        match self {
            Self::Everyone => Shown::Yes,
            Self::These(members) => {
                if members.contains(member) {
                    Shown::Yes
                } else {
                    Shown::No
                }
            }
            Self::Restricted { owner, .. } if owner == member => Shown::Yes,
            Self::Restricted { rule: Some(rule), .. } if rule.permits(member) => Shown::Yes,
            Self::Restricted { rule: Some(_), always: false, .. } => Shown::Hidden,
            Self::Nobody | Self::Restricted { .. } => Shown::No,
        }
    }
}

/// The rules that one reading has come across.
#[derive(Default)]
pub(super) struct Rules(HashMap<AudienceId, Option<(PeerId, Arc<Rule>)>>);

/// A row of `restrictions`.
pub(super) struct Restriction {
    pub(super) audience: AudienceId,
    pub(super) owner: PeerId,
    pub(super) always: bool,
}

impl Reader {
    /// Who may see an entry of this kind; `restriction` is the file's, where it has one.
    pub(super) fn sight(
        &self,
        kind: Kind,
        payload: &[u8],
        restriction: Option<Restriction>,
        rules: &mut Rules,
    ) -> Result<Sight, CatalogError> {
        Ok(match (kind, restriction) {
            (Kind::FILE, Some(Restriction { audience, owner, always })) => {
                let rule = self.rule(&audience, rules)?;
                let rule = rule.filter(|(of, _)| *of == owner).map(|(_, rule)| rule);
                Sight::Restricted { owner, rule, always }
            }
            (Kind::FILE | Kind::MEMBER | Kind::DEPARTURE | Kind::REVOCATION, _) => Sight::Everyone,
            (Kind::AUDIENCE, _) => Sight::These(vec![peek::<Audience>(payload)?.origin.owner]),
            (Kind::WRAP, _) => {
                let wrap = peek::<Wrap>(payload)?;
                Sight::These(vec![wrap.member, wrap.origin.owner])
            }
            _ => Sight::Nobody,
        })
    }

    /// Who may read the restricted files of an owner's audience; none while the audience is not here.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn rule_of(&self, owner: &PeerId, audience: &AudienceId) -> Result<Option<Rule>, CatalogError> {
        let found = self.rule(audience, &mut Rules::default())?.filter(|(of, _)| of == owner);
        Ok(found.map(|(_, rule)| (*rule).clone()))
    }

    /// An audience's owner and rule, where it is here.
    fn rule(
        &self,
        audience: &AudienceId,
        rules: &mut Rules,
    ) -> Result<Option<(PeerId, Arc<Rule>)>, CatalogError> {
        if let Some(known) = rules.0.get(audience) {
            return Ok(known.clone());
        }
        let signed: Option<Signed<Audience>> = self.payload(Kind::AUDIENCE, audience.as_bytes())?;
        let stated = signed.map(|signed| signed.peek().map_err(CatalogError::damaged)).transpose()?;
        let found = stated.map(|audience| (audience.origin.owner, Arc::new(audience.rule)));
        rules.0.insert(*audience, found.clone());
        Ok(found)
    }
}

/// A statement that was verified when it was stored.
fn peek<T: quarta_protocols::signing::Statement>(payload: &[u8]) -> Result<T, CatalogError> {
    let signed: Signed<T> = cbor::from_slice(payload).map_err(CatalogError::damaged)?;
    signed.peek().map_err(CatalogError::damaged)
}
