use std::{io::Write, os::unix::fs::symlink, path::PathBuf, time::Duration};

use quarta_protocols::names::FileName;
use tempfile::TempDir;

use super::*;
use crate::sealing::{self, Added};

const CHUNK: usize = 256 * 1024;

/// A node with one file.
struct Holder {
    _base: TempDir,
    library: Library,
    added: Added,
    plain: Vec<u8>,
}

impl Holder {
    fn with(size: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let library = Library::open(base.path()).unwrap();
        let plain: Vec<u8> = (0..241).cycle().take(size).collect();
        let name = FileName::new("folder/file").unwrap();
        let added = sealing::add_stream(&library, &mut &plain[..], &name, None).unwrap();
        Self { _base: base, library, added, plain }
    }

    fn defect(&self) -> Option<Defect> {
        match self.open().unwrap_err() {
            Unservable::Defective(defect) => Some(defect),
            Unservable::NotNow(_) => None,
        }
    }

    fn open(&self) -> Result<Serving, Unservable> {
        Serving::open(&self.library, &self.added.place, self.added.key.cipher(), self.added.manifest.clone())
    }

    fn path(&self) -> PathBuf {
        self.library.path_of(&self.added.place)
    }

    /// Runs a run to its end and gives what was received.
    async fn run(&self, first: u32, count: u32) -> (RunReport, Vec<Result<Bytes, Abort>>) {
        let (to, mut from) = mpsc::channel(2);
        let serving = Arc::new(self.open().unwrap());
        let run = tokio::spawn(stream_run(serving, first, count, to));
        let mut received = Vec::new();
        while let Some(chunk) = from.recv().await {
            received.push(chunk);
        }
        (run.await.unwrap(), received)
    }
}

#[tokio::test]
async fn a_run_hands_over_the_chunks_asked_for_in_order_and_they_open_to_the_file() {
    for size in [0, 1, CHUNK, CHUNK + 1, 9 * CHUNK + 7] {
        let holder = Holder::with(size);
        let chunks = holder.added.manifest.geometry().chunks();
        let (report, received) = holder.run(0, chunks).await;
        assert_eq!((report.end, report.chunks), (RunEnd::Complete, chunks));
        assert_eq!(report.bytes, holder.added.manifest.geometry().sealed_bytes());
        let cipher = holder.added.key.cipher();
        let mut opened = Vec::new();
        for (index, chunk) in (0u32..).zip(received) {
            opened.extend_from_slice(cipher.open(index, &mut chunk.unwrap().to_vec()).unwrap());
        }
        assert!(opened == holder.plain, "{size}");
    }
    let holder = Holder::with(5 * CHUNK);
    let (_, received) = holder.run(2, 2).await;
    for (index, chunk) in (2u32..).zip(received) {
        assert_eq!(holder.added.manifest.check(index, &chunk.unwrap()), Ok(()));
    }
}

#[tokio::test]
async fn not_a_byte_of_an_edited_chunk_is_served() {
    let holder = Holder::with(4 * CHUNK);
    let modified = std::fs::metadata(holder.path()).unwrap().modified().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(holder.path()).unwrap();
    file.write_all_at(b"x", 2 * CHUNK as u64 + 5).unwrap();
    // As an editor that restores the times does.
    file.set_modified(modified).unwrap();
    let (report, received) = holder.run(0, 4).await;
    assert_eq!(report.end, RunEnd::Aborted(Abort::Changed));
    assert_eq!((report.chunks, received.len()), (2, 3));
    assert_eq!(received[2], Err(Abort::Changed));
}

#[test]
fn a_copy_that_is_shorter_longer_or_a_link_is_changed_and_one_that_is_gone_is_missing() {
    let holder = Holder::with(2 * CHUNK);
    let open = holder.open().unwrap();
    let file = std::fs::OpenOptions::new().append(true).open(holder.path()).unwrap();
    (&file).write_all(b"more").unwrap();
    assert_eq!(holder.defect(), Some(Defect::Changed));
    file.set_len(CHUNK as u64).unwrap();
    assert!(open.read(0).is_ok());
    assert_eq!(open.read(1), Err(Abort::Changed), "cut off while it was open");
    assert_eq!(open.read(2), Err(Abort::Unreadable), "no such chunk");
    let aside = holder.path().with_extension("aside");
    std::fs::rename(holder.path(), &aside).unwrap();
    assert_eq!(holder.defect(), Some(Defect::Missing));
    symlink(&aside, holder.path()).unwrap();
    assert_eq!(holder.defect(), Some(Defect::Changed));
}

#[tokio::test]
async fn a_run_stops_when_its_receiver_is_gone() {
    let holder = Holder::with(8 * CHUNK);
    let serving = Arc::new(holder.open().unwrap());
    let (to, mut from) = mpsc::channel(1);
    let run = tokio::spawn(stream_run(Arc::clone(&serving), 0, 8, to));
    from.recv().await.unwrap().unwrap();
    drop(from);
    let report = tokio::time::timeout(Duration::from_secs(2), run).await.expect("it stops at once").unwrap();
    assert_eq!(report.end, RunEnd::Cancelled);
    assert!(report.chunks < 8);
}

#[test]
fn reading_ahead_is_bounded_whatever_the_size_of_the_file() {
    for size in [0, 1 << 20, 1 << 30, 64 << 30, 1 << 40] {
        let geometry = Geometry::for_size(size).unwrap();
        let held = ahead(geometry) as u64 * geometry.chunk_bytes();
        assert!(held <= AHEAD_BYTES.max(geometry.chunk_bytes()));
    }
}
