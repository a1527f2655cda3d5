//! The spare journal volume of a group: taken from its pool when the disk of the journal fails, and what comes after a loss.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use reelfs_journal::{Epoch, Jvol, Spare};
use reelfs_volume::Resynced;

use crate::error::{Error, Result};
use crate::export::{self, Destination};
use crate::group_file::GroupFile;
use crate::open_group::OpenGroup;
use crate::pool::Pools;
use crate::size::Size;
use crate::state::{GroupDir, StateDir};

/// Lets a journal go on in a spare, if the group has a pool for that.
pub(crate) fn provide(jvol: &Jvol, dir: &GroupDir, file: &Arc<Mutex<GroupFile>>) {
    let Some(pool) = file.lock().origin.spare.clone() else { return };
    let state = StateDir::of(dir);
    let other = |error: Error| io::Error::other(error.to_string());
    let (from, of) = (pool.clone(), file.clone());
    let take = move |bytes| {
        let file = of.lock().clone();
        Pools::open(&state).and_then(|mut pools| pools.take(&from, Some(Size(bytes)), &file)).map_err(other)
    };
    let (dir, file) = (dir.clone(), file.clone());
    let settle = move |path: &Path| {
        let mut file = file.lock();
        let before = (file.journal.clone(), file.origin.pool.clone());
        (file.journal, file.origin.pool) = (path.to_owned(), Some(pool.clone()));
        let stored = file.store(&dir);
        if stored.is_err() {
            (file.journal, file.origin.pool) = before;
        }
        stored.map_err(other)
    };
    jvol.set_spare(Spare { take: Box::new(take), settle: Box::new(settle) });
}

/// After a loss: another history of all volumes, whose bases go to every directory of tapes that is there.
///
/// # Errors
/// The group cannot go on, or a directory did not get its base: the next export to it writes one.
pub(crate) fn begin_epoch(
    group: &OpenGroup,
    mountpoints: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Resynced> {
    let file = group.file();
    let is_closed = |index| group.volume(index).is_none() && group.suspension(index).is_some();
    let closed: Vec<_> = file.volumes.iter().map(|entry| entry.index).filter(|index| is_closed(*index)).collect();
    let mut at_work = Vec::new();
    for index in closed {
        at_work.push(group.begin_work(index)?.0);
    }
    // it may have begun one itself
    let epoch = Epoch(group.file().epoch.0 + 1);
    // first: a history that begins without its number would be told as the old one
    group.update(|file| {
        file.epoch = epoch;
        file.volumes.iter_mut().for_each(|entry| entry.base = None);
    })?;
    let volumes: Vec<_> = file.volumes.iter().map(|entry| entry.index).collect();
    let begun = group.journal().begin_later_epoch(epoch, &volumes);
    let begun = begun.map_err(|error| Error::io("begin a new epoch", error.into()));
    at_work.into_iter().try_for_each(|working| group.end_work(working))?;
    begun?;
    for target in group.file().targets {
        let to = Destination::check(&group.file(), &group.devices(), mountpoints, &target.dir)?;
        export::export(group, &to, None, progress)?;
    }
    Ok(Resynced { new_epoch: Some(epoch.0), ..Resynced::default() })
}
