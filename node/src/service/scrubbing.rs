//! The library is looked after in the background: what people change is noticed, and what disks lose is found.
//!
//! *Looking* compares every copy's size and modification time with what they were, every few seconds. A copy that looks
//! changed is offered to nobody from that moment and is then read: where its bytes are what was shared, only its date has
//! changed, and it is offered again.
//!
//! *Scrubbing* reads every byte of every copy, slowly, round after round. Bytes that have changed though nobody has
//! written to the file are the disk's doing: a reader's copy is fetched again from others, and the damaged one goes to the
//! trash; its owner is told. Neither ever sends a wrong byte meanwhile, since every chunk is compared as it is sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quarta_metrics::node::CopyChecked;
use quarta_protocols::{ids::FileId, messages::inventory::Completeness};

use super::{
    COPIES_AT_A_TIME, Shared,
    copies::first_look,
    vault_scrubbing::rest,
    verifying::{Against, Unfinished, check},
    wall_ms,
};
use crate::{
    database::{DatabaseError, LibraryCopy, Provenance},
    library::{Defect, Stamp},
    scrub::{Due, Round, due},
    throttle::Bucket,
};

/// The pause between two looks at all copies: as long as a person may wait to see that a change was noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many times longer than a look at all copies the pause after it is at least: with very many copies it must not keep
/// the machine busy.
const LOOK_REST: u32 = 20;
/// What is read of copies that look changed, in bytes a second: somebody may wait for the answer.
const CHANGED_BYTES_PER_SECOND: u64 = 128 * 1024 * 1024;
/// How often is noted how far a round is: what is read twice after a stop is no more than that time's.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// How long after a failure of the database it is tried again.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// Why a round does not come to its end.
enum Ended {
    Stopped,
    Database(DatabaseError),
}

impl From<DatabaseError> for Ended {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// Looks at all copies again and again until the node stops.
pub(super) async fn look(shared: Arc<Shared>) {
    let mut rest = LOOK_EVERY;
    while shared.stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_some() {
        let (blocking, began) = (shared.clone(), Instant::now());
        match tokio::task::spawn_blocking(move || look_at_all(&blocking)).await {
            Ok(Ok(()) | Err(Ended::Stopped)) => {}
            Ok(Err(Ended::Database(error))) => {
                tracing::error!(%error, "the copies could not be looked at; it is tried again");
            }
            Err(_) => return,
        }
        rest = LOOK_EVERY.max(began.elapsed() * LOOK_REST);
    }
}

fn look_at_all(shared: &Arc<Shared>) -> Result<(), Ended> {
    let mut bucket = Bucket::new(Instant::now(), CHANGED_BYTES_PER_SECOND);
    each_copy(shared, None, |copy| {
        let known = shared.defects.get(&copy.file).is_some();
        let looks = first_look(&shared.library, copy);
        // What is known to be changed stays so until it is verified, updated or looks as it was shared again.
        if looks.is_some() == known {
            return Ok(());
        }
        match looks.map(|found| found.defect) {
            Some(defect @ (Defect::Missing | Defect::Unreadable)) => {
                lost(shared, copy, defect);
                Ok(())
            }
            Some(Defect::Changed | Defect::Damaged) | None => {
                shared.withdraw(copy.file);
                examine(shared, copy, &mut bucket).map(drop)
            }
        }
    })
}

/// Reads the library through, round after round, until the node stops.
pub(super) async fn scrub(shared: Arc<Shared>) {
    let rate = shared.settings.library_scrub_bytes_per_second;
    if rate == 0 {
        tracing::info!("the library is not scrubbed, as settings.toml has it");
        return;
    }
    let every = Duration::from_secs(shared.settings.library_scrub_every_seconds);
    loop {
        let blocking = shared.clone();
        let rest = tokio::task::spawn_blocking(move || {
            match due(blocking.database.library_scrub()?, wall_ms(), every) {
                Due::Read(round) => read_through(&blocking, round, rate).map(|()| Duration::ZERO),
                Due::Rest(rest) => Ok(rest),
            }
        });
        let rest = match rest.await {
            Ok(Ok(rest)) => rest,
            Ok(Err(Ended::Stopped)) | Err(_) => return,
            Ok(Err(Ended::Database(error))) => {
                tracing::error!(%error, "the library could not be scrubbed; it is tried again");
                AGAIN_AFTER
            }
        };
        if shared.stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
            return;
        }
    }
}

/// One round, from where it was.
fn read_through(shared: &Arc<Shared>, mut round: Round, bytes_per_second: u64) -> Result<(), Ended> {
    let mut bucket = Bucket::new(Instant::now(), bytes_per_second);
    let mut noted = Instant::now();
    shared.noted(shared.database.set_library_scrub(&round))?;
    let begin = round.after;
    each_copy(shared, begin, |copy| {
        // What is defective is known, and not made better by reading it again.
        if shared.defects.get(&copy.file).is_none()
            && let Some(sound) = examine(shared, copy, &mut bucket)?
        {
            shared.metrics.node.copies_checked.inc(if sound {
                CopyChecked::Sound
            } else {
                CopyChecked::Changed
            });
        }
        round.after = Some(copy.file);
        if noted.elapsed() >= NOTE_EVERY {
            noted = Instant::now();
            shared.noted(shared.database.set_library_scrub(&round))?;
        }
        Ok(())
    })?;
    round.ended_ms = Some(wall_ms());
    shared.noted(shared.database.set_library_scrub(&round))?;
    tracing::debug!("all copies of the library were read");
    Ok(())
}

/// Reads a copy and acts on what it is; whether it is sound, none where that cannot be said.
fn examine(shared: &Arc<Shared>, copy: &LibraryCopy, bucket: &mut Bucket) -> Result<Option<bool>, Ended> {
    let Some(against) = Against::of(shared, copy)? else { return Ok(None) };
    let mut pass = |bytes: usize| {
        rest(shared, bucket.take(Instant::now(), shared.scrub_cost(bytes)));
        !shared.stop.is_cancelled()
    };
    match check(&shared.library, &copy.place, &against, &mut pass) {
        Ok(stamp) => {
            sound(shared, copy, stamp);
            Ok(Some(true))
        }
        Err(Unfinished::Stopped) => Err(Ended::Stopped),
        Err(Unfinished::Defect(defect, _)) => {
            lost(shared, copy, defect);
            Ok(Some(false))
        }
    }
}

fn sound(shared: &Arc<Shared>, copy: &LibraryCopy, stamp: Stamp) {
    if is_present(shared, copy) {
        shared.found_sound(copy, stamp);
    }
}

/// A copy that is not what it was: it stops being a source, and a damaged one of another branch's is fetched again.
fn lost(shared: &Arc<Shared>, copy: &LibraryCopy, defect: Defect) {
    // An own file that is being updated is moved under way.
    let _turn = (copy.provenance == Provenance::Own).then(|| shared.changes_of_own());
    if !is_present(shared, copy) || defect == Defect::Missing && first_look(&shared.library, copy).is_none() {
        return;
    }
    shared.lost(copy, defect);
    let damaged = shared.defects.get(&copy.file).is_some_and(|found| found.defect == Defect::Damaged);
    if damaged && copy.provenance == Provenance::Fetched {
        shared.upkeep.changed([copy.file]);
    }
}

/// Whether a copy is still the one that the database has of its file.
fn is_present(shared: &Shared, copy: &LibraryCopy) -> bool {
    let now = shared.database.copy(&copy.file);
    matches!(now, Ok(Some(now)) if (now.content, &now.place) == (copy.content, &copy.place))
}

/// Goes through the whole copies of files after `after`.
fn each_copy(
    shared: &Shared,
    mut after: Option<FileId>,
    mut act: impl FnMut(&LibraryCopy) -> Result<(), Ended>,
) -> Result<(), Ended> {
    loop {
        let copies = shared.database.copies(after.as_ref(), COPIES_AT_A_TIME)?;
        let Some(last) = copies.last() else { return Ok(()) };
        after = Some(last.file);
        for copy in copies.iter().filter(|copy| copy.completeness == Completeness::Complete) {
            if shared.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            act(copy)?;
        }
    }
}
