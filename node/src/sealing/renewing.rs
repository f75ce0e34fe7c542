//! New contents of files that are shared already: sealed as added ones are, and put into their place by whoever knows it.

use std::io;

use quarta_protocols::names::FileName;

use super::{AddError, Product, SealError, SourceError, geometry, pipeline, receive, unwritten};
use crate::{
    library::{Library, Place, Staged, Stamp},
    sealing::Added,
};

/// A new content, sealed; its plaintext is complete and not in the library yet.
#[derive(Debug)]
pub struct Renewed {
    staged: Staged,
    product: Product,
    stamp: Stamp,
}

impl Renewed {
    /// The plaintext's SHA-256.
    pub const fn sha256(&self) -> quarta_protocols::ids::Sha256 {
        self.product.sha256
    }

    /// Puts it where `place` says, and gives it as an added file.
    ///
    /// # Errors
    /// As `place` has them; nothing is left behind then.
    pub fn settle<E>(
        self,
        name: &FileName,
        place: impl FnOnce(Staged) -> Result<crate::library::LibraryPath, E>,
    ) -> Result<Added, E> {
        let path = place(self.staged)?;
        Ok(super::added(self.product, Place::Library(path), self.stamp, name))
    }
}

/// Seals a stream that is to be the new content of the file `name`. The size need not be known; where it is, its space is
/// reserved first.
///
/// # Errors
/// [`AddError`]; nothing is left behind. A stream of another size than was said has broken off.
pub fn renew(
    library: &Library,
    stream: &mut dyn io::Read,
    name: &FileName,
    said_bytes: Option<u64>,
) -> Result<Renewed, AddError> {
    let (staged, size_bytes) = receive(library, stream, name, said_bytes)?;
    let product =
        pipeline::seal(super::fresh_key(), staged.file(), None, geometry(size_bytes, name)?, &mut |_| ())
            .map_err(|(SealError::Read(cause) | SealError::Write(cause))| unwritten(name, cause))?;
    let stamp = Stamp::of(staged.file()).map_err(|cause| unwritten(name, cause))?;
    Ok(Renewed { staged, product, stamp })
}

/// Seals the file that lies at `place` as it is now, e.g. after a person has edited it there.
///
/// # Errors
/// [`AddError`] where it cannot be read, or changes meanwhile.
pub fn renew_in_place(library: &Library, place: &Place, name: &FileName) -> Result<Added, AddError> {
    let path = library.path_of(place);
    let failed = |cause| AddError::from(SourceError::Unreadable { path: path.clone(), cause });
    let file = library.open_file(place).map_err(failed)?;
    let stamp = Stamp::of(&file).map_err(failed)?;
    let sealed =
        pipeline::seal(super::fresh_key(), &file, None, geometry(stamp.size_bytes, name)?, &mut |_| ());
    let product = sealed.map_err(|(SealError::Read(cause) | SealError::Write(cause))| failed(cause))?;
    // Opened anew: many programs save by putting a new file in the old one's place.
    let after = library.open_file(place).and_then(|file| Stamp::of(&file)).map_err(failed)?;
    if after != stamp {
        return Err(SourceError::Changed { path }.into());
    }
    Ok(super::added(product, place.clone(), stamp, name))
}
