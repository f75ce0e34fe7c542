use std::time::{Duration, Instant};

use libp2p::{PeerId, identity::Keypair};
use proptest::prelude::*;
use quarta_protocols::{
    content::ContentKey,
    credentials::Trust,
    ids::{ContentId, FileId, Sha256},
    messages::handover::{Refusal, Request},
    names::{FileName, MemberName},
    records::{Access, Body, CANDIDATES_MAX, Entry, Origin, Record, State},
    signing::Signed,
};

use super::{
    asking::{ASK_AGAIN_MAX, Asking, Heard, Next, UNREACHED_MAX},
    draw::{Branch, candidates, draw, is_fair},
    taking::{Offered, consider, free_name},
};

fn seeded(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    seeded(seed).public().to_peer_id()
}

fn file(seed: u64) -> FileId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    FileId::from_bytes(bytes)
}

/// Branches 1 and on; those that answer, hold the file and may read it by the bits given.
fn branches(bits: &[(bool, bool, bool)]) -> Vec<Branch> {
    let branch = |(at, (online, holds, may_read)): (usize, &(bool, bool, bool))| Branch {
        peer: peer(u8::try_from(at + 1).unwrap()),
        online: *online,
        holds: *holds,
        may_read: *may_read,
    };
    bits.iter().enumerate().map(branch).collect()
}

fn any_branches() -> impl Strategy<Value = Vec<Branch>> {
    prop::collection::vec(any::<(bool, bool, bool)>(), 0..24).prop_map(|bits| branches(&bits))
}

proptest! {
    #[test]
    fn a_file_is_drawn_among_those_that_may_read_it_and_holders_go_first(
        branches in any_branches(), seed: u64, place in 0u32..64,
        refused in prop::collection::hash_set(1u8..24, 0..6),
    ) {
        let refused: Vec<PeerId> = refused.into_iter().map(peer).collect();
        let listed = candidates(&file(seed), place, &branches, &refused);
        let of = |peer: &PeerId| branches.iter().find(|branch| branch.peer == *peer).unwrap();
        prop_assert!(listed.len() <= CANDIDATES_MAX);
        for peer in &listed {
            prop_assert!(of(peer).online && of(peer).may_read && !refused.contains(peer));
        }
        let able = |branch: &&Branch| branch.online && branch.may_read && !refused.contains(&branch.peer);
        let holders = branches.iter().filter(able).filter(|branch| branch.holds).count();
        if holders > 0 {
            prop_assert!(listed.iter().all(|peer| of(peer).holds));
            prop_assert_eq!(listed.len(), holders.min(CANDIDATES_MAX));
        }
        prop_assert_eq!(listed.is_empty(), branches.iter().filter(able).count() == 0, "lost only where nobody can have it");
        prop_assert_eq!(draw(&file(seed), place, &listed), listed.first().copied());
    }

    #[test]
    fn the_draw_is_the_same_in_any_order_and_stays_when_somebody_else_drops_out(
        count in 2usize..16, seed: u64, place in 0u32..64, rotate in 0usize..16, out in 0usize..16,
    ) {
        let mut peers: Vec<PeerId> = (1..=u8::try_from(count).unwrap()).map(peer).collect();
        let drawn = draw(&file(seed), place, &peers).unwrap();
        peers.rotate_left(rotate % count);
        prop_assert_eq!(draw(&file(seed), place, &peers), Some(drawn));
        let gone = peers.remove(out % count);
        if gone != drawn {
            prop_assert_eq!(draw(&file(seed), place, &peers), Some(drawn));
        }
    }

    #[test]
    fn two_leavers_that_pick_each_other_both_go_on_to_somebody_else_or_say_so(
        seed: u64, others in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        // Branches 1 and 2 leave and refuse; each holds the other's file.
        let mut bits = vec![(true, true, true); 2];
        bits.extend(others.iter().map(|holds| (true, *holds, true)));
        for leaver in [1, 2] {
            let rest: Vec<Branch> =
                branches(&bits).into_iter().filter(|branch| branch.peer != peer(leaver)).collect();
            let mut refused = Vec::new();
            let mut asked = 0;
            while let Some(drawn) = candidates(&file(seed), 0, &rest, &refused).first().copied() {
                asked += 1;
                if drawn != peer(1) && drawn != peer(2) {
                    break;
                }
                refused.push(drawn);
            }
            prop_assert!(asked <= 2);
            let left = candidates(&file(seed), 0, &rest, &refused);
            prop_assert_eq!(left.is_empty(), others.is_empty());
        }
    }
}

#[test]
fn many_files_are_spread_evenly_over_the_candidates() {
    let peers: Vec<PeerId> = (1..=8).map(peer).collect();
    let mut counts = [0u32; 8];
    for seed in 0..8000 {
        let drawn = draw(&file(seed), 0, &peers).unwrap();
        counts[peers.iter().position(|peer| *peer == drawn).unwrap()] += 1;
    }
    // 1000 each on average, with a standard deviation of 30.
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

struct World {
    root: Keypair,
    trust: Trust,
}

fn world() -> World {
    let root = seeded(200);
    let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
    World { root, trust }
}

impl World {
    /// Member 1's file.
    fn record(&self, revision: u64, name: Option<&str>) -> Record {
        let origin = Origin { owner: peer(1), nonce: [3; 16].into() };
        let state = name.map_or(State::Deleted, |name| {
            State::Present(Entry {
                name: FileName::new(name).unwrap(),
                size_bytes: 3,
                content: ContentId::from_bytes([9; 32]),
                manifest: None,
                access: Access::Open {
                    key: ContentKey::from_bytes([1; 32]),
                    sha256: Sha256::from_bytes([2; 32]),
                    media_type: None,
                },
            })
        });
        let file = origin.file_id(&self.trust.network);
        let body = Body { file, origin, links: Vec::new(), revision, state };
        Record::sign(&body, &self.trust, &seeded(1)).unwrap()
    }

    fn offer(&self, record: &Record, by: &Keypair, to: u8, by_root: bool) -> Request {
        let link = record.link_to(peer(to), by_root, Vec::new());
        let link = Signed::new(&link, &self.trust.network, by);
        Request { record: record.signed().clone(), link, rule: None }
    }

    fn take(&self, request: &Request, known: Option<&Record>, own: u8) -> Result<Record, Refusal> {
        match consider(request, known, &seeded(own), &self.trust)? {
            Offered::Taken(signed) => Ok(Record::verify(signed, &self.trust).unwrap()),
            Offered::Open(offer) => {
                offer.sign(offer.record().entry().unwrap().clone(), &seeded(own), &self.trust)
            }
        }
    }
}

#[test]
fn who_takes_a_file_owns_it_and_says_the_same_when_asked_again() {
    let w = world();
    let first = w.record(3, Some("plano.csv"));
    let offer = w.offer(&first, &seeded(1), 2, false);
    let taken = w.take(&offer, Some(&first), 2).unwrap();
    assert_eq!(taken.owner(), peer(2));
    assert!(taken.supersedes(&first) && taken.carries(&offer.link) && !first.carries(&offer.link));
    assert_eq!(taken.body().revision, 4);
    let again = consider(&offer, Some(&taken), &seeded(2), &w.trust);
    assert_eq!(again, Ok(Offered::Taken(taken.signed().clone())));
    // Also once it has given the file on.
    let on = w.offer(&taken, &seeded(2), 3, false);
    let third = w.take(&on, None, 3).unwrap();
    let again = consider(&offer, Some(&third), &seeded(2), &w.trust);
    assert_eq!(again, Ok(Offered::Taken(third.signed().clone())));
}

#[test]
fn the_latest_revision_known_is_what_is_taken_over() {
    let w = world();
    let (old, new) = (w.record(1, Some("plano.csv")), w.record(2, Some("plano 2.csv")));
    let taken = w.take(&w.offer(&old, &seeded(1), 2, false), Some(&new), 2).unwrap();
    assert_eq!(taken.entry().unwrap().name.as_str(), "plano 2.csv");
    assert!(taken.supersedes(&new));
}

#[test]
fn nobody_gets_a_file_from_somebody_who_does_not_own_it() {
    let w = world();
    let record = w.record(1, Some("plano.csv"));
    // A stranger's signature, the root's without saying so, a claim to be the root.
    for (by, by_root) in [(seeded(3), false), (w.root.clone(), false), (seeded(1), true), (seeded(3), true)] {
        let offer = w.offer(&record, &by, 2, by_root);
        assert_eq!(w.take(&offer, None, 2), Err(Refusal::Invalid));
    }
    // For somebody else, and one's own file.
    assert_eq!(w.take(&w.offer(&record, &seeded(1), 3, false), None, 2), Err(Refusal::Invalid));
    assert_eq!(w.take(&w.offer(&record, &seeded(1), 1, false), None, 1), Err(Refusal::Invalid));
    // A link to somebody who was not drawn among those that it lists.
    let listed: Vec<PeerId> = [2, 3, 4].map(peer).to_vec();
    let drawn = draw(&record.file(), 0, &listed).unwrap();
    for to in [2, 3, 4] {
        let statement = record.link_to(peer(to), false, listed.clone());
        assert_eq!(is_fair(&statement), peer(to) == drawn);
        let link = Signed::new(&statement, &w.trust.network, &seeded(1));
        let offer = Request { record: record.signed().clone(), link, rule: None };
        assert_eq!(w.take(&offer, None, to).is_ok(), peer(to) == drawn);
    }
}

#[test]
fn a_file_that_went_elsewhere_or_was_deleted_is_not_taken() {
    let w = world();
    let record = w.record(1, Some("plano.csv"));
    let elsewhere = w.take(&w.offer(&record, &seeded(1), 3, false), None, 3).unwrap();
    let late = w.offer(&record, &seeded(1), 2, false);
    assert_eq!(w.take(&late, Some(&elsewhere), 2), Err(Refusal::Outdated));
    assert_eq!(w.take(&late, Some(&w.record(2, None)), 2), Err(Refusal::Outdated));
}

#[test]
fn the_root_assigns_what_a_member_left_behind() {
    let w = world();
    let record = w.record(1, Some("plano.csv"));
    let taken = w.take(&w.offer(&record, &w.root, 2, true), Some(&record), 2).unwrap();
    assert!(taken.owner() == peer(2) && taken.links()[0].0.by_root);
}

#[test]
fn a_name_that_the_next_owner_has_given_already_is_marked_with_whose_the_file_was() {
    let name = |text: &str| FileName::new(text).unwrap();
    let from = MemberName::new("filial-recife").unwrap();
    let taken = |names: &'static [&'static str]| move |name: &FileName| names.contains(&name.as_str());
    let free = |wanted: &str, names| free_name(&name(wanted), &from, taken(names)).unwrap().to_string();
    assert_eq!(free("fotos/praia.jpg", &[]), "fotos/praia.jpg");
    assert_eq!(free("fotos/praia.jpg", &["fotos/praia.jpg"]), "fotos/praia (filial-recife).jpg");
    let both: &[&str] = &["fotos/praia.jpg", "fotos/praia (filial-recife).jpg"];
    assert_eq!(free("fotos/praia.jpg", both), "fotos/praia (filial-recife 2).jpg");
    assert_eq!(free("LEIAME", &["LEIAME"]), "LEIAME (filial-recife)");
    let long: &'static str = Box::leak(format!("{}.txt", "ã".repeat(98)).into_boxed_str());
    let shortened = free(long, Box::leak(vec![long].into_boxed_slice()));
    assert!(shortened.ends_with(" (filial-recife).txt"), "{shortened}");
    assert_eq!(free_name(&name("a"), &from, |_| true), None);
}

#[test]
fn who_fetches_is_waited_for_as_long_as_it_moves_on() {
    let (start, patience) = (Instant::now(), Duration::from_secs(30));
    let mut asking = Asking::new(start, Some(patience));
    for minute in 1..100u32 {
        let now = start + Duration::from_secs(20) * minute;
        let next = asking.heard(now, Heard::Fetching { have_bytes: u64::from(minute) });
        assert!(matches!(next, Next::Ask(pause) if pause <= ASK_AGAIN_MAX));
    }
    let stopped = start + Duration::from_secs(20) * 99;
    let still = Heard::Fetching { have_bytes: 99 };
    assert!(matches!(asking.heard(stopped + patience / 2, still), Next::Ask(_)));
    assert_eq!(asking.heard(stopped + patience, still), Next::Stalled);
    assert_eq!(asking.heard(stopped + patience, Heard::Taken), Next::Done);
}

#[test]
fn what_passes_is_waited_for_and_what_does_not_ends_it() {
    let now = Instant::now();
    for refusal in
        [Refusal::Invalid, Refusal::Outdated, Refusal::MayNotRead, Refusal::Leaving, Refusal::Declined]
    {
        assert_eq!(Asking::new(now, None).heard(now, Heard::Refused(refusal)), Next::Refused(refusal));
    }
    let mut asking = Asking::new(now, None);
    for _ in 0..100 {
        for heard in [Heard::Refused(Refusal::Busy), Heard::Refused(Refusal::Unavailable), Heard::Unreached] {
            let next = asking.heard(now + Duration::from_hours(1000), heard);
            assert!(matches!(next, Next::Ask(pause) if pause <= UNREACHED_MAX));
        }
    }
    assert!(!asking.is_reached());
}
