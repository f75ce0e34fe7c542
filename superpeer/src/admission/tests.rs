//! Invites as issuer, joiner and thief see them.

use std::{sync::Mutex, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};
use quarta_protocols::{
    invites::Invite, keys::SealingSecret, limits::ADDRESSES_MAX, messages::sync::Kind, signing::Signed,
};
use tempfile::TempDir;

use super::{invites::KEPT_AFTER_EXPIRY, *};
use crate::catalog::{
    Catalog,
    fixtures::{START, catalog, empty_catalog, key, membership, name, network, peer, superpeer_credential},
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
