//! What a super-peer answers to members, strangers and other super-peers.

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{Credential, Membership, Role},
    limits::{SYNC_ITEMS_MAX, SYNC_PAGE_ENTRIES},
    messages::{
        admission::{self, Refusal},
        changes, index,
        sync::{self, Entry},
    },
};
use quarta_superpeer::{
    admission::{AdmissionError, Redemption, Renewal},
    catalog::{Change, EndError, Viewer},
    feed::{self, Beginning, Head, PAGE_BYTES, PAGE_ENTRIES, told},
    reconciliation::answer::{self, Stretch},
};
use serde_bytes::{ByteArray, ByteBuf};

use super::{Reply, Running, Sent, Superpeer, reconciling};
use crate::simulation::{
    cast::Who,
    clock::Moment,
    network::{Answer, Ask},
    sabotage::Sabotage,
};

impl Superpeer {
    /// Answers a question. `fresh` are random bits.
    pub fn handle(
        &mut self,
        now: Moment,
        (from, call): (Who, u64),
        credential: Option<&Credential>,
        ask: Ask,
        fresh: [u8; 16],
    ) -> Sent {
        let mut told = Vec::new();
        let mut sent = Sent::default();
        let answer = match ask {
            Ask::Admission(request) => {
                Some(Answer::Admission(self.admission(now, from, request, fresh, &mut told)))
            }
            ask => match credential.and_then(|credential| self.at_the_gate(now, from, credential)) {
                None => Some(Answer::Closed),
                Some((membership, first)) => {
                    if first && let Some(credential) = credential {
                        self.meet(now, from, credential.clone(), &mut told);
                    }
                    self.ask(now, (from, call), &membership, ask, &mut told)
                }
            },
        };
        sent.replies.extend(answer.map(|answer| Reply { to: from, call, answer }));
        sent.questions = self.push(&told);
        self.tell_followers(now, &mut sent);
        sent
    }

    fn meet(&mut self, now: Moment, from: Who, credential: Credential, told: &mut Vec<Entry>) {
        let wall_ms = self.clock.wall_ms(now);
        let Some(running) = &mut self.running else { return };
        let enrolment = from.identity().enrolment(credential);
        told.extend(running.catalog.meet(enrolment, wall_ms).unwrap_or_default());
    }

    fn admission(
        &mut self,
        now: Moment,
        from: Who,
        request: admission::Request,
        fresh: [u8; 16],
        told: &mut Vec<Entry>,
    ) -> admission::Response {
        let (wall, wall_ms) = (self.clock.wall(now), self.clock.wall_ms(now));
        let sabotage = self.sabotage;
        let Some(running) = &mut self.running else {
            return admission::Response::Refused(Refusal::Unavailable);
        };
        let ready = match sabotage {
            Some(Sabotage::AdmitsBeforeReconciling) => Ok(()),
            _ => running.agreement.may_admit(running.is_alone(), now.instant(), wall),
        };
        let Running { catalog, authority, .. } = running;
        let admitted = match (request, ready) {
            (admission::Request::Redeem { .. } | admission::Request::Renew { .. }, Err(refusal)) => {
                return admission::Response::Refused(refusal);
            }
            (admission::Request::Redeem { secret, name, sealing_key }, Ok(())) => {
                let redemption = Redemption { peer: from.peer(), secret: *secret, name, sealing_key };
                authority.redeem(catalog, redemption, fresh, wall).map(|admitted| (true, admitted))
            }
            (admission::Request::Renew { credential, sealing_key }, Ok(())) => {
                let renewal = Renewal { peer: from.peer(), credential, sealing_key };
                authority.renew(catalog, renewal, fresh, wall).map(|admitted| (false, admitted))
            }
            (admission::Request::Leave(departure), _) => {
                return match catalog.depart(&departure, wall_ms) {
                    Ok(ended) => {
                        told.extend(ended.entries);
                        running.turn_away(ended.peer);
                        admission::Response::Farewell
                    }
                    Err(EndError::UnknownMember) => admission::Response::Refused(Refusal::NotAMember),
                    Err(_) => admission::Response::Refused(Refusal::Unavailable),
                };
            }
            (admission::Request::Discover, _) => return admission::Response::Superpeers(Vec::new()),
        };
        match admitted {
            Ok((joined, admitted)) => {
                told.extend(admitted.entries);
                let (credential, superpeers) = (admitted.credential, Vec::new());
                if joined {
                    admission::Response::Joined { credential, superpeers }
                } else {
                    admission::Response::Renewed(credential)
                }
            }
            Err(error) => admission::Response::Refused(AdmissionError::refusal(&error)),
        }
    }

    fn ask(
        &mut self,
        now: Moment,
        (from, call): (Who, u64),
        member: &Membership,
        ask: Ask,
        told: &mut Vec<Entry>,
    ) -> Option<Answer> {
        let wall_ms = self.clock.wall_ms(now);
        let sabotage = self.sabotage;
        let running = self.running.as_mut()?;
        match ask {
            Ask::Index(index::Request::Publish(records)) => {
                if sabotage == Some(Sabotage::AcknowledgesBeforeStoring) {
                    let outcomes = records.iter().map(|_| index::Publication::Stored).collect();
                    running.unstored.push((member.clone(), records));
                    return Some(Answer::Index(index::Response::Published(outcomes)));
                }
                let published = running.catalog.publish(member, records, wall_ms).ok()?;
                told.extend(published.iter().flat_map(|item| item.entries.clone()));
                let outcomes = published.into_iter().map(|item| item.outcome).collect();
                Some(Answer::Index(index::Response::Published(outcomes)))
            }
            Ask::Index(index::Request::PublishKeys { audiences, wraps }) => {
                let published = running.catalog.publish_keys(member, audiences, wraps, wall_ms).ok()?;
                told.extend(published.iter().flat_map(|item| item.entries.clone()));
                let outcomes = published.into_iter().map(|item| item.outcome).collect();
                Some(Answer::Index(index::Response::Published(outcomes)))
            }
            Ask::Index(index::Request::Search { query, after, limit, .. }) => {
                let viewer = match sabotage {
                    Some(Sabotage::ListsTheHidden) => Viewer::Administrator,
                    _ => Viewer::Member(member.peer),
                };
                let page = running.reader.search(viewer, &query, None, after.as_ref(), limit).ok()?;
                let files = page.files.into_iter().map(|file| index::ListedFile {
                    record: file.record,
                    owner: file.owner_name,
                    holders: 0,
                });
                Some(Answer::Index(index::Response::Files { files: files.collect(), next: page.next }))
            }
            Ask::Changes(changes::Request::Follow { since, wait_ms }) => {
                running.follow(now, (from, call), since, wait_ms, sabotage);
                None
            }
            Ask::Changes(changes::Request::Return { departures, revocations }) => {
                let taken = running.catalog.take_back(&departures, revocations, wall_ms).ok()?;
                told.extend(taken.entries);
                running.apply(&taken.applied);
                Some(Answer::Changes(changes::Response::Noted))
            }
            Ask::Sync(request) => {
                running.sync(now, member, request, wall_ms, self.clock.wall(now), sabotage).map(Answer::Sync)
            }
            Ask::Index(_) | Ask::Admission(_) => None,
        }
    }

    /// Answers the followers for whom there is something, or whose wait is over.
    pub(super) fn tell_followers(&mut self, now: Moment, sent: &mut Sent) {
        let Some(running) = &mut self.running else { return };
        let head = Head { sequence: running.catalog.sequence(), condition: 0 };
        let mut effects = running.waiting.handle(now.instant(), feed::Input::Moved(head));
        effects.extend(running.waiting.handle(now.instant() + feed::GATHER, feed::Input::Tick));
        running.perform(effects, self.sabotage, sent);
    }
}

impl Running {
    fn follow(
        &mut self,
        now: Moment,
        (from, call): (Who, u64),
        since: Option<changes::Cursor>,
        wait_ms: u64,
        sabotage: Option<Sabotage>,
    ) {
        let known =
            since.is_some_and(|cursor| self.reader.knows_run(cursor.run, cursor.sequence).unwrap_or(false));
        let beginning = match (sabotage, since) {
            (Some(Sabotage::OneCursorForAll), Some(cursor)) => {
                let seen = Head { sequence: cursor.sequence, condition: 0 };
                Beginning { seen, restart: false }
            }
            _ => self.source.begin(since.as_ref(), known),
        };
        self.questions += 1;
        let question = self.questions;
        self.open.insert(question, (from, call, beginning));
        // A member whose place is lost must be told so at once.
        let wait_ms = if beginning.restart { 0 } else { wait_ms };
        let wait = std::time::Duration::from_millis(wait_ms).min(changes::WAIT_MAX);
        let asked = feed::Input::Asked { peer: from.peer(), question, seen: beginning.seen, wait };
        let effects = self.waiting.handle(now.instant(), asked);
        self.due.extend(effects);
    }

    fn perform(&mut self, effects: Vec<feed::Effect>, sabotage: Option<Sabotage>, sent: &mut Sent) {
        let due = std::mem::take(&mut self.due);
        for effect in due.into_iter().chain(effects) {
            let (feed::Effect::Answer(question) | feed::Effect::Refuse(question)) = effect;
            let Some((to, call, beginning)) = self.open.remove(&question) else { continue };
            let answer = match effect {
                feed::Effect::Answer(_) => self.page(beginning, &to.peer(), sabotage),
                feed::Effect::Refuse(_) => changes::Response::Unavailable,
            };
            sent.replies.push(Reply { to, call, answer: Answer::Changes(answer) });
        }
    }

    /// What there is after a place for a member.
    fn page(&self, beginning: Beginning, to: &PeerId, sabotage: Option<Sabotage>) -> changes::Response {
        let (head, seen) = (self.catalog.sequence(), beginning.seen);
        let Ok(read) = self.reader.since(seen.sequence, PAGE_ENTRIES, PAGE_BYTES) else {
            return changes::Response::Unavailable;
        };
        let last = read.changes.last().map_or(seen.sequence, |change| change.sequence);
        let sequence = if read.more { last } else { last.max(head) };
        changes::Response::Page {
            cursor: self.source.cursor(Head { sequence, condition: 0 }),
            restart: beginning.restart,
            changes: read.changes.iter().filter_map(|change| shown(change, to, sabotage)).collect(),
            members: Vec::new(),
            more: read.more,
        }
    }

    /// As production's `federation/answering.rs`.
    fn sync(
        &mut self,
        now: Moment,
        from: &Membership,
        request: sync::Request,
        wall_ms: u64,
        wall: quarta_protocols::credentials::UnixSeconds,
        sabotage: Option<Sabotage>,
    ) -> Option<sync::Response> {
        use sync::{Request, Response};
        let mut from = from.clone();
        if sabotage == Some(Sabotage::BelievesEverySender) {
            from.role = Role::Superpeer;
        }
        let walks =
            matches!(request, Request::Branches { .. } | Request::Leaves { .. } | Request::Entries(_));
        if walks && !self.turns.asked(from.peer, now.instant()) {
            return Some(Response::Busy);
        }
        Some(match request {
            Request::Push(entries) => {
                let taken = self.catalog.take(&from, entries, wall_ms).ok()?;
                self.apply(&taken.applied);
                Response::Taken { stored: taken.stored, known: taken.known, invalid: taken.invalid }
            }
            Request::Digest { .. } => Response::Digest(self.catalog.digest()),
            Request::Compare { digest, .. } => {
                let own = self.catalog.digest();
                self.turns.compared(from.peer);
                if own == digest {
                    self.compared(now, wall);
                }
                Response::Digest(own)
            }
            Request::Page { after } => {
                let (entries, next) = self.reader.page(after.as_ref()).ok()?;
                Response::Page { entries, next }
            }
            Request::Branches { level, prefixes } => {
                answer::branches(&self.catalog.trie(), level, &prefixes.0)?
            }
            Request::Leaves { leaves, from, to, items } => {
                let stretch = Stretch::new(leaves.0, from, to)?;
                let mut asked = items.0;
                if !asked.is_sorted() || asked.len() > 2 * SYNC_ITEMS_MAX {
                    return None;
                }
                let mut own = self.reader.items(&stretch, answer::items_to_read(asked.len())).ok()?;
                if sabotage == Some(Sabotage::SkipsABranch) {
                    reconciling::skip_a_branch(&mut own.items);
                    reconciling::skip_a_branch(&mut asked);
                }
                answer::leaves(&asked, &own)
            }
            Request::Entries(positions) => {
                if positions.0.is_empty() || positions.0.len() > SYNC_PAGE_ENTRIES {
                    return None;
                }
                let (entries, answered) = self.reader.entries_at(&positions.0).ok()?;
                Response::Entries { entries, answered }
            }
        })
    }
}

/// What a member is told of a change.
fn shown(change: &Change, to: &PeerId, sabotage: Option<Sabotage>) -> Option<changes::Change> {
    if sabotage == Some(Sabotage::ShowsTheHidden) && change.kind == sync::Kind::FILE {
        let (kind, id) = (change.kind, ByteArray::new(change.id));
        return Some(changes::Change::Put { kind, id, payload: ByteBuf::from(change.payload.clone()) });
    }
    told(change, to)
}
