//! Searches: a page merged in name order from the parts of the catalog that the viewer may see.

use std::collections::BTreeMap;

use libp2p::PeerId;
use quarta_protocols::{
    ids::{FileId, ID_BYTES},
    messages::index::Cursor,
};
use rusqlite::{ToSql, params};

use super::{
    CatalogError, FilePage, Reader, StoredFile, Viewer,
    reader::{file_name, stored_file},
    search::{Part, Plan, SORTED_MAX, Wanted, bounds, phrase},
};

/// An owner and one of its audiences, as stored.
type Pair = (Vec<u8>, Vec<u8>);

/// What is searched for.
struct Search<'a> {
    owner: Option<Vec<u8>>,
    viewer: Option<Vec<u8>>,
    wanted: &'a Wanted,
    /// Bounds of the names, and what they contain.
    low: String,
    low_file: Vec<u8>,
    high: String,
    text: &'a str,
    phrase: String,
}

/// The first files in name order, with their rows.
struct Found {
    files: BTreeMap<(String, [u8; ID_BYTES]), i64>,
    most: usize,
}

impl Reader {
    /// Files whose name contains the text, without regard to case and accents, in name order; all where it is empty.
    /// A text of one or two letters must begin the name.
    ///
    /// No character of the text has a special meaning. A page may be shorter than `limit` though more follow: a file
    /// whose owner's enrolment has not arrived yet is not shown. `next` tells. What the viewer may not see is not there.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn search(
        &self,
        viewer: Viewer,
        query: &str,
        owner: Option<PeerId>,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<FilePage, CatalogError> {
        let wanted = Wanted::new(query);
        let (beginning, text) = match &wanted {
            Wanted::Nothing => return Ok(FilePage::default()),
            Wanted::Beginning(text) => (text.as_str(), ""),
            Wanted::Sign(text) | Wanted::Letters(text) => ("", text.as_str()),
        };
        let ((low, low_file), high) = bounds(beginning, after);
        let search = Search {
            owner: owner.map(PeerId::to_bytes),
            viewer: viewer.parameter(),
            wanted: &wanted,
            low,
            low_file,
            high,
            text,
            phrase: phrase(text),
        };
        let limit = usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
        // One more than asked for tells whether another page follows.
        let mut found = Found { files: BTreeMap::new(), most: limit.saturating_add(1) };
        // One moment for all parts: a file that changes its audience meanwhile is in one of them.
        let moment = self.conn.unchecked_transaction()?;
        match &search.viewer {
            None => self.find_all(&search, &mut found)?,
            Some(viewer) => {
                self.find(&search, self.plan(&search, Part::Open)?, Part::Open, None, &mut found)?;
                match self.plan(&search, Part::Restricted)? {
                    Plan::Sorted => self.find(&search, Plan::Sorted, Part::Restricted, None, &mut found)?,
                    plan => {
                        for pair in self.audiences_for(viewer, search.owner.as_deref())? {
                            self.find(&search, plan, Part::Restricted, Some(&pair), &mut found)?;
                        }
                    }
                }
            }
        }
        let mut page = FilePage::default();
        let more = found.files.len() > limit;
        for row in found.files.into_values().take(limit) {
            let (place, file) = self.listed(row)?;
            page.files.extend(file);
            page.next = more.then_some(place);
        }
        moment.commit()?;
        Ok(page)
    }

    fn find_all(&self, search: &Search<'_>, found: &mut Found) -> Result<(), CatalogError> {
        let plans = [self.plan(search, Part::Open)?, self.plan(search, Part::Restricted)?];
        if plans == [Plan::Sorted; 2] {
            self.find(search, Plan::Sorted, Part::Open, None, found)?;
            return self.find(search, Plan::Sorted, Part::Restricted, None, found);
        }
        let plan = if plans.contains(&Plan::Walk) { Plan::Walk } else { Plan::Range };
        self.find(search, plan, Part::All, None, found)
    }

    /// How a part is searched.
    fn plan(&self, search: &Search<'_>, part: Part) -> Result<Plan, CatalogError> {
        Ok(match search.wanted {
            Wanted::Beginning(_) | Wanted::Nothing => Plan::Range,
            Wanted::Sign(_) => Plan::Walk,
            Wanted::Letters(_) if self.is_common(&search.phrase, part)? => Plan::Walk,
            Wanted::Letters(_) => Plan::Sorted,
        })
    }

    /// Whether more names of a part contain the text than are sorted for a page.
    fn is_common(&self, phrase: &str, part: Part) -> Result<bool, CatalogError> {
        let names = if part == Part::Restricted { "restricted_names" } else { "file_names" };
        let mut count = self.conn.prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {names} WHERE {names} MATCH ?1 LIMIT ?2)"
        ))?;
        let found: u32 = count.query_row(params![phrase, SORTED_MAX + 1], |row| row.get(0))?;
        Ok(found > SORTED_MAX)
    }

    /// Adds what a part has to what is found.
    fn find(
        &self,
        search: &Search<'_>,
        plan: Plan,
        part: Part,
        pair: Option<&Pair>,
        found: &mut Found,
    ) -> Result<(), CatalogError> {
        let limit = i64::try_from(found.most).unwrap_or(i64::MAX);
        let mut values: Vec<(&str, &dyn ToSql)> =
            vec![(":low", &search.low), (":low_file", &search.low_file), (":limit", &limit)];
        let owner = pair.map(|(owner, _)| owner).or(search.owner.as_ref());
        if let Some(owner) = owner {
            values.push((":owner", owner));
        }
        if let Some((_, audience)) = pair {
            values.push((":audience", audience));
        }
        let filtered = search.viewer.as_ref().filter(|_| plan == Plan::Sorted && part == Part::Restricted);
        if let Some(viewer) = filtered {
            values.push((":viewer", viewer));
        }
        match plan {
            Plan::Range => values.push((":high", &search.high)),
            Plan::Walk => values.push((":text", &search.text)),
            Plan::Sorted => values.push((":phrase", &search.phrase)),
        }
        let mut rows = self.conn.prepare_cached(&plan.rows(part, owner.is_some(), filtered.is_some()))?;
        let mut rows = rows.query(values.as_slice())?;
        while let Some(row) = rows.next()? {
            if !found.add((row.get(1)?, row.get(2)?), row.get(0)?) {
                break;
            }
        }
        Ok(())
    }

    /// The owners and audiences whose files a member may see, its own whether or not the audience is here.
    fn audiences_for(&self, viewer: &[u8], owner: Option<&[u8]>) -> Result<Vec<Pair>, CatalogError> {
        let mut pairs = Vec::new();
        if owner.is_none_or(|owner| owner == viewer) {
            // From one to the next: a member has few audiences, and may have very many files.
            let mut own = self.conn.prepare_cached(
                "WITH RECURSIVE own (audience) AS (
                     SELECT min(audience) FROM files INDEXED BY files_restricted
                     WHERE owner = ?1 AND audience <> x''
                     UNION ALL
                     SELECT (SELECT min(audience) FROM files INDEXED BY files_restricted
                             WHERE owner = ?1 AND audience <> x'' AND audience > own.audience)
                     FROM own WHERE own.audience IS NOT NULL)
                 SELECT audience FROM own WHERE audience IS NOT NULL",
            )?;
            let mut rows = own.query([viewer])?;
            while let Some(row) = rows.next()? {
                pairs.push((viewer.to_vec(), row.get(0)?));
            }
        }
        let mut others = self.conn.prepare_cached(
            "SELECT a.owner, a.audience FROM audiences AS a
             WHERE a.owner <> ?1 AND (?2 IS NULL OR a.owner = ?2) AND a.only =
                 EXISTS (SELECT 1 FROM audience_members AS m WHERE m.audience = a.audience AND m.peer = ?1)",
        )?;
        let mut rows = others.query(params![viewer, owner])?;
        while let Some(row) = rows.next()? {
            pairs.push((row.get(0)?, row.get(1)?));
        }
        Ok(pairs)
    }

    /// A file by its row, and its place in the list; no file while its owner is not known.
    fn listed(&self, row: i64) -> Result<(Cursor, Option<StoredFile>), CatalogError> {
        let mut query = self.conn.prepare_cached(
            "SELECT files.file, files.owner, files.name, members.name, entries.payload
             FROM files JOIN entries ON entries.row = files.row LEFT JOIN members ON members.peer = files.owner
             WHERE files.row = ?1",
        )?;
        let mut rows = query.query([row])?;
        let row = rows.next()?.ok_or_else(|| CatalogError::damaged("a file that was found is not there"))?;
        let place = Cursor { name: file_name(row, 2)?, file: FileId::from_bytes(row.get(0)?) };
        Ok((place, stored_file(row)?))
    }
}

impl Found {
    /// Adds a file, unless there are enough before it; then there is no need for those after it either.
    fn add(&mut self, place: (String, [u8; ID_BYTES]), row: i64) -> bool {
        let full = self.files.len() >= self.most;
        if full && self.files.last_key_value().is_some_and(|(last, _)| place > *last) {
            return false;
        }
        self.files.insert(place, row);
        if self.files.len() > self.most {
            self.files.pop_last();
        }
        true
    }
}
