//! Which event of the audit trail tells of a change. Pure.

use libp2p::PeerId;
use quarta_protocols::{
    audit::{Action, Event},
    cbor,
    credentials::Membership,
    ids::{AudienceId, RecordHash},
    names::MemberName,
    records::{Access, Record, State},
};
use serde_bytes::ByteArray;

use super::{
    Context,
    payload::{Key, Payload, Verified},
};

/// What is told of a change beside what its entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    action: Action,
    actor: Option<PeerId>,
    name: String,
    revision: u64,
}

impl Told {
    /// What a new record of a file does, after the one that stood before.
    pub(super) fn of_file(old: Option<&Record>, new: &Record) -> Self {
        // A deletion holds no name.
        let named = new.entry().or_else(|| old.and_then(Record::entry));
        Self {
            action: action(old, new),
            actor: Some(new.owner()),
            name: named.map(|entry| entry.name.as_str().to_owned()).unwrap_or_default(),
            revision: new.body().revision,
        }
    }

    /// A member was admitted, or has a newer credential.
    pub(super) fn of_member(known: bool, member: &Membership) -> Self {
        let action = if known { Action::Renewed } else { Action::Joined };
        Self { action, actor: Some(member.peer), name: member.name.to_string(), revision: 0 }
    }

    /// A member left.
    pub(super) fn of_departure(member: PeerId, name: Option<&MemberName>) -> Self {
        let name = name.map(MemberName::to_string).unwrap_or_default();
        Self { action: Action::Left, actor: Some(member), name, revision: 0 }
    }

    /// A member was revoked, by a super-peer or the root.
    pub(super) fn of_revocation(by: Option<PeerId>, name: Option<&MemberName>) -> Self {
        let name = name.map(MemberName::to_string).unwrap_or_default();
        Self { action: Action::Revoked, actor: by, name, revision: 0 }
    }

    /// The event's entry, for the change that `entry` makes.
    pub(super) fn event(self, entry: &Verified, context: &Context<'_>) -> Verified {
        let event = Event {
            superpeer: context.own.public().to_peer_id(),
            time: context.now,
            action: self.action,
            actor: self.actor,
            subject: ByteArray::new(entry.key.id),
            payload: RecordHash::of(&entry.bytes),
            name: self.name,
            revision: self.revision,
        };
        let bytes = cbor::to_vec(&event);
        Verified::stamped(Key::of_event(&bytes), Payload::Event(Box::new(event)), bytes, context)
    }
}

fn action(old: Option<&Record>, new: &Record) -> Action {
    let State::Present(now) = &new.body().state else { return Action::Deleted };
    let Some(old) = old else { return Action::Added };
    if old.owner() != new.owner() {
        return Action::HandedOver;
    }
    match old.entry() {
        Some(before) if audience(&before.access) != audience(&now.access) => Action::Restricted,
        _ => Action::Updated,
    }
}

/// Who may read, as far as a record tells.
const fn audience(access: &Access) -> Option<(&AudienceId, u64)> {
    match access {
        Access::Open { .. } => None,
        Access::Restricted { audience, epoch, .. } => Some((audience, *epoch)),
    }
}

#[cfg(test)]
mod tests {
    use quarta_protocols::records::Entry;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::catalog::fixtures::{body, handed_over, present, record};

    #[test]
    fn a_change_is_told_by_what_it_does_to_people() {
        let first = record(1, 1, 1, present("plan.csv"));
        let told = |old: Option<&Record>, new: &Record| {
            let told = Told::of_file(old, new);
            (told.action, told.name)
        };
        assert_eq!(told(None, &first), (Action::Added, "plan.csv".to_owned()));
        let renamed = record(1, 1, 2, present("plan 2.csv"));
        assert_eq!(told(Some(&first), &renamed), (Action::Updated, "plan 2.csv".to_owned()));
        let deleted = record(1, 1, 3, State::Deleted);
        assert_eq!(told(Some(&renamed), &deleted), (Action::Deleted, "plan 2.csv".to_owned()));
        assert_eq!(told(None, &deleted), (Action::Deleted, String::new()));
        let given = handed_over(body(1, 1, 2, present("plan.csv")), 1, 2);
        assert_eq!(told(Some(&first), &given).0, Action::HandedOver);
    }

    #[test]
    fn another_audience_is_a_restriction_and_another_content_an_update() {
        let State::Present(open) = present("salaries.csv") else { panic!("it is present") };
        let restricted = |audience: u8, epoch: u64, sealed: u8| {
            let access = Access::Restricted {
                audience: AudienceId::from_bytes([audience; 32]),
                epoch,
                sealed: ByteBuf::from(vec![sealed; 8]),
            };
            record(1, 1, 2, State::Present(Entry { access, ..open.clone() }))
        };
        let action = |old: &Record, new: &Record| Told::of_file(Some(old), new).action;
        let (first, before) = (record(1, 1, 1, present("salaries.csv")), restricted(1, 1, 1));
        assert_eq!(action(&first, &before), Action::Restricted);
        assert_eq!(action(&before, &restricted(2, 1, 1)), Action::Restricted);
        assert_eq!(action(&before, &restricted(1, 2, 1)), Action::Restricted);
        assert_eq!(action(&before, &restricted(1, 1, 2)), Action::Updated);
        assert_eq!(action(&before, &first), Action::Restricted, "opened again");
    }
}
