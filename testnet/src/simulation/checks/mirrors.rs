//! What members have in their own databases: nothing that was never for them, and in the end all that is.

use std::path::Path;

use quarta_protocols::{
    messages::sync::Kind,
    records::{Link, Record},
    signing::Signed,
};
use rusqlite::Connection;

use super::{
    Genuine, Rule, Truth, differing,
    disks::{Contents, Key, Payload, mirrored, open, short, version},
    showing::audience_of,
    supersedes,
};
use crate::simulation::cast::{Who, cast};

/// A member's own database.
#[derive(Default)]
pub(super) struct Mirror {
    conn: Option<Connection>,
    contents: Contents,
    /// What SQLite said when it was looked at last.
    version: i64,
}

impl Truth {
    /// Reads a member's own database, after a page was written to it.
    pub fn look_at_mirror(&mut self, member: Who, database: &Path) {
        let mut mirror = self.mirrors.remove(&member).unwrap_or_default();
        let conn =
            mirror.conn.get_or_insert_with(|| open(database).expect("a node's database in use can be read"));
        let version = version(conn).expect("a node's database can be read at any time");
        if std::mem::replace(&mut mirror.version, version) == version {
            self.mirrors.insert(member, mirror);
            return;
        }
        let now = mirrored(conn).expect("a node's database can be read at any time");
        let before = std::mem::replace(&mut mirror.contents, now);
        let broken = self.not_allowed(member, &before, &mirror.contents);
        self.mirrors.insert(member, mirror);
        if let Some((rule, what)) = broken {
            self.violated(rule, || what);
        }
    }

    fn not_allowed(&self, member: Who, before: &Contents, now: &Contents) -> Option<(Rule, String)> {
        let changed = now.iter().filter(|(key, payload)| before.get(key) != Some(payload));
        let broken = changed.filter_map(|(key, payload)| {
            let (kind, id) = (key.0, short(&key.1));
            if !self.genuine.contains_key(payload) {
                let what = format!("{member} holds {kind:?} {id}, which nobody signed who may");
                return Some((Rule::NothingInvalid, what));
            }
            if !self.may_ever_hold(member, payload) {
                return Some((
                    Rule::NoneOfTheListed,
                    format!("{member} holds {kind:?} {id}, which is hidden from it"),
                ));
            }
            let old = before.get(key)?;
            (!supersedes(&self.genuine, payload, old)).then(|| {
                (Rule::OnlyForward, format!("at {member}, {kind:?} {id} went back to what it was before"))
            })
        });
        let hidden = |(kind, id): &Key| *kind == Kind::FILE && self.lists.was_hidden(id, member);
        let gone = before.keys().filter(|key| !now.contains_key(key) && !hidden(key));
        let gone = gone
            .map(|(kind, id)| (Rule::NothingLost, format!("{member} has forgotten {kind:?} {}", short(id))));
        broken.chain(gone).next()
    }

    fn may_ever_hold(&self, member: Who, payload: &Payload) -> bool {
        match self.genuine.get(payload) {
            Some(Genuine::File(record)) => self.lists.was_open(record, member),
            Some(Genuine::Wrap(stated)) => stated.statement().member == member.peer(),
            Some(Genuine::Audience(_)) => false,
            _ => true,
        }
    }

    /// Whether a member's own database has all that the super-peers show it, and nothing else, once these agree.
    pub fn mirror_agrees(&self, member: Who) -> bool {
        self.mirror_difference(member).is_none()
    }

    pub(super) fn mirror_difference(&self, member: Who) -> Option<String> {
        let reference = &self.disks.values().next()?.contents;
        let shown: Contents = reference
            .iter()
            .filter(|(key, payload)| self.is_shown(reference, key, payload, member))
            .map(|(key, payload)| (*key, *payload))
            .collect();
        let empty = Contents::new();
        let mut mirror = self.mirrors.get(&member).map_or(&empty, |mirror| &mirror.contents).clone();
        for (key, here) in &mut mirror {
            let shown = shown.get(key);
            if self.forgotten.contains(here)
                && shown.is_none_or(|shown| supersedes(&self.genuine, here, shown))
            {
                shown.inspect(|shown| *here = **shown);
            }
        }
        mirror.retain(|key, here| shown.contains_key(key) || !self.forgotten.contains(here));
        let mut shown = shown;
        let left_open: Vec<Key> = reference
            .iter()
            .filter(|(key, payload)| {
                let lost = |own| self.was_lost_to_another(own, payload, member);
                key.0 == Kind::FILE
                    && (self.is_left_open(reference, &key.1, payload, member)
                        || mirror.get(key).is_some_and(lost))
            })
            .map(|(key, _)| *key)
            .collect();
        for key in left_open {
            shown.remove(&key);
            mirror.remove(&key);
        }
        (mirror != shown).then(|| differing(&shown, &mirror))
    }

    /// Whether an entry is shown to a member by a catalog.
    fn is_shown(&self, catalog: &Contents, (kind, _): &Key, payload: &Payload, member: Who) -> bool {
        match (*kind, self.genuine.get(payload)) {
            (Kind::FILE, Some(Genuine::File(record))) => {
                self.is_for(catalog, &super::Veils::new(), record, member)
            }
            (Kind::WRAP, Some(Genuine::Wrap(stated))) => stated.statement().member == member.peer(),
            (kind, _) => matches!(kind, Kind::FILE | Kind::MEMBER | Kind::DEPARTURE | Kind::REVOCATION),
        }
    }

    /// Whether a member may in the end know of a file or not:
    ///
    /// - It is deleted, and was hidden from the member once: who has heard of the list before the deletion keeps quiet.
    /// - Its owner has stated two rules for one audience, and the member may read by one of them.
    /// - It was hidden from the member by a revision that all super-peers have lost with their disks.
    /// - All super-peers have lost the list that it names, and so show it to nobody and hide it from nobody.
    fn is_left_open(&self, catalog: &Contents, file: &[u8; 32], payload: &Payload, member: Who) -> bool {
        let Some(record) = self.file(payload) else { return false };
        if self.lacks_the_list_of(catalog, record) {
            return true;
        }
        let was_hidden = self.lists.was_hidden(file, member);
        (record.entry().is_none() && was_hidden)
            || self.lists.is_contradictory(record, member)
            || (was_hidden && self.has_forgotten(file))
    }

    /// Whether the list that a record names was here once, and was lost with the super-peers' disks.
    fn lacks_the_list_of(&self, catalog: &Contents, record: &Record) -> bool {
        let Some(audience) = audience_of(record) else { return false };
        let lost = |payload: &Payload| matches!(self.genuine.get(payload), Some(Genuine::Audience(stated)) if stated.statement().audience == audience);
        !catalog.contains_key(&(Kind::AUDIENCE, *audience.as_bytes())) && self.forgotten.iter().any(lost)
    }

    /// Whether a member owns a file by what it holds, and an owner before it has given the same file to somebody else, whose
    /// hand-over counts more. Hidden from it, that hand-over is nothing that it can be shown.
    fn was_lost_to_another(&self, held: &Payload, now: &Payload, member: Who) -> bool {
        let (Some(held), Some(now)) = (self.file(held), self.file(now)) else { return false };
        let mine = |link: &Signed<Link>| link.peek().is_ok_and(|link| link.from == member.peer());
        let shows = |link: &Signed<Link>| held.handed_on_by(link, &cast().trust).is_some();
        held.owner() == member.peer()
            && now.body().links.iter().any(shows)
            && !now.body().links.iter().any(|link| mine(link) && shows(link))
    }

    /// Whether all super-peers have lost a revision of a file.
    fn has_forgotten(&self, file: &[u8; 32]) -> bool {
        self.forgotten
            .iter()
            .any(|payload| self.file(payload).is_some_and(|record| record.file().as_bytes() == file))
    }
}
