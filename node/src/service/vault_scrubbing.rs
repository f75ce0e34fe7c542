//! Reading the whole vault now and then, so that a flipped byte is found while others still have the right one.
//!
//! Replicas are rarely asked for: without this, damage would show when the last sound copy is gone. A pass reads every
//! chunk from the disk itself (not from the system's cache, which a failing disk does not reach) at a rate that a disk
//! hardly notices, and notes how far it is, so that it outlasts restarts. Whatever is damaged stops being a source and is
//! repaired at once; see [`super::keeping`].

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quarta_daemon::cause;
use quarta_protocols::{credentials::UnixSeconds, ids::ContentId, messages::chunk::Abort};

use super::Shared;
use crate::{serving::Chunks, throttle::Bucket, vault::scrub::Mark};

/// How often it is noted how far a pass is: what a restart reads twice.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// How soon a check that rests notices that the node stops.
const STOPS_WITHIN: Duration = Duration::from_millis(100);
/// The longest rest after a chunk, whatever the rate: a rate of 0 is no reason never to look again.
const REST_MAX: Duration = Duration::from_hours(1);
/// How long is waited when a replica cannot be opened because too many files are.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Sound,
    Damaged,
    /// It was dropped meanwhile, or the node stops.
    Unfinished,
}

/// Checks the vault, pass by pass, until the node stops.
pub(super) async fn scrub(shared: Arc<Shared>) {
    let every = Duration::from_secs(shared.settings.vault_scrub_every_seconds);
    let vault = shared.keeping.vault().clone();
    let mut mark = tokio::task::spawn_blocking(move || vault.scrub_mark()).await.ok().flatten();
    loop {
        let now = UnixSeconds::now();
        let wait = mark.map_or(Duration::ZERO, |mark| mark.wait(now, every));
        if shared.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        let begun = mark.filter(|mark| !mark.done).unwrap_or_else(|| Mark::begin(UnixSeconds::now()));
        let blocking = shared.clone();
        let Ok(ended) = tokio::task::spawn_blocking(move || pass(&blocking, begun)).await else { return };
        mark = Some(ended);
    }
}

/// Goes on with a pass to its end, or to the node's. Blocks on the disk.
fn pass(shared: &Arc<Shared>, mut mark: Mark) -> Mark {
    let keeping = shared.keeping.vault();
    let mut bucket = Bucket::new(Instant::now(), shared.settings.vault_scrub_bytes_per_second);
    let (mut checked, mut damaged, mut noted) = (0u64, 0u64, Instant::now());
    loop {
        let next = shared.keeping.ledger().whole_after(mark.after.as_ref());
        let Some(content) = next else {
            mark = mark.ended();
            keeping.set_scrub_mark(&mark);
            if checked > 0 {
                tracing::info!(replicas = checked, damaged, "the vault was checked");
            }
            return mark;
        };
        match check(shared, &content, &mut bucket) {
            Checked::Sound => checked += 1,
            Checked::Damaged => (checked, damaged) = (checked + 1, damaged + 1),
            Checked::Unfinished if shared.stop.is_cancelled() => {
                keeping.set_scrub_mark(&mark);
                return mark;
            }
            Checked::Unfinished => {}
        }
        mark.after = Some(content);
        if noted.elapsed() >= MARK_EVERY {
            noted = Instant::now();
            keeping.set_scrub_mark(&mark);
        }
    }
}

/// Reads one replica to its end.
fn check(shared: &Arc<Shared>, content: &ContentId, bucket: &mut Bucket) -> Checked {
    let replica = match shared.keeping.vault().replica(content) {
        Ok(replica) => replica,
        Err(error) if cause::too_many_open(&error) => {
            thread::sleep(OPEN_AGAIN_AFTER);
            return Checked::Unfinished;
        }
        Err(_) => return found_damaged(shared, content),
    };
    for index in 0..replica.geometry().chunks() {
        if shared.stop.is_cancelled() || !shared.keeping.has(content) {
            return Checked::Unfinished;
        }
        match replica.read_from_disk(index) {
            Ok(chunk) => {
                shared.metrics.node.vault_scrubbed_bytes.add(chunk.len() as u64);
                rest(shared, bucket.take(Instant::now(), shared.scrub_cost(chunk.len())));
            }
            Err(Abort::Stopping | Abort::MakesWay) => return Checked::Unfinished,
            Err(Abort::Changed | Abort::Unreadable) => return found_damaged(shared, content),
        }
    }
    Checked::Sound
}

/// Waits, or until the node stops: at a low rate a large chunk is paid for over minutes.
pub(super) fn rest(shared: &Shared, wait: Duration) {
    let until = Instant::now() + wait.min(REST_MAX);
    while !shared.stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(STOPS_WITHIN));
    }
}

fn found_damaged(shared: &Arc<Shared>, content: &ContentId) -> Checked {
    // One that was dropped a moment ago is not damaged.
    if !shared.keeping.has(content) {
        return Checked::Unfinished;
    }
    shared.replica_damaged(content);
    Checked::Damaged
}
