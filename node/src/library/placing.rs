//! Where a finished file goes in the library: the rule for names that clash, and the steps that carry it out.
//!
//! A path is gone down a component at a time. At each the name is free, a folder to go into, or taken; taken counts
//! also for a twin. An own file is refused then; a fetched one tries the next of its candidates. Whatever fails on the
//! way, the folders made for it are removed again.

use std::{io, os::fd::OwnedFd, sync::PoisonError};

use quarta_protocols::{
    ids::FileId,
    names::{FileName, MemberName},
};
use rustix::fs::{AtFlags, FileType};

use super::{
    Library, LibraryError, LibraryPath, SUFFIXES_MAX, Staged, beneath,
    twins::{self, Twins},
};

/// Whose a name is decides what gives way.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    Own(&'a FileName),
    Fetched(&'a FileId),
}

/// What is found under a component.
enum Found {
    Nothing,
    Folder(OwnedFd),
    /// A file, a link, anything that is no folder.
    Other,
    Twin,
}

impl Library {
    /// Says early whether an own file could take its name; only [`Library::place_own`] settles it.
    ///
    /// # Errors
    /// [`LibraryError::Taken`] or [`LibraryError::Twin`].
    pub fn check_free(&self, name: &FileName) -> Result<(), LibraryError> {
        let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = self.root.try_clone().map_err(|e| self.failed("open", "", e))?;
        let mut shown = String::new();
        let parts: Vec<&str> = name.components().collect();
        for (place, part) in parts.iter().enumerate() {
            let leaf = place + 1 == parts.len();
            let found = look(&mut twins, &at, part).map_err(|e| self.failed("look at", part, e))?;
            match found {
                Found::Nothing => return Ok(()),
                Found::Folder(next) if !leaf => at = next,
                clash => return Err(self.clash(name, &clash, &at, &shown, part)),
            }
            push(&mut shown, part);
        }
        Ok(())
    }

    /// Moves an own file to its name. On an error the staged file is gone and no folder is left behind.
    ///
    /// # Errors
    /// [`LibraryError::Taken`], [`LibraryError::Twin`] or [`LibraryError::Disk`].
    pub fn place_own(&self, staged: Staged, name: &FileName) -> Result<LibraryPath, LibraryError> {
        let mut staged = staged;
        self.place(&mut staged, &name.components().collect::<Vec<_>>(), Whose::Own(name))
    }

    /// Moves a newer version of a file to where the one before lay, which is free now. On an error the staged file is gone.
    ///
    /// # Errors
    /// As [`Library::place_own`].
    pub fn place_again(
        &self,
        staged: Staged,
        path: &LibraryPath,
        name: &FileName,
    ) -> Result<LibraryPath, LibraryError> {
        let mut staged = staged;
        self.place(&mut staged, &path.as_str().split('/').collect::<Vec<_>>(), Whose::Own(name))
    }

    /// Puts a fetched file at `<owner>/<name>`, with suffixes where that is taken. One that lasts keeps its name among
    /// the files in the making until it is discarded, and is found where it is if it was placed before. On an error no
    /// folder is left behind.
    ///
    /// # Errors
    /// [`LibraryError::Crowded`] or [`LibraryError::Disk`].
    pub fn place_fetched(
        &self,
        staged: &mut Staged,
        owner: &MemberName,
        name: &FileName,
        file: &FileId,
    ) -> Result<LibraryPath, LibraryError> {
        let parts: Vec<&str> = std::iter::once(owner.as_str()).chain(name.components()).collect();
        self.place(staged, &parts, Whose::Fetched(file))
    }

    pub(super) fn place(
        &self,
        staged: &mut Staged,
        parts: &[&str],
        whose: Whose<'_>,
    ) -> Result<LibraryPath, LibraryError> {
        staged.file().sync_all().map_err(|e| self.failed("write", parts[0], e))?;
        let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = Made::default();
        let placed = self.descend(&mut twins, &mut made, staged, parts, whose);
        if placed.is_err() {
            made.undo();
        }
        placed
    }

    fn descend(
        &self,
        twins: &mut Twins,
        made: &mut Made,
        staged: &mut Staged,
        parts: &[&str],
        whose: Whose<'_>,
    ) -> Result<LibraryPath, LibraryError> {
        let (leaf, folders) = parts.split_last().expect("a name has at least one component");
        let mut at = self.root.try_clone().map_err(|e| self.failed("open", "", e))?;
        let mut shown = String::new();
        for part in folders {
            let (next, name) = self.enter(twins, made, &at, &shown, part, whose)?;
            push(&mut shown, &name);
            at = next;
        }
        for name in candidates(leaf, whose) {
            match look(twins, &at, &name).map_err(|e| self.failed("look at", &name, e))? {
                Found::Nothing => match staged.place(&at, &name) {
                    Ok(()) => {
                        let settled = twins.added(&at, &name).and_then(|()| Ok(rustix::fs::fsync(&at)?));
                        if let Err(error) = settled {
                            // What may not survive a power loss is not claimed to be here.
                            staged.take_back(&at, &name);
                            return Err(self.failed("make durable", &name, error));
                        }
                        push(&mut shown, &name);
                        return Ok(LibraryPath(shown));
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        self.yield_or_refuse(whose, &Found::Other, &at, &shown, &name)?;
                    }
                    Err(error) => return Err(self.failed("create", &name, error)),
                },
                clash => {
                    if staged.is_at(&at, &name).map_err(|e| self.failed("look at", &name, e))? {
                        rustix::fs::fsync(&at).map_err(|e| self.failed("make durable", &name, e.into()))?;
                        push(&mut shown, &name);
                        return Ok(LibraryPath(shown));
                    }
                    self.yield_or_refuse(whose, &clash, &at, &shown, &name)?;
                }
            }
        }
        Err(LibraryError::Crowded(parts.join("/")))
    }

    /// Opens the folder `part` in `at`, making it where it is missing, and says under which name.
    fn enter(
        &self,
        twins: &mut Twins,
        made: &mut Made,
        at: &OwnedFd,
        shown: &str,
        part: &str,
        whose: Whose<'_>,
    ) -> Result<(OwnedFd, String), LibraryError> {
        for name in candidates(part, whose) {
            match look(twins, at, &name).map_err(|e| self.failed("look at", &name, e))? {
                Found::Folder(next) => return Ok((next, name)),
                Found::Nothing => {
                    let mut step = || -> io::Result<OwnedFd> {
                        if beneath::make_folder(at, name.as_ref())? {
                            made.0.push((at.try_clone()?, name.clone()));
                            twins.added(at, &name)?;
                            rustix::fs::fsync(at)?;
                        }
                        beneath::open_folder(at, name.as_ref())
                    };
                    return Ok((step().map_err(|e| self.failed("create", &name, e))?, name));
                }
                clash => self.yield_or_refuse(whose, &clash, at, shown, &name)?,
            }
        }
        Err(LibraryError::Crowded(part.to_owned()))
    }

    /// A clash refuses an own name; a fetched one goes on to its next candidate.
    fn yield_or_refuse(
        &self,
        whose: Whose<'_>,
        clash: &Found,
        at: &OwnedFd,
        shown: &str,
        part: &str,
    ) -> Result<(), LibraryError> {
        match whose {
            Whose::Own(name) => Err(self.clash(name, clash, at, shown, part)),
            Whose::Fetched(_) => Ok(()),
        }
    }

    fn clash(&self, name: &FileName, found: &Found, at: &OwnedFd, shown: &str, part: &str) -> LibraryError {
        let name = name.clone();
        let mut there = shown.to_owned();
        if matches!(found, Found::Twin) {
            let twin = match twins::find(at, part) {
                Ok(twin) => twin.unwrap_or_else(|| part.to_owned()),
                Err(error) => return self.failed("list", shown, error),
            };
            push(&mut there, &twin);
            LibraryError::Twin { name, twin: there }
        } else {
            push(&mut there, part);
            LibraryError::Taken { name, taken: there }
        }
    }
}

fn push(path: &mut String, part: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(part);
}

fn look(twins: &mut Twins, at: &OwnedFd, name: &str) -> io::Result<Found> {
    Ok(match beneath::kind(at, name.as_ref())? {
        Some(FileType::Directory) => Found::Folder(beneath::open_folder(at, name.as_ref())?),
        Some(_) => Found::Other,
        None if twins.has_twin(at, name)? => Found::Twin,
        None => Found::Nothing,
    })
}

/// The names to try for a component: an own file's only, a fetched one's and then with suffixes.
fn candidates(part: &str, whose: Whose<'_>) -> impl Iterator<Item = String> {
    let most = match whose {
        Whose::Own(_) => 0,
        Whose::Fetched(_) => SUFFIXES_MAX,
    };
    let id = match whose {
        Whose::Own(_) => String::new(),
        Whose::Fetched(file) => file.to_string()[..8].to_owned(),
    };
    let (stem, extension) = match part.rfind('.') {
        Some(dot) if dot > 0 => part.split_at(dot),
        _ => (part, ""),
    };
    let suffixed = move |count: u32| match count {
        0 => format!("{stem}{extension}"),
        1 => format!("{stem} ({id}){extension}"),
        more => format!("{stem} ({id}-{more}){extension}"),
    };
    (0..=most).map(suffixed)
}

/// The folders made on the way, to be removed again where the way led nowhere.
#[derive(Default)]
struct Made(Vec<(OwnedFd, String)>);

impl Made {
    fn undo(&self) {
        for (at, name) in self.0.iter().rev() {
            // One that somebody has put something into meanwhile stays.
            let _ = rustix::fs::unlinkat(at, name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}
