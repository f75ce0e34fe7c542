//! Copies that turn out to be other files than was shared or fetched, and those that are sound again.
//!
//! Whoever notices — serving, the start, a fetch, `verify` — tells it here, and everything follows in one place: the copy
//! is offered to nobody from that moment, its owner sees it in the status, in lists, in the log and in the metrics. That
//! a file was **changed** is kept in the database (as a stamp that no file has), so that a restart does not take its word
//! for it again; only `verify`, which reads every byte, makes such a copy a source again. That a file is **missing** or
//! **unreadable** is looked at anew at each start, since a disk may only have been absent.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarta_metrics::node::CopyDefect;
use quarta_protocols::{
    ids::FileId,
    messages::inventory::{Completeness, Key},
    names::FileName,
};

use super::Shared;
use crate::{
    database::LibraryCopy,
    library::{Defect, Library, Stamp},
};

/// A copy that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defective {
    pub(crate) defect: Defect,
    pub(crate) name: FileName,
    pub(crate) path: PathBuf,
}

/// The copies that are known not to be sound: at most as many as there are in the library.
#[derive(Debug, Default)]
pub(crate) struct Defects(Mutex<HashMap<FileId, Defective>>);

impl Defects {
    /// Those that the start came upon.
    pub(super) fn of(found: HashMap<FileId, Defective>) -> Self {
        Self(Mutex::new(found))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<FileId, Defective>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the copy of a file, if anything is known to be.
    pub(crate) fn get(&self, file: &FileId) -> Option<Defective> {
        self.all().get(file).cloned()
    }

    /// How many there are, and the first few by name.
    pub(crate) fn first(&self, most: usize) -> (usize, Vec<Defective>) {
        let all = self.all();
        let mut first: Vec<Defective> = all.values().cloned().collect();
        first.sort_unstable_by(|a, b| (&a.path, &a.name).cmp(&(&b.path, &b.name)));
        first.truncate(most);
        (all.len(), first)
    }

    /// The copy has been replaced by a fresh one; gives what was wrong with the one before.
    pub(crate) fn replaced(&self, file: &FileId) -> Option<Defective> {
        self.all().remove(file)
    }

    fn count(&self, defect: Defect) -> usize {
        self.all().values().filter(|known| known.defect == defect).count()
    }
}

/// A first look at a copy; none where it is as it was, or nothing can be said.
pub(super) fn first_look(library: &Library, copy: &LibraryCopy) -> Option<Defective> {
    let mut looked = library.look(&copy.place, copy.stamp).ok().flatten()?;
    if looked == Defect::Changed && copy.stamp.is_damaged() {
        looked = Defect::Damaged;
    }
    Some(defective(library, copy, looked))
}

fn defective(library: &Library, copy: &LibraryCopy, defect: Defect) -> Defective {
    Defective { defect, name: copy.name.clone(), path: library.path_of(&copy.place) }
}

impl Shared {
    /// Whether a copy may be handed out as it lies. Where it may not, that is told. Blocks on the disk.
    pub(crate) fn is_sound(self: &Arc<Self>, copy: &LibraryCopy) -> bool {
        match first_look(&self.library, copy) {
            None => self.defects.get(&copy.file).is_none(),
            Some(found) => {
                self.lost(copy, found.defect);
                false
            }
        }
    }

    /// A copy is not what it should be: from now on it is no source. Blocks on the disk.
    pub(crate) fn lost(self: &Arc<Self>, copy: &LibraryCopy, defect: Defect) {
        // Other bytes in a file that nobody has written to: the disk has lost some.
        let untouched = matches!(self.library.look(&copy.place, copy.stamp), Ok(None));
        let damaged = untouched || copy.stamp.is_damaged();
        let defect = if defect == Defect::Changed && damaged { Defect::Damaged } else { defect };
        self.withdraw(copy.file);
        self.uploads.forget(&copy.content);
        let found = defective(&self.library, copy, defect);
        let known = self.defects.all().insert(copy.file, found.clone());
        if known.as_ref() == Some(&found) {
            return;
        }
        tracing::warn!(file = %copy.name, path = %found.path.display(), "a file of the library is {}: nothing that differs from \
            what was shared is sent, and it is offered to nobody; put the right file there and run `quarta verify`, or \
            fetch it with `quarta get`", defect.as_str());
        let doubted = match defect {
            Defect::Changed => Some(copy.stamp.doubted()),
            Defect::Damaged => Some(copy.stamp.damaged()),
            Defect::Missing | Defect::Unreadable => None,
        };
        if let Some(doubted) = doubted
            && let Err(error) = self.noted(self.database.set_stamp(copy, doubted))
        {
            tracing::error!(%error, "that a file has changed could not be noted; the next start looks at it again");
        }
    }

    /// As [`Shared::lost`] for the present copy of a file, from a task.
    pub(super) async fn lost_file(self: &Arc<Self>, file: FileId, defect: Defect) {
        self.withdraw(file);
        let shared = self.clone();
        let told = tokio::task::spawn_blocking(move || shared.lost_now(&file, defect));
        // A blocking task is only cancelled when the runtime ends.
        let _ = told.await;
    }

    /// As [`Shared::lost`] for the present copy of a file. Blocks on the disk.
    pub(super) fn lost_now(self: &Arc<Self>, file: &FileId, defect: Defect) {
        self.withdraw(*file);
        match self.database.copy(file) {
            Ok(Some(copy)) => self.lost(&copy, defect),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the database could not be read"),
        }
    }

    /// A copy was read to its last byte and is what it should be, with this stamp: it is a source. `false` where it is
    /// not the library's any more. Blocks on the disk.
    pub(crate) fn found_sound(self: &Arc<Self>, copy: &LibraryCopy, stamp: Stamp) -> bool {
        if copy.stamp != stamp {
            match self.noted(self.database.set_stamp(copy, stamp)) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::error!(%error, "that a copy is sound could not be noted; the next start looks at it again");
                }
            }
        }
        if self.defects.replaced(&copy.file).is_some() {
            tracing::info!(file = %copy.name, "a file of the library is as it was shared again, and offered again");
        }
        if copy.completeness == Completeness::Complete
            && self.inventory().get(&Key::Library(copy.file)).is_none()
            && !self.is_withheld(&copy.file)
        {
            self.offer(&LibraryCopy { stamp, ..copy.clone() });
        }
        true
    }

    /// Brings the gauges of defective copies up to date.
    pub(super) fn refresh_defects(&self) {
        for (defect, label) in [
            (Defect::Changed, CopyDefect::Changed),
            (Defect::Missing, CopyDefect::Missing),
            (Defect::Unreadable, CopyDefect::Unreadable),
            (Defect::Damaged, CopyDefect::Damaged),
        ] {
            self.metrics.node.defective_copies.set(label, self.defects.count(defect));
        }
    }
}
