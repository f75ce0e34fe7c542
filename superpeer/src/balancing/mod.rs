//! From whom to fetch: sources in order, with the share of the bytes that each should carry.
//!
//! Sources are ranked by the time in which they are expected to have sent their part: round trip, then what they have
//! to send already, then the part itself, at the rate they can send. Among near-equals two are drawn at random and the
//! one that was assigned less lately is taken, so that holders share the load evenly and are not herded upon, whether
//! or not anybody reports.
//!
//! What is known comes from three sides that disagree at times: what a node says of itself (load, capacity), what
//! fetchers report (bytes, time, faults), and what was assigned here (*leases*: bytes that a source was chosen for, until
//! they are reported or run out). A node is believed until it is seen to fall well short of its word. A fetcher's word
//! about a fault counts for that fetcher, and for everybody only where another says the same; its measurement alone moves
//! a source within bounds.

mod capacity;
mod faults;
mod leases;
mod round_trips;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{
    content::{CHUNK_MIN_BYTES, FILE_MAX_BYTES},
    ids::ContentId,
    limits::SOURCES_MAX,
    messages::{index::SourceOutcome, inventory::Completeness, poll::Load},
};
use rand::{Rng, RngExt, seq::SliceRandom};

use capacity::Goodput;
use faults::{Faults, Standing};
use leases::{LEASE_MAX, LeaseKey, Leases, Recent};
use round_trips::RoundTrips;

/// Candidates that are compared; of more, that many are drawn. Choosing among some hundred is as good as among all.
const COMPARED_MAX: usize = 256;
/// Sources whose expected times differ by less than this factor count as equal.
const NEAR_EQUAL: f64 = 1.5;
/// What a fetch takes beside round trip and bytes, in seconds: without it, differences of a millisecond would rank.
const OVERHEAD_SECONDS: f64 = 0.01;
/// For how long a node's word on its load counts.
const LOAD_FRESH: Duration = Duration::from_mins(1);
/// How much a partial holder counts against a complete one at the same rate: which part it has is not known here.
const PARTIAL_SHARE: f64 = 0.5;
/// All weights together.
const WEIGHTS: f64 = 1000.0;

/// Who wants what.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks; never offered to itself.
    pub asker: PeerId,
    /// The content.
    pub content: ContentId,
    /// How much of it is wanted, in bytes. At most [`FILE_MAX_BYTES`] count.
    pub wanted_bytes: u64,
    /// Not these.
    pub except: &'a [PeerId],
}

/// An available holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The holder.
    pub peer: PeerId,
    /// How much it holds.
    pub completeness: Completeness,
}

/// A chosen source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranked {
    /// The source.
    pub peer: PeerId,
    /// The share of the bytes it should carry, in thousandths; 0 for one in reserve.
    pub weight: u32,
    /// Whether it holds everything.
    pub complete: bool,
}

/// What a member was chosen for and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The member.
    pub peer: PeerId,
    /// Bytes under leases that have not run out.
    pub leased_bytes: u64,
    /// Bytes that fetchers reported to have got from it.
    pub served_bytes: u64,
}

/// What is known of every member as a source. Holds a bounded amount for each member, until it is forgotten.
#[derive(Debug, Default)]
pub struct Balancer {
    members: HashMap<PeerId, Member>,
    leases: Leases,
}

#[derive(Debug, Default)]
struct Member {
    load: Option<Reported>,
    round_trips: RoundTrips,
    goodput: Goodput,
    faults: Faults,
    recent: Recent,
    served_bytes: u64,
}

/// A load as reported, without what was assigned here: that is known better, and newer.
#[derive(Debug, Clone, Copy)]
struct Reported {
    at: Instant,
    load: Load,
    /// Uploads that no lease of that time explains.
    foreign_uploads: u32,
}

/// In which order kinds of sources are taken, whatever their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Good,
    /// Holds a part, where one chunk is wanted: most likely another.
    PartOfOne,
    /// Has no upload slot left.
    Full,
    /// Has just begun to fetch it: nothing yet, and a part soon. Without its like, receivers that begin together would
    /// not hear of each other.
    Begun,
    /// Several had trouble with it.
    Last,
    LastResort,
}

#[derive(Debug, Clone, Copy)]
struct Scored {
    candidate: Candidate,
    class: Class,
    /// What it can send to this asker, in bytes a second.
    rate: f64,
    leased_bytes: f64,
    /// In which it is expected to have sent its part.
    seconds: f64,
    /// For how long it was kept busy lately, in seconds.
    recent_seconds: f64,
}

impl Balancer {
    /// Takes in what a node says about its load.
    pub fn load(&mut self, now: Instant, peer: PeerId, load: Load) {
        self.leases.expire(now);
        let foreign_uploads = load.active_uploads.saturating_sub(self.leases.outstanding(&peer).leases);
        self.members.entry(peer).or_default().load = Some(Reported { at: now, load, foreign_uploads });
    }

    /// Takes in a member's round trip; the shortest of the last few ranks it.
    pub fn round_trip(&mut self, peer: PeerId, round_trip: Duration) {
        self.members.entry(peer).or_default().round_trips.add(round_trip);
    }

    /// Forgets a member that is none any more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.members.remove(peer);
        self.leases.forget(peer);
    }

    /// Chooses at most [`SOURCES_MAX`] sources, best first, and records what they are expected to send.
    ///
    /// `candidates` names each available holder once. Weights add up to 1000, less what rounding takes from each.
    pub fn locate(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        candidates: impl IntoIterator<Item = Candidate>,
        rng: &mut impl Rng,
    ) -> Vec<Ranked> {
        self.leases.expire(now);
        let wanted_bytes = request.wanted_bytes.min(FILE_MAX_BYTES);
        let possible = |candidate: &Candidate| {
            candidate.peer != request.asker && !request.except.contains(&candidate.peer)
        };
        let mut candidates: Vec<Candidate> = candidates.into_iter().filter(possible).collect();
        if candidates.len() > COMPARED_MAX {
            candidates = candidates.partial_shuffle(rng, COMPARED_MAX).0.to_vec();
        }
        let scored = self.score(now, request, wanted_bytes, &candidates);
        let chosen = choose(scored, rng);
        let shares = shares(&chosen, wanted_bytes);
        for (source, share) in chosen.iter().zip(&shares) {
            self.assign(now, request, source, wanted_bytes as f64 * share);
        }
        let ranked = |(source, share): (&Scored, &f64)| Ranked {
            peer: source.candidate.peer,
            weight: whole(WEIGHTS * share).try_into().unwrap_or(0),
            complete: source.candidate.completeness == Completeness::Complete,
        };
        chosen.iter().zip(&shares).map(ranked).collect()
    }

    fn score(
        &self,
        now: Instant,
        request: &Request<'_>,
        wanted_bytes: u64,
        candidates: &[Candidate],
    ) -> Vec<Scored> {
        let members: Vec<Option<&Member>> =
            candidates.iter().map(|candidate| self.members.get(&candidate.peer)).collect();
        let known = members.iter().map(|member| {
            member.map(|member| {
                let load = member.load.map(|reported| reported.load);
                (load.and_then(|load| load.upload_capacity_bytes_per_second), &member.goodput)
            })
        });
        let capacities = capacity::capacities(now, &request.asker, known);
        let part = wanted_bytes as f64 / useful(candidates.len(), wanted_bytes) as f64;
        let mut scored: Vec<Scored> = candidates
            .iter()
            .zip(members)
            .zip(capacities)
            .filter_map(|((candidate, member), capacity)| {
                self.score_one(now, request, part, *candidate, member, capacity)
            })
            .collect();
        // Somebody's word must not make a file unreachable: wrong bytes are found by the fetcher, chunk by chunk.
        if scored.iter().any(|source| source.class != Class::LastResort) {
            scored.retain(|source| source.class != Class::LastResort);
        }
        scored
    }

    fn score_one(
        &self,
        now: Instant,
        request: &Request<'_>,
        part: f64,
        candidate: Candidate,
        member: Option<&Member>,
        capacity: f64,
    ) -> Option<Scored> {
        let standing = member.map_or(Standing::Good(1.0), |member| {
            member.faults.standing(now, &request.asker, &request.content)
        });
        let outstanding = self.leases.outstanding(&candidate.peer);
        let reported = member
            .and_then(|member| member.load)
            .filter(|reported| now.saturating_duration_since(reported.at) < LOAD_FRESH);
        let one_chunk = request.wanted_bytes <= CHUNK_MIN_BYTES;
        let partial = candidate.completeness != Completeness::Complete;
        let (class, penalty) = match standing {
            Standing::Excluded => return None,
            Standing::LastResort => (Class::LastResort, 1.0),
            Standing::Last => (Class::Last, 1.0),
            Standing::Good(penalty) if candidate.completeness == Completeness::Partial(0) => {
                (Class::Begun, penalty)
            }
            Standing::Good(penalty) if reported.is_some_and(|r| r.is_full(outstanding.leases)) => {
                (Class::Full, penalty)
            }
            Standing::Good(penalty) if partial && one_chunk => (Class::PartOfOne, penalty),
            Standing::Good(penalty) => (Class::Good, penalty),
        };
        let free = reported.map_or(1.0, |reported| reported.free_share(capacity));
        let rate = (capacity * free * if partial { PARTIAL_SHARE } else { 1.0 }).max(1.0);
        let leased_bytes = outstanding.bytes as f64;
        let round_trip = member.and_then(|member| member.round_trips.shortest()).unwrap_or_default();
        let seconds = round_trip.as_secs_f64() + OVERHEAD_SECONDS + (leased_bytes + part) / rate;
        let recent_seconds = member.map_or(0.0, |member| member.recent.at(now)) / capacity;
        Some(Scored { candidate, class, rate, leased_bytes, seconds: seconds * penalty, recent_seconds })
    }

    /// Records what a source was chosen for.
    fn assign(&mut self, now: Instant, request: &Request<'_>, source: &Scored, bytes: f64) {
        // Nobody can make a source look busier than it could be for the longest lease.
        let bytes = whole(bytes.min(source.rate * LEASE_MAX.as_secs_f64()));
        if bytes == 0 {
            return;
        }
        let (asker, content, source_id) = (request.asker, request.content, source.candidate.peer);
        let seconds = ((source.leased_bytes + bytes as f64) / source.rate).min(LEASE_MAX.as_secs_f64());
        let key = LeaseKey { asker, content, source: source_id };
        self.leases.add(now, key, bytes, Duration::from_secs_f64(seconds));
        self.members.entry(source_id).or_default().recent.add(now, bytes);
    }

    /// Takes in what the sources of a fetch did. Words about oneself and about unknown members do not count.
    pub fn report(&mut self, now: Instant, reporter: PeerId, content: ContentId, outcomes: &[SourceOutcome]) {
        for outcome in outcomes.iter().take(SOURCES_MAX).filter(|outcome| outcome.peer != reporter) {
            let fetches = self.leases.end(&LeaseKey { asker: reporter, content, source: outcome.peer });
            let Some(member) = self.members.get_mut(&outcome.peer) else { continue };
            let bytes = outcome.bytes.min(FILE_MAX_BYTES);
            member.served_bytes = member.served_bytes.saturating_add(bytes);
            member.goodput.add(now, reporter, bytes, Duration::from_millis(outcome.busy_ms), fetches);
            match outcome.fault {
                Some(fault) => member.faults.add(now, reporter, content, fault),
                None if bytes > 0 => member.faults.forgive(reporter),
                None => {}
            }
        }
    }

    /// What every member was chosen for and did, in no order.
    pub fn shares(&mut self, now: Instant) -> impl Iterator<Item = Share> {
        self.leases.expire(now);
        self.members.iter().map(|(peer, member)| Share {
            peer: *peer,
            leased_bytes: self.leases.outstanding(peer).bytes,
            served_bytes: member.served_bytes,
        })
    }
}

impl Reported {
    /// Whether no upload slot is left, with what has been assigned or ended since.
    const fn is_full(&self, leases: u32) -> bool {
        let slots = self.load.upload_slots;
        slots > 0 && self.load.active_uploads >= slots && self.foreign_uploads.saturating_add(leases) >= slots
    }

    /// The share of its capacity that a further upload would get beside those that were not assigned here: what is
    /// unused, or an equal part.
    fn free_share(&self, capacity: f64) -> f64 {
        if self.foreign_uploads == 0 {
            return 1.0;
        }
        let foreign = f64::from(self.foreign_uploads) / f64::from(self.load.active_uploads);
        let used = self.load.upload_rate_bytes_per_second as f64 * foreign / capacity;
        (1.0 - used).max(1.0 / (1.0 + f64::from(self.foreign_uploads)))
    }
}

/// How many sources a fetch can make use of: none carries less than a chunk.
fn useful(sources: usize, wanted_bytes: u64) -> usize {
    let chunks = usize::try_from(wanted_bytes / CHUNK_MIN_BYTES).unwrap_or(usize::MAX);
    chunks.clamp(1, sources.clamp(1, SOURCES_MAX))
}

/// Draws sources, best class first: of two random near-equals of the fastest, the one assigned less lately.
fn choose(mut rest: Vec<Scored>, rng: &mut impl Rng) -> Vec<Scored> {
    let mut chosen = Vec::with_capacity(rest.len().min(SOURCES_MAX));
    while chosen.len() < SOURCES_MAX
        && let Some(class) = rest.iter().map(|source| source.class).min()
    {
        let of_class = || rest.iter().enumerate().filter(|(_, source)| source.class == class);
        let fastest = of_class().map(|(_, source)| source.seconds).fold(f64::INFINITY, f64::min);
        let near: Vec<usize> = of_class()
            .filter(|(_, source)| source.seconds <= fastest * NEAR_EQUAL)
            .map(|(place, _)| place)
            .collect();
        let one = rng.random_range(0..near.len());
        let other = (one + rng.random_range(1..near.len().max(2))) % near.len();
        let (one, other) = (near[one], near[other]);
        let less = if rest[other].recent_seconds < rest[one].recent_seconds { other } else { one };
        chosen.push(rest.swap_remove(less));
    }
    chosen
}

/// The part of the bytes that each source should carry so that all end at the same time; adds up to 1.
///
/// As water fills vessels of different depth: time rises, and a source takes part from when what it has to send already
/// would be sent.
fn shares(chosen: &[Scored], wanted_bytes: u64) -> Vec<f64> {
    let mut shares = vec![0.0; chosen.len()];
    let Some(best) = chosen.first() else { return shares };
    let count = useful(chosen.len(), wanted_bytes);
    if count == 1 {
        shares[0] = 1.0;
        return shares;
    }
    let wanted = wanted_bytes as f64;
    let backlog = |place: usize| chosen[place].leased_bytes / chosen[place].rate;
    let mut places: Vec<usize> = (0..count).filter(|place| chosen[*place].class == best.class).collect();
    places.sort_by(|a, b| backlog(*a).total_cmp(&backlog(*b)));
    let (mut bytes, mut rate, mut taking) = (wanted, 0.0, 0);
    for place in &places {
        if taking > 0 && backlog(*place) * rate >= bytes {
            break;
        }
        bytes += chosen[*place].leased_bytes;
        rate += chosen[*place].rate;
        taking += 1;
    }
    let level = bytes / rate;
    for place in &places[..taking] {
        let carried = (level - backlog(*place)) * chosen[*place].rate;
        shares[*place] = (carried / wanted).clamp(0.0, 1.0);
    }
    shares
}

/// Rounds down.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is never negative"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}
