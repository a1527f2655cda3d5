//! What the volumes of a group share: one journal volume, one order of changes, one clock.

mod anchor;
mod quiet;
mod seal;
mod throttle;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{collections::BTreeMap, collections::HashMap, path::PathBuf};

use parking_lot::{Mutex, MutexGuard};
use reelfs_journal::{
    Appended, Change, Clock, EncodedRecord, Epoch, InFlight, JournalError, Jvol, MarkerKind, Record, Reserve, Seq,
    Slot, Tags, Timestamp, VolumeIndex,
};
use rustix::io::{Errno, Result};
use uuid::Uuid;

pub use anchor::{ClockState, believed_clock};
pub(crate) use anchor::{STEP_MIN, boot_of_machine, distance};
pub(crate) use quiet::Writers;
pub use throttle::{OnFull, WARN_PERCENT};

use crate::primary::{Committer, Held, OpenError, Primary, Requester};

/// What to open of a group.
pub struct GroupOptions {
    /// The journal volume.
    pub jvol: PathBuf,
    /// The group's UUID.
    pub group: Uuid,
    /// Where it keeps how it takes the clock.
    pub state: PathBuf,
    /// The epoch of the last session.
    pub epoch: Epoch,
    /// What happens when the journal is full.
    pub on_full: OnFull,
    /// Times.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOptions").field("jvol", &self.jvol).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// An open journal with one order of changes for all volumes that joined.
pub struct Group {
    jvol: Arc<Jvol>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    /// No root of a volume has this name.
    restore_mark: String,
    /// Boot of the machine.
    boot: String,
    anchors: Mutex<anchor::Anchors>,
    state: PathBuf,
    epoch: AtomicU32,
    /// A new epoch began since this was opened, and what is true of it so far needs no second one.
    is_new_epoch: AtomicBool,
    on_full: Mutex<OnFull>,
    warning: throttle::Warning,
    quiet: quiet::Quiet,
    /// The journal cannot be written.
    failed: AtomicBool,
    /// The last record that an [`Change::Amend`] followed up: a seal must not part the two.
    last_amend: AtomicU64,
    members: Mutex<Members>,
    /// Held while all volumes are suspended or brought back together.
    together: Mutex<()>,
}

/// The name in the root of a directory that says that a restore of a group is not finished there. A volume of that group cannot have
/// it in its root: no restore of it could end.
#[must_use]
pub fn restore_mark(group: Uuid) -> String {
    format!("{RESTORE_MARK}{group}")
}

/// How it begins, of whatever group.
pub const RESTORE_MARK: &str = ".reelfs-incomplete-";

/// The volumes that are open.
#[derive(Default)]
struct Members {
    in_flight: HashMap<VolumeIndex, Arc<InFlight>>,
    volumes: BTreeMap<VolumeIndex, Weak<Primary>>,
    /// The last record, and its time, that speaks of a volume that is suspended.
    sealed: HashMap<VolumeIndex, (Seq, Timestamp)>,
    others: seal::Others,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Group {
    /// Opens the journal and cuts a torn tail off it. No volume is open yet.
    ///
    /// # Errors
    /// The journal cannot be opened.
    pub fn open(options: GroupOptions) -> std::result::Result<Arc<Group>, OpenError> {
        let mut jvol = Jvol::open(&options.jvol, options.group)?;
        if let Some(seq) = jvol.torn() {
            tracing::warn!(%seq, "the journal ends in a torn record: cut off");
            jvol.cut_tail()?;
        }
        jvol.confirm()?;
        let (boot, anchors) = (boot_of_machine(), anchor::Anchors::load(&options.state));
        if let Some(believed) = anchors.believed(&boot, options.clock.read()) {
            jvol.follow(believed);
        }
        let last = jvol.pointers().next.previous();
        let jvol = Arc::new(jvol);
        let committer = Committer::new(jvol.clone());
        Ok(Arc::new(Group {
            committer: committer.map_err(|error| OpenError::volume("start threads", &error))?,
            jvol,
            clock: options.clock,
            restore_mark: restore_mark(options.group),
            boot,
            anchors: Mutex::new(anchors),
            state: options.state,
            epoch: AtomicU32::new(options.epoch.0),
            is_new_epoch: AtomicBool::new(false),
            on_full: Mutex::new(options.on_full),
            warning: throttle::Warning::default(),
            quiet: quiet::Quiet::after(last),
            failed: AtomicBool::new(false),
            last_amend: AtomicU64::new(0),
            members: Mutex::default(),
            together: Mutex::default(),
        }))
    }

    /// The journal volume.
    #[must_use]
    pub fn jvol(&self) -> &Arc<Jvol> {
        &self.jvol
    }

    /// The group's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    pub(crate) fn restore_mark(&self) -> &str {
        &self.restore_mark
    }

    pub(crate) fn committer(&self) -> &Committer {
        &self.committer
    }

    pub(crate) fn on_full(&self) -> OnFull {
        *self.on_full.lock()
    }

    /// The journal takes nothing more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A volume takes part from now on.
    pub(crate) fn join(&self, index: VolumeIndex, in_flight: Arc<InFlight>, volume: &Arc<Primary>) {
        let mut members = self.members.lock();
        members.in_flight.insert(index, in_flight);
        members.volumes.insert(index, Arc::downgrade(volume));
    }

    /// It does no longer.
    pub(crate) fn leave(&self, index: VolumeIndex) {
        let mut members = self.members.lock();
        members.in_flight.remove(&index);
        members.sealed.remove(&index);
        members.volumes.remove(&index);
        members.others = seal::Others::default();
    }

    /// Those that take part, by index.
    pub(crate) fn open_volumes(&self) -> Vec<Arc<Primary>> {
        self.members.lock().volumes.values().filter_map(Weak::upgrade).collect()
    }

    /// Holds off whoever else changes all volumes together.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.together.lock()
    }

    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::SeqCst);
    }

    /// Nothing later than this record speaks of the volume, until it is brought back.
    pub(crate) fn seal_volume(&self, index: VolumeIndex, end: (Seq, Timestamp)) {
        self.members.lock().sealed.insert(index, end);
    }

    /// It is journaled again.
    pub(crate) fn unseal_volume(&self, index: VolumeIndex) {
        self.members.lock().sealed.remove(&index);
    }

    /// Begins a new epoch, unless one has begun since the group was opened that nothing stands on yet.
    pub(crate) fn begin_epoch(&self, since: Timestamp) -> Result<()> {
        if self.is_new_epoch.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let what = (MarkerKind::EpochStart, "", "", &Tags::default());
        self.place(VolumeIndex(0), what, since).map(|_| ())
    }

    /// Says that a volume is part of the group in this epoch, whether it changes in it or not.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be written.
    pub fn announce(&self, index: VolumeIndex) -> Result<()> {
        let what = (MarkerKind::AcquisitionStart, "", "", &Tags::default());
        self.place(index, what, self.clock.read().wall).map(|_| ())
    }

    /// What joined joined: should a volume prove to be another one later, another epoch begins.
    pub fn all_joined(&self) {
        self.is_new_epoch.store(false, Ordering::SeqCst);
    }

    /// Sets a named point for all volumes. What holds changes for it is given up as soon as the point has its place: nobody
    /// waits for the disk.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be written or made durable.
    pub fn mark(&self, name: &str, note: &str, tags: &Tags, held: Vec<Held<'_>>) -> Result<(Seq, Timestamp)> {
        let what = (MarkerKind::Named, name, note, tags);
        let placed = self.place(VolumeIndex(0), what, self.clock.read().wall)?;
        drop(held);
        self.jvol.sync(placed.last).map_err(|_| Errno::IO)?;
        Ok((placed.last, placed.time))
    }

    /// Says durably that a volume has left the group.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be written or made durable.
    pub fn part_with(&self, index: VolumeIndex, name: &str) -> Result<Seq> {
        let what = (MarkerKind::VolumeLeft, "", name, &Tags::default());
        let placed = self.place(index, what, self.clock.read().wall)?;
        self.jvol.sync(placed.last).map_err(|_| Errno::IO)?;
        if let Err(error) = self.forget_clock(index) {
            tracing::info!(%error, "where the clock stood for a volume that has left stays noted");
        }
        Ok(placed.last)
    }

    pub(crate) fn place(
        &self,
        volume: VolumeIndex,
        (kind, name, note, tags): (MarkerKind, &str, &str, &Tags),
        since: Timestamp,
    ) -> Result<Appended> {
        let (name, note, tags) = (name.to_owned(), note.to_owned(), tags.clone());
        let marker = Change::Marker { kind, epoch: self.epoch(), name, note, tags, since };
        self.journal(volume, None, &Requester::reelfs(), &[marker], Reserve::Use)
    }

    /// Notes that something was amended, so that no seal comes between.
    pub(crate) fn amended(&self, by: Seq) {
        self.last_amend.fetch_max(by.0, Ordering::SeqCst);
    }

    /// Appends without applying. One operation: all but the last record carry MORE.
    pub(crate) fn journal(
        &self,
        volume: VolumeIndex,
        slot: Option<&Slot<'_>>,
        who: &Requester,
        changes: &[Change<'_>],
        reserve: Reserve,
    ) -> Result<Appended> {
        let wall = self.clock.read().wall;
        let records: Vec<Record<'_>> = changes
            .iter()
            .enumerate()
            .map(|(index, change)| Record {
                seq: Seq::ZERO,
                more: index + 1 < changes.len(),
                time: Timestamp(0),
                wall,
                uid: who.uid,
                pid: who.pid,
                volume,
                change: lend(change),
            })
            .collect();
        let mut encoded: Vec<EncodedRecord<'_>> = records.iter().map(Record::encode).collect();
        let mut is_numbered = false;
        let reserved = |first, last| match slot {
            Some(slot) if std::mem::replace(&mut is_numbered, true) => slot.numbered_anew(first, last),
            Some(slot) => slot.appended(first, last),
            None => {}
        };
        match self.jvol.append(&mut encoded, &*self.clock, reserve, reserved) {
            Ok(appended) => {
                self.committer.appended(appended.last, changes.iter().map(payload).sum());
                Ok(appended)
            }
            Err(JournalError::Full | JournalError::Lost(_)) if reserve == Reserve::Keep => Err(Errno::AGAIN),
            Err(JournalError::Lost(_)) => Err(Errno::IO),
            Err(JournalError::TooLarge(_)) => Err(Errno::FBIG),
            Err(error) => {
                tracing::error!(%error, "the journal cannot be written: the mount takes no more changes");
                self.failed.store(true, Ordering::Relaxed);
                Err(Errno::IO)
            }
        }
    }

    /// Waits until every number up to `upto` that any volume was given is settled; never, when something cannot be settled any
    /// more.
    pub(crate) fn settle(&self, upto: Seq) -> Result<()> {
        let tables: Vec<Arc<InFlight>> = self.members.lock().in_flight.values().cloned().collect();
        for table in tables {
            while !table.wait_settled(upto, Duration::from_secs(1)) {
                if self.has_failed() || table.has_left(upto) {
                    return Err(Errno::IO);
                }
            }
        }
        Ok(())
    }
}

/// The same change, borrowing the bytes of a write.
pub(crate) fn lend<'a>(change: &'a Change<'_>) -> Change<'a> {
    match change {
        Change::Write { file, offset, data, size, mtime } => Change::Write {
            file: *file,
            offset: *offset,
            data: std::borrow::Cow::Borrowed(data),
            size: *size,
            mtime: *mtime,
        },
        other => other.clone(),
    }
}

fn payload(change: &Change<'_>) -> u64 {
    match change {
        Change::Write { data, .. } => data.len() as u64,
        _ => 0,
    }
}
