use libp2p::identity::Keypair;
use proptest::prelude::*;
use quarta_protocols::records::Origin;
use serde_bytes::ByteArray;

use super::*;

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn audience(rule: Rule, epoch: u64) -> Audience {
    let origin = Origin { owner: peer(1), nonce: ByteArray::new([3; 16]) };
    Audience::new(origin, rule, epoch, &NetworkId::from_bytes([9; 32]))
}

fn candidate(seed: u8) -> Candidate {
    let key = SealingKey { peer: peer(seed), public: ByteArray::new([seed; 32]) };
    Candidate { name: name(&format!("filial-{seed}")), key }
}

fn held(seed: u8, epoch: u64) -> Held {
    Held { member: peer(seed), epoch, sealed_to: [seed; 32] }
}

fn sealed_for(due: &Due) -> Vec<PeerId> {
    due.seal.iter().map(|key| key.peer).collect()
}

#[test]
fn hiding_and_showing_mean_the_same_on_either_kind_of_list() {
    let hide = |rule, seed| Change::Hide(vec![peer(seed)]).apply(rule);
    let show = |rule, seed| Change::Show(vec![peer(seed)]).apply(rule);
    assert_eq!(hide(None, 2), Some(Rule::EveryoneBut(vec![peer(2)])));
    assert_eq!(show(hide(None, 2), 2), None, "an empty blacklist is an open file");
    let only = Some(Rule::Only(vec![peer(2), peer(3)]).sorted());
    assert_eq!(hide(only.clone(), 3), Some(Rule::Only(vec![peer(2)])));
    assert_eq!(show(Some(Rule::Only(vec![peer(2)])), 3), only);
    assert_eq!(hide(Some(Rule::Only(vec![peer(2)])), 2), Some(Rule::Only(Vec::new())), "then only the owner");
    assert_eq!(Change::Replace(Rule::EveryoneBut(Vec::new())).apply(only), None);
}

#[test]
fn who_joins_later_gets_keys_and_who_is_listed_does_not() {
    let audience = audience(Rule::EveryoneBut(vec![peer(3)]), 1);
    let all = [candidate(1), candidate(2), candidate(3), candidate(4)];
    let due = due(&audience, &BTreeSet::new(), &all, &[held(1, 1), held(2, 1)], &BTreeSet::new());
    assert_eq!(sealed_for(&due), [peer(4)]);
    assert!(due.gone.is_empty());
}

#[test]
fn a_reader_whose_membership_has_ended_makes_a_new_epoch_for_the_others() {
    let audience = audience(Rule::EveryoneBut(vec![peer(3)]), 1);
    let all = [candidate(1), candidate(2), candidate(3), candidate(4)];
    let held = [held(1, 1), held(2, 1), held(4, 1)];
    let due = due(&audience, &BTreeSet::new(), &all, &held, &BTreeSet::from([peer(4)]));
    assert_eq!(due.gone, [peer(4)]);
    assert_eq!(sealed_for(&due), [peer(1), peer(2)]);
}

#[test]
fn the_end_of_a_listed_member_changes_nothing() {
    let audience = audience(Rule::EveryoneBut(vec![peer(3)]), 1);
    let held = [held(1, 1), held(2, 1)];
    let all = [candidate(1), candidate(2), candidate(3)];
    assert_eq!(due(&audience, &BTreeSet::new(), &all, &held, &BTreeSet::from([peer(3)])), Due::default());
}

#[test]
fn whoever_takes_over_a_listed_members_name_takes_over_its_place_on_the_list() {
    let but = audience(Rule::EveryoneBut(vec![peer(3)]), 1);
    let successor = Candidate { name: name("filial-3"), ..candidate(5) };
    let listed = BTreeSet::from([name("filial-3")]);
    let nothing = due(&but, &listed, std::slice::from_ref(&successor), &[], &BTreeSet::new());
    assert_eq!(nothing, Due::default());
    let only = audience(Rule::Only(vec![peer(3)]), 1);
    let nothing = due(&only, &listed, &[successor], &[], &BTreeSet::new());
    assert_eq!(nothing, Due::default(), "restrictions are inherited, access is not");
}

#[test]
fn a_reader_with_a_new_sealing_key_gets_its_keys_again() {
    let audience = audience(Rule::Only(vec![peer(2)]), 2);
    let old = Held { sealed_to: [7; 32], ..held(2, 2) };
    assert_eq!(
        sealed_for(&due(&audience, &BTreeSet::new(), &[candidate(2)], &[old], &BTreeSet::new())),
        [peer(2)]
    );
    let behind = held(2, 1);
    assert_eq!(
        sealed_for(&due(&audience, &BTreeSet::new(), &[candidate(2)], &[behind], &BTreeSet::new())),
        [peer(2)]
    );
}

fn rule() -> impl Strategy<Value = Option<Rule>> {
    let members =
        || prop::collection::vec(2u8..8, 0..4).prop_map(|seeds| seeds.into_iter().map(peer).collect());
    prop_oneof![
        Just(None),
        members().prop_map(|members| Change::Replace(Rule::EveryoneBut(members)).apply(None)),
        members().prop_map(|members| Some(Rule::Only(members).sorted())),
    ]
}

proptest! {
    #[test]
    fn a_change_without_a_fresh_key_takes_the_file_from_nobody(before in rule(), after in rule()) {
        let permits = |rule: &Option<Rule>, member: &PeerId| rule.as_ref().is_none_or(|rule| rule.permits(member));
        // Beyond the named ones, one that joins later.
        let lost = (2..=8).map(peer).any(|member| permits(&before, &member) && !permits(&after, &member));
        prop_assert_eq!(loses_readers(before.as_ref(), after.as_ref()), lost);
    }

    #[test]
    fn a_member_that_is_hidden_cannot_read_and_one_that_is_shown_can(before in rule(), seed in 2u8..8) {
        let permits = |rule: &Option<Rule>| rule.as_ref().is_none_or(|rule| rule.permits(&peer(seed)));
        prop_assert!(!permits(&Change::Hide(vec![peer(seed)]).apply(before.clone())));
        prop_assert!(permits(&Change::Show(vec![peer(seed)]).apply(before)));
    }
}
