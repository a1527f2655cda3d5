//! A group opened for itself: locked, its journal and its volumes ready to be changed. The mount process holds one; without a
//! mount every verb that changes something opens one for as long as it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use reelfs_journal::{Epoch, JournalError, Seq, VolumeIndex, VolumeName};
use reelfs_volume::{DirtyCounts, Group, GroupOptions, OpenError, Suspension, UnderWay};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::journal_grow;
use crate::journal_repair;
use crate::known_positions::KnownPositions;
use crate::lock::GroupLock;
use crate::open_volume::{self, OpenVolume, open_error};
use crate::output::Output;
use crate::pair_state::PairState;
use crate::ring_place;
use crate::spare_journal;
use crate::state::GroupDir;
use crate::volume_uses::{VolumeUses, Working};

/// A locked, open group.
pub struct OpenGroup {
    dir: GroupDir,
    file: Arc<Mutex<GroupFile>>,
    journal: Arc<Group>,
    /// Those that are open.
    volumes: Mutex<Vec<OpenVolume>>,
    uses: VolumeUses,
    /// Held while a volume is opened for somebody who works on it.
    opening: Mutex<()>,
    output: Output,
    /// One export or base copy at a time.
    tapes: Mutex<()>,
    /// A base copy or a resync is running.
    copying: AtomicBool,
    /// The directory that an export is reading the journal for, and up to where.
    reading: Mutex<Option<(PathBuf, Seq)>>,
    known: KnownPositions,
    _lock: GroupLock,
}

/// A copy that is running, until this is dropped.
#[derive(Debug)]
pub struct Copying<'g>(&'g AtomicBool);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl OpenGroup {
    /// Locks and opens a group with all its volumes for `verb`; what happened behind the mount is told through `output`.
    /// `strict` refuses to adopt. A volume whose directory is not there is left closed when the group has others and this one
    /// was closed well.
    ///
    /// # Errors
    /// 11 when another reelfs has it, 10 when a volume is gone, 19 when the journal is damaged, 14 when `strict` refuses.
    pub fn open(dir: &GroupDir, verb: &str, strict: bool, output: &Output) -> Result<OpenGroup> {
        let lock = GroupLock::take(dir, verb)?;
        raise_descriptor_limit();
        let file = GroupFile::load(dir)?;
        journal_grow::clear_away(&file);
        let journal = open_journal(dir, &file, output)?;
        journal.set_warning(file.settings.warn.0);
        let entries = file.volumes.clone();
        let group = OpenGroup {
            dir: dir.clone(),
            file: Arc::new(Mutex::new(file)),
            journal,
            volumes: Mutex::default(),
            uses: VolumeUses::default(),
            opening: Mutex::default(),
            output: output.clone(),
            tapes: Mutex::new(()),
            copying: AtomicBool::new(false),
            reading: Mutex::new(None),
            known: KnownPositions::default(),
            _lock: lock,
        };
        for entry in &entries {
            match group.open_volume(entry.index, strict) {
                Err(error) if entries.len() > 1 && may_be_absent(entry, &error) => output.warn(error),
                Err(error) => {
                    group.close()?;
                    return Err(error);
                }
                Ok(_) => {}
            }
        }
        group.journal.all_joined();
        // what may be lost with it is dealt with
        if let Err(error) = group.journal.jvol().forget_left() {
            tracing::warn!(%error, "what was left of the ring of the journal stays");
        }
        spare_journal::provide(group.journal.jvol(), dir, &group.file);
        Ok(group)
    }

    /// Opens a volume that is closed.
    ///
    /// # Errors
    /// As [`OpenGroup::open`].
    pub fn open_volume(&self, index: VolumeIndex, strict: bool) -> Result<OpenVolume> {
        self.journal.settle_loss();
        let file = self.file();
        let entry = file.volumes.iter().find(|entry| entry.index == index);
        let entry = entry.ok_or_else(|| Error::new(ErrorKind::NotFound, "the volume has left the group"))?;
        let (volume, replaced) = open_volume::open(&self.dir, &file, entry, &self.journal, strict, &self.output)?;
        self.volumes.lock().push(volume.clone());
        if replaced.is_some() {
            for other in file.volumes.iter().filter(|other| other.index != index) {
                let announced = self.journal.announce(other.index);
                announced.map_err(|error| Error::io("write the journal", error.into()))?;
            }
        }
        self.update(|file| {
            file.epoch = self.journal.epoch();
            if replaced.is_some() {
                file.volumes.iter_mut().for_each(|entry| entry.base = None);
            }
            file.set_session(index, volume.session.clone());
        })?;
        Ok(volume)
    }

    /// Closes a volume cleanly, if it is open.
    ///
    /// # Errors
    /// When journal, volume or state cannot be made durable; the next opening then recovers.
    pub fn close_volume(&self, index: VolumeIndex) -> Result<()> {
        self.journal.settle_loss();
        let volume = {
            let mut volumes = self.volumes.lock();
            let Some(at) = volumes.iter().position(|volume| volume.index == index) else { return Ok(()) };
            volumes.remove(at)
        };
        let file = self.file();
        let entry = file.volumes.iter().find(|entry| entry.index == index);
        let closed = volume.primary.close(&volume.session).map_err(|error| open_error(&file, entry, error))?;
        self.update(|file| file.set_session(index, closed))
    }

    /// From now on what is journaled goes through a ring in memory, until the group is closed: for a process that stays.
    pub fn begin_ring(&self) {
        if let Err(error) = self.journal.jvol().begin_ring(&ring_place::places()) {
            tracing::warn!(%error, "the journal is written at once");
        }
    }

    /// Closes the group cleanly.
    ///
    /// # Errors
    /// When journal, volume or state cannot be made durable; the next opening then recovers.
    pub fn close(&self) -> Result<()> {
        let outcomes: Vec<Result<()>> = self.volumes().iter().map(|volume| self.close_volume(volume.index)).collect();
        let jvol = self.journal.jvol();
        if let Err(error) = jvol.note_durable().and_then(|()| jvol.end_ring()) {
            tracing::warn!(%error, "how far the journal is durable could not be noted");
        }
        outcomes.into_iter().collect()
    }

    /// Where the group's state lives.
    #[must_use]
    pub fn dir(&self) -> &GroupDir {
        &self.dir
    }

    /// The journal of all volumes.
    #[must_use]
    pub fn journal(&self) -> &Arc<Group> {
        &self.journal
    }

    /// The volumes that are open.
    #[must_use]
    pub fn volumes(&self) -> Vec<OpenVolume> {
        self.volumes.lock().clone()
    }

    /// A volume, if it is open.
    #[must_use]
    pub fn volume(&self, index: VolumeIndex) -> Option<OpenVolume> {
        self.volumes.lock().iter().find(|volume| volume.index == index).cloned()
    }

    /// Does something with a volume, which is opened for it when it is closed.
    ///
    /// # Errors
    /// The volume cannot be opened or closed, or what `act` says.
    pub fn with_volume<T>(&self, index: VolumeIndex, act: impl FnOnce(&OpenVolume) -> Result<T>) -> Result<T> {
        let (working, volume) = self.begin_work(index)?;
        let done = act(&volume);
        drop(volume);
        self.end_work(working)?;
        done
    }

    /// Somebody works on a volume, which is opened for it when it is closed: until then it is neither mounted nor closed.
    ///
    /// # Errors
    /// The volume cannot be opened.
    pub(crate) fn begin_work(&self, index: VolumeIndex) -> Result<(Working<'_>, OpenVolume)> {
        let working = self.uses.work(index);
        if let Some(volume) = self.volume(index) {
            return Ok((working, volume));
        }
        let _opening = self.opening.lock();
        if let Some(volume) = self.volume(index) {
            return Ok((working, volume));
        }
        let volume = self.open_volume(index, false)?;
        self.uses.note_temporary(index);
        Ok((working, volume))
    }

    /// It is over; the last one closes what was opened for it.
    ///
    /// # Errors
    /// The volume cannot be closed.
    pub(crate) fn end_work(&self, working: Working<'_>) -> Result<()> {
        let index = working.index();
        let Some(_taken) = working.end() else { return Ok(()) };
        self.close_volume(index)
    }

    /// Who is at which volume.
    pub(crate) fn uses(&self) -> &VolumeUses {
        &self.uses
    }

    /// The devices that the volumes lie on, whatever is mounted over them.
    #[must_use]
    pub fn devices(&self) -> Vec<u64> {
        self.volumes.lock().iter().map(|volume| volume.device).collect()
    }

    /// A copy of what is known of the group.
    #[must_use]
    pub fn file(&self) -> GroupFile {
        self.file.lock().clone()
    }

    /// Changes what is known of the group, durably.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn update(&self, change: impl FnOnce(&mut GroupFile)) -> Result<()> {
        let mut file = self.file.lock();
        change(&mut file);
        file.store(&self.dir)
    }

    /// A directory of tapes that was known by one path lies elsewhere now, and a link leads there: it stays one.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub(crate) fn follow_link(&self, known: &Path, dir: &Path) -> Result<()> {
        if known == dir || self.file().target(known).is_none() {
            return Ok(());
        }
        self.update(|file| consumer::follow_link(file, known, dir))
    }

    /// Since when nothing of a volume is journaled, why, and what changed since.
    #[must_use]
    pub fn suspension(&self, index: VolumeIndex) -> Option<(Suspension, DirtyCounts)> {
        match self.volume(index) {
            Some(volume) => volume.primary.suspension(),
            None => reelfs_volume::suspension(&self.dir.volume(index)).ok().flatten(),
        }
    }

    /// The base copy of a volume through the journal that has begun and not ended.
    #[must_use]
    pub fn base_under_way(&self, index: VolumeIndex) -> Option<UnderWay> {
        match self.volume(index) {
            Some(volume) => volume.primary.base_under_way(),
            None => under_way(&self.dir, index, self.journal.epoch()),
        }
    }

    /// The state of the pair of one volume, or, without a name, the one that most needs attention.
    #[must_use]
    pub fn state(&self, name: Option<&VolumeName>) -> PairState {
        if self.copying.load(Ordering::SeqCst) {
            return PairState::Copy;
        }
        let file = self.file();
        let of = |entry: &VolumeEntry| {
            let is_under_way = self.base_under_way(entry.index).is_some();
            PairState::of(self.suspension(entry.index).is_some(), entry.base.is_some(), is_under_way)
        };
        PairState::together(file.volumes.iter().filter(|entry| name.is_none_or(|name| entry.name == *name)).map(of))
    }

    /// A copy begins; the caller holds off others.
    #[must_use]
    pub fn begin_copy(&self) -> Copying<'_> {
        self.copying.store(true, Ordering::SeqCst);
        Copying(&self.copying)
    }

    /// Positions in the journal whose digest is known.
    pub(crate) fn known(&self) -> &KnownPositions {
        &self.known
    }

    /// What an export is reading the journal for, and up to where.
    #[must_use]
    pub fn reading(&self) -> Option<(PathBuf, Seq)> {
        self.reading.lock().clone()
    }

    /// An export reads the journal up to a record, or none does.
    pub fn set_reading(&self, reading: Option<(PathBuf, Seq)>) {
        *self.reading.lock() = reading;
    }

    /// Holds off other exports and base copies.
    pub fn alone(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.tapes.lock()
    }

    /// The same when nobody else does anything of the kind just now.
    pub fn try_alone(&self) -> Option<parking_lot::MutexGuard<'_, ()>> {
        self.tapes.try_lock()
    }

    /// A directory becomes a volume of the group; it is not open yet.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn add_volume(&self, name: VolumeName, pvol: PathBuf) -> Result<VolumeIndex> {
        let index = VolumeIndex(self.file.lock().volumes_ever);
        self.update(|file| {
            file.volumes_ever += 1;
            file.volumes.push(VolumeEntry::new(index, name, pvol));
        })?;
        Ok(index)
    }

    /// A volume leaves the group: the journal says so, and what was kept of it is removed. Its directory stays as it is.
    ///
    /// # Errors
    /// When it cannot be closed, or journal or state directory cannot be written.
    pub fn remove_volume(&self, entry: &VolumeEntry) -> Result<()> {
        self.close_volume(entry.index)?;
        let left = self.journal.part_with(entry.index, entry.name.as_str());
        left.map_err(|error| Error::io("write the journal", error.into()))?;
        self.update(|file| file.part_with(entry.index))?;
        self.dir.remove_volume(entry.index)
    }
}

/// Opens the journal; where durable records do not read back, it is repaired first from the tapes that the group knows.
fn open_journal(dir: &GroupDir, file: &GroupFile, output: &Output) -> Result<Arc<Group>> {
    let open = || {
        Group::open(GroupOptions {
            jvol: file.journal.clone(),
            group: file.uuid,
            state: dir.path().to_owned(),
            epoch: file.epoch,
            on_full: file.on_full,
            clock: crate::clock::of_machine(),
        })
    };
    let opened = match open() {
        Err(OpenError::Journal(JournalError::Damaged { .. })) => {
            journal_repair::at_opening(file, output)?;
            open()
        }
        opened => opened,
    };
    opened.map_err(|error| open_error(file, None, error))
}

/// The base copy through the journal that has begun in an epoch and not ended, of a volume that is not open here.
pub(crate) fn under_way(dir: &GroupDir, index: VolumeIndex, epoch: Epoch) -> Option<UnderWay> {
    let found = reelfs_volume::base_under_way(&dir.volume(index)).ok().flatten();
    found.filter(|under_way| under_way.epoch == epoch)
}

/// The others can be worked with while its disk is away: nothing of it is unsettled.
fn may_be_absent(entry: &VolumeEntry, error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && entry.session.as_ref().is_none_or(|session| session.clean.is_some())
}

/// Applications' open files are ours too: as many as the system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::info!(%error, "the limit of open files stays as it is");
    }
}
