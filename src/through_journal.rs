//! A base copy through the journal: the present state of a volume as records, in stages when the journal is smaller than it.
//!
//! Tapes that hold these records lead to every later moment without a base tape. It goes on where it was interrupted.

use std::path::PathBuf;

use reelfs_journal::{Seq, VolumeName};
use reelfs_volume::{Based, ResyncError};

use crate::base_copy::{keep_records_from, new_base_id};
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Destination, Exported};
use crate::group_file::{Base, VolumeEntry};
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::room::Room;

/// Sends every volume, or the one named, through the journal, and exports what is left of the records to `to`.
///
/// # Errors
/// 16 when it is suspended, 20 when nobody makes room in the journal; as [`export::export`]. The same again goes on.
pub fn base_copy(
    group: &OpenGroup,
    volume: Option<&VolumeName>,
    to: Option<&Destination>,
    mountpoints: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    let mut room = Room::new(group, mountpoints);
    for entry in group.file().chosen(volume)? {
        tell_volume(group, entry, to, &mut room, progress)?;
    }
    let mut exported = match to {
        Some(to) => export::export(group, to, None, progress)?,
        None => Exported::default(),
    };
    let mut tapes = std::mem::take(&mut room.tapes);
    tapes.append(&mut exported.tapes);
    Ok(Exported { tapes, ..exported })
}

/// Sends one volume through the journal, or what is left of it.
///
/// # Errors
/// As [`base_copy`].
pub(crate) fn tell_volume(
    group: &OpenGroup,
    entry: &VolumeEntry,
    to: Option<&Destination>,
    room: &mut Room<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Based> {
    let based = group.with_volume(entry.index, |volume| {
        let title = group.file().title(entry);
        tell_open(group, volume, &title, to, room, progress)
    })?;
    let Based { base: uuid, began, ended: seq, .. } = based;
    group.update(|file| file.set_base(entry.index, Base { uuid, seq, began: Some(began) }))?;
    Ok(based)
}

fn tell_open(
    group: &OpenGroup,
    volume: &OpenVolume,
    title: &str,
    to: Option<&Destination>,
    room: &mut Room<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Based> {
    let primary = &volume.primary;
    if let (Some(to), Some(under_way)) = (to, primary.base_under_way())
        && group.file().target(&to.dir).is_none()
        && under_way.began < group.journal().jvol().pointers().out
    {
        let message = format!(
            "the copy of {title} began at record {}, and that has left the journal for other directories",
            under_way.began
        );
        return Err(Error::new(ErrorKind::TapeNeeded, message).hint(format!(
            "finish it there: reelfs pair resync {title}; then copy its tapes, or reelfs base copy anew"
        )));
    }
    let fail = |error: ResyncError, room: &mut Room<'_>| copy_error(title, error, room);
    let telling = primary.begin_base(new_base_id()).map_err(|error| fail(error, room))?;
    if let Some(to) = to {
        keep_records_from(group, to, telling.under_way().began)?;
    }
    let told = telling.tell(&mut || room.make(), progress);
    told.map_err(|error| fail(error, room))
}

fn copy_error(title: &str, error: ResyncError, room: &mut Room<'_>) -> Error {
    match error {
        ResyncError::NoRoom => room.none(&format!("the copy of {title} goes on when it is started again")),
        ResyncError::Again => {
            Error::new(ErrorKind::State, format!("{title} was suspended before all of it was copied"))
                .hint(format!("reelfs pair resync {title} brings it back, and goes on with the copy"))
        }
        ResyncError::Failed { what, source } => Error::io(format!("{what} of {title}"), source.into()),
        ResyncError::NotSuspended | ResyncError::TooMuch(_) | ResyncError::Lost => {
            Error::failed(format!("{title}: {error}"))
        }
    }
}

/// The first record of the base in the journal that stands for a volume, or that is being told.
pub(crate) fn begin_of(group: &OpenGroup, entry: &VolumeEntry) -> Option<Seq> {
    let finished = entry.base.and_then(|base| base.began);
    finished.or_else(|| group.base_under_way(entry.index).map(|under_way| under_way.began))
}
