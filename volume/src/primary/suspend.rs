//! Suspension: applications go on while nothing is journaled. A change is noted in the dirty map and applied; what the map
//! holds is told by a resync (resync.rs).

use std::sync::atomic::Ordering;

use reelfs_journal::{Change, FileId, MarkerKind, Tags};
use rustix::io::{Errno, Result};

use super::dirty::{DirtyCounts, DirtyMap, Reason, Reserved, Suspension};
use super::scan::Scan;
use super::{Held, Primary};

impl Primary {
    /// Since when nothing is journaled, why, and how much changed since; `None` when everything is.
    #[must_use]
    pub fn suspension(&self) -> Option<(Suspension, DirtyCounts)> {
        self.is_suspended().then(|| self.dirty.lock().as_ref().map(|map| (map.suspension, map.counts()))).flatten()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::SeqCst)
    }

    /// Stops journaling; what changes from now on is noted. Everything until now is on disk first, journal and volume.
    ///
    /// # Errors
    /// The journal, the volume or the dirty map cannot be written.
    pub fn suspend(&self, reason: Reason) -> Result<()> {
        self.suspend_unless(reason, &|| false)
    }

    /// The same, unless there is room again for so much.
    pub(super) fn suspend_when_full(&self, payload: u64) -> Result<()> {
        self.suspend_unless(Reason::JournalFull, &|| self.has_room(payload))
    }

    /// The same while the volume's changes are held.
    ///
    /// # Errors
    /// As [`Primary::suspend`]; `EINVAL` when another volume is held.
    pub fn suspend_held(&self, held: &Held<'_>, reason: Reason) -> Result<()> {
        if !held.is_of(self) {
            return Err(Errno::INVAL);
        }
        if self.is_suspended() {
            return Ok(());
        }
        self.sync_volume()?;
        self.suspend_now(reason)
    }

    fn suspend_unless(&self, reason: Reason, needless: &dyn Fn() -> bool) -> Result<()> {
        self.group.settle_loss();
        if self.is_suspended() || needless() {
            return Ok(());
        }
        // most of it while changes go on
        self.sync_volume()?;
        let _held = self.gate.write();
        if self.is_suspended() || needless() {
            return Ok(());
        }
        self.sync_volume()?;
        self.suspend_now(reason)
    }

    /// No change is under way. When there is no place for the map nothing is said: the markers of one who tries again and again
    /// would use up the room that the end of a mount needs.
    fn suspend_now(&self, reason: Reason) -> Result<()> {
        let place = self.place_for_map()?;
        self.suspend_in(place, reason).inspect_err(|_| self.take_back_suspension())
    }

    /// For a map, if there is none.
    fn place_for_map(&self) -> Result<Option<Reserved>> {
        let is_there = self.dirty.lock().is_some();
        if is_there { Ok(None) } else { DirtyMap::reserve(&self.state).map(Some).map_err(failed_map) }
    }

    /// A suspension could not begin, and its marker may stand in the journal; no change was made since.
    fn take_back_suspension(&self) {
        let now = self.jvol().pointers().last_time;
        let told = [MarkerKind::ResyncBegin, MarkerKind::ResyncEnd].map(|kind| self.marker(kind, "", "", now));
        // a redo begins behind the last of them
        self.activity.raise_floor(self.jvol().pointers().next);
        if told.iter().any(Result::is_err) {
            tracing::error!("a suspension could not begin, and that could not be noted: no more changes are taken");
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// The marker, and the map if there is none; no change is under way.
    pub(super) fn begin_suspension(&self, reason: Reason) -> Result<()> {
        let place = self.place_for_map()?;
        self.suspend_in(place, reason)
    }

    fn suspend_in(&self, place: Option<Reserved>, reason: Reason) -> Result<()> {
        let mut dirty = self.dirty.lock();
        let why = match reason {
            Reason::User => "split by a user",
            Reason::Error => "after an error",
            Reason::JournalFull => "the journal was full",
        };
        // a record's time, which a step of the wall clock does not move
        let since = self.jvol().tick(self.clock()).1;
        let placed = self.place(MarkerKind::Suspended, ("", why, &Tags::default()), since)?;
        self.jvol().sync(placed.last).map_err(|_| Errno::IO)?;
        match (dirty.as_mut(), place) {
            (None, Some(place)) => {
                let suspension = Suspension { reason, seq: placed.last, time: placed.time };
                *dirty = Some(place.begin(suspension).map_err(failed_map)?);
            }
            (map, _) => map.into_iter().for_each(|map| map.sealed = (placed.last, placed.time)),
        }
        self.group.seal_volume(self.index, (placed.last, placed.time));
        self.suspensions.fetch_add(1, Ordering::SeqCst);
        self.suspended.store(true, Ordering::SeqCst);
        tracing::warn!(?reason, "suspended: nothing is journaled any more, what changes is noted");
        Ok(())
    }

    /// Applies a change without journaling it.
    pub(super) fn commit_noted(&self, changes: &[Change<'_>]) -> Result<u64> {
        let mut done = 0;
        for change in changes {
            if let Some(map) = self.dirty.lock().as_mut()
                && let Err(error) = map.note(change)
            {
                // a change that is not noted would be missing for ever
                tracing::error!(%error, "the dirty map cannot be written: the mount takes no more changes");
                self.failed.store(true, Ordering::Relaxed);
                return Err(Errno::IO);
            }
            super::touched(change).into_iter().for_each(|id| self.keep_noted(id));
            // EAGAIN is our own word for a full journal
            done = self.volume.apply(change).map_err(|error| if error == Errno::AGAIN { Errno::IO } else { error })?;
            match change {
                Change::Unlink { file, .. } => self.let_go(*file),
                Change::Rename { replaced, .. } => self.let_go(*replaced),
                _ => {}
            }
        }
        self.note_applied();
        let _ = self.volume.refused_times(); // what was refused is told as it stands
        Ok(done)
    }

    /// What an opening finds of a suspended group: objects of the map made known and kept known, and what changed behind
    /// the mount noted with them.
    pub(super) fn go_on_suspended(
        &self,
        mut map: DirtyMap,
        scan: &Scan,
        was_clean: bool,
    ) -> std::io::Result<DirtyCounts> {
        for directory in &scan.changed_directories {
            map.note_whole(directory.id, true)?;
        }
        for found in scan.changed.iter().filter(|found| !found.stat.is_directory()) {
            // after a kill, change times of what the map has are of our own making until it was last written
            if was_clean || found.stat.ctime >= map.written || !map.objects.contains_key(&found.stat.id) {
                map.note_whole(found.stat.id, false)?;
                let node = self.volume.nodes.intern(found.stat.id, found.stat.file_type, 0);
                node.add_link(&found.parent, &found.name);
            }
        }
        map.end_copy()?;
        for id in map.directories.iter().chain(map.objects.keys()) {
            self.keep_known(*id);
        }
        let counts = map.counts();
        *self.dirty.lock() = Some(map);
        self.suspended.store(true, Ordering::SeqCst);
        Ok(counts)
    }

    /// An object without a name need not be found again.
    fn let_go(&self, id: FileId) {
        if let Some(node) = self.volume.nodes.get(id) {
            let mut state = node.state.lock();
            if state.nameless && state.kept {
                state.kept = false;
                state.lookups.forget(1);
            }
        }
    }

    pub(super) fn keep_noted(&self, id: FileId) {
        if self.dirty.lock().as_ref().is_some_and(|map| map.has(id)) {
            self.keep_known(id);
        }
    }

    /// A dirty object must be found again by its id, so it stays known; one without a name is told to nobody.
    pub(super) fn keep_known(&self, id: FileId) {
        if let Some(node) = self.volume.nodes.get(id) {
            let mut state = node.state.lock();
            if !state.kept && !state.nameless {
                state.kept = true;
                state.lookups.add(1);
            }
        }
    }
}

pub(super) fn failed_map(error: std::io::Error) -> Errno {
    tracing::error!(%error, "the dirty map cannot be written");
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
