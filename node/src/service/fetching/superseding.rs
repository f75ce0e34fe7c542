//! Transfers whose file changes while they are under way.
//!
//! A transfer brings one revision, whole, or it begins again with the newest: its number and whoever watches it stay, and
//! it says which revision it is. What had arrived of the older content is of no use, since each content has its own key
//! and its own manifest. A file that is deleted, or hidden from this branch, ends its transfer, and nothing of it stays.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use quarta_protocols::{ids::FileId, names::MemberName, records::Record};
use tokio::sync::watch;

use super::{
    BeginError, Wanted,
    course::{Beginning, Control, Course, Order},
    here_already, in_blocking, in_database,
    shown::{shown, store},
    start,
    words::Told,
};
use crate::{
    api::model::{self, TransferState},
    database::{DatabaseError, Transfer, TransferState as StoredState},
    service::Shared,
};

/// What became of a file that is being fetched.
pub(super) enum Newest {
    /// It has this content now.
    Content(Box<Wanted>),
    /// It cannot be fetched any more, and why.
    Gone(Told),
}

/// Fetches a newer content for a copy, without anybody's asking. None where that is under way, was paused by a person, or
/// lies here already.
///
/// # Errors
/// [`BeginError`].
pub(in crate::service) async fn follow(
    shared: &Arc<Shared>,
    record: Record,
    owner_name: MemberName,
) -> Result<Option<watch::Receiver<model::Transfer>>, BeginError> {
    let opening = shared.clone();
    let wanted = in_blocking(move || Wanted::of(&opening, record, owner_name)).await?;
    let _changing = shared.fetches.changing.lock().await;
    if shared.fetches.slot(&wanted.file).is_some() || here_already(shared, &wanted).await?.is_some() {
        return Ok(None);
    }
    let (blocking, file) = (shared.clone(), wanted.file);
    let earlier = in_database(move || blocking.database.transfer_with_data(&file)).await?;
    if earlier.as_ref().is_some_and(|(_, row)| row.state == StoredState::Paused) {
        return Ok(None);
    }
    // It is in nobody's way: it waits for sources where there are none.
    start(shared, wanted, earlier, Beginning::Again).await.map(Some)
}

/// The record of a file is another one: what fetches it begins again, or ends.
pub(in crate::service) async fn record_changed(shared: &Arc<Shared>, file: FileId) -> Result<(), BeginError> {
    let _changing = shared.fetches.changing.lock().await;
    if let Some(slot) = shared.fetches.slot(&file) {
        let content = slot.content;
        let blocking = shared.clone();
        match in_database(move || newest(&blocking, &file, None)).await? {
            Newest::Content(wanted) if wanted.content == content => {}
            Newest::Content(_) => slot.control.order(Order::Restart),
            Newest::Gone(_) => slot.control.order(Order::End),
        }
        return Ok(());
    }
    // One that is paused or has failed goes on with the newest when it is asked for; what is gone is not kept.
    let blocking = shared.clone();
    in_database(move || {
        let Some((id, row)) = blocking.database.transfer_with_data(&file)? else { return Ok(()) };
        let Newest::Gone(told) = newest(&blocking, &file, row.owner.clone())? else { return Ok(()) };
        if let Some(partial) = row.partial() {
            blocking.library.discard_partial(&partial);
        }
        let ended_ms = row.ended_ms.or(Some(crate::service::wall_ms()));
        let (state, problem) = (StoredState::Failed, Some(told.why));
        let ended = Transfer { state, problem, bytes: 0, ended_ms, content: None, ..row };
        blocking.noted(blocking.database.update_transfer(id, &ended))
    })
    .await
}

/// What holds of a file by now, as far as this node knows. Blocks on the disk.
fn newest(shared: &Shared, file: &FileId, owner: Option<MemberName>) -> Result<Newest, DatabaseError> {
    let ls = "run `quarta ls` to see what there is";
    let Some(signed) = shared.database.record(file)? else {
        return Ok(Newest::Gone(Told::new("nothing is known of the file any more", ls)));
    };
    let record = Record::verify(signed, &shared.identity.trust).ok();
    let owner = match (owner, &record) {
        (None, Some(record)) => shared.owner_name(record)?,
        (owner, _) => owner,
    };
    let Some((record, owner)) = record.zip(owner) else {
        return Ok(Newest::Gone(Told::new("nothing is known of the file's owner any more", ls)));
    };
    Ok(match Wanted::of(shared, record, owner) {
        Ok(wanted) => Newest::Content(Box::new(wanted)),
        Err(error) => Newest::Gone(Told::new(error.to_string(), ls)),
    })
}

impl Course {
    /// What holds of the file by now, where that is another content than this transfer wants. A super-peer is asked, so
    /// that a transfer does not end for want of a source that has only moved on.
    pub(super) async fn superseded(&self) -> Option<Newest> {
        let (shared, file) = (&self.shared, self.wanted.file);
        let reference = file.to_string();
        let ask = shared.find(&reference);
        tokio::select! {
            () = self.control.cancelled() => return None,
            // What it says is remembered.
            _ = ask => {}
        }
        let (blocking, content) = (shared.clone(), self.wanted.content);
        let owner = Some(self.wanted.owner_name.clone());
        let found = in_database(move || newest(&blocking, &file, owner)).await.ok()?;
        match found {
            Newest::Content(wanted) if wanted.content == content => None,
            other => Some(other),
        }
    }

    /// Begins again with what holds by now, under the same number.
    pub(super) async fn restart(self) {
        let (blocking, file) = (self.shared.clone(), self.wanted.file);
        let owner = Some(self.wanted.owner_name.clone());
        match in_database(move || newest(&blocking, &file, owner)).await {
            Ok(Newest::Content(wanted)) => self.restart_with(*wanted).await,
            Ok(Newest::Gone(told)) => self.failed(told, false).await,
            Err(error) => self.failed(Told::new(error.to_string(), "run the command again"), false).await,
        }
    }

    /// Begins again with this.
    pub(super) async fn restart_with(self, wanted: Wanted) {
        self.discard().await;
        let revision = wanted.record.body().revision;
        tracing::info!(file = %wanted.file, revision, "a file was updated while it was fetched; its new content is fetched");
        let first = model::Transfer {
            started_ms: self.sender.borrow().started_ms,
            notice: Some(format!(
                "its owner updated the file meanwhile: this is revision {revision}, fetched from its beginning"
            )),
            ..shown(&wanted, self.id, TransferState::Queued)
        };
        self.sender.send_replace(first.clone());
        if !store(&self.shared, &wanted, self.id, &first, true).await {
            tracing::warn!("that a transfer began again could not be noted; the next start finds out");
        }
        let control = Arc::new(Control::new(&self.shared.stop));
        let course = Self {
            shared: self.shared.clone(),
            id: self.id,
            control: control.clone(),
            sender: self.sender.clone(),
            wanted,
        };
        // Until now the old one was in this place, so that nobody begins another transfer of the file.
        self.shared.fetches.put(&course.wanted, self.id, control, &self.sender);
        let tasks = self.shared.fetches.tasks.clone();
        tasks.spawn(course.run_again());
    }

    /// Boxed, since a transfer that begins again may do so again.
    fn run_again(self) -> BoxFuture<'static, ()> {
        self.run(Beginning::Again).boxed()
    }

    /// Why it cannot go on, after it was told to end.
    pub(super) async fn ended_by_owner(&self) {
        let (blocking, file) = (self.shared.clone(), self.wanted.file);
        let found = in_database(move || newest(&blocking, &file, None)).await;
        let told = match found {
            Ok(Newest::Gone(told)) => told,
            _ => Told::new("the file was changed by its owner", "run the command again"),
        };
        self.failed(told, false).await;
    }
}
