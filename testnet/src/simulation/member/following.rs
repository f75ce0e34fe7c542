//! How a node follows, as production's `service/following.rs`: it asks what the follower wants to ask, verifies what
//! comes, and writes it with its cursor.

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
                Effect::Ask { question, peer, since, wait } => {
                    let Some(to) = Who::of_peer(&peer) else { continue };
                    let since = match self.sabotage {
                        Some(Sabotage::OneCursorForAll) => self.cursor.or(since),
                        _ => since,
                    };
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let ask = Ask::Changes(Request::Follow { since, wait_ms });
                    questions.extend(self.question(to, Awaited::Page { question, from: to }, ask));
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
        question: u64,
        from: Who,
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
            news = news.into_iter().flat_map(as_if_new).collect();
        }
        let page = Page { superpeer: from.peer(), cursor, news, members };
        let taken =
            running.database.take_page(&page, &cast().trust, wall_ms).expect("an open database is written");
        if taken.ended.iter().any(|(peer, _)| *peer == self.who.peer()) {
            self.standing = Standing::Gone;
        }
        questions.extend(self.hears(now, Input::Stored { question, cursor, restart, more }));
        Learned { questions, read }
    }

    pub(super) fn page_failed(&mut self, now: Moment, question: u64) -> Vec<Question> {
        self.hears(now, Input::Failed(question))
    }
}

/// Forgets what is known of a file before it takes in what has just come.
fn as_if_new(news: News) -> Vec<News> {
    match news {
        News::File(record) => vec![News::ForgetFile(record.file()), News::File(record)],
        other => vec![other],
    }
}
