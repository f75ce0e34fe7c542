//! Getting what has been written on its way to the disk early.
//!
//! A file gets into the library durable, and a flush at its end that finds a gigabyte in the page cache takes as long as
//! the disk takes for all of it, with the network idle meanwhile. So whoever writes a file from its beginning tells how
//! far it has got, and every few megabytes the system is told to begin writing them, without waiting. It also keeps a
//! fetch of many gigabytes from filling the memory with what waits for the disk.

use std::fs::File;

/// What is sent on its way at once: large enough that a disk writes it in one go, small enough that little is left at the
/// end.
const STEP_BYTES: u64 = 8 << 20;

/// How far a file is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Writeback {
    begun_bytes: u64,
}

impl Writeback {
    /// The file is written up to here. Starts writing what has come since the last time; blocks only where the disk's
    /// own queue is full.
    pub(crate) fn reached(&mut self, file: &File, end_bytes: u64) {
        if let Some((from, length)) = self.step(end_bytes) {
            begin(file, from, length);
        }
    }

    /// The stretch that is to be written now: where it begins, and its length.
    fn step(&mut self, end_bytes: u64) -> Option<(u64, u64)> {
        let length = end_bytes.saturating_sub(self.begun_bytes);
        if length < STEP_BYTES {
            return None;
        }
        let from = std::mem::replace(&mut self.begun_bytes, end_bytes);
        Some((from, length))
    }
}

/// Linux writes what is dirty before it forgets what it is told will not be needed: it does not wait, and so forgets
/// nothing that was just written.
#[cfg(target_os = "linux")]
fn begin(file: &File, from: u64, length: u64) {
    let Some(length) = std::num::NonZeroU64::new(length) else { return };
    // Where it is not heeded, the flush at the end takes longer.
    let _ = rustix::fs::fadvise(file, from, Some(length), rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn begin(_: &File, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_but_the_last_few_megabytes_is_sent_on_its_way_once() {
        let mut writeback = Writeback::default();
        let mut sent = 0;
        for end in (0..100).map(|chunk| chunk * (STEP_BYTES / 3)) {
            if let Some((from, length)) = writeback.step(end) {
                assert_eq!(from, sent, "no gap and nothing twice");
                sent = from + length;
            }
            assert!(end - sent < STEP_BYTES);
        }
        assert!(sent > 0);
    }

    #[test]
    fn what_was_written_is_there_afterwards() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![7; usize::try_from(STEP_BYTES).unwrap()];
        file.write_all_at(&bytes, 0).unwrap();
        Writeback::default().reached(&file, STEP_BYTES);
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
    }
}
