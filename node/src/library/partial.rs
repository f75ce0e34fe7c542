//! What a fetch has got so far: `DATA/partial/FILE.CONTENT.part`, and beside it `FILE.CONTENT.marks`, which says what of
//! it can be there.
//!
//! ```text
//! .part   the file's plaintext, each chunk at its place, the rest a hole or anything
//! .marks  ┌───────────────┬────────────────────┬──────────────────────────────────────┐
//!         │ M, 4 bytes BE │ the manifest, M    │ a bit for each chunk, the first in   │
//!         │               │ bytes              │ the highest bit of the first byte    │
//!         └───────────────┴────────────────────┴──────────────────────────────────────┘
//! ```
//!
//! **Marks are claims, not facts.** A mark is written after its chunk and neither is made durable, which would cost a
//! flush for each chunk; after a power loss a mark may be there without its chunk. Whoever goes on reads every chunk that
//! is marked back and compares it with the manifest, which the content's id proves. So no mark, and nobody who edits
//! these files, can bring a wrong byte into the library; the worst they do is that a chunk is fetched again.
//!
//! One name for each file *and* content: a second record that names the same content, perhaps with a wrong key, cannot
//! touch what another fetch has got.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use quarta_protocols::{
    content::{CHUNKS_MAX, MANIFEST_MAX_BYTES, Manifest},
    ids::{ContentId, FileId},
};
use rustix::fs::{Mode, OFlags};

use super::{Library, LibraryError, PARTIAL, Staged, beneath, staged};
use crate::download::chunk_set::ChunkSet;

/// The bytes before the manifest.
const LENGTH_BYTES: usize = 4;
/// The largest file of marks. A larger one is none.
const MARKS_MAX_BYTES: u64 = (LENGTH_BYTES + MANIFEST_MAX_BYTES) as u64 + CHUNKS_MAX.div_ceil(8);

/// Which fetch's data: of which file, in which content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartialName {
    /// The file.
    pub file: FileId,
    /// The content that is fetched.
    pub content: ContentId,
}

impl PartialName {
    fn data(&self) -> String {
        format!("{self}.part")
    }

    fn marks(&self) -> String {
        format!("{self}.marks")
    }

    /// Whose data a file of the folder is; none where it is nobody's.
    pub(super) fn of(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".part").or_else(|| name.strip_suffix(".marks"))?;
        let (file, content) = stem.split_once('.')?;
        let parsed = Self { file: file.parse().ok()?, content: content.parse().ok()? };
        // An id may be written in several ways; these files' names are not.
        (parsed.to_string() == stem).then_some(parsed)
    }
}

impl fmt::Display for PartialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.content)
    }
}

/// The open data of one fetch. Dropping it leaves it for the next attempt.
#[derive(Debug)]
pub(crate) struct Partial {
    data: Staged,
    /// None for a content of one chunk, which is there or not, and has its manifest in its record.
    marks: Option<Marks>,
    claimed: ChunkSet,
    /// Whether the file was placed already and the database does not know: all of it was verified then.
    was_placed: bool,
}

#[derive(Debug)]
struct Marks {
    file: File,
    /// Where the bits begin.
    bits_at: u64,
}

impl Partial {
    /// Where the data goes.
    pub(crate) const fn file(&self) -> &File {
        self.data.file()
    }

    pub(crate) const fn staged(&mut self) -> &mut Staged {
        &mut self.data
    }

    /// What may be here.
    pub(crate) const fn claimed(&self) -> &ChunkSet {
        &self.claimed
    }

    pub(crate) const fn was_placed(&self) -> bool {
        self.was_placed
    }

    /// Notes that a chunk is here, given all that are. One byte, to the page cache.
    pub(crate) fn mark(&self, index: u32, here: &ChunkSet) {
        if let Some(marks) = &self.marks {
            let at = index / 8;
            // Without its mark the chunk is fetched again, should this process end before the fetch does.
            let _ = marks.file.write_all_at(&[here.wire_byte(at)], marks.bits_at + u64::from(at));
        }
    }

    /// Notes which chunks are here, and that no other is.
    pub(crate) fn mark_all(&self, here: &ChunkSet) -> io::Result<()> {
        match &self.marks {
            Some(marks) => marks.file.write_all_at(&here.to_wire(), marks.bits_at),
            None => Ok(()),
        }
    }
}

impl Library {
    /// The manifest that an earlier attempt at a fetch has got; none where there was none, or it is not readable.
    pub(crate) fn partial_manifest(&self, name: &PartialName) -> Option<Manifest> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&*self.partial, name.marks(), flags, Mode::empty()).ok()?);
        let bytes = read_marks(&file).ok()?;
        let (manifest, _) = split(&bytes)?;
        Manifest::verify(manifest, &name.content).ok()
    }

    /// Opens what a fetch has got, or begins anew, and reserves the whole file's space. Waits until nobody else has it
    /// open.
    ///
    /// # Errors
    /// [`LibraryError::DiskFull`] or [`LibraryError::Disk`]; what was there stays.
    pub(crate) fn open_partial(
        &self,
        name: &PartialName,
        manifest: &Manifest,
    ) -> Result<Partial, LibraryError> {
        let disk = |action: &'static str| {
            let path = self.data.join(PARTIAL);
            move |source| LibraryError::Disk { action, path, source }
        };
        let data = Staged::open_lasting(&self.partial, &name.data()).map_err(disk("create a file in"))?;
        let geometry = manifest.geometry();
        let size_bytes = geometry.size_bytes();
        let longer = data.file().metadata().map_err(disk("look into"))?.len() > size_bytes;
        let was_placed = data.is_linked().map_err(disk("look into"))?;
        if !was_placed {
            if longer {
                data.file().set_len(size_bytes).map_err(disk("write to"))?;
            }
            self.reserve(&data, size_bytes)?;
        }
        let (marks, claimed) = if geometry.chunks() == 1 {
            (None, ChunkSet::none(1))
        } else {
            let (marks, claimed) = self.open_marks(name, manifest).map_err(disk("write to"))?;
            (Some(marks), claimed)
        };
        let claimed = if was_placed { ChunkSet::all(geometry.chunks()) } else { claimed };
        Ok(Partial { data, marks, claimed, was_placed })
    }

    fn open_marks(&self, name: &PartialName, manifest: &Manifest) -> io::Result<(Marks, ChunkSet)> {
        let chunks = manifest.geometry().chunks();
        let bits = chunks.div_ceil(8) as usize;
        let encoded = manifest.to_bytes();
        let bits_at = (LENGTH_BYTES + encoded.len()) as u64;
        let Some(file) = staged::open_regular(&self.partial, &name.marks())?
            .or(staged::open_regular(&self.partial, &name.marks())?)
        else {
            return Err(io::Error::other("something else keeps taking its place"));
        };
        if let Ok(bytes) = read_marks(&file)
            && let Some((manifest, claims)) = split(&bytes)
            && manifest == encoded
        {
            // What is cut off claims nothing.
            let mut claims = claims.to_vec();
            claims.resize(bits, 0);
            let claimed = ChunkSet::from_wire(&claims, chunks).unwrap_or_else(|_| ChunkSet::none(chunks));
            return Ok((Marks { file, bits_at }, claimed));
        }
        let mut fresh = u32::try_from(encoded.len()).unwrap_or(0).to_be_bytes().to_vec();
        fresh.extend_from_slice(&encoded);
        fresh.resize(fresh.len() + bits, 0);
        file.set_len(0)?;
        file.write_all_at(&fresh, 0)?;
        Ok((Marks { file, bits_at }, ChunkSet::none(chunks)))
    }

    /// Removes what a fetch has got; a file that was placed stays in the library. Nothing to do is no failure, and what
    /// cannot be removed now is at the next start.
    pub fn discard_partial(&self, name: &PartialName) {
        self.remove_partial(&name.marks());
        self.remove_partial(&name.data());
    }

    /// Discards what is open, before anybody else can open it.
    pub(crate) fn discard_open(&self, partial: Partial, name: &PartialName) {
        self.remove_partial(&name.marks());
        partial.data.discard();
    }

    fn remove_partial(&self, name: &str) {
        if let Err(error) = staged::remove(&self.partial, name) {
            tracing::warn!(%error, "partial data could not be removed; the next start tries again");
        }
    }

    /// Removes all partial data but that of `keep`, and whatever else has got into the folder. For the start, before
    /// any fetch.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn sweep_partials(&self, keep: &HashSet<PartialName>) -> io::Result<()> {
        for name in beneath::names(&self.partial)? {
            let name = name?;
            let kept = name.to_str().and_then(PartialName::of).is_some_and(|partial| keep.contains(&partial));
            if !kept && let Err(error) = staged::remove(&self.partial, name.as_os_str()) {
                tracing::warn!(?name, %error, "something in the folder of partial files could not be removed");
            }
        }
        Ok(())
    }
}

/// At most one byte more than there can be, which then is not the expected manifest's.
fn read_marks(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MARKS_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The manifest and the bits.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use quarta_protocols::content::Geometry;

    use super::*;

    /// They outlast a change of the program.
    #[test]
    fn the_bytes_of_marks_are_as_documented() {
        let base = tempfile::tempdir().unwrap();
        let library = Library::open(base.path()).unwrap();
        let geometry = Geometry::for_size(9 << 18).unwrap();
        let manifest = Manifest::new(geometry, vec![[3; 32]; 9]).unwrap();
        let name = PartialName { file: FileId::from_bytes([0xab; 32]), content: manifest.id() };
        let partial = library.open_partial(&name, &manifest).unwrap();
        let mut here = ChunkSet::none(9);
        for index in [1, 8] {
            here.insert(index);
            partial.mark(index, &here);
        }
        let marks = base.path().join("partial").join(format!("{}.{}.marks", name.file, name.content));
        let encoded = manifest.to_bytes();
        let expected = [&[0, 0, 1, 42][..], &encoded, &[0b0100_0000, 0b1000_0000]].concat();
        assert_eq!(encoded.len(), 256 + 42);
        assert_eq!(std::fs::read(marks).unwrap(), expected);
        assert_eq!(library.partial_manifest(&name), Some(manifest));
    }

    #[test]
    fn only_the_names_of_partial_data_are_taken_for_such() {
        let name =
            PartialName { file: FileId::from_bytes([0xab; 32]), content: ContentId::from_bytes([7; 32]) };
        assert_eq!(PartialName::of(&name.data()), Some(name));
        assert_eq!(PartialName::of(&name.marks()), Some(name));
        let upper = name.data().to_uppercase().replace("PART", "part");
        let others = [upper, format!("{name}"), format!("{name}.bak"), "old.part".into(), "a.b.part".into()];
        for other in others {
            assert_eq!(PartialName::of(&other), None, "{other}");
        }
    }
}
