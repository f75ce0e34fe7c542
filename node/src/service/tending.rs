//! Tending own audiences: every reader has its keys, and who is a member no more reads nothing that follows.
//!
//! It runs at the start and whenever members have joined or gone, so a branch that joins later reads older files as soon
//! as their owner is online. What was sealed stands in the database before it is told, and is told until a super-peer
//! has it: after a restart everything is, since a super-peer may have lost it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, EPOCHS_MAX, EpochKey, Keys, Rule, Stated, Wrap},
    cbor,
    credentials::Role,
    ids::AudienceId,
    keys::SealingKey,
    limits::{PAGE_FILL_BYTES, RECORD_PAGE_ENTRIES},
    messages::index::{AUDIENCES_PAGE_ENTRIES, Index, Publication, Request, Response},
    records::{Access, Origin},
};
use serde_bytes::ByteArray;
use tokio::sync::Notify;

use super::{COPIES_AT_A_TIME, Shared, superpeers::AskError};
use crate::{
    audiences::{Candidate, due},
    database::{DatabaseError, OwnAudience, Provenance},
};

/// How long after they were refused keys are told again: a super-peer may not have heard yet of the member they are for.
const OWED_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// What concerns own audiences.
#[derive(Debug, Default)]
pub(crate) struct Tending {
    /// Audiences, and the members' keys of each, that no super-peer has acknowledged.
    owed: Mutex<Owed>,
    /// Wakes the one that tends.
    due: Notify,
}

/// Audiences, each with the members whose wraps go with it, and the epoch of the wrap.
type Owed = BTreeMap<AudienceId, BTreeMap<PeerId, u64>>;

impl Tending {
    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Members have joined or gone.
    pub(super) fn wake(&self) {
        self.due.notify_one();
    }
}

/// Tends own audiences until the node stops.
pub(super) async fn tend(shared: Arc<Shared>) {
    shared.tending.wake();
    loop {
        let owes = !shared.tending.owed().is_empty();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.tending.due.notified() => {}
            () = tokio::time::sleep(OWED_AGAIN_AFTER), if owes => {
                shared.publish_owed_keys().await;
                continue;
            }
        }
        let blocking = shared.clone();
        let tended = tokio::task::spawn_blocking(move || blocking.tend_all()).await;
        match tended {
            Ok(Ok(0)) => {}
            Ok(Ok(members)) => {
                tracing::info!(members, "keys of restricted files were sealed for members");
                shared.publish_owed_keys().await;
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the readers of restricted files could not be looked after; the next change of \
                    the members or the next start tries again");
            }
            Err(_) => return,
        }
    }
}

impl Shared {
    /// The own audience of a rule: one that is there, or a new one with keys for all its readers. Blocks on the disk. The
    /// caller holds [`Shared::changes_of_own`], and sees to it that the keys are published.
    pub(super) fn audience_with(&self, rule: Rule) -> Result<AudienceId, DatabaseError> {
        let rule = rule.sorted();
        let me = self.identity.keys.peer();
        let found = self.database.own_audiences_of(&rule)?;
        // One that can have no further epoch may have lost readers who know its last key.
        if let Some(own) =
            found.into_iter().find(|own| own.audience.origin.owner == me && own.keys.0.len() < EPOCHS_MAX)
        {
            return Ok(own.audience.audience);
        }
        let origin = Origin { owner: me, nonce: ByteArray::new(rand::random()) };
        let own = OwnAudience {
            audience: Audience::new(origin, rule, 1, &self.identity.trust.network),
            keys: Keys([(1, EpochKey::generate())].into()),
        };
        let id = own.audience.audience;
        self.tend_one(own, &self.candidates()?, &self.ended_members()?, true)?;
        Ok(id)
    }

    /// How many members got keys.
    fn tend_all(&self) -> Result<usize, DatabaseError> {
        let _turn = self.changes_of_own();
        let all = self.database.own_audiences()?;
        if all.is_empty() {
            return Ok(0);
        }
        let (candidates, ended) = (self.candidates()?, self.ended_members()?);
        all.into_iter().map(|own| self.tend_one(own, &candidates, &ended, false)).sum()
    }

    fn tend_one(
        &self,
        mut own: OwnAudience,
        candidates: &[Candidate],
        ended: &BTreeSet<PeerId>,
        new: bool,
    ) -> Result<usize, DatabaseError> {
        let id = own.audience.audience;
        let mut listed = BTreeSet::new();
        for member in own.audience.rule.members() {
            listed.extend(self.database.member(member)?.map(|known| known.listed.name));
        }
        let due = due(&own.audience, &listed, candidates, &self.database.held_wraps(&id)?, ended);
        if due.gone.is_empty() && due.seal.is_empty() && !new {
            return Ok(0);
        }
        if !due.gone.is_empty() {
            let used = self.epochs_in_use(&id)?;
            own.keys.0.retain(|epoch, _| used.contains(epoch) || *epoch == own.audience.epoch);
            if own.keys.0.len() < EPOCHS_MAX {
                own.audience.epoch += 1;
                own.keys.0.insert(own.audience.epoch, EpochKey::generate());
            }
        }
        let mut wraps = Vec::with_capacity(due.seal.len());
        for key in due.seal {
            let (trust, owner) = (&self.identity.trust, &self.identity.keys.identity);
            match Wrap::seal(&own.audience, &own.keys, &key, trust, owner) {
                Ok(wrap) => wraps.push((key, wrap)),
                Err(error) => {
                    tracing::warn!(member = %key.peer, %error, "keys cannot be sealed for a member");
                }
            }
        }
        self.noted(self.database.keep_audience(&own, &wraps, &due.gone))?;
        self.keyring.forget(&id);
        let epoch = own.audience.epoch;
        let mut owed = self.tending.owed();
        let members = owed.entry(id).or_default();
        members.retain(|member, _| !due.gone.contains(member));
        members.extend(wraps.iter().map(|(key, _)| (key.peer, epoch)));
        Ok(wraps.len())
    }

    /// All nodes that are members, with their sealing keys, this one included.
    fn candidates(&self) -> Result<Vec<Candidate>, DatabaseError> {
        let trust = &self.identity.trust;
        let own = Candidate { name: self.identity.membership.name.clone(), key: self.own_sealing_key() };
        let mut all = vec![own];
        for enrolment in self.database.enrolments()? {
            let Ok(enrolled) = enrolment.verify(trust) else { continue };
            let node = enrolled.membership.role == Role::Node;
            if node && enrolled.membership.peer != self.identity.keys.peer() {
                all.push(Candidate { name: enrolled.membership.name, key: enrolled.sealing_key });
            }
        }
        Ok(all)
    }

    fn own_sealing_key(&self) -> SealingKey {
        let (network, peer) = (&self.identity.trust.network, self.identity.keys.peer());
        SealingKey::verify(&self.identity.sealing_statement(), network, &peer)
            .expect("this node has just signed it")
    }

    fn ended_members(&self) -> Result<BTreeSet<PeerId>, DatabaseError> {
        Ok(self.database.ended()?.into_iter().map(|(peer, _)| peer).collect())
    }

    /// The epochs of an own audience that own files still need.
    fn epochs_in_use(&self, of: &AudienceId) -> Result<BTreeSet<u64>, DatabaseError> {
        let (mut used, mut after) = (BTreeSet::new(), None);
        loop {
            let copies = self.database.copies(after.as_ref(), COPIES_AT_A_TIME)?;
            let Some(last) = copies.last() else { return Ok(used) };
            after = Some(last.file);
            for copy in copies.iter().filter(|copy| copy.provenance == Provenance::Own) {
                let Ok(body) = copy.record.peek() else { continue };
                if let quarta_protocols::records::State::Present(entry) = body.state
                    && let Access::Restricted { audience, epoch, .. } = entry.access
                    && audience == *of
                {
                    used.insert(epoch);
                }
            }
        }
    }

    /// Tells a super-peer of the keys that none has acknowledged. Where none answers, the next that connects hears it.
    pub(super) async fn publish_owed_keys(self: &Arc<Self>) {
        let owed = self.tending.owed().clone();
        if owed.is_empty() {
            return;
        }
        for page in self.key_pages(owed).await {
            match self.superpeers.ask(self, page.request()).await {
                Ok(response) => self.keys_published(&page, response),
                Err(error) => {
                    tracing::warn!(%error, "keys of restricted files are told as soon as a super-peer answers");
                    return;
                }
            }
        }
        if !self.tending.owed().is_empty() {
            self.tending.wake();
        }
    }

    /// Tells one super-peer of own audiences: of all of them, or of those that none has acknowledged.
    pub(super) async fn publish_keys_to(self: &Arc<Self>, peer: PeerId, all: bool) -> Result<(), AskError> {
        let owed = if all { self.all_keys().await } else { self.tending.owed().clone() };
        for page in self.key_pages(owed).await {
            match self.network.call::<Index>(peer, page.request()).await {
                Ok(response) => self.keys_published(&page, response),
                Err(error) => return Err(AskError::Unanswered(error.to_string())),
            }
        }
        Ok(())
    }

    async fn all_keys(self: &Arc<Self>) -> Owed {
        let blocking = self.clone();
        let read = move || {
            let mut all = Owed::new();
            for own in blocking.database.own_audiences()? {
                let held = blocking.database.held_wraps(&own.audience.audience)?;
                all.insert(
                    own.audience.audience,
                    held.into_iter().map(|held| (held.member, held.epoch)).collect(),
                );
            }
            Ok::<_, DatabaseError>(all)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => {
                tracing::error!(%error, "own audiences could not be read");
                Owed::new()
            }
            Err(_) => Owed::new(),
        }
    }

    fn keys_published(&self, page: &KeyPage, response: Response) {
        let Response::Published(outcomes) = response else {
            tracing::warn!(?response, "a super-peer did not take the keys of restricted files");
            return;
        };
        let mut owed = self.tending.owed();
        let audiences = page.audiences.iter().map(|stated| (stated.statement().audience, None));
        let wraps = page.wraps.iter().map(|wrap| (wrap.statement().audience, Some(wrap.statement())));
        for ((audience, wrap), outcome) in audiences.chain(wraps).zip(outcomes) {
            match outcome {
                Publication::Stored | Publication::Known | Publication::Superseded => {
                    // Not where keys of a later epoch are owed by now.
                    let told = wrap.filter(|wrap| {
                        owed.get(&audience).and_then(|members| members.get(&wrap.member)) == Some(&wrap.epoch)
                    });
                    if let (Some(wrap), Some(members)) = (told, owed.get_mut(&audience)) {
                        members.remove(&wrap.member);
                    }
                }
                refused => {
                    tracing::error!(%audience, ?refused, "a super-peer refused keys of restricted files");
                }
            }
        }
        owed.retain(|_, members| !members.is_empty());
    }

    /// Reads what is owed, in messages that fit.
    async fn key_pages(self: &Arc<Self>, owed: Owed) -> Vec<KeyPage> {
        let blocking = self.clone();
        match tokio::task::spawn_blocking(move || blocking.read_key_pages(&owed)).await {
            Ok(Ok(pages)) => pages,
            Ok(Err(error)) => {
                tracing::error!(%error, "the keys of restricted files could not be read");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn read_key_pages(&self, owed: &Owed) -> Result<Vec<KeyPage>, DatabaseError> {
        let (trust, owner) = (&self.identity.trust, &self.identity.keys.identity);
        let mut pages = Pages::default();
        for (id, members) in owed {
            let Some(own) = self.database.own_audience(id)? else { continue };
            let stated = match own.audience.sign(trust, owner) {
                Ok(stated) => stated,
                Err(error) => {
                    tracing::error!(%error, audience = %id, "an own audience cannot be signed");
                    continue;
                }
            };
            pages.audience(stated);
            for member in members.keys() {
                let Some(signed) = self.database.wrap(id, member)? else { continue };
                match Wrap::verify(signed, trust) {
                    Ok(wrap) => pages.wrap(wrap),
                    Err(error) => {
                        tracing::error!(%error, audience = %id, "a wrap in the database is not genuine");
                    }
                }
            }
        }
        Ok(pages.0)
    }
}

/// Keys that are published together.
#[derive(Debug, Default)]
struct KeyPage {
    audiences: Vec<Stated<Audience>>,
    wraps: Vec<Stated<Wrap>>,
    bytes: usize,
}

impl KeyPage {
    fn request(&self) -> Request {
        Request::PublishKeys {
            audiences: self.audiences.iter().map(|stated| stated.signed().clone()).collect(),
            wraps: self.wraps.iter().map(|wrap| wrap.signed().clone()).collect(),
        }
    }

    fn has_room(&self, size: usize) -> bool {
        self.bytes + size <= PAGE_FILL_BYTES
            && self.audiences.len() < AUDIENCES_PAGE_ENTRIES
            && self.wraps.len() < RECORD_PAGE_ENTRIES
    }
}

/// Fills pages in order, so that an audience comes before or with its wraps.
#[derive(Debug, Default)]
struct Pages(Vec<KeyPage>);

impl Pages {
    fn audience(&mut self, stated: Stated<Audience>) {
        let page = self.page(size_of(stated.signed()));
        page.audiences.push(stated);
    }

    fn wrap(&mut self, wrap: Stated<Wrap>) {
        let page = self.page(size_of(wrap.signed()));
        page.wraps.push(wrap);
    }

    fn page(&mut self, size: usize) -> &mut KeyPage {
        if self.0.last().is_none_or(|page| !page.has_room(size)) {
            self.0.push(KeyPage::default());
        }
        let page = self.0.last_mut().expect("there is one now");
        page.bytes += size;
        page
    }
}

fn size_of<T: serde::Serialize>(signed: &T) -> usize {
    cbor::to_vec(signed).len()
}
