//! The members: who they are, how they are called, and whether they still are.

use std::collections::HashSet;

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    endings::Ended,
    members::Enrolment,
    messages::sync::Kind,
    names::MemberName,
};
use rusqlite::params;

use super::{
    Applied, CatalogError, Reader,
    reader::{MATCHES_MAX, member_name, peer},
    standing::{STANDING, Standing},
};

/// Characters that the beginning of a peer id needs: all of them begin with the same eight.
pub const PEER_PREFIX_MIN_CHARS: usize = 12;

/// A member as it stands in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// Node or super-peer.
    pub role: Role,
    /// When its latest credential was issued.
    pub issued: UnixSeconds,
    /// When that ends.
    pub expires: UnixSeconds,
    /// Whether it still is one.
    pub standing: Standing,
}

/// Members in name order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberPage {
    /// At most as many as were asked for.
    pub members: Vec<Member>,
    /// The name after which the next page begins; none after the last.
    pub next: Option<MemberName>,
}

impl Reader {
    /// A member.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn member(&self, peer: &PeerId) -> Result<Option<Member>, CatalogError> {
        Ok(self.members_where("peer = ?1", params![peer.to_bytes()], 1)?.pop())
    }

    /// The member that has this name. Should two super-peers cut off from each other have given it twice, the one
    /// admitted earlier has it. One whose membership has ended has it only if nobody else does.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn member_by_name(&self, name: &MemberName) -> Result<Option<Member>, CatalogError> {
        Ok(self.members_where("name = ?1", params![name.as_str()], 1)?.pop())
    }

    /// Members in name order, after a name.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn members(&self, after: Option<&MemberName>, limit: usize) -> Result<MemberPage, CatalogError> {
        let limit = limit.max(1);
        let after = after.map_or("", MemberName::as_str);
        let mut members = self.members_where("name > ?1", params![after], limit + 1)?;
        let mut next = None;
        if members.len() > limit {
            members.truncate(limit + 1);
            let beyond = members.pop().map(|member| member.name);
            // The next page begins after a name, so a name must not be torn in two.
            let whole = members.iter().filter(|member| Some(&member.name) != beyond.as_ref()).count();
            members.truncate(if whole > 0 { whole } else { limit });
            next = members.last().map(|member| member.name.clone());
        }
        Ok(MemberPage { members, next })
    }

    /// All super-peers whose membership has not ended, in name order.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn superpeers(&self) -> Result<Vec<Member>, CatalogError> {
        let mut superpeers = self.members_where("superpeer", &[], usize::MAX)?;
        superpeers.retain(|member| member.standing.is_member());
        Ok(superpeers)
    }

    /// The members that a person can mean by a text: a name, a peer id, or the beginning of one (at least
    /// [`PEER_PREFIX_MIN_CHARS`]). At most [`MATCHES_MAX`]; more than one is for the person to tell apart. A name means
    /// whoever has it now, and those that are gone only where nobody has it.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn resolve_member(&self, reference: &str) -> Result<Vec<Member>, CatalogError> {
        let reference = reference.trim();
        if let Ok(name) = MemberName::new(reference) {
            let mut named = self.members_where("name = ?1", params![name.as_str()], MATCHES_MAX)?;
            if named.iter().any(|member| member.standing.is_member()) {
                named.retain(|member| member.standing.is_member());
            }
            if !named.is_empty() {
                return Ok(named);
            }
        }
        if let Ok(peer) = reference.parse::<PeerId>() {
            return Ok(self.member(&peer)?.into_iter().collect());
        }
        if reference.chars().count() < PEER_PREFIX_MIN_CHARS {
            return Ok(Vec::new());
        }
        // Peer ids are not stored as the text that people see, and there are thousands of members at most.
        let mut members = self.members_where("TRUE", &[], usize::MAX)?;
        members.retain(|member| member.peer.to_string().starts_with(reference));
        members.truncate(MATCHES_MAX);
        Ok(members)
    }

    fn members_where(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
        limit: usize,
    ) -> Result<Vec<Member>, CatalogError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT peer, name, superpeer, issued, expires, {STANDING} AS standing FROM members
             WHERE {condition} ORDER BY name, standing > 0, issued, peer LIMIT {limit}"
        ))?;
        let mut rows = rows.query(values)?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            let seconds = |at: usize| -> Result<UnixSeconds, CatalogError> {
                u64::try_from(row.get::<_, i64>(at)?).map(UnixSeconds).map_err(CatalogError::damaged)
            };
            members.push(Member {
                peer: peer(row, 0)?,
                name: member_name(row.get(1)?)?,
                role: if row.get(2)? { Role::Superpeer } else { Role::Node },
                issued: seconds(3)?,
                expires: seconds(4)?,
                standing: Standing::from_sql(row.get(5)?),
            });
        }
        Ok(members)
    }

    /// Those of these members that are members no more.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn gone(&self, peers: impl IntoIterator<Item = PeerId>) -> Result<HashSet<PeerId>, CatalogError> {
        let peers: HashSet<PeerId> = peers.into_iter().collect();
        let mut gone = HashSet::new();
        for peer in peers {
            if self.member(&peer)?.is_some_and(|member| !member.standing.is_member()) {
                gone.insert(peer);
            }
        }
        Ok(gone)
    }

    /// All whose membership has ended, in no order, as [`Applied`] tells it when it becomes known.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn ended(&self) -> Result<Vec<Applied>, CatalogError> {
        let mut rows = self.conn.prepare_cached(
            "SELECT e.peer, max(e.departed), max(e.revoked), max(e.by_root), m.superpeer
             FROM (SELECT peer, TRUE AS departed, FALSE AS revoked, FALSE AS by_root FROM departures
                   UNION ALL SELECT peer, FALSE, TRUE, by_root FROM revocations) AS e
             LEFT JOIN members AS m ON m.peer = e.peer GROUP BY e.peer",
        )?;
        let mut rows = rows.query([])?;
        let mut ended = Vec::new();
        while let Some(row) = rows.next()? {
            let (peer, left, revoked, by_root) = (peer(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let role = row.get::<_, Option<bool>>(4)?.map(|it| if it { Role::Superpeer } else { Role::Node });
            ended.extend(Ended::of(left, revoked, by_root, role).map(|ended| match ended {
                Ended::Left => Applied::Ended { peer, standing: Standing::Left },
                Ended::Revoked => Applied::Ended { peer, standing: Standing::Revoked },
                Ended::RevokedNode => Applied::EndedAsNode(peer),
            }));
        }
        Ok(ended)
    }

    /// A member's entry: its latest credential and its sealing key.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn enrolment(&self, peer: &PeerId) -> Result<Option<Enrolment>, CatalogError> {
        self.payload(Kind::MEMBER, &Enrolment::id_of(peer))
    }
}
