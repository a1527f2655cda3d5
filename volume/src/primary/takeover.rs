//! When the journal has lost what it held, and a spare has taken over: suspended at once, and a new epoch when it comes back.

use std::sync::atomic::Ordering;

use reelfs_journal::{Epoch, FileId, MarkerKind};
use rustix::io::{Errno, Result};

use super::suspend::failed_map;
use super::{Primary, Reason};

impl Primary {
    /// If the journal has lost records, everything is brought to the volume's disk, and the group is suspended: what the
    /// consumers of the journal lack, no resync can tell them by what changes from now on.
    ///
    /// # Errors
    /// The volume, the spare or the dirty map cannot be written.
    pub fn settle_loss(&self) -> Result<()> {
        if !self.jvol.has_lost() {
            return Ok(());
        }
        let _held = self.gate.write();
        if !self.jvol.has_lost() {
            return Ok(());
        }
        self.sync_volume()?;
        self.begin_suspension(Reason::Error)
    }

    /// Suspended since the journal lost what it held: only a new epoch brings the pair back.
    #[must_use]
    pub fn needs_new_epoch(&self) -> bool {
        self.jvol.breaks_off() && self.suspension().is_some_and(|(suspension, _)| suspension.reason == Reason::Error)
    }

    /// Journals again, as another history; the caller has noted its epoch.
    ///
    /// # Errors
    /// The volume, the journal or the dirty map cannot be written; the group stays suspended.
    pub fn begin_epoch(&self, epoch: Epoch) -> Result<()> {
        let _held = self.gate.write();
        self.sync_volume()?;
        let mut dirty = self.dirty.lock();
        let Some(map) = dirty.as_ref() else { return Err(Errno::INVAL) };
        self.epoch.store(epoch.0, Ordering::SeqCst);
        let begun = self.marker(MarkerKind::EpochStart, "", "", map.suspension.time)?;
        self.jvol.sync(begun).map_err(|_| Errno::IO)?;
        map.remove().map_err(failed_map)?;
        self.suspended.store(false, Ordering::SeqCst);
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
