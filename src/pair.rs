//! Pairs: suspended, and brought back with only what changed.

use std::path::{Path, PathBuf};

use reelfs_journal::{Seq, Tags, VolumeIndex, VolumeName};
use reelfs_volume::{Based, Reason, ResyncError, Resynced};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::group;
use crate::group_file::VolumeEntry;
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::overlap;
use crate::pair_state::{self, PairVerb};
use crate::point;
use crate::request::{self, Marked};
use crate::room::Room;
use crate::secondary::Secondary;
use crate::spare_journal;
use crate::state::StateDir;
use crate::through_journal;

/// What was done: nothing, when it was so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// It was so already.
    pub already: bool,
}

/// What became of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parted {
    /// It was suspended already.
    pub already: bool,
    /// The marker at which it was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marked>,
}

/// What a resync told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// What changed, or everything.
    #[serde(flatten)]
    pub told: Resynced,
    /// From which record on the volume can be restored without its earlier base, when all of it went through the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Seq>,
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
pub fn split(group: &OpenGroup, volume: Option<&VolumeName>) -> Result<Parted> {
    let file = group.file();
    let chosen = file.chosen(volume)?;
    if !admit(group, volume, PairVerb::Split)? && chosen.iter().all(|entry| group.suspension(entry.index).is_some()) {
        return Ok(Parted { already: true, marker: None });
    }
    for entry in chosen {
        group.with_volume(entry.index, |volume| {
            let suspended = volume.primary.suspend(Reason::User);
            suspended.map_err(|error| Error::io(format!("suspend {}", file.title(entry)), error.into()))
        })?;
    }
    Ok(Parted { already: false, marker: None })
}

/// Sets a named point and stops journaling there, of one volume or of all: no change of any volume is under way between the two, so
/// the point is the last that can be restored.
///
/// # Errors
/// As [`split`]; 16 also when a volume of the group is suspended already, for a point could not be set; 17 when the changes that
/// are under way do not end.
pub fn split_at(group: &OpenGroup, volume: Option<&VolumeName>, marker: &str) -> Result<Parted> {
    point::check_marker_name(marker)?;
    group.journal().settle_loss();
    admit(group, volume, PairVerb::Split)?;
    admit(group, None, PairVerb::Mark)?;
    let file = group.file();
    let chosen = file.chosen(volume)?;
    let (mut at_work, mut opened) = (Vec::new(), Ok(()));
    for entry in &chosen {
        match group.begin_work(entry.index) {
            Ok((working, _)) => at_work.push(working),
            Err(error) => opened = opened.and(Err(error)),
        }
    }
    let split = opened.and_then(|()| split_open(group, &chosen, marker));
    at_work.into_iter().try_for_each(|working| group.end_work(working))?;
    split
}

fn split_open(group: &OpenGroup, chosen: &[&VolumeEntry], marker: &str) -> Result<Parted> {
    let fail = |entry: &VolumeEntry| {
        let title = group.file().title(entry);
        move |error: Errno| Error::io(format!("suspend {title}"), error.into())
    };
    let volumes = group.volumes();
    let parting: Vec<(&VolumeEntry, &OpenVolume)> = chosen
        .iter()
        .filter_map(|entry| Some((*entry, volumes.iter().find(|volume| volume.index == entry.index)?)))
        .collect();
    // most of it while changes go on
    for (entry, volume) in &parting {
        volume.primary.sync_volume().map_err(fail(entry))?;
    }
    let held = request::hold(&volumes, marker)?;
    let marked = request::place_mark(group, (marker, "the pair was split here", &Tags::default()), Vec::new())?;
    for (entry, volume) in &parting {
        let hold = held.iter().find(|held| held.is_of(&volume.primary));
        let hold = hold.ok_or_else(|| Error::failed("a volume is not held"))?;
        volume.primary.suspend_held(hold, Reason::User).map_err(fail(entry))?;
    }
    Ok(Parted { already: false, marker: Some(marked) })
}

/// Journals again and tells what changed in one volume or in all; exports to the directories that the group knows whenever
/// the journal is full. With `full`, and when a base copy through the journal was interrupted, all that is there is told.
///
/// # Errors
/// 16 without a base copy, 20 when nobody makes room in the journal. It stays suspended, and nothing is forgotten.
pub fn resync(
    group: &OpenGroup,
    (volume, full): (Option<&VolumeName>, bool),
    mountpoints: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Brought> {
    if !admit(group, volume, if full { PairVerb::ResyncFull } else { PairVerb::Resync })? {
        return Ok(Brought::default());
    }
    let _copying = group.begin_copy();
    if group.volumes().iter().any(|volume| volume.primary.needs_new_epoch()) {
        let told = spare_journal::begin_epoch(group, mountpoints, progress)?;
        return Ok(Brought { told, base: None });
    }
    let file = group.file();
    let mut all = Brought::default();
    let mut room = Room::new(group, mountpoints);
    for entry in file.chosen(volume)? {
        if group.suspension(entry.index).is_some() {
            let told = group.with_volume(entry.index, |volume| resync_volume(group, volume, &mut room, progress))?;
            all.add(told);
        }
        if full || group.base_under_way(entry.index).is_some() {
            let told = through_journal::tell_volume(group, entry, None, &mut room, progress)?;
            let Based { directories, objects, bytes, ended, .. } = told;
            all.add(Resynced { directories, objects, bytes, ..Resynced::default() });
            all.base = Some(ended);
        }
    }
    Ok(all)
}

impl Brought {
    fn add(&mut self, told: Resynced) {
        self.told.directories += told.directories;
        self.told.objects += told.objects;
        self.told.bytes += told.bytes;
    }
}

fn resync_volume(
    group: &OpenGroup,
    volume: &OpenVolume,
    room: &mut Room<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Resynced> {
    let name = group.file().name;
    let resynced = volume.primary.resync(&mut || room.make(), progress);
    resynced.map_err(|error| match error {
        ResyncError::NotSuspended => Error::new(ErrorKind::State, format!("group {name} is not suspended")),
        ResyncError::NoRoom => room.none("it stays suspended"),
        ResyncError::TooMuch(_) => Error::new(ErrorKind::State, format!("{name}: {error}")).hint(format!(
            "a new epoch with a new base copy is shorter: reelfs umount, reelfs group delete {name}, and make it anew"
        )),
        ResyncError::Again => Error::new(ErrorKind::State, format!("{name}: {error}"))
            .hint("export more often than the journal fills, then again"),
        ResyncError::Lost => Error::new(ErrorKind::State, format!("{name}: {error}"))
            .hint(format!("once more, and a new epoch begins: reelfs pair resync {name}")),
        ResyncError::Failed { what, source } => Error::io(format!("{what} of group {name}"), source.into()),
    })
}

/// A directory becomes a volume of the group, which journals it from its first mount or base copy on. Whether the secondary can be
/// one is looked at before anything changes; its first copy is made by whoever asked.
///
/// # Errors
/// As [`Secondary::check`]; 14 when there is one of this name, 10 when the directory is not there, 2 when it overlaps with another
/// volume, with journal or state, or its file system cannot carry a volume.
pub fn create(
    group: &OpenGroup,
    (name, pvol): (&VolumeName, &Path),
    secondary: Option<&Secondary>,
    mountpoints: &[PathBuf],
) -> Result<Created> {
    let file = group.file();
    if file.volumes.iter().any(|entry| entry.name == *name) {
        let message = format!("group {} has a volume {name} already", file.name);
        return Err(Error::new(ErrorKind::WouldOverwrite, message).hint(format!("reelfs pair list {}", file.name)));
    }
    let state = StateDir::of(group.dir());
    let pvol = group::check_pvol(&state, pvol)?;
    let _making = state.begin_making()?;
    group::refuse_protected_already(&state, &pvol)?;
    overlap::refuse_inside("the PVOL", &pvol, "the journal", &file.journal)?;
    group::refuse_unfit(&pvol)?;
    if let Some(secondary) = secondary {
        secondary.check(&file, state.root(), mountpoints, &pvol)?;
    }
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
    consumer::dismiss_volume(group, entry.index)?;
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
