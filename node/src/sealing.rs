//! Adding a file: from a path or a stream to a sealed content with a manifest, in constant memory.
//!
//! What is sealed and hashed is what the library keeps. A copy is made by sharing blocks where the file system can
//! (then the clone is sealed: a snapshot that nobody else writes to), else chunk by chunk, each chunk being hashed,
//! written and sealed from one buffer; so the checksum, the manifest and the file in the library agree whatever happens
//! to the source meanwhile. A source that does change while it is added is refused all the same, since half of the old
//! and half of the new is a file that nobody made.

mod pipeline;
pub mod renewing;
mod source;

use std::{fs::File, io};

use quarta_daemon::cause::{self, Plain};
use quarta_protocols::{
    content::{ContentKey, FILE_MAX_BYTES, Geometry, Manifest, TooLarge},
    ids::Sha256,
    names::FileName,
};

use self::pipeline::{Product, SealError};
pub use self::source::{Source, SourceError};
use crate::library::{Defect, Library, LibraryError, Place, Staged, Stamp};

/// What a stream of unknown length is copied with.
const COPY_BYTES: usize = 256 * 1024;

/// Whether the library gets a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The library gets a copy of its own.
    Copy,
    /// The file is shared from where it lies. Editing it there makes it unavailable until it is updated.
    InPlace,
}

/// A file that was sealed and lies where it is to be served from.
#[derive(Debug)]
pub struct Added {
    /// The content's manifest.
    pub manifest: Manifest,
    /// The content's key, freshly drawn.
    pub key: ContentKey,
    /// The plaintext's SHA-256.
    pub sha256: Sha256,
    /// Where the plaintext lies.
    pub place: Place,
    /// Its size and modification time there.
    pub stamp: Stamp,
    /// The media type that the name's extension suggests.
    pub media_type: Option<String>,
}

/// Why a file is not added. Nothing is left behind then. The text is "what: why; next step".
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The library cannot take it.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The file is larger than a content can be.
    #[error("cannot add {name}: {}; {}", self.why(), self.next_step())]
    TooLarge {
        /// The name it was to have.
        name: FileName,
        /// How large it is.
        cause: TooLarge,
    },
    /// The stream that was to become the file broke off.
    #[error("cannot add {name}: {}; {}", self.why(), self.next_step())]
    Upload {
        /// The name it was to have.
        name: FileName,
        /// Why.
        cause: io::Error,
    },
    /// The library's own disk fails.
    #[error("cannot add {name}: {}; {}", self.why(), self.next_step())]
    Write {
        /// The name it was to have.
        name: FileName,
        /// Why.
        cause: io::Error,
    },
}

impl AddError {
    /// The middle part of the error: why it is so.
    pub fn why(&self) -> String {
        match self {
            Self::Source(error) => error.why(),
            Self::Library(error) => error.why(),
            Self::TooLarge { cause, .. } => cause.to_string(),
            Self::Upload { cause, .. } => format!("the upload broke off: {}", Plain(cause)),
            Self::Write { cause, .. } => format!("the library cannot be written: {}", Plain(cause)),
        }
    }

    /// The last part of the error: what to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Source(error) => error.next_step(),
            Self::Library(error) => error.next_step(),
            Self::TooLarge { .. } => "split it",
            Self::Upload { .. } => "send it again",
            Self::Write { cause, .. } => cause::next_step(cause),
        }
    }
}

/// Seals a source and puts it into the library under `name`, or leaves it where it lies. Tells `progress` how many
/// bytes were read, after each chunk.
///
/// Blocks for as long as reading, hashing and writing the file takes.
///
/// # Errors
/// [`AddError`]; nothing is left behind.
pub fn add(
    library: &Library,
    source: Source,
    name: &FileName,
    mode: Mode,
    progress: &mut dyn FnMut(u64),
) -> Result<Added, AddError> {
    let geometry = geometry(source.stamp().size_bytes, name)?;
    if mode == Mode::InPlace {
        let product =
            product(name, &source, pipeline::seal(fresh_key(), source.file(), None, geometry, progress))?;
        source.check_unchanged()?;
        source.check_in_place()?;
        let stamp = source.stamp();
        return Ok(added(product, Place::InPlace(source.into_path()), stamp, name));
    }
    library.check_free(name)?;
    let (staged, sealed) = if let Some(clone) = cloned(library, &source)? {
        let sealed = pipeline::seal(fresh_key(), clone.file(), None, geometry, progress);
        (clone, sealed)
    } else {
        let copy = library.stage_reserved(geometry.size_bytes())?;
        let sealed = pipeline::seal(fresh_key(), source.file(), Some(copy.file()), geometry, progress);
        (copy, sealed)
    };
    let product = product(name, &source, sealed)?;
    source.check_unchanged()?;
    settle(library, staged, name, product)
}

/// Stages a stream whole, and tells its size. A stream of another size than was said has broken off.
fn receive(
    library: &Library,
    stream: &mut dyn io::Read,
    name: &FileName,
    said_bytes: Option<u64>,
) -> Result<(Staged, u64), AddError> {
    let staged = match said_bytes {
        Some(said) => library.stage_reserved(geometry(said, name)?.size_bytes())?,
        None => library.stage()?,
    };
    let size_bytes = spool(stream, staged.file(), name)?;
    if said_bytes.is_some_and(|said| said != size_bytes) {
        let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "it has another size than was said");
        return Err(AddError::Upload { name: name.clone(), cause });
    }
    Ok((staged, size_bytes))
}

/// Like [`add`] for a stream, e.g. an upload. The size need not be known; where it is, its space is reserved first.
///
/// # Errors
/// [`AddError`]; nothing is left behind. A stream of another size than was said has broken off.
pub fn add_stream(
    library: &Library,
    stream: &mut dyn io::Read,
    name: &FileName,
    said_bytes: Option<u64>,
) -> Result<Added, AddError> {
    library.check_free(name)?;
    let (staged, size_bytes) = receive(library, stream, name, said_bytes)?;
    let geometry = geometry(size_bytes, name)?;
    let product = pipeline::seal(fresh_key(), staged.file(), None, geometry, &mut |_| ()).map_err(
        |error| match error {
            SealError::Read(cause) | SealError::Write(cause) => unwritten(name, cause),
        },
    )?;
    settle(library, staged, name, product)
}

/// Copies a stream into a staged file and gives its length; an endless one ends at the largest size of a file.
fn spool(stream: &mut dyn io::Read, mut into: &File, name: &FileName) -> Result<u64, AddError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(size_bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(AddError::Upload { name: name.clone(), cause }),
        };
        size_bytes += read as u64;
        if size_bytes > FILE_MAX_BYTES {
            return Err(AddError::TooLarge { name: name.clone(), cause: TooLarge(size_bytes) });
        }
        io::Write::write_all(&mut into, &buffer[..read]).map_err(|cause| unwritten(name, cause))?;
    }
}

fn settle(library: &Library, staged: Staged, name: &FileName, product: Product) -> Result<Added, AddError> {
    let stamp = Stamp::of(staged.file()).map_err(|cause| unwritten(name, cause))?;
    let path = library.place_own(staged, name)?;
    Ok(added(product, Place::Library(path), stamp, name))
}

fn added(product: Product, place: Place, stamp: Stamp, name: &FileName) -> Added {
    let Product { manifest, key, sha256 } = product;
    let media_type = mime_guess::from_path(name.leaf()).first_raw().map(str::to_owned);
    Added { manifest, key, sha256, place, stamp, media_type }
}

fn geometry(size_bytes: u64, name: &FileName) -> Result<Geometry, AddError> {
    Geometry::for_size(size_bytes).map_err(|cause| AddError::TooLarge { name: name.clone(), cause })
}

fn product(
    name: &FileName,
    source: &Source,
    sealed: Result<Product, SealError>,
) -> Result<Product, AddError> {
    sealed.map_err(|error| match error {
        SealError::Read(cause) => source.read_failed(cause).into(),
        SealError::Write(cause) => unwritten(name, cause),
    })
}

fn unwritten(name: &FileName, cause: io::Error) -> AddError {
    AddError::Write { name: name.clone(), cause }
}

/// One key for one content, never for two.
pub fn fresh_key() -> ContentKey {
    ContentKey::from_bytes(rand::random())
}

/// Why a copy is not sealed anew.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// It is not the plaintext that the checksum says.
    #[error("the copy is {}", .0.as_str())]
    Defective(Defect),
    /// Nothing is wrong with it: this process has too many files open.
    #[error("{}", Plain(.0))]
    NotNow(io::Error),
}

/// Seals a copy that lies in the library under another key, without copying it: the content of the same plaintext for
/// other readers. Gives its manifest; a plaintext of another checksum gives none, so that an edit is never taken for the
/// file.
///
/// Blocks for as long as reading and hashing the file takes.
///
/// # Errors
/// [`ResealError`].
pub fn reseal(
    library: &Library,
    place: &Place,
    key: &ContentKey,
    sha256: &Sha256,
) -> Result<Manifest, ResealError> {
    let defective = |cause: io::Error| {
        Defect::of_failure(&cause).map_or(ResealError::NotNow(cause), ResealError::Defective)
    };
    let file = library.open_file(place).map_err(defective)?;
    let size_bytes = Stamp::of(&file).map_err(defective)?.size_bytes;
    let geometry = Geometry::for_size(size_bytes).map_err(|_| ResealError::Defective(Defect::Changed))?;
    let sealed = pipeline::seal(key.clone(), &file, None, geometry, &mut |_| ());
    let product = sealed.map_err(|error| match error {
        SealError::Read(cause) | SealError::Write(cause) => defective(cause),
    })?;
    if product.sha256 != *sha256 {
        return Err(ResealError::Defective(Defect::Changed));
    }
    Ok(product.manifest)
}

/// A staged file that shares the source's blocks, on file systems that can (btrfs, XFS, …).
///
/// Over the open descriptors, so that it is a clone of the very file that was checked.
fn cloned(library: &Library, source: &Source) -> Result<Option<Staged>, LibraryError> {
    #[cfg(target_os = "linux")]
    {
        let staged = library.stage()?;
        let clone = rustix::fs::ioctl_ficlone(staged.file(), source.file());
        Ok(clone.is_ok().then_some(staged))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (library, source);
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
