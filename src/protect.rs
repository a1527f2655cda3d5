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
use reelfs_volume::OnFull;
use rustix::fs::Access;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::export::{Destination, tape_error};
use crate::group::{self, NewGroup};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::mountpoint::Mountpoint;
use crate::mounts;
use crate::output::Output;
use crate::overlap;
use crate::pool::JournalOrigin;
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
    /// The directory as a volume of it.
    pub volume: VolumeEntry,
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
        Destination::check(&file, &[], std::slice::from_ref(&place), tapes)?;
        refuse_unwritable(tapes)?;
        let pvol = volume_of(&file, &source)?.pvol.clone();
        let point = Mountpoint::check(state, &file, &pvol, mountpoint, false, output)?;
        let volume = volume_of(&file, &source)?.clone();
        look_at(&volume.pvol, false)?;
        if is_new {
            group::refuse_unfit(&volume.pvol)?;
        }
        let device = device_of(&volume.pvol)?;
        let tapes = Destination::check(&file, &[device], std::slice::from_ref(&place), tapes)?;
        let tapes_device = device_of(&tapes.dir)?;
        let catalog =
            Catalog::scan(std::slice::from_ref(&tapes.dir)).map_err(|error| tape_error("read the tapes", error))?;
        let needs_base = !keeper::stands(&catalog, &file, &tapes.dir);
        Ok(Protection { group: state.group(&file.name), file, volume, is_new, point, tapes, tapes_device, needs_base })
    }

    /// Makes the group if it is not there yet.
    ///
    /// # Errors
    /// As [`group::create`].
    pub fn create(&self, state: &StateDir, created: Timestamp, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        let (name, pvol) = (self.file.name.clone(), self.volume.pvol.clone());
        let hint = format!(
            "make a smaller one, or one elsewhere, and run this again: reelfs group create {name} --pvol {} --size 64MiB",
            pvol.display()
        );
        let new = NewGroup {
            name,
            pvol: Some(pvol),
            journal: None,
            size: Some(JOURNAL),
            origin: JournalOrigin::default(),
            on_full: self.file.on_full,
            settings: self.file.settings,
            created,
        };
        group::create(state, &new, progress).map(|_| ()).map_err(|error| match error.kind() {
            ErrorKind::NoSpace => error.hint(hint),
            _ => error,
        })
    }
}

/// The group whose protected directory this is, under whatever name.
pub(crate) fn group_of(state: &StateDir, source: &Path) -> Result<Option<GroupFile>> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let own = identity(source);
    let mut found = None;
    for group in state.groups()? {
        let file = GroupFile::load(&group)?;
        if file.volumes.iter().any(|volume| volume.pvol == source) {
            return Ok(Some(file));
        }
        if own.is_some() && file.volumes.iter().any(|volume| identity(&volume.pvol) == own) {
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
        volumes: vec![group::first_volume(source.to_owned())],
        former: Vec::new(),
        volumes_ever: 1,
        journal,
        created: Timestamp(0),
        on_full: OnFull::Suspend,
        settings: Settings::default(),
        targets: Vec::new(),
        consumers: Vec::new(),
        last_marker: None,
        number: None,
        origin: JournalOrigin::default(),
    })
}

fn refuse_unwritable(tapes: &Path) -> Result<()> {
    let error = match rustix::fs::access(tapes, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(Error::io(format!("the tape directory {} cannot be written", tapes.display()), error.into()))
}

/// The volume of a group whose directory this is.
pub(crate) fn volume_of<'f>(file: &'f GroupFile, source: &Path) -> Result<&'f VolumeEntry> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let by_name = file.volumes.iter().find(|volume| volume.pvol == source);
    let same = |volume: &&VolumeEntry| identity(source).is_some_and(|own| identity(&volume.pvol) == Some(own));
    match by_name.or_else(|| file.volumes.iter().find(same)) {
        Some(volume) => Ok(volume),
        None => file.volume(None),
    }
}
