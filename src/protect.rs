//! Everything for one directory in one go: which group it is, that nothing stands in the way, and the tapes of it.

mod absence;
mod keeper;
mod naming;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use reelfs_archive::Catalog;
use reelfs_journal::{Epoch, Timestamp};
use reelfs_volume::{Identity, OnFull, OpenError};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::export::{Destination, tape_error};
use crate::group::{self, NewGroup};
use crate::group_file::GroupFile;
use crate::mountpoint::Mountpoint;
use crate::mounts;
use crate::open_group::open_error;
use crate::output::Output;
use crate::overlap;
use crate::settings::Settings;
use crate::size::Size;
use crate::state::{GroupDir, StateDir};

pub use keeper::{Keeper, Kept, News, keep};

/// Size of a new group's journal, as `reelfs group create` has it.
const JOURNAL: Size = Size(1 << 30);

/// A directory that can be protected: everything has been looked at, and nothing was changed except that a dead mount
/// was detached.
#[derive(Debug)]
pub struct Protection {
    /// Its group, which may have to be made.
    pub group: GroupDir,
    /// What the group is, or would be.
    pub file: GroupFile,
    /// There is no such group yet.
    pub is_new: bool,
    /// Where the directory is worked on.
    pub point: Mountpoint,
    /// Where the tapes go.
    pub tapes: Destination,
    /// The device that they lie on: a disk that is gone leaves an empty directory of another.
    pub tapes_device: u64,
    /// The tapes there hold no base of the group yet.
    pub needs_base: bool,
}

impl Protection {
    /// Checks a directory, the mountpoint for it and the directory for its tapes. A dead mount of the group is detached.
    ///
    /// # Errors
    /// 10 when one of them is not there, 2 when they are nested, 11 when it is mounted already, 14 when the mountpoint is
    /// not empty.
    pub fn check(
        state: &StateDir,
        source: &Path,
        mountpoint: &Path,
        tapes: &Path,
        output: &Output,
    ) -> Result<Protection> {
        let source = overlap::real(source)?;
        let known = group_of(state, &source)?;
        look_at(&source, known.is_some())?;
        let is_new = known.is_none();
        let file = match known {
            Some(file) => file,
            None => provisional(state, &source, tapes)?,
        };
        let place = mounts::place(mountpoint)?;
        // whether it is the same disk can be told only when no dead mount is in the way any more
        Destination::check(&file, 0, Some(&place), tapes)?;
        refuse_unwritable(tapes)?;
        let point = Mountpoint::check(state, &file, mountpoint, false, output)?;
        look_at(&file.pvol, false)?;
        if is_new {
            refuse_unfit(&file)?;
        }
        let device = device_of(&file.pvol)?;
        let tapes = Destination::check(&file, device, Some(&place), tapes)?;
        let tapes_device = device_of(&tapes.dir)?;
        let catalog =
            Catalog::scan(std::slice::from_ref(&tapes.dir)).map_err(|error| tape_error("read the tapes", error))?;
        let needs_base = !keeper::stands(&catalog, &file, &tapes.dir);
        Ok(Protection { group: state.group(&file.name), file, is_new, point, tapes, tapes_device, needs_base })
    }

    /// Makes the group if it is not there yet.
    ///
    /// # Errors
    /// As [`group::create`].
    pub fn create(&self, state: &StateDir, created: Timestamp, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        let (name, pvol) = (self.file.name.clone(), self.file.pvol.clone());
        let hint = format!(
            "make a smaller one, or one elsewhere, and run this again: reelfs group create {name} --pvol {} --size 64MiB",
            pvol.display()
        );
        let (on_full, settings) = (self.file.on_full, self.file.settings);
        let new = NewGroup { name, pvol, journal: None, size: JOURNAL, on_full, settings, created };
        group::create(state, &new, progress).map(|_| ()).map_err(|error| match error.kind() {
            ErrorKind::NoSpace => error.hint(hint),
            _ => error,
        })
    }
}

/// The group whose protected directory this is, under whatever name.
fn group_of(state: &StateDir, source: &Path) -> Result<Option<GroupFile>> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let own = identity(source);
    let mut found = None;
    for group in state.groups()? {
        let file = GroupFile::load(&group)?;
        if file.pvol == source {
            return Ok(Some(file));
        }
        if own.is_some() && identity(&file.pvol) == own {
            found = Some(file);
        }
    }
    Ok(found)
}

/// A directory that must be there; one behind a dead mount will be, once that is detached.
fn look_at(source: &Path, may_be_dead: bool) -> Result<()> {
    let shown = source.display();
    match fs::metadata(source) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::usage(format!("{shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotConnected && may_be_dead => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, format!("the directory {shown} is not there")))
        }
        Err(error) => Err(Error::io(format!("look at {shown}"), error)),
    }
}

fn device_of(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).map_err(|error| Error::io(format!("look at {}", path.display()), error));
    Ok(metadata?.dev())
}

/// What the group of this directory will be, to check against.
fn provisional(state: &StateDir, source: &Path, tapes: &Path) -> Result<GroupFile> {
    let name = naming::choose(state, source, tapes)?;
    let journal = state.group(&name).default_journal();
    Ok(GroupFile {
        schema: GroupFile::SCHEMA,
        name,
        uuid: Uuid::nil(),
        epoch: Epoch(1),
        pvol: source.to_owned(),
        journal,
        created: Timestamp(0),
        on_full: OnFull::Suspend,
        settings: Settings::default(),
        session: None,
        targets: Vec::new(),
        base: None,
        last_marker: None,
    })
}

fn refuse_unwritable(tapes: &Path) -> Result<()> {
    let error = match rustix::fs::access(tapes, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(Error::io(format!("the tape directory {} cannot be written", tapes.display()), error.into()))
}

/// A file system that cannot carry a volume is refused before a group of it is made.
fn refuse_unfit(file: &GroupFile) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fail = |error: Errno| match error {
        Errno::OPNOTSUPP => open_error(file, OpenError::NoGenerations),
        error => Error::io(format!("open {}", file.pvol.display()), error.into()),
    };
    let root = rustix::fs::open(&file.pvol, flags, Mode::empty()).map_err(fail)?;
    Identity::of(&root).map(|_| ()).map_err(fail)
}
