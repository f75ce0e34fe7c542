//! How a node follows, as production's `service/following.rs`: it asks what the follower wants to ask, verifies what
//! comes, and writes it with its cursor.

use std::path::Path;

use libp2p::PeerId;
use quarta_node::{
    database::Page,
    following::{
        Effect, Input,
        page::{News, verify},
    },
};
use quarta_protocols::{
    messages::{
        changes::{Request, Response},
        index,
    },
    records::Record,
};
use rusqlite::Connection;

use super::{Awaited, Learned, Member, Standing};
use crate::simulation::{
    cast::{Who, cast},
    clock::Moment,
    network::Ask,
    sabotage::Sabotage,
    superpeer::Question,
};

impl Member {
    /// All super-peers can be asked, each node's own order of preference first.
    pub(super) fn look_around(&mut self, now: Moment) -> Vec<Question> {
        if !self.is_member() {
            return Vec::new();
        }
        let first = self.who.index();
        let askable: Vec<PeerId> =
            Who::superpeers().map(|nth| Who::superpeer(first + nth.index()).peer()).collect();
        self.hears(now, Input::Askable(askable))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) -> Vec<Question> {
        if self.is_member() { self.hears(now, Input::Tick) } else { Vec::new() }
    }

    fn hears(&mut self, now: Moment, input: Input) -> Vec<Question> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let effects = running.follower.handle(now.instant(), input);
        let mut questions = Vec::new();
        for effect in effects {
            match effect {
                Effect::Ask { question, peer, since, reading, wait } => {
                    let Some(to) = Who::of_peer(&peer) else { continue };
                    let since = match self.sabotage {
                        Some(Sabotage::OneCursorForAll) => self.cursor.or(since),
                        _ => since,
                    };
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let ask = Ask::Changes(Request::Follow { since, wait_ms });
                    questions.extend(self.question(to, Awaited::Page { question, from: to, reading }, ask));
                }
                Effect::Return(peer) => questions.extend(self.give_back(&peer)),
                // A hint for whoever asks super-peers; nobody here waits for one.
                Effect::Overdue(_) => {}
            }
        }
        questions
    }

    /// Gives back to a super-peer what it may have lost: the ends of memberships, and own records.
    fn give_back(&mut self, peer: &PeerId) -> Vec<Question> {
        let Some(to) = Who::of_peer(peer) else { return Vec::new() };
        let Some(running) = &self.running else { return Vec::new() };
        let endings = running.database.endings().expect("an open database can be read");
        let mut questions = Vec::new();
        let ask = Ask::Changes(Request::Return {
            departures: endings.departures,
            revocations: endings.revocations,
        });
        questions.extend(self.question(to, Awaited::Publication(Vec::new()), ask));
        questions.extend(self.tell_lists(to));
        let hashes = self.records.values().map(Record::hash).collect();
        let records = self.records.values().map(|record| record.signed().clone()).collect();
        let ask = Ask::Index(index::Request::Publish(records));
        questions.extend(self.question(to, Awaited::Publication(hashes), ask));
        questions
    }

    pub(super) fn page_arrived(
        &mut self,
        now: Moment,
        (question, from, reading): (u64, Who, u64),
        response: Response,
    ) -> Learned {
        let Response::Page { cursor, restart, changes, members, more } = response else {
            return Learned { questions: self.page_failed(now, question), read: false };
        };
        self.cursor = Some(cursor);
        let mut questions = self.hears(now, Input::Arrived(question));
        let wall_ms = self.clock.wall_ms(now);
        let read = !changes.is_empty();
        let Some(running) = &self.running else { return Learned::default() };
        // As in production, also the answer to a question that was given up is written.
        let unknown = running.database.unknown(changes).expect("an open database can be read");
        let mut news: Vec<News> =
            unknown.into_iter().filter_map(|change| verify(change, &cast().trust).ok().flatten()).collect();
        // As in production, an owner has its readers' keys from nobody but itself.
        let me = self.who.peer();
        news.retain(|news| !matches!(news, News::Wrap(wrap) if wrap.statement().member != me));
        if self.sabotage == Some(Sabotage::KeepsTheHidden) {
            news.retain(|news| !matches!(news, News::ForgetFile(_)));
        }
        if self.sabotage == Some(Sabotage::LastArrivalWins) {
            forget_what_was_known(&self.database_file(), &news);
        }
        let page = Page { superpeer: from.peer(), reading, cursor, news, members };
        let taken = running.database.take_page(&page, &me, &cast().trust, wall_ms);
        let taken = taken.expect("an open database is written");
        if taken.ended.iter().any(|(peer, _)| *peer == self.who.peer()) {
            self.standing = Standing::Gone;
        }
        if taken.anew {
            questions.extend(self.hears(now, Input::Anew));
        }
        questions.extend(self.hears(now, Input::Stored { question, cursor, restart, more }));
        Learned { questions, read }
    }

    pub(super) fn page_failed(&mut self, now: Moment, question: u64) -> Vec<Question> {
        self.hears(now, Input::Failed(question))
    }
}

/// Forgets what is known of files before it takes in what has just come of them.
fn forget_what_was_known(database: &Path, news: &[News]) {
    let connection = Connection::open(database).expect("an open database can be opened again");
    for one in news {
        let News::File(record) = one else { continue };
        for table in ["records", "hidden"] {
            let sql = format!("DELETE FROM {table} WHERE file = ?1");
            connection.execute(&sql, [record.file().as_bytes()]).expect("an open database is written");
        }
    }
}
