//! How fast lists enter the index, and what they cost: `cargo run --release --example index_throughput [FILES] [NODES]`.
//!
//! Every node reports every file, in full pages of the largest size, as after a super-peer's start.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use quarta_protocols::{
    ids::{ContentId, FileId, Sha256},
    limits::INVENTORY_PAGE_ENTRIES,
    messages::inventory::{Completeness, Coverage, Item, Page, Position, Summary},
    names::FileName,
};
use quarta_superpeer::index::Index;

fn item(n: u64) -> Item {
    let mut id = [7; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Item::Library {
        file: FileId::from_bytes(id),
        name: FileName::new(&format!("campaigns/{}/photo-{n:07}.jpg", n / 100)).expect("a name"),
        size_bytes: 300_000,
        sha256: Some(Sha256::from_bytes(id)),
        content: ContentId::from_bytes(id),
        completeness: Completeness::Complete,
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (files, nodes) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(24));
    let mut whole = Summary::default();
    (0..files).for_each(|n| whole.add(&item(n)));
    let page_entries = INVENTORY_PAGE_ENTRIES as u64;

    let (mut index, mut spent) = (Index::default(), Duration::ZERO);
    for _ in 0..nodes {
        let peer = PeerId::random();
        for first in (0..files).step_by(INVENTORY_PAGE_ENTRIES) {
            let end = files.min(first + page_entries);
            let page = Page {
                coverage: Coverage::Full { after: first.checked_sub(1).map(|n| item(n).key()) },
                position: Position { epoch: 1, revision: files },
                last: end == files,
                present: (first..end).map(item).collect(),
                gone: vec![],
                summary: whole,
            };
            let start = Instant::now();
            index.apply(peer, page);
            spent += start.elapsed();
        }
    }
    let stats = index.stats();
    println!("{stats:?}");
    println!("{:.0} entries/s, {} MiB resident", stats.entries as f64 / spent.as_secs_f64(), resident_mib());
}
