//! A directory that tapes are put into: published whole and read back, or not at all.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use reelfs_journal::disk::{self, Label, Operation};
use rustix::fs::{
    Advice, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, fadvise, flock, linkat, openat,
    renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

/// What ends the name of a file that is not whole yet.
const PART_SUFFIX: &str = ".part";

/// What can go wrong with a shelf; `E` is what whoever writes or reads back the content says.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError<E> {
    /// The content could not be written, or did not read back.
    #[error("{error}")]
    Content {
        /// Where it was to be.
        path: PathBuf,
        /// What its writer or reader said.
        error: E,
    },
    /// A file of this name is there already; it is not touched.
    #[error("{path} is there already", path = path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Another process is publishing the same thing.
    #[error("{path} is being written by another process", path = path.display())]
    InUse {
        /// Its temporary file.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back, its number kept: a full medium is `StorageFull`, one that is gone `NotFound` or `EIO`.
        source: io::Error,
    },
}

/// What was published.
#[derive(Debug)]
pub struct Published<T> {
    /// Where.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its writer gave.
    pub value: T,
}

/// A file on a shelf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShelfItem {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A directory that tapes are put into.
#[derive(Debug)]
pub struct DirectoryShelf {
    directory: OwnedFd,
    path: PathBuf,
}

/// A temporary file, removed unless it was given its name.
struct Part<'a> {
    shelf: &'a DirectoryShelf,
    name: String,
    is_published: bool,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.is_published && self.shelf.remove(&self.name).is_err_and(|errno| errno != Errno::NOENT) {
            // the medium may be gone, and the file with it
            tracing::warn!(path = %self.shelf.path.join(&self.name).display(), "a temporary file stays behind");
        }
    }
}

impl DirectoryShelf {
    /// Opens a directory.
    ///
    /// # Errors
    /// What the operating system says: it must be there.
    pub fn open(path: &Path) -> io::Result<DirectoryShelf> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        Ok(DirectoryShelf { directory, path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file under a temporary name (`.STEM.part`, mode 0600), syncs it, has it read back from the medium,
    /// gives it the name that `write` returned and syncs the directory. A file of that name is never replaced. Whatever
    /// fails, no file stays. What an earlier process left under the temporary name is removed.
    ///
    /// # Errors
    /// What went wrong.
    pub fn publish<T, E>(
        &self,
        stem: &str,
        write: impl FnOnce(&File) -> Result<(String, T), E>,
        read_back: impl FnOnce(File, &T) -> Result<(), E>,
    ) -> Result<Published<T>, ShelfError<E>> {
        let (file, mut part) = self.create(format!(".{stem}{PART_SUFFIX}"))?;
        let path = self.path.join(&part.name);
        let content = |error| ShelfError::Content { path: path.clone(), error };
        let (name, value) = write(&file).map_err(content)?;
        disk::sync(Label::TapeSync, &file).map_err(|source| self.failed("sync", &part.name, source))?;
        let bytes = file.metadata().map_err(|source| self.failed("look at", &part.name, source))?.len();
        // what is read back must come from the medium; where the page cache cannot be dropped it is read from there
        let _best_effort = fadvise(&file, 0, None, Advice::DontNeed);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fresh = openat(&self.directory, part.name.as_str(), flags, Mode::empty());
        let fresh = fresh.map_err(|errno| self.failed("read back", &part.name, errno))?;
        read_back(File::from(fresh), &value).map_err(content)?;
        self.give_name(&part.name, &name)?;
        part.is_published = true;
        if let Err(source) = disk::sync(Label::TapeNameSync, &self.directory) {
            // nobody can say whether the name would be there after a power cut
            let _already_failing = self.remove(&name);
            return Err(self.failed("sync the directory of", &name, source));
        }
        Ok(Published { path: self.path.join(name), bytes, value })
    }

    /// The files that are here, by name; what is not whole yet is left out.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn list(&self) -> io::Result<Vec<ShelfItem>> {
        let mut items = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.ends_with(PART_SUFFIX) {
                continue;
            }
            match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    items.push(ShelfItem { name: name.to_owned(), bytes: u64::try_from(stat.st_size).unwrap_or(0) });
                }
                // no file, or removed since it was listed
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        items.sort();
        Ok(items)
    }

    /// Makes the temporary file. Its writer holds a lock on it, so one without a lock was left behind by a process that
    /// is no more.
    fn create<E>(&self, name: String) -> Result<(File, Part<'_>), ShelfError<E>> {
        let fresh = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let operation =
            || Operation::Create { directory: self.directory.as_fd(), name: name.as_bytes().to_vec().into() };
        let make = || openat(&self.directory, name.as_str(), fresh, mode);
        let mut opened = disk::call(Label::TapeCreate, operation, make);
        if matches!(opened, Err(Errno::EXIST)) {
            self.remove_stale(&name)?;
            opened = disk::call(Label::TapeCreate, operation, make);
        }
        let file = File::from(opened.map_err(|errno| self.failed("create", &name, errno))?);
        let part = Part { shelf: self, name, is_published: false };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // a file system without locks: the stem is the caller's, who holds the group's lock
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok((file, part)),
            Err(errno) => Err(self.failed("lock", &part.name, errno)),
        }
    }

    fn remove_stale<E>(&self, name: &str) -> Result<(), ShelfError<E>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let stale = match openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(|errno| self.failed("open", name, errno))?,
        };
        if flock(&stale, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(ShelfError::InUse { path: self.path.join(name) });
        }
        tracing::info!(path = %self.path.join(name).display(), "removed what an interrupted export left");
        self.remove(name).map_err(|errno| self.failed("remove", name, errno))
    }

    /// Gives the temporary file its name, unless a file has it. The ways to do so, best first: a rename that does not
    /// replace, a second link, a rename over an empty file that reserves the name.
    fn give_name<E>(&self, part: &str, name: &str) -> Result<(), ShelfError<E>> {
        let directory = self.directory.as_fd();
        let operation = || Operation::Rename {
            from: directory,
            name: part.as_bytes().into(),
            to: directory,
            new_name: name.as_bytes().into(),
            exchange: false,
        };
        let rename = || renameat_with(directory, part, directory, name, RenameFlags::NOREPLACE);
        let mut given = disk::call(Label::TapeName, operation, rename);
        if matches!(given, Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) {
            let linked = linkat(directory, part, directory, name, AtFlags::empty());
            given = linked.and_then(|()| self.remove(part));
        }
        if matches!(given, Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP)) {
            given = self.reserve(name).and_then(|()| {
                renameat(directory, part, directory, name).or_else(|error| self.remove(name).and(Err(error)))
            });
        }
        match given {
            Err(Errno::EXIST) => Err(ShelfError::Exists { path: self.path.join(name) }),
            given => given.map_err(|errno| self.failed("name", name, errno)),
        }
    }

    fn reserve(&self, name: &str) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR) {
            // reserved by a writer that was killed before it renamed: nobody else does that at the same time
            Err(Errno::EXIST) if self.is_reserved(name) => Ok(()),
            reserved => reserved.map(drop),
        }
    }

    fn is_reserved(&self, name: &str) -> bool {
        let found = statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| found.st_size == 0 && FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
    }

    fn remove(&self, name: &str) -> rustix::io::Result<()> {
        let operation = || Operation::Remove { directory: self.directory.as_fd(), name: name.as_bytes().into() };
        disk::call(Label::TapeRemove, operation, || unlinkat(&self.directory, name, AtFlags::empty()))
    }

    fn failed<E>(&self, operation: &'static str, name: &str, source: impl Into<io::Error>) -> ShelfError<E> {
        ShelfError::Io { operation, path: self.path.join(name), source: source.into() }
    }
}

#[cfg(test)]
mod tests;
