//! Super-peers that were cut off from each other, measured.

use crate::support::{home, lan, programs};
use quarta_testnet::bench::reconcile::{self, Options};

/// As `quarta-testnet bench reconcile`, with fewer records.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_partition_super_peers_agree_within_five_seconds_and_send_little_beside_what_differs() {
    let home = home();
    let mut plan = reconcile::plan(home.path(), programs());
    let Some(lan) = lan(&plan, &reconcile::writers()) else { return };
    let options = Options { records: 3000, writes: 300 };
    let measured = reconcile::measure(&lan, &mut plan, options, |step| println!("{step}")).await.unwrap();
    println!("{measured:?}, at most {} bytes on the wire", measured.wire_bytes_max());
    assert!(measured.entries >= 600, "{measured:?}");
    assert!(measured.reached(), "{measured:?}, at most {} bytes on the wire", measured.wire_bytes_max());
}
