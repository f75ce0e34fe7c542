//! One reconciliation, as the super-peer that begins it.
//!
//! ```text
//!        ┌────────────────────────── next round ◀───────────────────────────┐
//!        ▼            differ                    leaves                      │
//!    Comparing ─────────────────▶ Walking ─────────────────▶ Exchanging ────┤
//!      │   │                        │ none differs, twice                   │
//!      │   │ most is missing here   ▼                                       │
//!      │   └─────────────────────▶ Reading pages ───────────────────────────┘
//!      └▶ end: equal, or a round that moved nothing
//! ```
//!
//! A round fetches what is missing here and pushes what is missing there. Merging is what takes its time, so while this
//! side merges, the other one merges what it is pushed, or reads what comes next. What could not be taken yet, because
//! its stamp's maker is a super-peer that is not known before its own entry has come, differs still in the next round.
//!
//! The session is given own items and entries as they are when it asks for them. Whatever is written meanwhile, here or
//! there, is harmless: it is found now or the next time.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
};

use quarta_protocols::{
    limits::{SYNC_BRANCHES_MAX, SYNC_ITEMS_MAX, SYNC_PAGE_ENTRIES},
    messages::sync::{
        BRANCHES, Digest, Entry, Item, Kind, LEVELS, Packed, Place, Position, Request, Response,
    },
};

use super::{
    Trie,
    answer::{Items, Stretch},
};

/// Requests of one session: far beyond what ten million entries take, and an end for a super-peer that has none.
pub const REQUESTS_MAX: u32 = 50_000;
/// Rounds of one session. The second is for what the first could not take yet, a third for what was written meanwhile.
pub const ROUNDS_MAX: u32 = 4;
/// Invalid entries after which a super-peer is not believed any more: its own catalog refuses such entries.
pub const INVALID_MAX: u32 = 1024;
/// Leaves listed at once: with one or two entries each they fill a request.
const LEAVES_AT_ONCE: usize = 4096;
/// The level at which the walk begins: its 256 sums take 2 KiB and save two round trips.
const FIRST_LEVEL: u8 = 1;
/// A catalog that lacks more than its own size and this reads pages: walking would list nearly all it has.
const FAR_BEHIND: u64 = 1024;

/// What a session wants done next. The result comes back as the [`Input`] that each names.
#[derive(Debug, Clone)]
pub enum Effect {
    /// What does the own catalog come to? [`Input::Own`].
    Look,
    /// Tell the other what the own catalog comes to, and ask for the same. [`Input::Answer`].
    Compare(Digest),
    /// Ask the other. [`Input::Answer`].
    Ask(Request),
    /// List the own items in a stretch, no more than [`SYNC_ITEMS_MAX`] and those that share the last one's position.
    /// [`Input::Items`].
    List(Stretch),
    /// Merge entries. [`Input::Taken`].
    Take(Vec<Entry>),
    /// Merge entries, and ask the other at the same time. [`Input::TakenBeside`].
    TakeBeside(Vec<Entry>, Request),
    /// Read what stands at these positions, as many as fit a message. [`Input::Entries`].
    Read(Vec<Position>),
    /// It is over.
    End(Ending),
}

/// What became of an [`Effect`].
#[derive(Debug, Clone)]
pub enum Input {
    /// To *look*: the own digest, and the tree of the same moment.
    Own(Digest, Trie),
    /// To *compare* and *ask*.
    Answer(Response),
    /// To *list*.
    Items(Items),
    /// To *take*.
    Taken(Taken),
    /// To *take beside*: what was taken, and the answer.
    TakenBeside(Taken, Response),
    /// To *read*: the entries, and how many of the positions were read, from the first on.
    Entries(Vec<Entry>, u32),
}

/// What became of entries that were merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Stored.
    pub stored: u32,
    /// Refused as not valid.
    pub invalid: u32,
    /// What stands here instead, because it takes precedence: the other is to have it.
    pub superseded: Vec<Place>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both catalogs come to the same.
    Equal,
    /// All was compared, and what differs still is what one of the two does not take.
    Settled,
    /// The other is busy; nothing was compared.
    Busy,
    /// So much differs that it goes on with the next session.
    Unfinished,
    /// The other's answers are not such; nothing that it said was believed without proof.
    Faulty(Fault),
}

/// What was wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Of another kind, or of another size than asked for.
    #[error("its answer does not fit the question")]
    OffTopic,
    /// Entries that nobody asked for, or twice.
    #[error("it sent entries that were not asked for")]
    Unasked,
    /// A page or part that does not move on.
    #[error("its answers do not move on")]
    Standstill,
    /// More entries that do not verify than an honest catalog can hold.
    #[error("it sent {INVALID_MAX} entries that are not valid")]
    Invalid,
}

/// What a session moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries that came and were stored.
    pub received: u64,
    /// Entries that went, whether the other needed them or not.
    pub sent: u64,
    /// Entries that came and were refused.
    pub invalid: u32,
    /// Requests.
    pub requests: u32,
}

/// The session. Feed it [`Session::begin`]'s effect's result, and so on until [`Effect::End`]; dropping it any time is
/// harmless.
#[derive(Debug)]
pub struct Session {
    state: State,
    tally: Tally,
    round: u32,
    /// Whether this round moved an entry.
    moved: bool,
    /// Rounds in which the roots differed and no branch did.
    blind: u32,
    /// Whether the other's pages have been read.
    paged: bool,
}

#[derive(Debug)]
enum State {
    Looking,
    Comparing { trie: Trie, digest: Digest },
    Walking(Walk),
    Listing { rest: Leaves, asked: Stretch },
    Exchanging { rest: Leaves, stretch: Stretch, items: Vec<Item> },
    Fetching { exchange: Exchange, asked: Vec<Position> },
    Merging(Exchange),
    Reading { exchange: Exchange, asked: usize },
    Pushing(Exchange),
    Paging { after: Option<Place> },
    MergingLastPage,
    Over,
}

/// Leaves that are still to be exchanged.
#[derive(Debug)]
struct Leaves {
    leaves: VecDeque<u16>,
    /// The first place of the first of them.
    from: u32,
}

/// What one answer to *leaves* has left to be done.
#[derive(Debug)]
struct Exchange {
    rest: Leaves,
    fetch: VecDeque<Position>,
    push: BTreeSet<Position>,
    /// What has come and is yet to be merged.
    fetched: Vec<Entry>,
}

#[derive(Debug)]
struct Walk {
    trie: Trie,
    level: u8,
    asked: Vec<u16>,
    waiting: VecDeque<u16>,
    differing: Vec<u16>,
}

impl Session {
    /// A session, and what it wants first.
    pub const fn begin() -> (Self, Effect) {
        let tally = Tally { received: 0, sent: 0, invalid: 0, requests: 0 };
        let session = Self { state: State::Looking, tally, round: 0, moved: false, blind: 0, paged: false };
        (session, Effect::Look)
    }

    /// What it has moved so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes in the result of the last effect and gives the next one.
    pub fn handle(&mut self, input: Input) -> Effect {
        let state = mem::replace(&mut self.state, State::Over);
        let next = match (state, input) {
            (State::Looking, Input::Own(digest, trie)) => {
                self.state = State::Comparing { trie, digest };
                Ok(Effect::Compare(digest))
            }
            (State::Comparing { trie, digest }, Input::Answer(answer)) => self.compared(trie, digest, answer),
            (State::Walking(walk), Input::Answer(answer)) => self.walked(walk, answer),
            (State::Listing { rest, asked }, Input::Items(items)) => Ok(self.listed(rest, asked, items)),
            (State::Exchanging { rest, stretch, items }, Input::Answer(answer)) => {
                self.exchanged(rest, &stretch, &items, answer)
            }
            (State::Fetching { exchange, asked }, Input::Answer(answer)) => {
                self.fetched(exchange, &asked, answer)
            }
            (State::Fetching { exchange, asked }, Input::TakenBeside(taken, answer)) => {
                self.merged(exchange, &taken).and_then(|exchange| self.fetched(exchange, &asked, answer))
            }
            (State::Merging(exchange), Input::Taken(taken)) => {
                self.merged(exchange, &taken).map(|exchange| self.fetch(exchange))
            }
            (State::Reading { exchange, asked }, Input::Entries(entries, read)) => {
                Ok(self.read(exchange, asked, entries, read))
            }
            (State::Pushing(exchange), Input::Answer(answer)) => self.pushed(exchange, &answer),
            (State::Pushing(exchange), Input::TakenBeside(taken, answer)) => {
                self.merged(exchange, &taken).and_then(|exchange| self.pushed(exchange, &answer))
            }
            (State::Paging { after }, Input::Answer(answer)) => self.page_arrived(after, answer),
            (State::Paging { after }, Input::TakenBeside(taken, answer)) => {
                self.page_merged(&taken).and_then(|()| self.page_arrived(after, answer))
            }
            (State::MergingLastPage, Input::Taken(taken)) => self.page_merged(&taken).map(|()| self.look()),
            _ => Err(Fault::OffTopic),
        };
        let effect = next.unwrap_or_else(|fault| Effect::End(Ending::Faulty(fault)));
        if !matches!(effect, Effect::Ask(_) | Effect::Compare(_) | Effect::TakeBeside(..)) {
            return effect;
        }
        self.tally.requests += 1;
        if self.tally.requests > REQUESTS_MAX { self.end(Ending::Unfinished) } else { effect }
    }

    fn end(&mut self, ending: Ending) -> Effect {
        self.state = State::Over;
        Effect::End(ending)
    }

    fn look(&mut self) -> Effect {
        self.state = State::Looking;
        Effect::Look
    }

    fn compared(&mut self, trie: Trie, own: Digest, answer: Response) -> Result<Effect, Fault> {
        let theirs = match answer {
            Response::Digest(theirs) => theirs,
            Response::Busy => return Ok(self.end(Ending::Busy)),
            _ => return Err(Fault::OffTopic),
        };
        if theirs == own {
            return Ok(self.end(Ending::Equal));
        }
        // A round that moved nothing would be followed by another such, unless it saw no difference at all.
        let stuck = self.round > 0 && !self.moved && (self.blind == 0 || self.paged);
        if stuck || self.round == ROUNDS_MAX {
            let ending = if stuck { Ending::Settled } else { Ending::Unfinished };
            return Ok(self.end(ending));
        }
        self.round += 1;
        self.moved = false;
        let far_behind = theirs.count > own.count.saturating_mul(2).saturating_add(FAR_BEHIND);
        if far_behind && !self.paged {
            return Ok(self.page(None));
        }
        let waiting =
            (0..BRANCHES.pow(u32::from(FIRST_LEVEL))).filter_map(|prefix| u16::try_from(prefix).ok());
        let walk = Walk {
            trie,
            level: FIRST_LEVEL,
            asked: Vec::new(),
            waiting: waiting.collect(),
            differing: Vec::new(),
        };
        Ok(self.walk(walk))
    }

    /// Asks for the next branches, of the next level where this one is through, or goes on with the leaves.
    fn walk(&mut self, mut walk: Walk) -> Effect {
        if walk.waiting.is_empty() {
            walk.level += 1;
            walk.waiting = mem::take(&mut walk.differing).into();
            if walk.waiting.is_empty() {
                return self.saw_nothing();
            }
            if walk.level == LEVELS {
                self.blind = 0;
                return self.exchange(Leaves { leaves: walk.waiting, from: 0 });
            }
        }
        walk.asked = walk.waiting.drain(..walk.waiting.len().min(SYNC_BRANCHES_MAX)).collect();
        let request = Request::Branches { level: walk.level, prefixes: Packed(walk.asked.clone()) };
        self.state = State::Walking(walk);
        Effect::Ask(request)
    }

    fn walked(&mut self, mut walk: Walk, answer: Response) -> Result<Effect, Fault> {
        let theirs = match answer {
            Response::Branches(theirs) => theirs.0,
            Response::Busy => return Ok(self.end(Ending::Busy)),
            _ => return Err(Fault::OffTopic),
        };
        if theirs.len() != walk.asked.len() * BRANCHES {
            return Err(Fault::OffTopic);
        }
        for (prefix, theirs) in mem::take(&mut walk.asked).into_iter().zip(theirs.chunks_exact(BRANCHES)) {
            let Some(own) = walk.trie.branches(walk.level, prefix) else { return Err(Fault::OffTopic) };
            for (branch, (own, theirs)) in (0..).zip(own.iter().zip(theirs)) {
                if own != theirs {
                    // Four levels of four bits: no bit is lost.
                    walk.differing.push(prefix << 4 | branch);
                }
            }
        }
        Ok(self.walk(walk))
    }

    /// The roots differ and no branch does: something was written meanwhile, or sums collide. Looks once more, then
    /// reads everything.
    fn saw_nothing(&mut self) -> Effect {
        self.blind += 1;
        if self.blind == 1 || self.paged { self.look() } else { self.page(None) }
    }

    /// Lists the next leaves, or begins the next round where none are left.
    fn exchange(&mut self, mut rest: Leaves) -> Effect {
        let first: Vec<u16> = rest.leaves.drain(..rest.leaves.len().min(LEAVES_AT_ONCE)).collect();
        match Stretch::new(first, mem::take(&mut rest.from), u32::MAX) {
            Some(asked) => {
                self.state = State::Listing { rest, asked: asked.clone() };
                Effect::List(asked)
            }
            None => self.look(),
        }
    }

    fn listed(&mut self, mut rest: Leaves, asked: Stretch, items: Items) -> Effect {
        let stretch = match items.unread {
            None => asked,
            Some(unread) => {
                put_back(&mut rest, asked.from(unread));
                match asked.before(unread) {
                    Some(stretch) => stretch,
                    // Nothing of it could be read.
                    None => return self.end(Ending::Unfinished),
                }
            }
        };
        let items: Vec<Item> = items.items.into_iter().filter(|item| stretch.covers(item.position)).collect();
        let (from, to) = stretch.ends();
        let leaves = Packed(stretch.leaves().to_vec());
        let request = Request::Leaves { leaves, from, to, items: Packed(items.clone()) };
        self.state = State::Exchanging { rest, stretch, items };
        Effect::Ask(request)
    }

    fn exchanged(
        &mut self,
        mut rest: Leaves,
        stretch: &Stretch,
        items: &[Item],
        answer: Response,
    ) -> Result<Effect, Fault> {
        let (offered, wanted, until) = match answer {
            Response::Leaves { offered, wanted, until } => (offered.0, wanted, until),
            Response::Busy => return Ok(self.end(Ending::Busy)),
            _ => return Err(Fault::OffTopic),
        };
        let in_order = offered.is_sorted_by(|a, b| a < b) && offered.len() <= SYNC_ITEMS_MAX;
        if !in_order || wanted.len() != items.len().div_ceil(8) {
            return Err(Fault::OffTopic);
        }
        if !offered.iter().all(|position| stretch.covers(*position)) {
            return Err(Fault::Unasked);
        }
        if let Some(until) = until {
            // The first position was compared at least.
            if !stretch.covers(until) || stretch.before(until).is_none() {
                return Err(Fault::Standstill);
            }
            put_back(&mut rest, stretch.from(until));
        }
        let is_wanted = |at: usize| wanted[at / 8] & (0x80 >> (at % 8)) != 0;
        let push = items.iter().enumerate().filter(|(at, _)| is_wanted(*at)).map(|(_, item)| item.position);
        let exchange = Exchange { rest, push: push.collect(), fetch: offered.into(), fetched: Vec::new() };
        Ok(self.fetch(exchange))
    }

    /// Asks for the next entries, or pushes the next ones where none are left.
    fn fetch(&mut self, mut exchange: Exchange) -> Effect {
        let asked: Vec<Position> = exchange.fetch.iter().take(SYNC_PAGE_ENTRIES).copied().collect();
        if asked.is_empty() {
            return self.push(exchange);
        }
        let request = Request::Entries(Packed(asked.clone()));
        let fetched = mem::take(&mut exchange.fetched);
        self.state = State::Fetching { exchange, asked };
        ask_beside(fetched, request)
    }

    fn fetched(
        &mut self,
        mut exchange: Exchange,
        asked: &[Position],
        answer: Response,
    ) -> Result<Effect, Fault> {
        let (entries, answered) = match answer {
            Response::Entries { entries, answered } => (entries, answered),
            Response::Busy => return Ok(self.end(Ending::Busy)),
            _ => return Err(Fault::OffTopic),
        };
        let answered = usize::try_from(answered).unwrap_or(usize::MAX);
        if answered == 0 {
            return Err(Fault::Standstill);
        }
        let Some(answered) = asked.get(..answered) else { return Err(Fault::OffTopic) };
        let mut seen = BTreeSet::new();
        let all_asked = entries.iter().all(|entry| {
            answered.binary_search(&Position::of(entry.kind, &entry.id)).is_ok()
                && seen.insert((entry.kind, *entry.id))
        });
        if !all_asked {
            return Err(Fault::Unasked);
        }
        exchange.fetch.drain(..answered.len());
        exchange.fetched = entries;
        // What is merged there meanwhile comes before what is only read there.
        Ok(self.push(exchange))
    }

    fn merged(&mut self, mut exchange: Exchange, taken: &Taken) -> Result<Exchange, Fault> {
        self.count(taken)?;
        exchange.push.extend(taken.superseded.iter().map(|place| Position::of(place.kind, &place.id)));
        Ok(exchange)
    }

    fn count(&mut self, taken: &Taken) -> Result<(), Fault> {
        self.tally.received += u64::from(taken.stored);
        self.tally.invalid = self.tally.invalid.saturating_add(taken.invalid);
        self.moved |= taken.stored > 0;
        if self.tally.invalid >= INVALID_MAX { Err(Fault::Invalid) } else { Ok(()) }
    }

    /// Reads what is to be pushed next. Where nothing is, goes on with what is to be fetched or merged, then with the
    /// next leaves.
    fn push(&mut self, mut exchange: Exchange) -> Effect {
        let asked: Vec<Position> = exchange.push.iter().take(SYNC_PAGE_ENTRIES).copied().collect();
        if !asked.is_empty() {
            self.state = State::Reading { exchange, asked: asked.len() };
            return Effect::Read(asked);
        }
        if !exchange.fetch.is_empty() {
            return self.fetch(exchange);
        }
        let fetched = mem::take(&mut exchange.fetched);
        if fetched.is_empty() {
            return self.exchange(exchange.rest);
        }
        self.state = State::Merging(exchange);
        Effect::Take(fetched)
    }

    fn read(&mut self, mut exchange: Exchange, asked: usize, entries: Vec<Entry>, read: u32) -> Effect {
        // Entries are never removed, but a position need not be read in vain for ever.
        let read = usize::try_from(read).unwrap_or(usize::MAX).clamp(1, asked);
        exchange.push = exchange.push.into_iter().skip(read).collect();
        if entries.is_empty() {
            return self.push(exchange);
        }
        self.tally.sent += entries.len() as u64;
        let fetched = mem::take(&mut exchange.fetched);
        self.state = State::Pushing(exchange);
        ask_beside(fetched, Request::Push(entries))
    }

    fn pushed(&mut self, exchange: Exchange, answer: &Response) -> Result<Effect, Fault> {
        let Response::Taken { stored, .. } = answer else { return Err(Fault::OffTopic) };
        self.moved |= *stored > 0;
        Ok(self.fetch(exchange))
    }

    fn page(&mut self, after: Option<Place>) -> Effect {
        self.paged = true;
        self.state = State::Paging { after };
        Effect::Ask(Request::Page { after })
    }

    fn page_arrived(&mut self, after: Option<Place>, answer: Response) -> Result<Effect, Fault> {
        let (entries, next) = match answer {
            Response::Page { entries, next } => (entries, next),
            Response::Busy => return Ok(self.end(Ending::Busy)),
            _ => return Err(Fault::OffTopic),
        };
        // Everything must come once and in order, and the next page must begin after it.
        let mut last = after.as_ref().map(rank);
        for entry in &entries {
            let this = rank(&Place { kind: entry.kind, id: entry.id });
            if last.is_some_and(|last| this <= last) {
                return Err(Fault::Standstill);
            }
            last = Some(this);
        }
        if let Some(next) = &next
            && (entries.is_empty() || last.is_some_and(|last| rank(next) < last))
        {
            return Err(Fault::Standstill);
        }
        if entries.is_empty() {
            return Ok(self.look());
        }
        if next.is_none() {
            self.state = State::MergingLastPage;
            return Ok(Effect::Take(entries));
        }
        self.state = State::Paging { after: next };
        Ok(Effect::TakeBeside(entries, Request::Page { after: next }))
    }

    fn page_merged(&mut self, taken: &Taken) -> Result<(), Fault> {
        self.count(taken)?;
        // What takes precedence here differs still, and is pushed in the next round.
        self.moved |= !taken.superseded.is_empty();
        Ok(())
    }
}

/// Asks, and merges meanwhile what has come, if anything has.
fn ask_beside(fetched: Vec<Entry>, request: Request) -> Effect {
    if fetched.is_empty() { Effect::Ask(request) } else { Effect::TakeBeside(fetched, request) }
}

/// Puts what is left of a stretch before the leaves that come after it.
fn put_back(rest: &mut Leaves, left: Option<Stretch>) {
    let Some(left) = left else { return };
    rest.from = left.ends().0;
    for leaf in left.leaves().iter().rev() {
        rest.leaves.push_front(*leaf);
    }
}

/// Where a place stands in the order of pages: members first.
fn rank(place: &Place) -> (bool, Kind, [u8; 32]) {
    (place.kind != Kind::MEMBER, place.kind, *place.id)
}
