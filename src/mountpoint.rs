//! Where a group may be mounted: what overlaps is refused, what a dead process left is cleared away.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::mounts;
use crate::output::Output;
use crate::overlap;
use crate::state::StateDir;

/// A directory that a group can be mounted at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mountpoint {
    /// The directory, resolved.
    pub path: PathBuf,
    /// It is the protected directory itself.
    pub in_place: bool,
}

impl Mountpoint {
    /// Checks a directory for a group. A mount of this group whose process is dead is detached first.
    ///
    /// # Errors
    /// 2 when it is nested with the PVOL, or journal or state lie in it; 10 when it or the PVOL is not there; 11 when it is
    /// mounted already; 14 when it is not empty.
    pub fn check(
        state: &StateDir,
        file: &GroupFile,
        pvol: &Path,
        point: &Path,
        nonempty: bool,
        output: &Output,
    ) -> Result<Mountpoint> {
        let path = mounts::place(point)?;
        for place in [path.as_path(), pvol] {
            detach_stale(file, place, output)?;
        }
        let shown = path.display();
        if let Some(entry) = mounts::at(&path)?.filter(mounts::MountEntry::is_ours) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{shown} is mounted already, with group {}", entry.source),
            )
            .hint(format!("reelfs umount {shown}")));
        }
        let in_place = same(&path, pvol);
        if !in_place {
            refuse_nested(pvol, &path)?;
        }
        for other in file.volumes.iter().filter(|volume| volume.pvol != pvol) {
            refuse_nested(&other.pvol, &path)?;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(Error::usage(format!("the mountpoint {shown} is not a directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, format!("the mountpoint {shown} is not there"))
                    .hint(format!("mkdir {shown}")));
            }
            Err(error) => return Err(Error::io(format!("look at the mountpoint {shown}"), error)),
        }
        overlap::refuse_inside("the mountpoint", &path, "the state directory", state.root())?;
        overlap::refuse_inside("the mountpoint", &path, "the journal", &file.journal)?;
        if !in_place && !nonempty && holds_something(&path)? {
            return Err(Error::new(ErrorKind::WouldOverwrite, format!("the mountpoint {shown} is not empty"))
                .hint("what is in it would be hidden; if that is meant: -o nonempty"));
        }
        Ok(Mountpoint { path, in_place })
    }
}

fn refuse_nested(pvol: &Path, point: &Path) -> Result<()> {
    let (inside, outside) = (overlap::contains(pvol, point)?, overlap::contains(point, pvol)?);
    if !inside && !outside {
        return Ok(());
    }
    let relation = if inside { "lies inside" } else { "lies around" };
    Err(Error::usage(format!("the mountpoint {} {relation} the PVOL {}", point.display(), pvol.display()))
        .hint("mount at the PVOL itself, or apart from it"))
}

/// The same directory, under whatever name.
fn same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    one == other || identity(one).is_some_and(|id| identity(other) == Some(id))
}

fn holds_something(path: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
    Ok(entries.next().is_some())
}

/// A killed process leaves its mount behind, and every access answers "not connected".
fn detach_stale(file: &GroupFile, place: &Path, output: &Output) -> Result<()> {
    let ours = |entry: &mounts::MountEntry| entry.is_of(&file.name) && entry.is_stale();
    while mounts::at(place)?.is_some_and(|entry| ours(&entry)) {
        reelfs_fuse::unmount(place, true)
            .map_err(|error| Error::io(format!("detach the dead mount at {}", place.display()), error))?;
        output.note(format!("detached {}: the process behind it was dead", place.display()));
    }
    Ok(())
}
