//! Making and deleting a group as a whole: checks first, then the journal volume, the group file last.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{
    Epoch, GroupName, JournalError, Jvol, Timestamp, VolumeIndex, VolumeName, discard_ring, unfinished,
};
use reelfs_volume::{Identity, OnFull, OpenError};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::lock::GroupLock;
use crate::overlap;
use crate::pool::{JournalOrigin, Pools};
use crate::settings::Settings;
use crate::size::Size;
use crate::state::{GroupDir, StateDir};

/// Size of a journal volume unless another is asked for (1 GiB).
pub const DEFAULT_SIZE: Size = Size(1 << 30);
/// Mode of a journal volume that others may read.
const VISIBLE: u32 = 0o644;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// The name.
    pub name: GroupName,
    /// The first directory to protect; others join later.
    pub pvol: Option<PathBuf>,
    /// Directory of the journal volume, if not the state directory.
    pub journal: Option<PathBuf>,
    /// Size of the journal volume, 1 GiB unless given; of one from a pool the least that will do.
    pub size: Option<Size>,
    /// The pools that journal volumes come from, and who may read them.
    pub origin: JournalOrigin,
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
/// use (11), disk or pool full (22).
pub fn create(state: &StateDir, new: &NewGroup, progress: &mut dyn FnMut(u64, u64)) -> Result<GroupFile> {
    let pvol = new.pvol.as_ref().map(|pvol| check_pvol(state, pvol)).transpose()?;
    let group = state.group(&new.name);
    let journal_dir = match &new.journal {
        Some(dir) => {
            let dir = existing_directory("the journal directory", dir)?;
            if let Some(pvol) = &pvol {
                overlap::refuse_inside("the PVOL", pvol, "the journal directory", &dir)?;
            }
            Some(dir)
        }
        None => None,
    };
    refuse_existing(&group)?;
    if new.origin.visible && new.journal.is_none() && new.origin.pool.is_none() {
        return Err(Error::usage("the journal would lie in the state directory, which nobody else may enter")
            .hint("choose where others can see it: --journal DIR"));
    }

    let _making = state.begin_making()?;
    if let Some(pvol) = &pvol {
        refuse_protected_already(state, pvol)?;
    }
    let made = !group.path().exists();
    group.make()?;
    let outcome = GroupLock::take(&group, "reelfs group create").and_then(|lock| {
        refuse_existing(&group)?;
        clear_passing(state, &group, false)?;
        let journal = journal_dir.map_or_else(|| group.default_journal(), |dir| dir.join(format!("{}.jvol", new.name)));
        let mut file = GroupFile {
            schema: GroupFile::SCHEMA,
            name: new.name.clone(),
            uuid: new_identity(),
            epoch: Epoch(1),
            former: Vec::new(),
            volumes_ever: u16::from(pvol.is_some()),
            volumes: pvol.into_iter().map(first_volume).collect(),
            journal,
            created: new.created,
            on_full: new.on_full,
            settings: new.settings,
            targets: Vec::new(),
            consumers: Vec::new(),
            last_marker: None,
            number: Some(next_number(state)?),
            origin: new.origin.clone(),
        };
        if file.origin.pool.is_none() {
            // a volume that nobody would know of any more, if this is cut off
            file.store_passing(&group)?;
        }
        let result = take_journal(state, &mut file, new.size, progress).and_then(|pools| {
            let stored = show_journal(&file).and_then(|()| file.store(&group));
            // until here nobody else may take the volume for one of a group that is no more
            drop(pools);
            stored.inspect_err(|_| {
                let _ = let_go_of_journal(state, &file);
            })
        });
        let passed = end_passing(state, &group, &file, result.is_ok());
        drop(lock);
        result.and(passed).map(|()| file)
    });
    if made && outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::Busy) {
        let _ = fs::remove_file(group.lock());
        let _ = fs::remove_dir(group.path());
    }
    outcome
}

/// Deletes a group: its file first, so that what an interruption leaves is no group. Neither PVOL nor tapes are touched; a journal
/// volume from a pool goes back there.
///
/// # Errors
/// The operating system says no.
pub fn delete(state: &StateDir, group: &GroupDir, file: &GroupFile, lock: GroupLock) -> Result<()> {
    fs::rename(group.file(), group.passing())
        .map_err(|error| Error::io(format!("rename {}", group.file().display()), error))?;
    remove_labeled(Label::JvolGrowRemove, &unfinished(&file.journal))?;
    discard_ring(&file.journal, file.uuid).map_err(|error| Error::io("remove the ring of the journal", error))?;
    let_go_of_journal(state, file)?;
    remove(&group.passing())?;
    remove_directory(group, lock)
}

/// Empties the directory of a group and removes it. Who makes the group anew as soon as he may keeps it.
fn remove_directory(group: &GroupDir, lock: GroupLock) -> Result<()> {
    let entries = fs::read_dir(group.path()).map_err(|error| Error::io("delete the group", error))?;
    for entry in entries.flatten().filter(|entry| entry.path() != group.lock()) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path())
                .map_err(|error| Error::io(format!("remove {}", entry.path().display()), error))?,
            _ => remove(&entry.path())?,
        }
    }
    remove(&group.lock())?;
    drop(lock);
    let is_anew = [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty];
    match fs::remove_dir(group.path()) {
        Err(error) if !is_anew.contains(&error.kind()) => {
            Err(Error::io(format!("remove {}", group.path().display()), error))
        }
        _ => Ok(()),
    }
}

/// Deletes what is left of a group whose making or deletion was cut off; says whether there was something. A journal volume that
/// cannot be looked at is left where it is when the caller `gives_up`.
///
/// # Errors
/// 11 when somebody is at it; the journal volume cannot be looked at; the operating system says no.
pub fn delete_rest(state: &StateDir, group: &GroupDir, gives_up: bool) -> Result<bool> {
    if group.exists() || GroupFile::load_passing(group)?.is_none() {
        return Ok(false);
    }
    let lock = GroupLock::take(group, "reelfs group delete")?;
    refuse_existing(group)?;
    clear_passing(state, group, gives_up)?;
    remove_directory(group, lock)?;
    Ok(true)
}

/// The making of a group has ended. A journal gets its name when it is complete: where it could not be made there is none of ours.
fn end_passing(state: &StateDir, group: &GroupDir, file: &GroupFile, is_made: bool) -> Result<()> {
    let is_own = || Jvol::owner(&file.journal).is_ok_and(|owner| owner.group == file.uuid);
    if !is_made && is_own() { clear_passing(state, group, false) } else { remove(&group.passing()) }
}

/// The journal volume of a group that is no group goes, if it still is its own, and the ring before it.
fn clear_passing(state: &StateDir, group: &GroupDir, gives_up: bool) -> Result<()> {
    let Some(file) = GroupFile::load_passing(group)? else { return Ok(()) };
    let journal = &file.journal;
    match Jvol::owner(journal) {
        Ok(owner) if owner.group == file.uuid => {
            remove_labeled(Label::JvolGrowRemove, &unfinished(journal))?;
            discard_ring(journal, file.uuid).map_err(|error| Error::io("remove the ring of the journal", error))?;
            let_go_of_journal(state, &file)?;
        }
        Ok(_) | Err(JournalError::Foreign(_)) => {}
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && is_gone(group, journal) => {
        }
        Err(error) if gives_up => {
            tracing::warn!(%error, journal = %journal.display(), "the journal volume is left where it is");
        }
        Err(error) => {
            let name = &file.name;
            let hint = format!("is its disk mounted? reelfs group delete {name} --yes leaves it where it is");
            return Err(Error::from(error).within(format!("the journal of a {name} that was deleted")).hint(hint));
        }
    }
    if file.origin.pool.is_none() {
        // whoever makes one there replaces it
        let _ = fs::remove_file(begun(journal));
    }
    remove(&group.passing())
}

/// A journal volume that is not there is no more, unless its directory is empty: most likely a disk is not mounted there.
fn is_gone(group: &GroupDir, journal: &Path) -> bool {
    let has_something = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    journal.parent().is_some_and(|dir| dir == group.path() || has_something(dir))
}

/// Where a journal volume is made that has not got its name yet.
fn begun(journal: &Path) -> PathBuf {
    journal.with_extension("jvol.new")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn remove_labeled(label: Label, path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => disk::remove(label, path).map_err(|error| Error::io(format!("remove {}", path.display()), error)),
        Err(_) => Ok(()),
    }
}

/// A journal volume for a new group, made or taken from its pool, which is held then.
fn take_journal(
    state: &StateDir,
    file: &mut GroupFile,
    size: Option<Size>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Pools>> {
    let Some(pool) = file.origin.pool.clone() else {
        if file.journal == state.group(&file.name).default_journal() {
            // in the group's own directory, and there is no group: a creation was cut off behind this
            remove_labeled(Label::JvolRemove, &file.journal)?;
        }
        make_journal(&file.journal, file.uuid, size.unwrap_or(DEFAULT_SIZE), progress)?;
        return Ok(None);
    };
    let mut pools = Pools::open(state)?;
    file.journal = pools.take(&pool, size, file)?;
    Ok(Some(pools))
}

/// Back to its pool, or gone.
fn let_go_of_journal(state: &StateDir, file: &GroupFile) -> Result<()> {
    match &file.origin.pool {
        Some(_) => Pools::open(state)?.give_back(&file.journal, file.uuid),
        None => remove_labeled(Label::JvolRemove, &file.journal),
    }
}

/// Others may read it, if that is wished.
fn show_journal(file: &GroupFile) -> Result<()> {
    if !file.origin.visible {
        return Ok(());
    }
    set_mode(&file.journal, VISIBLE)
        .map_err(|error| Error::io(format!("change the mode of {}", file.journal.display()), error))
}

/// Who may read a journal volume.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let file = File::open(path)?;
    let show = || file.set_permissions(fs::Permissions::from_mode(mode));
    disk::call(Label::JvolMode, || Operation::SetAttributes { file: file.as_fd() }, show)
}

/// One more than the highest on this machine.
fn next_number(state: &StateDir) -> Result<u32> {
    let numbers = state.groups()?.into_iter().filter_map(|group| GroupFile::load(&group).ok()?.number);
    Ok(numbers.max().unwrap_or(0) + 1)
}

/// The journal volume appears under its name when it is complete; what an interruption leaves is replaced the next time. A nil
/// `group` makes one that is nobody's yet.
pub(crate) fn make_journal(path: &Path, group: Uuid, size: Size, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::new(ErrorKind::WouldOverwrite, format!("there is a {} already", path.display()))
            .hint("it may belong to a group of another state directory; choose another --journal"));
    }
    let begun = begun(path);
    remove(&begun)?;
    let result = Jvol::create(&begun, size.0, group, progress).map_err(Error::from).and_then(|()| {
        let fail = |errno: Errno| Error::io(format!("name the journal {}", path.display()), errno.into());
        let operation = || Operation::Rename {
            from: CWD,
            name: begun.as_os_str().as_bytes().into(),
            to: CWD,
            new_name: path.as_os_str().as_bytes().into(),
            exchange: false,
        };
        let rename = || renameat_with(CWD, &begun, CWD, path, RenameFlags::NOREPLACE);
        disk::call(Label::JvolName, operation, rename).map_err(fail)?;
        disk::sync_parent(Label::JvolNameSync, path).map_err(|error| Error::io("sync the journal directory", error))
    });
    result.map_err(|error| {
        let _ = fs::remove_file(&begun);
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

/// The volume of a group that was made with one.
#[must_use]
pub fn first_volume(pvol: PathBuf) -> VolumeEntry {
    VolumeEntry::new(VolumeIndex::FIRST, VolumeName::unnamed(VolumeIndex::FIRST), pvol)
}

/// A directory that may become a PVOL: there, and apart from the state. Resolved.
///
/// # Errors
/// 10 when it is not there, 2 when it is no directory or overlaps with something.
pub fn check_pvol(state: &StateDir, pvol: &Path) -> Result<PathBuf> {
    let pvol = existing_directory("the PVOL", pvol)?;
    overlap::refuse_inside("the PVOL", &pvol, "the state directory", state.root())?;
    overlap::refuse_inside("the state directory", state.root(), "the PVOL", &pvol)?;
    Ok(pvol)
}

/// A file system that cannot carry a volume is refused before a group of it is made.
///
/// # Errors
/// 2 when it cannot.
pub fn refuse_unfit(pvol: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = pvol.display();
    let fail = |error: Errno| match error {
        Errno::OPNOTSUPP => Error::usage(format!("the PVOL {shown}: {}", OpenError::NoGenerations))
            .hint("ext4, XFS, btrfs and tmpfs serve; overlayfs, NFS and FUSE do not"),
        error => Error::io(format!("open {shown}"), error.into()),
    };
    let root = rustix::fs::open(pvol, flags, Mode::empty()).map_err(fail)?;
    Identity::of(&root).map(|_| ()).map_err(fail)
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
///
/// # Errors
/// Another group has it, or what is in it, or what it is in (2).
pub fn refuse_protected_already(state: &StateDir, pvol: &Path) -> Result<()> {
    for other in state.groups()? {
        let Ok(file) = GroupFile::load(&other) else { continue };
        for volume in &file.volumes {
            if overlap::contains(&volume.pvol, pvol)? || overlap::contains(pvol, &volume.pvol)? {
                let (title, theirs) = (file.title(volume), volume.pvol.display());
                let shown = pvol.display();
                if volume.pvol == pvol {
                    let message = format!("{shown} is protected by group {title} already");
                    return Err(Error::usage(message).hint(format!("reelfs status {}", file.name)));
                }
                return Err(Error::usage(format!("{shown} overlaps with {theirs}, the PVOL of group {title}")));
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where a group gets its identity")]
fn new_identity() -> Uuid {
    Uuid::new_v4()
}
