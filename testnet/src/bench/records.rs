//! Records of files that exist nowhere: as many as a benchmark wants, named as branches name theirs.

use quarta_daemon::identity::Identity;
use quarta_protocols::content::{ContentKey, Geometry, Manifest, chunk_hash};
use quarta_protocols::ids::{ContentId, Sha256};
use quarta_protocols::names::FileName;
use quarta_protocols::records::{Access, Body, Entry, Origin, Record, SignedRecord, State};
use serde_bytes::ByteArray;

const CAMPAIGNS: [&str; 8] =
    ["verao", "outono", "inverno", "primavera", "natal", "pascoa", "volta-as-aulas", "mães"];
const BRANCHES: [&str; 10] =
    ["recife", "manaus", "curitiba", "santos", "belem", "natal", "goiania", "londrina", "niteroi", "maceio"];
const KINDS: [(&str, &str); 4] =
    [("banner", "png"), ("spot", "mp4"), ("plano de mídia", "xlsx"), ("alcance", "csv")];

/// The record of a member's file of one chunk whose bytes do not exist.
pub(super) fn record(identity: &Identity, number: u32) -> SignedRecord {
    let nonce = nonce(number);
    let origin = Origin { owner: identity.keys.peer(), nonce: ByteArray::new(nonce) };
    let manifest = manifest(number);
    let entry = Entry {
        name: name(number),
        size_bytes: 1,
        content: manifest.id(),
        manifest: Some(manifest.to_bytes().into()),
        access: Access::Open {
            key: ContentKey::from_bytes([1; 32]),
            sha256: Sha256::from_bytes([number.to_be_bytes()[3]; 32]),
            media_type: None,
        },
    };
    let file = origin.file_id(&identity.trust.network);
    let body = Body { file, origin, links: Vec::new(), revision: 1, state: State::Present(entry) };
    Record::sign(&body, &identity.trust, &identity.keys.identity)
        .expect("the record is possible")
        .signed()
        .clone()
}

/// The content that the record with this number names.
pub(super) fn content(number: u32) -> ContentId {
    manifest(number).id()
}

fn manifest(number: u32) -> Manifest {
    let geometry = Geometry::for_size(1).expect("a byte is not too large");
    Manifest::new(geometry, vec![chunk_hash(&nonce(number))]).expect("one chunk has one hash")
}

fn nonce(number: u32) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// Names as branches give them, each once.
fn name(number: u32) -> FileName {
    let of = |count: usize, every: u32| (number / every) as usize % count;
    let campaign = CAMPAIGNS[of(CAMPAIGNS.len(), 1)];
    let branch = BRANCHES[of(BRANCHES.len(), 8)];
    let (kind, extension) = KINDS[of(KINDS.len(), 80)];
    let name = format!("{campaign} 2026/{branch}/{kind} {number:06}.{extension}");
    FileName::normalised(&name).expect("the name is valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_has_a_name_of_its_own() {
        let names: BTreeSet<String> = (0..5000).map(|number| name(number).to_string()).collect();
        assert_eq!(names.len(), 5000);
    }
}
