//! How memberships end, as the catalog's users see it.

use quarta_protocols::{
    audit::Action,
    cbor,
    credentials::{Credential, Grant, Role, UnixSeconds},
    keys::SealingSecret,
    members::Enrolment,
    messages::{index::Publication, sync::Entry},
};
use tempfile::TempDir;

use super::{
    fixtures::{
        START, START_MS, catalog, departure, empty_catalog, enrolment, key, membership, name, network,
        node_enrolment, peer, present, record, revocation, superpeer_credential,
    },
    *,
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn standing(catalog: &Catalog, seed: u8) -> Option<Standing> {
    catalog.reader().unwrap().member(&peer(seed)).unwrap().map(|member| member.standing)
}

fn actions(catalog: &Catalog, about: u8) -> Vec<Action> {
    let log = catalog.reader().unwrap().log(None, 100, Some(&peer(about))).unwrap();
    log.into_iter().map(|logged| logged.event.action).collect()
}

fn outcome(catalog: &mut Catalog, owner: u8, nth: u16) -> Publication {
    let record = record(owner, nth, 1, present("plan.csv"));
    catalog.publish(&membership(owner), vec![record.signed().clone()], START_MS).unwrap().remove(0).outcome
}

#[test]
fn who_has_left_changes_nothing_more_and_its_files_stay() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    assert_eq!(outcome(&mut catalog, 1, 1), Publication::Stored);
    let ended = catalog.depart(&departure(1), START_MS).unwrap();
    assert_eq!((ended.standing, ended.entries.len()), (Standing::Left, 2), "the departure and its event");
    assert!(matches!(outcome(&mut catalog, 1, 2), Publication::Invalid(why) if why.contains("left")));
    let renewed = node_enrolment(1, "filial-1", UnixSeconds(START.0 + 100));
    let met = catalog.meet(renewed.clone(), START_MS);
    assert!(matches!(met, Err(EnrolError::Ended(Standing::Left))), "a newer credential changes nothing");
    assert!(matches!(catalog.enrol(renewed, START_MS), Err(EnrolError::Ended(_))));
    assert_eq!(
        catalog.reader().unwrap().search(Viewer::Administrator, "", None, None, 9).unwrap().files.len(),
        1
    );

    let digest = catalog.digest();
    let again = catalog.depart(&departure(1), START_MS + 5).unwrap();
    assert_eq!((again.standing, again.entries.len()), (Standing::Left, 0));
    assert_eq!(catalog.digest(), digest, "leaving again changes nothing");
    assert_eq!(actions(&catalog, 1), [Action::Left, Action::Added, Action::Joined]);
}

#[test]
fn an_ended_membership_is_ended_after_a_restart() {
    let dir = folder();
    let mut before = catalog(dir.path(), 101);
    before.depart(&departure(1), START_MS).unwrap();
    before.revoke(revocation(2, 101), START_MS).unwrap();
    // No clean close: the process is gone.
    std::mem::forget(before);
    let after = empty_catalog(dir.path(), 101);
    let ended = after.reader().unwrap().ended().unwrap();
    assert_eq!(ended.len(), 2);
    assert!(ended.contains(&Applied::Ended { peer: peer(1), standing: Standing::Left }));
    assert!(ended.contains(&Applied::Ended { peer: peer(2), standing: Standing::Revoked }));
}

#[test]
fn a_super_peer_ends_nodes_and_the_root_ends_super_peers() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    assert_eq!(catalog.revoke(revocation(1, 102), START_MS).unwrap().standing, Standing::Revoked);
    let digest = catalog.digest();
    assert!(matches!(catalog.revoke(revocation(102, 101), START_MS), Err(EndError::NotAllowed)));
    assert!(matches!(catalog.revoke(revocation(9, 101), START_MS), Err(EndError::UnknownMember)));
    assert!(matches!(catalog.depart(&departure(9), START_MS), Err(EndError::UnknownMember)));
    assert_eq!(catalog.digest(), digest);
    assert_eq!(catalog.revoke(revocation(102, 200), START_MS).unwrap().standing, Standing::Revoked);

    let log = catalog.reader().unwrap().log(None, 2, None).unwrap();
    let told: Vec<_> = log.iter().map(|logged| (logged.event.action, logged.event.actor)).collect();
    assert_eq!(told, [(Action::Revoked, None), (Action::Revoked, Some(peer(102)))]);
    assert_eq!((log[0].event.name.as_str(), log[1].event.name.as_str()), ("sp2", "filial-1"));
    assert_eq!(log[1].actor_name, Some(name("sp2")));
}

#[test]
fn a_revocation_goes_before_a_departure_whichever_came_first() {
    for revoked_first in [false, true] {
        let dir = folder();
        let mut catalog = catalog(dir.path(), 101);
        if revoked_first {
            catalog.revoke(revocation(1, 101), START_MS).unwrap();
            assert_eq!(catalog.depart(&departure(1), START_MS).unwrap().standing, Standing::Revoked);
        } else {
            catalog.depart(&departure(1), START_MS).unwrap();
            assert_eq!(catalog.revoke(revocation(1, 101), START_MS).unwrap().standing, Standing::Revoked);
        }
        assert_eq!(standing(&catalog, 1), Some(Standing::Revoked));
    }
}

#[test]
fn of_an_ended_super_peer_nothing_is_taken_and_what_it_stamped_before_still_arrives() {
    let dir = folder();
    let (mut here, mut there) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
    let record = record(1, 1, 1, present("plan.csv"));
    let published = there.publish(&membership(1), vec![record.signed().clone()], START_MS).unwrap();
    let stamped: Vec<Entry> = published.into_iter().flat_map(|item| item.entries).collect();
    here.revoke(revocation(102, 200), START_MS).unwrap();
    let refused = here.take(&membership(102), stamped.clone(), START_MS).unwrap();
    assert_eq!((refused.stored, refused.invalid), (0, 2));
    // A third super-peer had it from the second in time.
    let taken = here.take(&membership(103), stamped, START_MS).unwrap();
    assert_eq!((taken.stored, taken.invalid, taken.deferred), (2, 0, 0));
}

#[test]
fn a_stolen_super_peers_key_makes_no_new_members_once_that_is_revoked() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let issued_by_102 = |seed: u8, called: &str| {
        let name = name(called);
        let grant =
            Grant { peer: peer(seed), name: &name, role: Role::Node, now: START, token_id: [seed; 16] };
        let credential =
            Credential::issue_by_superpeer(&key(102), &superpeer_credential(102), &network(), &grant);
        let sealing_key = SealingSecret::from_bytes([seed; 32]).statement(&network(), &key(seed));
        Enrolment { peer: peer(seed), credential, sealing_key }
    };
    catalog.meet(issued_by_102(8, "branch"), START_MS).unwrap();
    catalog.revoke(revocation(102, 200), START_MS).unwrap();
    let digest = catalog.digest();
    assert!(matches!(catalog.meet(issued_by_102(9, "thief"), START_MS), Err(EnrolError::IssuerEnded)));
    assert_eq!(catalog.digest(), digest);
    // Whom it admitted before stays.
    assert!(catalog.meet(issued_by_102(8, "branch"), START_MS).unwrap().is_empty());
    assert_eq!(standing(&catalog, 8), Some(Standing::Member));
}

#[test]
fn a_super_peer_that_heard_of_the_end_first_does_not_let_the_member_in_afterwards() {
    let dir = folder();
    let (mut here, mut there) = (empty_catalog(dir.path(), 102), catalog(dir.path(), 101));
    let ended = there.revoke(revocation(1, 101), START_MS).unwrap();
    let taken = here.take(&membership(101), ended.entries, START_MS).unwrap();
    assert_eq!(standing(&here, 1), None, "who that is has not arrived yet");
    assert_eq!(taken.applied, [Applied::EndedAsNode(peer(1))], "the gate knows at once");
    assert_eq!(here.reader().unwrap().ended().unwrap(), [Applied::EndedAsNode(peer(1))]);
    assert!(matches!(here.meet(enrolment(1), START_MS), Err(EnrolError::Ended(Standing::Revoked))));
    let entries = there.reader().unwrap().page(None).unwrap().0;
    let taken = here.take(&membership(101), entries, START_MS).unwrap();
    let told = Applied::Ended { peer: peer(1), standing: Standing::Revoked };
    assert!(taken.applied.contains(&told) && !taken.applied.contains(&Applied::Member(membership(1))));
    assert_eq!(here.digest(), there.digest());
}

#[test]
fn the_name_of_one_who_is_gone_is_nobodys_until_it_is_given_again_on_purpose() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    catalog.depart(&departure(1), START_MS).unwrap();
    let newcomer = node_enrolment(9, "filial-1", START);
    assert!(matches!(catalog.enrol(newcomer.clone(), START_MS), Err(EnrolError::NameOfDeparted)));
    // Another super-peer gave it by an invite that says so.
    catalog.meet(newcomer, START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    assert_eq!(reader.member_by_name(&name("filial-1")).unwrap().unwrap().peer, peer(9));
    let meant: Vec<_> =
        reader.resolve_member("filial-1").unwrap().into_iter().map(|member| member.peer).collect();
    assert_eq!(meant, [peer(9)]);
    assert_eq!(reader.members(None, 99).unwrap().members.len(), 7, "both are listed");
}

#[test]
fn a_member_is_meant_by_its_name_its_id_or_enough_of_that() {
    let dir = folder();
    let catalog = catalog(dir.path(), 101);
    let reader = catalog.reader().unwrap();
    let meant = |reference: &str| -> Vec<_> {
        reader.resolve_member(reference).unwrap().into_iter().map(|member| member.peer).collect()
    };
    let id = peer(3).to_string();
    assert_eq!(meant("filial-3"), [peer(3)]);
    assert_eq!(meant(&id), [peer(3)]);
    assert_eq!(meant(&id[..id.len() - 3]), [peer(3)]);
    assert!(meant("12D3KooW").is_empty(), "everybody's beginning means nobody");
    for nobody in ["", "nobody", "FILIAL-3", &peer(9).to_string(), "12D3KooWzzzzzzzz", "日本"] {
        assert!(meant(nobody).is_empty(), "{nobody}");
    }
}

#[test]
fn a_restored_catalog_takes_back_the_endings_that_members_remember() {
    let dir = folder();
    let mut restored = catalog(dir.path(), 101);
    // Of a member that it knows, and of one that it has lost altogether.
    let taken =
        restored.take_back(&[departure(1), departure(9)], vec![revocation(2, 101)], START_MS).unwrap();
    assert_eq!(
        taken.applied,
        [
            Applied::Ended { peer: peer(1), standing: Standing::Left },
            Applied::Ended { peer: peer(2), standing: Standing::Revoked }
        ]
    );
    assert_eq!(taken.entries.len(), 6, "three endings and their events");
    assert!(matches!(
        restored.meet(node_enrolment(9, "filial-9", START), START_MS),
        Err(EnrolError::Ended(Standing::Left))
    ));
    let again =
        restored.take_back(&[departure(1), departure(9)], vec![revocation(2, 101)], START_MS).unwrap();
    assert_eq!(again, TakenBack::default());

    let mut forged = cbor::to_vec(&departure(3));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let digest = restored.digest();
    let refused = restored.take_back(&[cbor::from_slice(&forged).unwrap()], Vec::new(), START_MS).unwrap();
    assert_eq!((refused, restored.digest()), (TakenBack::default(), digest));
}
