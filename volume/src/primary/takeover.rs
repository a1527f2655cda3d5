//! When the journal has lost what it held, and a spare has taken over: every open volume is suspended at once, and all come
//! back together in a new epoch.

use std::sync::atomic::Ordering;

use reelfs_journal::{Epoch, FileId, MarkerKind, Tags, VolumeIndex};
use rustix::io::{Errno, Result};

use super::suspend::failed_map;
use super::{Primary, Reason};
use crate::group::Group;

impl Group {
    /// If the journal has lost records, every open volume is brought to its disk and suspended, before the spare takes
    /// anything: what the consumers of the journal lack, no resync can tell them by what changes from now on. A volume that
    /// cannot be takes no more changes.
    pub fn settle_loss(&self) {
        if !self.jvol().has_lost() {
            return;
        }
        let _alone = self.alone();
        if !self.jvol().has_lost() {
            return;
        }
        let open = self.open_volumes();
        let _held: Vec<_> = open.iter().map(|primary| primary.gate.write()).collect();
        for primary in &open {
            // it takes nothing more after that, and keeps the others from nothing
            let _ = primary.sync_volume();
        }
        self.jvol().accept_loss();
        for primary in &open {
            if let Err(error) = primary.begin_suspension(Reason::Error) {
                let volume = primary.index;
                tracing::error!(%error, %volume, "the volume cannot be suspended: the mount takes no more changes");
                primary.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The loss is settled, so what waited for the journal is on the disk of its volume.
    ///
    /// # Errors
    /// `EIO` when that disk refused it, or the volume is closed.
    pub(super) fn settled(&self, volume: VolumeIndex) -> Result<()> {
        self.settle_loss();
        let is_there = |primary: &std::sync::Arc<Primary>| primary.index == volume && !primary.has_failed();
        if self.open_volumes().iter().any(is_there) { Ok(()) } else { Err(Errno::IO) }
    }

    /// A volume that is open takes no more changes.
    pub(super) fn has_refused(&self, volume: VolumeIndex) -> bool {
        self.open_volumes().iter().any(|primary| primary.index == volume && primary.has_failed())
    }

    /// Journals every open volume again, as another history of `volumes`, open or not; the caller has noted its epoch.
    ///
    /// # Errors
    /// No volume is suspended; a volume, the journal or a dirty map cannot be written: what was not brought back stays suspended.
    pub fn begin_later_epoch(&self, epoch: Epoch, volumes: &[VolumeIndex]) -> Result<()> {
        let _alone = self.alone();
        let open = self.open_volumes();
        let _held: Vec<_> = open.iter().map(|primary| primary.gate.write()).collect();
        open.iter().try_for_each(|primary| primary.sync_volume())?;
        let since = open.iter().filter_map(|primary| primary.suspension()).map(|(suspension, _)| suspension.time).min();
        let since = since.ok_or(Errno::INVAL)?;
        self.set_epoch(epoch);
        let what = (MarkerKind::EpochStart, "", "", &Tags::default());
        self.place(VolumeIndex::FIRST, what, since)?;
        volumes.iter().try_for_each(|index| self.announce(*index))?;
        let begun = self.jvol().pointers().next.previous();
        self.jvol().sync(begun).map_err(|_| Errno::IO)?;
        open.iter().try_for_each(|primary| primary.journal_again())
    }
}

impl Primary {
    /// Suspended since the journal lost what it held, or before: only a new epoch brings the pair back.
    #[must_use]
    pub fn needs_new_epoch(&self) -> bool {
        let out = self.jvol().pointers().out;
        self.jvol().breaks_off() && self.suspension().is_some_and(|(since, _)| since.loses_its_place(out))
    }

    /// Another history has begun, and no change is under way.
    fn journal_again(&self) -> Result<()> {
        let mut dirty = self.dirty.lock();
        let Some(map) = dirty.as_ref() else { return Ok(()) };
        map.remove().map_err(failed_map)?;
        // where it stands again after a power cut, nothing is done again from the journal
        self.failed.fetch_or(map.sync_removal().is_err(), Ordering::Relaxed);
        // what the lost journal said is nowhere
        self.activity.raise_floor(self.jvol().pointers().next);
        self.suspended.store(false, Ordering::SeqCst);
        self.group.unseal_volume(self.index);
        for id in dirty.take().iter().flat_map(|map| map.directories.iter().chain(map.objects.keys())) {
            self.forget_kept(*id);
        }
        Ok(())
    }

    /// A dirty object was told, or need not be: it need not stay known.
    pub(super) fn forget_kept(&self, id: FileId) {
        let kept = self.volume.nodes.get(id).is_some_and(|node| std::mem::take(&mut node.state.lock().kept));
        if kept {
            self.forget(id.ino, 1);
        }
    }
}
