//! Letters in the story's words.

use quarta_protocols::messages::changes;

use crate::simulation::network::{Answer, Ask, Body, Letter};

pub(super) fn describe(letter: &Letter) -> String {
    let Letter { from, to, call, body, .. } = letter;
    match body {
        Body::Ask(_, ask) => format!("{from} to {to}, question {call}: {}", question(ask)),
        Body::Answer(answer) => format!("{from} to {to}, answer {call}: {}", brief(answer)),
    }
}

fn question(ask: &Ask) -> String {
    shortened(match ask {
        Ask::Index(request) => format!("{request:?}"),
        Ask::Admission(request) => format!("{request:?}"),
        Ask::Sync(request) => format!("{request:?}"),
        Ask::Changes(changes::Request::Follow { since: None, .. }) => "Follow from the beginning".to_owned(),
        Ask::Changes(changes::Request::Follow { since: Some(cursor), .. }) => {
            format!("Follow after {} of run {:04x}", cursor.sequence, cursor.run >> 48)
        }
        Ask::Changes(request) => format!("{request:?}"),
    })
}

pub(super) fn brief(answer: &Answer) -> String {
    shortened(match answer {
        Answer::Index(response) => format!("{response:?}"),
        Answer::Admission(response) => format!("{response:?}"),
        Answer::Sync(response) => format!("{response:?}"),
        Answer::Changes(changes::Response::Page { cursor, restart, changes, .. }) => format!(
            "Page of {} up to {} of run {:04x}{}",
            changes.len(),
            cursor.sequence,
            cursor.run >> 48,
            if *restart { ", from the beginning" } else { "" }
        ),
        Answer::Changes(response) => format!("{response:?}"),
        Answer::Closed => "closed at the gate".to_owned(),
    })
}

fn shortened(text: String) -> String {
    const CHARS: usize = 100;
    if text.chars().count() <= CHARS { text } else { text.chars().take(CHARS).chain(['…']).collect() }
}
