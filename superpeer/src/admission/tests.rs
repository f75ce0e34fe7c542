//! Invites as issuer, joiner and thief see them.

use std::{sync::Mutex, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};
use quarta_protocols::{
    audit::Action, invites::Invite, keys::SealingSecret, limits::ADDRESSES_MAX, messages::sync::Kind,
    signing::Signed,
};
use tempfile::TempDir;

use super::{invites::KEPT_AFTER_EXPIRY, *};
use crate::catalog::{
    Catalog,
    fixtures::{
        START, START_MS, catalog, departure, empty_catalog, enrolment, key, membership, name, network,
        node_enrolment, peer, revocation, superpeer_credential, trust,
    },
};

const SECRET: [u8; SECRET_BYTES] = [5; SECRET_BYTES];

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn authority() -> Authority {
    Authority::new(key(101), superpeer_credential(101), None)
}

fn root_authority() -> Authority {
    Authority::new(key(101), superpeer_credential(101), Some(key(200)))
}

fn terms(uses: u32) -> Terms {
    Terms { role: Role::Node, uses, expires: START.plus(Duration::from_hours(24)), replaces: None }
}

fn issue(catalog: &mut Catalog, terms: Terms) -> InviteId {
    root_authority().issue(catalog, terms, SECRET, Vec::new(), START).unwrap();
    InviteId::of_secret(&SECRET)
}

fn redemption(joiner: &Keypair, called: &str) -> Redemption {
    Redemption {
        peer: joiner.public().to_peer_id(),
        secret: SECRET,
        name: name(called),
        sealing_key: SealingSecret::from_bytes([9; 32]).statement(&network(), joiner),
    }
}

fn redeem(catalog: &mut Catalog, redemption: Redemption) -> Result<Admitted, Refusal> {
    authority().redeem(catalog, redemption, [1; 16], START).map_err(|error| error.refusal())
}

fn uses_left(catalog: &Catalog) -> u32 {
    list(catalog).unwrap()[0].uses_left
}

#[test]
fn an_invite_makes_a_member_once_and_for_good() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let addresses: Vec<Multiaddr> = vec!["/ip4/192.0.2.1/tcp/4001".parse().unwrap(); ADDRESSES_MAX];
    let invite = authority().issue(&mut catalog, terms(1), SECRET, addresses, START).unwrap();
    let invite = Invite::parse(&invite.to_text()).unwrap();
    assert_eq!((**invite.secret(), invite.issuer), (SECRET, peer(101)));

    let admitted = redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap();
    let member = admitted.credential.verify(&invite.trust().unwrap(), &peer(9), START).unwrap();
    assert_eq!((member.name.as_str(), member.role), ("filial-recife", Role::Node));
    assert_eq!((admitted.entries[0].kind, admitted.membership.peer), (Kind::MEMBER, peer(9)));
    assert_eq!(redeem(&mut catalog, redemption(&key(8), "other")).unwrap_err(), Refusal::InviteUsed);

    // After a crash right behind the answer.
    std::mem::forget(catalog);
    let mut catalog = empty_catalog(dir.path(), 101);
    assert_eq!(catalog.reader().unwrap().member(&peer(9)).unwrap().unwrap().name, name("filial-recife"));
    assert_eq!(redeem(&mut catalog, redemption(&key(8), "other")).unwrap_err(), Refusal::InviteUsed);
    assert_eq!(uses_left(&catalog), 0);
}

#[test]
fn the_same_peer_may_ask_again_and_uses_nothing_up() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(2));
    for _ in 0..3 {
        redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap();
    }
    assert_eq!(uses_left(&catalog), 1);
    redeem(&mut catalog, redemption(&key(8), "filial-olinda")).unwrap();
    redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap();
    assert_eq!(uses_left(&catalog), 0);
    assert_eq!(redeem(&mut catalog, redemption(&key(7), "late")).unwrap_err(), Refusal::InviteUsed);
}

#[test]
fn a_member_is_not_renamed_by_a_request_that_comes_late() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(1));
    redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap();
    let late = redeem(&mut catalog, redemption(&key(9), "filial-olinda"));
    assert_eq!(late.unwrap_err(), Refusal::OtherName);
    let member = catalog.reader().unwrap().member(&peer(9)).unwrap().unwrap();
    assert_eq!(member.name, name("filial-recife"));
}

#[test]
fn a_refusal_uses_nothing_up_and_admits_nobody() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(1));
    let (digest, good) = (catalog.digest(), redemption(&key(9), "filial-recife"));
    let unknown = Redemption { secret: [6; 16], ..good.clone() };
    assert_eq!(redeem(&mut catalog, unknown).unwrap_err(), Refusal::UnknownInvite);
    let taken = Redemption { name: name("filial-1"), ..good.clone() };
    assert_eq!(redeem(&mut catalog, taken).unwrap_err(), Refusal::NameTaken);
    let foreign: Signed<SealingKey> = SealingSecret::from_bytes([9; 32]).statement(&network(), &key(8));
    let foreign = Redemption { sealing_key: foreign, ..good.clone() };
    assert_eq!(redeem(&mut catalog, foreign).unwrap_err(), Refusal::BadSealingKey);
    let late = terms(1).expires;
    let expired = authority().redeem(&mut catalog, good.clone(), [1; 16], late).unwrap_err();
    assert_eq!(expired.refusal(), Refusal::InviteExpired);
    assert_eq!((catalog.digest(), uses_left(&catalog)), (digest, 1));
    redeem(&mut catalog, good).unwrap();
}

#[test]
fn a_withdrawn_invite_is_unknown_and_whom_it_admitted_stays() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let id = issue(&mut catalog, terms(5));
    redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap();
    assert!(withdraw(&mut catalog, &id).unwrap());
    assert!(!withdraw(&mut catalog, &id).unwrap());
    assert_eq!(
        redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap_err(),
        Refusal::UnknownInvite
    );
    assert!(catalog.reader().unwrap().member(&peer(9)).unwrap().is_some());
    assert!(list(&catalog).unwrap().is_empty());
}

#[test]
fn long_expired_invites_are_forgotten_when_the_next_is_issued() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(1));
    let (soon, late) =
        (terms(1).expires.plus(Duration::from_hours(1)), terms(1).expires.plus(KEPT_AFTER_EXPIRY * 2));
    for (secret, now, listed) in [([1; 16], soon, 2), ([2; 16], late, 1)] {
        let terms = Terms { expires: now.plus(Duration::from_hours(1)), ..terms(1) };
        authority().issue(&mut catalog, terms, secret, Vec::new(), now).unwrap();
        assert_eq!(list(&catalog).unwrap().len(), listed);
    }
}

#[test]
fn of_many_that_redeem_one_invite_at_once_exactly_one_wins() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(1));
    let catalog = Mutex::new(catalog);
    let winners: Vec<PeerId> = std::thread::scope(|scope| {
        let joiners: Vec<_> = (10..30)
            .map(|seed| {
                let catalog = &catalog;
                scope.spawn(move || {
                    let redemption = redemption(&key(seed), &format!("joiner-{seed}"));
                    redeem(&mut catalog.lock().unwrap(), redemption)
                        .ok()
                        .map(|admitted| admitted.membership.peer)
                })
            })
            .collect();
        joiners.into_iter().filter_map(|joiner| joiner.join().unwrap()).collect()
    });
    assert_eq!(winners.len(), 1);
    let catalog = catalog.into_inner().unwrap();
    assert_eq!((uses_left(&catalog), catalog.count(Kind::MEMBER)), (0, 7));
}

#[test]
fn even_two_writers_on_one_database_admit_one_peer_only() {
    let dir = folder();
    let mut first = catalog(dir.path(), 101);
    issue(&mut first, terms(1));
    let second = empty_catalog(dir.path(), 101);
    let admitted: usize = std::thread::scope(|scope| {
        let racers = [(first, 10..20), (second, 20..30)].map(|(mut catalog, seeds)| {
            scope.spawn(move || {
                let admits = |seed: u8| {
                    redeem(&mut catalog, redemption(&key(seed), &format!("joiner-{seed}"))).is_ok()
                };
                seeds.map(admits).filter(|admitted| *admitted).count()
            })
        });
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1);
}

#[test]
fn an_admission_that_cannot_be_stored_is_not_given_out() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, terms(1));
    let (digest, left) = (catalog.digest(), uses_left(&catalog));
    // The last write of the transaction fails, when the use is counted and the entry is in.
    let fault = "CREATE TEMP TRIGGER fault BEFORE INSERT ON members BEGIN SELECT RAISE (ABORT, 'fault'); END";
    catalog.connection().execute_batch(fault).unwrap();
    let refused = redeem(&mut catalog, redemption(&key(9), "filial-recife")).unwrap_err();
    assert_eq!(refused, Refusal::Unavailable);
    assert_eq!((catalog.digest(), uses_left(&catalog)), (digest, left));
    assert!(catalog.reader().unwrap().member(&peer(9)).unwrap().is_none());
    catalog.connection().execute_batch("DROP TRIGGER fault").unwrap();
    // The use is still there, for anybody.
    redeem(&mut catalog, redemption(&key(8), "filial-olinda")).unwrap();
}

#[test]
fn a_superpeer_whose_own_credential_has_ended_admits_nobody() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let end = membership(101).expires;
    let terms = Terms { expires: end.plus(Duration::from_hours(24)), ..terms(1) };
    issue(&mut catalog, terms);
    let error = authority().redeem(&mut catalog, redemption(&key(9), "late"), [1; 16], end).unwrap_err();
    assert!(matches!(&error, AdmissionError::CannotIssue(_)), "{error}");
    assert_eq!((error.refusal(), uses_left(&catalog)), (Refusal::Unavailable, 1));
}

#[test]
fn nothing_printed_holds_a_secret_key() {
    assert_eq!(format!("{:?}", root_authority()), "Authority { holds_root: true, .. }");
}

fn superpeer_terms() -> Terms {
    Terms { role: Role::Superpeer, ..terms(1) }
}

fn wanting(catalog: &Catalog) -> Vec<String> {
    let waiting = candidates(catalog, START).unwrap();
    waiting.into_iter().map(|candidate| candidate.name.to_string()).collect()
}

#[test]
fn where_the_root_key_lies_a_super_peers_invite_is_approval_enough() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    issue(&mut catalog, superpeer_terms());
    let admitted =
        root_authority().redeem(&mut catalog, redemption(&key(103), "sp3"), [1; 16], START).unwrap();
    assert_eq!((admitted.membership.role, admitted.membership.issuer), (Role::Superpeer, None));
    assert!(admitted.credential.verify(&trust(), &peer(103), START).is_ok());
    assert!(wanting(&catalog).is_empty());
}

#[test]
fn elsewhere_a_super_peer_waits_until_the_roots_holder_approves_it() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    authority().issue(&mut catalog, superpeer_terms(), SECRET, Vec::new(), START).unwrap();
    for _ in 0..2 {
        let refused = redeem(&mut catalog, redemption(&key(103), "sp3")).unwrap_err();
        assert_eq!(refused, Refusal::AwaitingApproval);
    }
    assert_eq!((wanting(&catalog), uses_left(&catalog)), (vec!["sp3".to_owned()], 0));
    assert!(catalog.reader().unwrap().member(&peer(103)).unwrap().is_none());
    let other = redeem(&mut catalog, redemption(&key(105), "sp4")).unwrap_err();
    assert_eq!(other, Refusal::InviteUsed, "its use is taken");

    let (called, late) = (name("sp3"), terms(1).expires.plus(Duration::from_hours(1)));
    let here = authority().approve(&mut catalog, &called, None, [2; 16], late).unwrap_err();
    assert_eq!(here.refusal(), Refusal::NotTheRoot);
    let signed = |by: u8, called: &str| {
        let name = name(called);
        let grant =
            Grant { peer: peer(103), name: &name, role: Role::Superpeer, now: late, token_id: [2; 16] };
        Credential::issue_by_root(&key(by), &network(), &grant)
    };
    let approve = |catalog: &mut Catalog, credential: Credential| {
        authority().approve(catalog, &called, Some(credential), [2; 16], late)
    };
    assert!(matches!(approve(&mut catalog, signed(9, "sp3")), Err(AdmissionError::BadCredential(_))));
    assert!(matches!(approve(&mut catalog, signed(200, "king")), Err(AdmissionError::OtherGrant)));
    assert_eq!(wanting(&catalog), ["sp3"]);
    let approved = approve(&mut catalog, signed(200, "sp3")).unwrap();
    assert_eq!((approved.membership.peer, approved.entries.len()), (peer(103), 2));
    assert!(matches!(approve(&mut catalog, signed(200, "sp5")), Err(AdmissionError::OtherGrant)));

    // It asks again, after the invite's end by now, and again because the answer got lost.
    for _ in 0..2 {
        let admitted = authority().redeem(&mut catalog, redemption(&key(103), "sp3"), [3; 16], late).unwrap();
        assert_eq!(admitted.credential, signed(200, "sp3"));
        assert!(admitted.entries.is_empty());
    }
}

#[test]
fn approval_with_the_root_key_at_hand_needs_nothing_but_the_name() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    authority().issue(&mut catalog, superpeer_terms(), SECRET, Vec::new(), START).unwrap();
    redeem(&mut catalog, redemption(&key(103), "sp3")).unwrap_err();
    let nobody = root_authority().approve(&mut catalog, &name("sp9"), None, [2; 16], START).unwrap_err();
    assert!(matches!(nobody, AdmissionError::NobodyWaits(_)));
    let node = root_authority().approve(&mut catalog, &name("filial-1"), None, [2; 16], START).unwrap_err();
    assert!(matches!(node, AdmissionError::NobodyWaits(_)), "a node is no super-peer");
    root_authority().approve(&mut catalog, &name("sp3"), None, [2; 16], START).unwrap();
    assert_eq!(redeem(&mut catalog, redemption(&key(103), "sp3")).unwrap().membership.name, name("sp3"));
}

#[test]
fn withdrawing_an_invite_ends_the_wait_of_who_showed_it() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    authority().issue(&mut catalog, superpeer_terms(), SECRET, Vec::new(), START).unwrap();
    redeem(&mut catalog, redemption(&key(103), "sp3")).unwrap_err();
    assert!(withdraw(&mut catalog, &InviteId::of_secret(&SECRET)).unwrap());
    assert!(wanting(&catalog).is_empty());
}

#[test]
fn a_departed_members_name_is_given_by_an_invite_that_replaces_it_and_by_no_other() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let replacing = Terms { replaces: Some(name("filial-1")), ..terms(1) };
    let early = authority().issue(&mut catalog, replacing.clone(), SECRET, Vec::new(), START).unwrap_err();
    assert!(matches!(early, AdmissionError::NotDeparted(_)), "it is still somebody's");
    catalog.depart(&departure(1), START_MS).unwrap();
    issue(&mut catalog, terms(2));
    let usual = redeem(&mut catalog, redemption(&key(9), "filial-1")).unwrap_err();
    assert_eq!(usual, Refusal::NameOfDeparted);
    let back = redeem(&mut catalog, redemption(&key(1), "filial-1")).unwrap_err();
    assert_eq!(back, Refusal::Left, "who has left does not come back with the same keys");

    let secret = [6; SECRET_BYTES];
    authority().issue(&mut catalog, replacing, secret, Vec::new(), START).unwrap();
    let shown = |called: &str| Redemption { secret, ..redemption(&key(9), called) };
    assert_eq!(redeem(&mut catalog, shown("filial-9")).unwrap_err(), Refusal::OtherName);
    let admitted = redeem(&mut catalog, shown("filial-1")).unwrap();
    assert_eq!(admitted.membership.name, name("filial-1"));
    let listed = list(&catalog).unwrap();
    assert!(listed.iter().any(|invite| invite.replaces == Some(name("filial-1")) && invite.uses_left == 0));
}

fn renewal(seed: u8) -> Renewal {
    let Enrolment { peer, credential, sealing_key } = enrolment(seed);
    Renewal { peer, credential, sealing_key }
}

fn renew(catalog: &mut Catalog, renewal: Renewal, now: UnixSeconds) -> Result<Admitted, Refusal> {
    authority().renew(catalog, renewal, [7; 16], now).map_err(|error| error.refusal())
}

#[test]
fn a_member_is_renewed_before_and_long_after_its_credential_ended() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    for (seed, after) in [(1, Duration::from_hours(24)), (2, Duration::from_hours(90 * 24))] {
        let now = START.plus(after);
        let renewed = renew(&mut catalog, renewal(seed), now).unwrap();
        let says = renewed.credential.verify(&trust(), &peer(seed), now).unwrap();
        assert_eq!((says.issued, says.name), (now, membership(seed).name));
        assert_eq!(renewed.entries.len(), 2, "the entry and its event");
        assert_eq!(catalog.reader().unwrap().member(&peer(seed)).unwrap().unwrap().issued, now);
        // The answer was lost: the same again, though it still shows the old one.
        let again = renew(&mut catalog, renewal(seed), now.plus(Duration::from_secs(2))).unwrap();
        assert_eq!((again.credential, again.entries.len()), (renewed.credential, 0));
    }
    let log = catalog.reader().unwrap().log(None, 1, Some(&peer(2))).unwrap();
    assert_eq!(log[0].event.action, Action::Renewed);
}

#[test]
fn who_is_no_member_is_not_renewed() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let now = START.plus(Duration::from_hours(24));
    let stolen = Renewal { credential: enrolment(2).credential, ..renewal(1) };
    assert_eq!(renew(&mut catalog, stolen, now).unwrap_err(), Refusal::NotAMember);
    assert_eq!(renew(&mut catalog, renewal(9), now).unwrap_err(), Refusal::NotAMember, "not in the catalog");
    let renamed = Renewal { credential: node_enrolment(1, "king", START).credential, ..renewal(1) };
    assert_eq!(renew(&mut catalog, renamed, now).unwrap_err(), Refusal::NotAMember);
    let foreign = Renewal { sealing_key: enrolment(2).sealing_key, ..renewal(1) };
    assert_eq!(renew(&mut catalog, foreign, now).unwrap_err(), Refusal::BadSealingKey);
    catalog.depart(&departure(1), START_MS).unwrap();
    catalog.revoke(revocation(2, 101), START_MS).unwrap();
    let digest = catalog.digest();
    assert_eq!(renew(&mut catalog, renewal(1), now).unwrap_err(), Refusal::Left);
    assert_eq!(renew(&mut catalog, renewal(2), now).unwrap_err(), Refusal::Revoked);
    assert_eq!(catalog.digest(), digest);
}

#[test]
fn a_super_peer_is_renewed_by_the_root_or_with_what_the_root_approved() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let soon = START.plus(Duration::from_hours(330 * 24));
    let waiting = candidates(&catalog, soon).unwrap();
    assert_eq!(waiting.len(), 2, "both super-peers' credentials end within 60 days");
    assert_eq!(waiting[1].wants, Wants::Renewal(membership(102).expires));
    assert_eq!(renew(&mut catalog, renewal(102), soon).unwrap_err(), Refusal::AwaitingApproval);
    let approved = root_authority().approve(&mut catalog, &name("sp2"), None, [2; 16], soon).unwrap();
    let later = soon.plus(Duration::from_hours(1));
    assert_eq!(renew(&mut catalog, renewal(102), later).unwrap().credential, approved.credential);
    assert_eq!(candidates(&catalog, soon).unwrap().len(), 1);
    let own = root_authority().renew(&mut catalog, renewal(101), [3; 16], soon).unwrap();
    assert_eq!(own.membership.issued, soon);
}

#[test]
fn a_renewed_super_peer_issues_under_its_new_credential() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let end = membership(101).expires;
    let authority = root_authority();
    let early = end.plus(Duration::from_hours(1));
    let node = || Renewal { credential: enrolment(1).credential, ..renewal(1) };
    let stale = authority.renew(&mut catalog, node(), [1; 16], early).unwrap_err();
    assert!(matches!(stale, AdmissionError::CannotIssue(_)), "{stale}");
    let own = authority.renew(&mut catalog, renewal(101), [3; 16], early).unwrap();
    authority.adopt(own.credential);
    let renewed = authority.renew(&mut catalog, node(), [1; 16], early).unwrap();
    assert!(renewed.credential.verify(&trust(), &peer(1), early).is_ok());
}
