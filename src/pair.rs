//! Pairs: suspended, and brought back with only what changed.

use std::path::{Path, PathBuf};

use reelfs_journal::{VolumeIndex, VolumeName};
use reelfs_volume::{Reason, ResyncError, Resynced};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Destination};
use crate::group;
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::overlap;
use crate::pair_state::{self, PairVerb};
use crate::state::StateDir;

/// What was done: nothing, when it was so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// It was so already.
    pub already: bool,
}

/// The word for a reason, as `status` and scripts know it.
#[must_use]
pub fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::User => "user",
        Reason::Error => "error",
        Reason::JournalFull => "journal-full",
    }
}

/// Stops journaling of one volume or of all.
///
/// # Errors
/// 16 without a base copy and while one runs; what the journal, the PVOL or the state directory says.
pub fn split(group: &OpenGroup, volume: Option<&VolumeName>) -> Result<Done> {
    let file = group.file();
    let chosen = file.chosen(volume)?;
    if !admit(group, volume, PairVerb::Split)? && chosen.iter().all(|entry| group.suspension(entry.index).is_some()) {
        return Ok(Done { already: true });
    }
    for entry in chosen {
        group.with_volume(entry.index, |volume| {
            let suspended = volume.primary.suspend(Reason::User);
            suspended.map_err(|error| Error::io(format!("suspend {}", file.title(entry)), error.into()))
        })?;
    }
    Ok(Done { already: false })
}

/// Journals again and tells what changed in one volume or in all; exports to the directories that the group knows whenever
/// the journal is full.
///
/// # Errors
/// 16 without a base copy, 20 when nobody makes room in the journal. It stays suspended, and nothing is forgotten.
pub fn resync(
    group: &OpenGroup,
    volume: Option<&VolumeName>,
    mountpoints: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Resynced> {
    if !admit(group, volume, PairVerb::Resync)? {
        return Ok(Resynced::default());
    }
    let _copying = group.begin_copy();
    let file = group.file();
    let mut all = Resynced::default();
    for entry in file.chosen(volume)? {
        if group.suspension(entry.index).is_some() {
            let told = group.with_volume(entry.index, |volume| resync_volume(group, volume, mountpoints, progress))?;
            all.directories += told.directories;
            all.objects += told.objects;
            all.bytes += told.bytes;
        }
    }
    Ok(all)
}

fn resync_volume(
    group: &OpenGroup,
    volume: &OpenVolume,
    mountpoints: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Resynced> {
    let name = group.file().name;
    let mut troubles = Vec::new();
    let mut make_room = || {
        let before = group.journal().jvol().pointers().out;
        for target in group.file().targets {
            let exported = Destination::check(&group.file(), &group.devices(), mountpoints, &target.dir)
                .and_then(|to| export::export(group, &to, None, &mut |_, _| {}));
            if let Err(error) = exported {
                tracing::warn!(error = error.chain(), dir = %target.dir.display(), "no room could be made by an export");
                troubles.push(error);
            }
        }
        group.journal().jvol().pointers().out > before
    };
    let resynced = volume.primary.resync(&mut make_room, progress);
    resynced.map_err(|error| match error {
        ResyncError::NotSuspended => Error::new(ErrorKind::State, format!("group {name} is not suspended")),
        ResyncError::NoRoom => {
            let message = format!("the journal of {name} has no room for what changed; it stays suspended");
            let error = Error::new(ErrorKind::JournalFull, message);
            let hint = format!("reelfs tape export {name} --to DIR for every directory of it, then again");
            troubles.pop().into_iter().fold(error, Error::because).hint(hint)
        }
        ResyncError::TooMuch(_) => Error::new(ErrorKind::State, format!("{name}: {error}")).hint(format!(
            "a new epoch with a new base copy is shorter: reelfs umount, reelfs group delete {name}, and make it anew"
        )),
        ResyncError::Again => Error::new(ErrorKind::State, format!("{name}: {error}"))
            .hint("export more often than the journal fills, then again"),
        ResyncError::Failed { what, source } => Error::io(format!("{what} of group {name}"), source.into()),
    })
}

/// A directory becomes a volume of the group, which journals it from its first mount or base copy on.
///
/// # Errors
/// 14 when there is one of this name, 10 when the directory is not there, 2 when it overlaps with another volume, with journal
/// or state, or its file system cannot carry a volume.
pub fn create(group: &OpenGroup, name: &VolumeName, pvol: &Path) -> Result<Created> {
    let file = group.file();
    if file.volumes.iter().any(|entry| entry.name == *name) {
        let message = format!("group {} has a volume {name} already", file.name);
        return Err(Error::new(ErrorKind::WouldOverwrite, message).hint(format!("reelfs pair list {}", file.name)));
    }
    let state = StateDir::of(group.dir());
    let pvol = group::check_pvol(&state, pvol)?;
    group::refuse_protected_already(&state, &pvol)?;
    overlap::refuse_inside("the PVOL", &pvol, "the journal", &file.journal)?;
    group::refuse_unfit(&pvol)?;
    let index = group.add_volume(name.clone(), pvol.clone())?;
    Ok(Created { index, pvol })
}

/// A volume that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its number in records.
    pub index: VolumeIndex,
    /// The directory, resolved.
    pub pvol: PathBuf,
}

/// A volume leaves the group. Its directory and what tapes hold of it stay as they are.
///
/// # Errors
/// 10 when there is none of this name, 11 when it is mounted, 16 when a copy runs.
pub fn delete(group: &OpenGroup, name: &VolumeName, mounted: &[PathBuf]) -> Result<Done> {
    let file = group.file();
    let entry = file.volume(Some(name))?;
    admit(group, Some(name), PairVerb::Delete)?;
    if group.volume(entry.index).is_some() && !mounted.is_empty() {
        let title = file.title(entry);
        return Err(Error::new(ErrorKind::Busy, format!("{title} is mounted"))
            .hint("reelfs umount it first: `reelfs status` shows where"));
    }
    group.remove_volume(entry)?;
    Ok(Done { already: false })
}

/// Whether there is something to do for a verb in the pair's state.
///
/// # Errors
/// 16 when the state refuses it.
pub fn admit(group: &OpenGroup, volume: Option<&VolumeName>, verb: PairVerb) -> Result<bool> {
    let group_name = group.file().name;
    let name = volume.map_or_else(|| group_name.to_string(), |volume| format!("{group_name}/{volume}"));
    pair_state::admit(&name, group.state(volume), verb)
}
