//! The course of one transfer: waits for its turn, fetches, waits for sources where there are none, until it ends or is
//! told to stop.
//!
//! A transfer that waits for sources holds neither a turn nor an open file. It looks for sources with a growing pause,
//! at once when a super-peer connects or somebody asks for the file again, and goes back to its turn only when one of
//! them can be *connected*: each attempt reads back what is here, which for a large file takes its time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use quarta_metrics::node::{FetchOutcome, Flow};
use quarta_protocols::messages::{
    chunk::Purpose,
    index::{Fault, SourceOutcome},
    inventory::Completeness,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Wanted,
    locating::Locating,
    ports::{Arrived, Disk, Holders},
    report,
    shown::{count, merge_outcomes, rate, show_progress, store},
    superseding::Newest,
    words::{Told, Trouble, failed, waits},
};
use crate::{
    api::model::{self, TransferState},
    database::{LibraryCopy, Provenance, TransferId},
    download::fetch::{
        FetchError, Job, fetch,
        ports::{Peers, Sources},
        report::FetchProgress,
    },
    landing::LandingError,
    service::{Shared, keyring::listed_sha256, wall_ms},
};

/// How often the state of a running transfer is passed on.
const PASS_ON_EVERY: Duration = Duration::from_millis(100);
/// The first pause of a transfer that waits for sources; each doubles.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two looks for sources.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(15);
/// How many of the sources that a look finds are tried: any one that can be connected will do.
const TRIED_AT_A_LOOK: usize = 4;
/// How long the transfers of an earlier run wait for a super-peer before they begin without: all but those that only
/// have to be put into the library would find no source.
const SUPERPEER_WITHIN: Duration = Duration::from_secs(5);

/// How a transfer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// For the first time: without any source it fails at once.
    New,
    /// Somebody asks for it again.
    Again,
    /// By itself, after a start.
    AfterStart,
}

/// What a person wants of a transfer that is under way, or what has happened to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Pause,
    Cancel,
    /// Begin again: the file has another content now.
    Restart,
    /// End: the file is not there any more.
    End,
}

/// How a transfer that is under way is reached.
pub(super) struct Control {
    cancel: CancellationToken,
    order: OnceLock<Order>,
    look: Notify,
}

impl Control {
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self { cancel: stop.child_token(), order: OnceLock::new(), look: Notify::new() }
    }

    /// The first order counts.
    pub(super) fn order(&self, order: Order) {
        let _ = self.order.set(order);
        self.cancel.cancel();
    }

    /// Returns when an order was given or the daemon stops.
    pub(super) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Looks for sources now, if it waits for some.
    pub(super) fn look_now(&self) {
        self.look.notify_one();
    }
}

/// What follows an attempt that did not bring the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Given up; whether what has arrived may be of use another time.
    Fail { keep: bool },
    /// For sources.
    Wait,
    /// As somebody wishes.
    Obey(Order),
    /// Nothing: the daemon stops, and goes on at its next start.
    Leave,
}

/// Decides. `has_data`: something is here, or was not the first attempt's to lose.
fn next(trouble: &Trouble, order: Option<Order>, has_data: bool) -> Next {
    if let Some(order) = order {
        return Next::Obey(order);
    }
    // A line or a daemon can come back; who lies or has nothing will again.
    let returns = |fault: &Fault| matches!(fault, Fault::Unreachable | Fault::Stalled | Fault::BrokeOff);
    match trouble {
        Trouble::Fetch(FetchError::Cancelled | FetchError::Store(LandingError::Stopped)) => Next::Leave,
        Trouble::Fetch(FetchError::NoSources) if has_data => Next::Wait,
        Trouble::Fetch(FetchError::SourcesExhausted { faults })
            if faults.iter().any(|(_, fault)| returns(fault)) =>
        {
            Next::Wait
        }
        Trouble::Fetch(
            FetchError::WrongRecord
            | FetchError::WrongChecksum
            | FetchError::Store(LandingError::WrongKey | LandingError::OtherChecksum { .. }),
        ) => Next::Fail { keep: false },
        Trouble::Fetch(
            FetchError::NoSources | FetchError::SourcesExhausted { .. } | FetchError::Store(_),
        )
        | Trouble::Note(_) => Next::Fail { keep: true },
    }
}

/// One transfer on its way.
pub(super) struct Course {
    pub(super) shared: Arc<Shared>,
    pub(super) wanted: Wanted,
    pub(super) id: TransferId,
    pub(super) control: Arc<Control>,
    pub(super) sender: watch::Sender<model::Transfer>,
}

impl Drop for Course {
    fn drop(&mut self) {
        // Also after a panic: the file can be asked for again.
        self.shared.fetches.remove(&self.wanted.file, &self.control);
    }
}

impl Course {
    /// To the end.
    pub(super) async fn run(self, beginning: Beginning) {
        let mut has_data = beginning != Beginning::New;
        if beginning == Beginning::AfterStart {
            self.superpeer_or_a_while().await;
        }
        loop {
            let trouble = match self.attempt().await {
                Ok(path) => return self.completed(path).await,
                Err(trouble) => trouble,
            };
            has_data |= self.sender.borrow().done_bytes > 0;
            match next(&trouble, self.control.order.get().copied(), has_data) {
                Next::Wait => {
                    self.waits(waits(&trouble)).await;
                    if !self.source_found().await {
                        return self.obey().await;
                    }
                    self.set(TransferState::Queued, None);
                }
                Next::Fail { keep } => {
                    return match self.superseded().await {
                        Some(Newest::Content(wanted)) => self.restart_with(*wanted).await,
                        Some(Newest::Gone(told)) => self.failed(told, false).await,
                        None if self.control.order.get().is_some() => self.obey().await,
                        None => self.failed(failed(&trouble), keep && has_data).await,
                    };
                }
                Next::Obey(_) | Next::Leave => return self.obey().await,
            }
        }
    }

    /// It was told to stop.
    async fn obey(self) {
        match self.control.order.get() {
            Some(Order::Restart) => self.restart().await,
            Some(Order::End) => self.ended_by_owner().await,
            Some(Order::Pause | Order::Cancel) | None => self.stopped().await,
        }
    }

    fn set(&self, state: TransferState, told: Option<Told>) {
        self.sender.send_modify(|transfer| {
            transfer.state = state;
            tell(transfer, told);
        });
    }

    async fn superpeer_or_a_while(&self) {
        let mut connections = self.shared.fetches.superpeer_connections();
        let connected = connections.wait_for(|count| *count > 0);
        tokio::select! {
            () = self.control.cancel.cancelled() => {}
            _ = tokio::time::timeout(SUPERPEER_WITHIN, connected) => {}
        }
    }

    async fn waits(&self, told: Told) {
        self.set(TransferState::Waiting, Some(told));
        self.sender.send_modify(|transfer| transfer.bytes_per_second = 0.0);
        let now = self.sender.borrow().clone();
        store(&self.shared, &self.wanted, self.id, &now, true).await;
    }

    /// Waits until a source can be connected; `false` when told to stop.
    async fn source_found(&self) -> bool {
        let sources = self.locating();
        let peers =
            Holders { shared: self.shared.clone(), purpose: Purpose::Person, carried: Arc::default() };
        let mut connections = self.shared.fetches.superpeer_connections();
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            tokio::select! {
                biased;
                () = self.control.cancel.cancelled() => return false,
                () = self.control.look.notified() => {}
                // Its sender lives as long as the node.
                _ = connections.changed() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOK_AGAIN_MAX),
            }
            let look = async {
                let _look = self.shared.fetches.look().await;
                for source in sources.locate(Vec::new()).await.iter().take(TRIED_AT_A_LOOK) {
                    if peers.connect(source).await.is_ok() {
                        return true;
                    }
                }
                false
            };
            tokio::select! {
                biased;
                () = self.control.cancel.cancelled() => return false,
                found = look => if found { return true },
            }
            // Whoever asked for it again is told that it goes on waiting.
            let why = "no branch that holds the file is available".to_owned();
            self.set(TransferState::Waiting, Some(waits(&Trouble::Note(why))));
        }
    }

    fn locating(&self) -> Locating {
        let Wanted { owner, content, size_bytes, .. } = self.wanted;
        Locating { shared: self.shared.clone(), owner: Some(owner), content, size_bytes }
    }

    /// One attempt, when it is this transfer's turn. Gives where the file lies.
    async fn attempt(&self) -> Result<String, Trouble> {
        let (shared, wanted, cancel) = (&self.shared, &self.wanted, &self.control.cancel);
        let cancelled = || Trouble::Fetch(FetchError::Cancelled);
        let _turn = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(cancelled()),
            turn = shared.fetches.turn() => turn,
        };
        let started = Instant::now();
        let _active = shared.metrics.node.active_transfers.hold(Flow::Download);
        self.set(TransferState::Active, None);
        self.sender.send_modify(|transfer| transfer.sources.clear());
        let (progress, mut watched) = watch::channel(FetchProgress::default());
        let sink = Arc::new(Disk::new(shared.clone(), wanted.clone(), cancel.clone()));
        let carried = Arc::new(Mutex::new(HashMap::new()));
        let peers =
            Arc::new(Holders { shared: shared.clone(), purpose: Purpose::Person, carried: carried.clone() });
        let job = Job {
            content: wanted.content,
            size_bytes: wanted.size_bytes,
            manifest: self.known_manifest().await,
        };
        let fetching = fetch(job, Arc::new(self.locating()), peers, sink.clone(), progress, cancel.clone());
        tokio::pin!(fetching);
        let mut pass_on = tokio::time::interval(PASS_ON_EVERY);
        let outcome = loop {
            tokio::select! {
                outcome = &mut fetching => break outcome,
                _ = pass_on.tick() => {
                    let now = watched.borrow_and_update().clone();
                    self.sender.send_modify(|transfer| show_progress(transfer, &now, started));
                }
            }
        };
        let last = watched.borrow_and_update().clone();
        let took = started.elapsed();
        self.sender.send_modify(|transfer| {
            show_progress(transfer, &last, started);
            let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
            merge_outcomes(transfer, &outcome.sources, &carried);
            let fetched = transfer.done_bytes.saturating_sub(transfer.resumed_bytes);
            transfer.bytes_per_second = rate(fetched, took);
        });
        let now = self.sender.borrow().clone();
        count(shared, &now, &outcome.sources, &carried, took);
        let result = match outcome.result {
            Ok(()) => self.note(&sink).await.map_err(Trouble::Note),
            Err(error) => Err(Trouble::Fetch(error)),
        };
        self.report_soon(outcome.sources);
        result
    }

    /// Not waited for: whoever asked for the file need not.
    fn report_soon(&self, mut sources: Vec<SourceOutcome>) {
        let own = self.shared.identity.keys.peer();
        sources.retain(|source| source.peer != own);
        let (shared, content) = (self.shared.clone(), self.wanted.content);
        tokio::spawn(async move { report(&shared, content, sources).await });
    }

    /// The manifest that stands in the record, or was got by an earlier attempt.
    async fn known_manifest(&self) -> Option<bytes::Bytes> {
        if self.wanted.manifest.is_some() {
            return self.wanted.manifest.clone();
        }
        let (shared, name) = (self.shared.clone(), self.wanted.partial());
        let read = tokio::task::spawn_blocking(move || shared.library.partial_manifest(&name));
        read.await.ok().flatten().map(|manifest| manifest.to_bytes().into())
    }

    /// Notes the file that lies in the library now, and offers it to others. Where it cannot be noted it is taken out of
    /// the library again; all of it stays among the partial data.
    async fn note(&self, sink: &Disk) -> Result<String, String> {
        let (shared, wanted) = (&self.shared, &self.wanted);
        let Some(Arrived { landing, landed, aside }) = sink.landed() else {
            return Err("the file was not put into the library".to_owned());
        };
        let copy = LibraryCopy {
            file: wanted.file,
            owner: wanted.owner,
            owner_name: wanted.owner_name.clone(),
            name: wanted.name.clone(),
            // An owner that fetches its own file back is its owner still.
            provenance: if wanted.owner == shared.identity.keys.peer() {
                Provenance::Own
            } else {
                Provenance::Fetched
            },
            place: crate::library::Place::Library(landed.path.clone()),
            stamp: landed.stamp,
            sha256: wanted.record.entry().and_then(|entry| listed_sha256(&entry.access)),
            content: wanted.content,
            completeness: Completeness::Complete,
            record: wanted.record.signed().clone(),
        };
        let (blocking, noted, record) = (shared.clone(), copy.clone(), wanted.record.clone());
        tokio::task::spawn_blocking(move || {
            let (database, trust) = (&blocking.database, &blocking.identity.trust);
            let replaced = aside.as_ref().map(|(id, _)| *id);
            let noting =
                database.replace_copy(replaced, &noted, landing.manifest(), &record, trust, wall_ms());
            match blocking.noted(noting) {
                Ok(()) => {
                    landing.settle(&blocking.library);
                    Ok(())
                }
                Err(error) => {
                    if let Err(error) = blocking.library.remove(&landed.path) {
                        tracing::error!(%error, "a file that is not noted could not be taken out of the library");
                    }
                    if let Some((id, before)) = aside {
                        blocking.put_back(Some(id), &before);
                    }
                    Err(error)
                }
            }
        })
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
        let path = shared.library.path_of(&copy.place);
        if let Some(before) = shared.defects.replaced(&wanted.file)
            && before.path != path
        {
            tracing::info!(file = %wanted.name, kept = %before.path.display(), fresh = %path.display(), "the copy that is {} \
                was left where it is, beside a fresh one", before.defect.as_str());
        }
        // A content that was open is that of the file before.
        shared.uploads.forget(&wanted.content);
        shared.offer(&copy);
        // A newer record may have come while this one's content arrived.
        shared.upkeep.changed([wanted.file]);
        Ok(path.display().to_string())
    }

    async fn completed(&self, path: String) {
        self.shared.metrics.node.fetches.inc(FetchOutcome::Completed);
        self.end(false, |transfer| {
            transfer.state = TransferState::Completed;
            transfer.done_bytes = self.wanted.size_bytes;
            transfer.ended_ms = Some(wall_ms());
            transfer.path = Some(path);
            transfer.sha256 = Some(self.wanted.sha256.to_string());
            tell(transfer, None);
        })
        .await;
    }

    pub(super) async fn failed(&self, told: Told, keep: bool) {
        tracing::warn!(file = %self.wanted.file, reason = %told.why, "a transfer failed");
        self.shared.metrics.node.fetches.inc(FetchOutcome::Failed);
        if !keep {
            self.discard().await;
        }
        self.end(keep, |transfer| {
            transfer.state = TransferState::Failed;
            transfer.ended_ms = Some(wall_ms());
            tell(transfer, Some(told));
        })
        .await;
    }

    /// It was told to stop, by a person or because the daemon does.
    async fn stopped(&self) {
        let order = self.control.order.get().copied();
        if order == Some(Order::Cancel) {
            self.shared.metrics.node.fetches.inc(FetchOutcome::Cancelled);
            self.discard().await;
        }
        self.end(order != Some(Order::Cancel), |transfer| {
            transfer.bytes_per_second = 0.0;
            let (state, why, next_step) = match order {
                Some(Order::Pause) => {
                    let next = format!("run `quarta transfers resume {}` when it may go on", self.id.0);
                    (TransferState::Paused, "it was paused", next)
                }
                Some(Order::Cancel) => {
                    transfer.ended_ms = Some(wall_ms());
                    (
                        TransferState::Cancelled,
                        "it was cancelled",
                        "run `quarta get` to begin anew".to_owned(),
                    )
                }
                // Stored as under way: the next start goes on with it.
                Some(Order::Restart | Order::End) | None => {
                    let next = "it goes on by itself when the node runs again".to_owned();
                    (TransferState::Queued, "the node is stopping", next)
                }
            };
            transfer.state = state;
            tell(transfer, Some(Told::new(why, next_step)));
        })
        .await;
    }

    /// Stores the end, makes room for a new beginning, and only then tells whoever watches: who hears of the end may
    /// begin at once.
    async fn end(&self, keeps: bool, change: impl FnOnce(&mut model::Transfer)) {
        let mut ended = self.sender.borrow().clone();
        change(&mut ended);
        if !keeps && ended.state != TransferState::Completed {
            ended.done_bytes = 0;
        }
        if !store(&self.shared, &self.wanted, self.id, &ended, keeps).await {
            self.shared.fetches.remember_unnoted(&ended);
        }
        self.shared.fetches.remove(&self.wanted.file, &self.control);
        self.sender.send_replace(ended);
    }

    pub(super) async fn discard(&self) {
        let (shared, name) = (self.shared.clone(), self.wanted.partial());
        // A failure is logged where it happens; the next start tries again.
        let _ = tokio::task::spawn_blocking(move || shared.library.discard_partial(&name)).await;
    }
}

fn tell(transfer: &mut model::Transfer, told: Option<Told>) {
    (transfer.error, transfer.next_step) = told.map(|told| (told.why, told.next_step)).unzip();
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn lost(faults: &[Fault]) -> Trouble {
        let faults = faults.iter().map(|fault| (PeerId::random(), *fault)).collect();
        Trouble::Fetch(FetchError::SourcesExhausted { faults })
    }

    #[test]
    fn lost_sources_are_waited_for_unless_all_of_them_lie_or_hold_nothing() {
        for has_data in [false, true] {
            for fault in [Fault::Unreachable, Fault::Stalled, Fault::BrokeOff] {
                assert_eq!(next(&lost(&[Fault::WrongBytes, fault]), None, has_data), Next::Wait, "{fault:?}");
            }
            let bad = lost(&[Fault::WrongBytes, Fault::NotHeld]);
            assert_eq!(next(&bad, None, has_data), Next::Fail { keep: true });
        }
    }

    #[test]
    fn a_new_fetch_that_nobody_holds_fails_and_one_with_data_waits() {
        let none = Trouble::Fetch(FetchError::NoSources);
        assert_eq!(next(&none, None, false), Next::Fail { keep: true });
        assert_eq!(next(&none, None, true), Next::Wait);
    }

    #[test]
    fn what_cannot_become_the_file_is_not_kept_and_what_the_disk_refused_is() {
        for trouble in
            [FetchError::WrongRecord, FetchError::WrongChecksum, FetchError::Store(LandingError::WrongKey)]
        {
            assert_eq!(next(&Trouble::Fetch(trouble), None, true), Next::Fail { keep: false });
        }
        let full = FetchError::Store(LandingError::Write(std::io::ErrorKind::StorageFull.into()));
        assert_eq!(next(&Trouble::Fetch(full), None, true), Next::Fail { keep: true });
        assert_eq!(next(&Trouble::Note("disk full".into()), None, true), Next::Fail { keep: true });
    }

    #[test]
    fn an_order_goes_before_everything_and_without_one_a_stop_leaves_all_as_it_is() {
        let stopped = || Trouble::Fetch(FetchError::Cancelled);
        assert_eq!(next(&stopped(), None, true), Next::Leave);
        assert_eq!(next(&Trouble::Fetch(FetchError::Store(LandingError::Stopped)), None, true), Next::Leave);
        for order in [Order::Pause, Order::Cancel] {
            for trouble in [stopped(), lost(&[Fault::Stalled]), Trouble::Fetch(FetchError::WrongRecord)] {
                assert_eq!(next(&trouble, Some(order), false), Next::Obey(order));
            }
        }
    }
}
