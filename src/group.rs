//! Making and deleting a group as a whole: checks first, then the journal volume, the group file last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use reelfs_journal::{Epoch, GroupName, Jvol, Timestamp};
use reelfs_volume::OnFull;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::lock::GroupLock;
use crate::overlap;
use crate::settings::Settings;
use crate::size::Size;
use crate::state::{GroupDir, StateDir};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// The name.
    pub name: GroupName,
    /// The directory to protect.
    pub pvol: PathBuf,
    /// Directory of the journal volume, if not the state directory.
    pub journal: Option<PathBuf>,
    /// Size of the journal volume.
    pub size: Size,
    /// What happens when it is full.
    pub on_full: OnFull,
    /// What it does by itself.
    pub settings: Settings,
    /// The time.
    pub created: Timestamp,
}

/// Makes a group. When it fails, nothing is left behind.
///
/// # Errors
/// PVOL not there (10) or no directory (2), directories nested in one another (2), group or journal there already (14), in
/// use (11), disk full (22).
pub fn create(state: &StateDir, new: &NewGroup, progress: &mut dyn FnMut(u64, u64)) -> Result<GroupFile> {
    let pvol = existing_directory("the PVOL", &new.pvol)?;
    let group = state.group(&new.name);
    overlap::refuse_inside("the PVOL", &pvol, "the state directory", state.root())?;
    overlap::refuse_inside("the state directory", state.root(), "the PVOL", &pvol)?;
    let journal_dir = match &new.journal {
        Some(dir) => {
            let dir = existing_directory("the journal directory", dir)?;
            overlap::refuse_inside("the PVOL", &pvol, "the journal directory", &dir)?;
            Some(dir)
        }
        None => None,
    };
    refuse_existing(&group)?;
    refuse_protected_already(state, &pvol)?;

    let made = !group.path().exists();
    group.make()?;
    let outcome = GroupLock::take(&group, "reelfs group create").and_then(|lock| {
        refuse_existing(&group)?;
        let journal = journal_dir.map_or_else(|| group.default_journal(), |dir| dir.join(format!("{}.jvol", new.name)));
        let file = GroupFile {
            schema: GroupFile::SCHEMA,
            name: new.name.clone(),
            uuid: new_identity(),
            epoch: Epoch(1),
            pvol,
            journal,
            created: new.created,
            on_full: new.on_full,
            settings: new.settings,
            session: None,
            targets: Vec::new(),
            base: None,
            last_marker: None,
        };
        let result = make_journal(&file, new.size, progress).and_then(|()| {
            file.store(&group).inspect_err(|_| {
                let _ = fs::remove_file(&file.journal);
            })
        });
        drop(lock);
        result.map(|()| file)
    });
    if made && outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::Busy) {
        let _ = fs::remove_file(group.lock());
        let _ = fs::remove_dir(group.path());
    }
    outcome
}

/// Deletes a group: its file first, so that what an interruption leaves is no group. Neither PVOL nor tapes are touched.
///
/// # Errors
/// The operating system says no.
pub fn delete(group: &GroupDir, file: &GroupFile, lock: GroupLock) -> Result<()> {
    remove(&group.file())?;
    remove(&file.journal)?;
    let entries = fs::read_dir(group.path()).map_err(|error| Error::io("delete the group", error))?;
    for entry in entries.flatten() {
        remove(&entry.path())?;
    }
    drop(lock);
    match fs::remove_dir(group.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", group.path().display()), error))
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// The journal volume appears under its name when it is complete; what an interruption leaves is replaced the next time.
fn make_journal(file: &GroupFile, size: Size, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let path = &file.journal;
    if path.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::WouldOverwrite, format!("there is a {} already", path.display()))
            .hint("it may belong to a group of another state directory; choose another --journal"));
    }
    let unfinished = path.with_extension("jvol.new");
    remove(&unfinished)?;
    let result = Jvol::create(&unfinished, size.0, file.uuid, progress).map_err(Error::from).and_then(|()| {
        let fail = |errno: Errno| Error::io(format!("name the journal {}", path.display()), errno.into());
        renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE).map_err(fail)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| Error::io("sync the journal directory", error))
    });
    result.map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        match error.kind() {
            ErrorKind::NoSpace => Error::new(
                ErrorKind::NoSpace,
                format!("there is no room for a journal of {size} in {}", path.parent().unwrap_or(path).display()),
            )
            .hint("nothing was left behind; choose a smaller --size, or another --journal directory"),
            _ => error,
        }
    })
}

fn existing_directory(what: &str, path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => overlap::real(path),
        Ok(_) => Err(Error::usage(format!("{what} {shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, format!("{what} {shown} is not there")))
        }
        Err(error) => Err(Error::io(format!("look at {what} {shown}"), error)),
    }
}

fn refuse_existing(group: &GroupDir) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    let name = group.name();
    Err(Error::new(ErrorKind::WouldOverwrite, format!("there is a group {name} already"))
        .hint(format!("reelfs group show {name}; reelfs group delete {name}")))
}

/// A directory belongs to one group: two journals of the same files would each know half.
fn refuse_protected_already(state: &StateDir, pvol: &Path) -> Result<()> {
    for other in state.groups()? {
        let Ok(file) = GroupFile::load(&other) else { continue };
        if overlap::contains(&file.pvol, pvol)? || overlap::contains(pvol, &file.pvol)? {
            let (name, theirs) = (other.name(), file.pvol.display());
            return Err(Error::usage(format!("{} overlaps with {theirs}, the PVOL of group {name}", pvol.display())));
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where a group gets its identity")]
fn new_identity() -> Uuid {
    Uuid::new_v4()
}
