//! Verifying many entries on all of the machine's cores. Pure.
//!
//! Signatures are the larger part of what it costs to take another super-peer's entries, and each stands for itself. What
//! is left, the merging, is one writer's work in order.

use std::{num::NonZero, panic, thread};

use quarta_protocols::{
    credentials::Trust,
    messages::sync::{Entry, Stamp},
};

use super::payload::{Key, Payload, verify_stamp};

/// As many entries as are worth a thread of their own: some milliseconds of signatures, where a thread takes a fraction of
/// one to start.
const WORTH_A_THREAD: usize = 64;

/// Verifies entries; gives in the same order what each says, or none where it is not valid by itself.
pub(super) fn verify_all(entries: &[&Entry], trust: &Trust) -> Vec<Option<(Stamp, Payload)>> {
    let parts = match entries.len() / WORTH_A_THREAD {
        0 | 1 => 1,
        parts => thread::available_parallelism().map_or(1, NonZero::get).min(parts),
    };
    let each = |entries: &[&Entry]| entries.iter().map(|entry| verify(entry, trust)).collect::<Vec<_>>();
    thread::scope(|scope| {
        let mut parts = entries.chunks(entries.len().div_ceil(parts).max(1));
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| scope.spawn(move || each(part))).collect();
        let mut verified = each(first);
        for other in others {
            verified.extend(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        }
        verified
    })
}

fn verify(entry: &Entry, trust: &Trust) -> Option<(Stamp, Payload)> {
    let stamp = verify_stamp(entry, trust)?;
    let key = Key { kind: entry.kind, id: *entry.id };
    let payload = Payload::verify(&key, &entry.payload, trust).ok()?;
    payload.fits(&stamp).then_some((stamp, payload))
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::catalog::fixtures::{START_MS, catalog, membership, present, record, trust};

    #[test]
    fn a_full_page_is_verified_as_each_entry_is_by_itself_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = catalog(dir.path(), 101);
        for nth in 0..300 {
            let record = record(1, nth, 1, present(&format!("um {nth}")));
            catalog.publish(&membership(1), vec![record.signed().clone()], START_MS).unwrap();
        }
        let (mut entries, _) = catalog.reader().unwrap().page(None).unwrap();
        assert!(entries.len() > 4 * WORTH_A_THREAD);
        for entry in entries.iter_mut().step_by(7) {
            let mut payload = entry.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            entry.payload = ByteBuf::from(payload);
        }
        let entries: Vec<&Entry> = entries.iter().collect();
        let said = |verified: Option<(Stamp, Payload)>| {
            verified.map(|(stamp, payload)| (stamp.payload, format!("{payload:?}")))
        };
        let together: Vec<_> = verify_all(&entries, &trust()).into_iter().map(said).collect();
        let alone: Vec<_> = entries.iter().map(|entry| said(verify(entry, &trust()))).collect();
        assert_eq!(together, alone);
        let invalid = together.iter().filter(|verified| verified.is_none()).count();
        assert_eq!(invalid, entries.len().div_ceil(7));
    }

    #[test]
    fn nothing_to_verify_is_nothing() {
        assert!(verify_all(&[], &trust()).is_empty());
    }
}
