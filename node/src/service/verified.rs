//! Records that were verified lately, so that a page that is listed again costs no signatures.
//!
//! The key is a hash of all of a record's bytes, its signature among them, and the network's root does not change while a
//! node runs: the same bytes are as genuine the second time. Two generations bound the memory: the older one is forgotten
//! whole when the younger is full, so what is in use stays.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use quarta_protocols::{
    cbor,
    records::{Record, SignedRecord},
};

/// Records of one generation: ten of the longest pages of a listing, about 2 MiB.
const GENERATION_MAX: usize = 2048;

/// Names a record as it travels: a hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    pub(super) fn of(signed: &SignedRecord) -> Self {
        Self(*blake3::hash(&cbor::to_vec(signed)).as_bytes())
    }
}

/// The records.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Mark, Record>,
    old: HashMap<Mark, Record>,
}

impl Verified {
    /// The record of these bytes, if they were verified lately.
    pub(super) fn get(&self, mark: &Mark) -> Option<Record> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = generations.young.get(mark) {
            return Some(record.clone());
        }
        let record = generations.old.remove(mark)?;
        generations.put(*mark, record.clone());
        Some(record)
    }

    /// Keeps records that have just been verified.
    pub(super) fn keep(&self, verified: impl IntoIterator<Item = (Mark, Record)>) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (mark, record) in verified {
            generations.put(mark, record);
        }
    }
}

impl Generations {
    fn put(&mut self, mark: Mark, record: Record) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark, record);
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use quarta_protocols::{
        credentials::Trust,
        records::{Body, Origin, State},
    };
    use serde_bytes::ByteArray;

    use super::*;

    fn deleted(owner: &Keypair, trust: &Trust, number: u32) -> Record {
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        let origin = Origin { owner: owner.public().to_peer_id(), nonce: ByteArray::new(nonce) };
        let file = origin.file_id(&trust.network);
        let body = Body { file, origin, links: Vec::new(), revision: 2, state: State::Deleted };
        Record::sign(&body, trust, owner).unwrap()
    }

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded_by_two_generations() {
        let (root, owner) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let verified = Verified::default();
        let first = deleted(&owner, &trust, 0);
        let mark = Mark::of(first.signed());
        verified.keep([(mark, first.clone())]);
        for number in 1..=3 * u32::try_from(GENERATION_MAX).unwrap() {
            // One record under many marks: what counts here is their number.
            let other = Mark(*blake3::hash(&number.to_be_bytes()).as_bytes());
            verified.keep([(other, first.clone())]);
            if number % 1000 == 0 {
                assert_eq!(verified.get(&mark), Some(first.clone()), "{number}");
            }
        }
        let generations = verified.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn another_signature_is_another_mark() {
        let (root, owner) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let (one, other) = (deleted(&owner, &trust, 0), deleted(&owner, &trust, 1));
        assert_ne!(Mark::of(one.signed()), Mark::of(other.signed()));
        assert_eq!(Mark::of(one.signed()), Mark::of(&one.signed().clone()));
    }
}
