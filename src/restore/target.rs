//! The directory that a restore goes into: empty, or left unfinished by the same restore.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use reelfs_journal::FileTime;
use reelfs_volume::{RESTORE_MARK, restore_mark};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, flock};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::overlap;

/// What stands where the restore is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: the directory will be made.
    Missing,
    /// An empty directory.
    Empty,
    /// A restore of the same group that was interrupted: it is cleared and done anew.
    Interrupted,
}

/// Directories in which it is tried out what the target can hold; a kill leaves one.
const PROBE_PREFIX: &str = ".reelfs-probe-";

/// Looks at the target and changes nothing.
///
/// # Errors
/// Not empty (14), not a directory, or in one another with the tapes (2).
pub fn check(path: &Path, tapes: &[PathBuf], group: Uuid) -> Result<Standing> {
    for tape in tapes {
        let directory = if tape.is_dir() { tape.as_path() } else { tape.parent().unwrap_or(tape) };
        for (outer, inner) in [(directory, path), (path, directory)] {
            if overlap::contains(outer, inner)? {
                let message = format!("{} and the tapes in {} lie in one another", path.display(), directory.display());
                return Err(Error::usage(message).hint("choose a target outside the directory of tapes"));
            }
        }
    }
    let fail = |error: io::Error| Error::io(format!("look at {}", path.display()), error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Missing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::new(ErrorKind::WouldOverwrite, format!("{} is not a directory", path.display())));
        }
        Err(error) => return Err(fail(error)),
    };
    let (mut standing, mut other) = (Standing::Empty, None);
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        match name.to_str() {
            Some(name) if name == restore_mark(group) => standing = Standing::Interrupted,
            Some("lost+found") if is_empty(&path.join(&name)) => {}
            Some(name) if name.starts_with(PROBE_PREFIX) => {}
            _ => other = Some(name),
        }
    }
    match (standing, other) {
        (Standing::Interrupted, _) | (_, None) => Ok(standing),
        (_, Some(name)) => {
            let message = format!("{} is not empty: it holds {}", path.display(), name.to_string_lossy());
            let hint = if name.to_string_lossy().starts_with(RESTORE_MARK) {
                "a restore of another group was interrupted there"
            } else {
                "restore into a new directory, and move what you need"
            };
            Err(Error::new(ErrorKind::WouldOverwrite, message).hint(hint))
        }
    }
}

/// A fresh file system has it, and it is nobody's data.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The target, marked as unfinished.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    mark: String,
    root: OwnedFd,
}

impl Destination {
    /// Makes the directory if it is missing, and keeps others out until this and all descriptors of it go.
    ///
    /// # Errors
    /// What the file system says; 11 while another restore has it.
    pub fn make(path: &Path, standing: Standing, group: Uuid) -> Result<Destination> {
        if standing == Standing::Missing {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| Error::io(format!("make {}", path.display()), error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty());
        let root = root.map_err(|errno| Error::io(format!("open {}", path.display()), errno.into()))?;
        // a file system that has no locks keeps nobody out
        if flock(&root, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            let message = format!("another restore into {} is under way", path.display());
            return Err(Error::new(ErrorKind::Busy, message).hint("wait for it, or restore into another directory"));
        }
        Ok(Destination { path: path.to_owned(), mark: restore_mark(group), root })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of the directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn root(&self) -> Result<OwnedFd> {
        self.root.try_clone().map_err(|error| self.fail("open", error))
    }

    /// A new directory in it, to try things out.
    ///
    /// # Errors
    /// What the file system says.
    pub fn probe(&self) -> io::Result<PathBuf> {
        let place = self.path.join(format!("{PROBE_PREFIX}{}", std::process::id()));
        if place.exists() {
            remove_tree(&place)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&place)?;
        Ok(place)
    }

    /// Marks the directory as unfinished, and removes what an interrupted restore left in it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&self) -> Result<()> {
        let mark = self.path.join(&self.mark);
        let note =
            b"A restore by reelfs is not finished here. Run it again: it starts anew. Nothing here is complete.\n";
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&mark)?;
            io::Write::write_all(&mut file, note)?;
            file.sync_all()?;
            rustix::fs::fsync(&self.root)?;
            Ok(())
        };
        write().map_err(|error| self.fail("write the incomplete mark into", error))?;
        self.clear().map_err(|error| self.fail("clear", error))
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == self.mark.as_str() {
                continue;
            }
            if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { fs::remove_file(entry.path())? }
        }
        Ok(())
    }

    /// The tree is complete and on disk: takes the mark away and gives the root its modification time, if it is a volume's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(self, mtime: Option<FileTime>) -> Result<()> {
        let done = || -> rustix::io::Result<()> {
            rustix::fs::unlinkat(&self.root, self.mark.as_str(), AtFlags::empty())?;
            if let Some(mtime) = mtime {
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                    last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
                };
                rustix::fs::futimens(&self.root, &times)?;
            }
            rustix::fs::fsync(&self.root)
        };
        done().map_err(|errno| self.fail("finish", errno.into()))
    }

    fn fail(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("{what} {}", self.path.display()), error)
    }
}

/// Removes a directory with all that is in it.
fn remove_tree(directory: &Path) -> io::Result<()> {
    // one without permissions keeps its owner out of it, too
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    for entry in entries {
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_empty_or_its_own_and_nothing_else() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let (group, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let target = temporary.path().join("target");
        let tapes = vec![temporary.path().join("tapes")];
        fs::create_dir(&tapes[0]).expect("directory");
        assert_eq!(check(&target, &tapes, group).expect("missing"), Standing::Missing);
        let destination = Destination::make(&target, Standing::Missing, group).expect("made");
        assert_eq!(check(&target, &tapes, group).expect("empty"), Standing::Empty);
        destination.begin().expect("marked");
        fs::create_dir_all(target.join("a/b")).expect("half a restore");
        fs::write(target.join("a/b/file"), "half").expect("half a restore");
        // nobody may look into these, neither into the one that is in the other
        for closed in ["a/b", "a"] {
            fs::set_permissions(target.join(closed), fs::Permissions::from_mode(0o000)).expect("a mode");
        }
        assert_eq!(Destination::make(&target, Standing::Interrupted, group).expect_err("under way").code(), 11);
        assert_eq!(check(&target, &tapes, group).expect("ours"), Standing::Interrupted);
        assert_eq!(check(&target, &tapes, other).expect_err("another group's").code(), 14);
        destination.begin().expect("again");
        assert_eq!(fs::read_dir(&target).expect("list").count(), 1);
        let mtime = FileTime { seconds: -5, nanos: 7 };
        destination.finish(Some(mtime)).expect("finished");
        fs::create_dir_all(target.join(".reelfs-probe-7/left")).expect("what a kill left");
        assert_eq!(check(&target, &tapes, group).expect("empty"), Standing::Empty);
        fs::write(target.join("file"), "data").expect("a file");
        assert_eq!(check(&target, &tapes, group).expect_err("not empty").code(), 14);
    }

    #[test]
    fn refuses_to_lie_in_one_another_with_the_tapes() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let inside = temporary.path().join("inside");
        let tapes = vec![temporary.path().to_owned()];
        assert_eq!(check(&inside, &tapes, Uuid::nil()).expect_err("inside").code(), 2);
        fs::create_dir(&inside).expect("directory");
        assert_eq!(check(temporary.path(), &[inside], Uuid::nil()).expect_err("around").code(), 2);
    }
}
