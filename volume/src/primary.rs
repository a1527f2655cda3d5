//! The one door: every mutation of a primary volume is journaled and applied here, in one order.
//!
//! Append first, apply second, reply last. A create makes its object first, because its id exists only then, while it
//! holds the lock that lookups take too. Names change one at a time; the bytes and attributes of one file change one at a
//! time, under the lock of its node. An apply that fails or falls short is settled by an [`Change::Amend`] before the
//! reply.

mod activity;
mod adopt;
mod attributes;
mod base_log;
mod carry;
mod catch_up;
mod committer;
mod data;
mod directory;
mod dirty;
mod foresight;
mod grace;
mod half_told;
mod known;
mod lifecycle;
mod lull;
mod mistaken;
mod names;
mod recovery;
mod redo;
mod restate;
mod resync;
mod scan;
mod superseded;
mod suspend;
mod takeover;
mod through;
mod verdict;
mod walk;

pub(crate) use committer::Committer;

pub use adopt::{Adopted, Identity};
pub use attributes::{SetAttr, TimeSet};
pub use base_log::{UnderWay, base_under_way};
pub use data::{Noticed, Waits, Way, Writing, Written};
pub use directory::DirEntry;
pub use dirty::{DirtyCounts, Reason, Suspension, suspension};
pub use lifecycle::{OpenError, OpenOptions, Opened, Session, VolumeOptions};
pub use recovery::Recovered;
pub use resync::{ResyncError, Resynced};
pub use through::{Based, Telling};
pub use verdict::{Lost, NewEpoch, table as recovery_table};
pub use walk::{Visit, WalkError};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use reelfs_journal::{
    AmendOutcome, Appended, Change, Clock, FileId, FileTime, InFlight, Jvol, MarkerKind, Reserve, Seq, Slot, Tags,
    Timestamp, VolumeIndex,
};
use rustix::io::{Errno, Result};

use crate::group::{Group, OnFull, STEP_MIN, Writers, lend};
use crate::node::Node;
use crate::volume::Volume;
use crate::zeroing;

/// Who asked for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, 0 if unknown.
    pub pid: u32,
}

impl Requester {
    /// reelfs itself: markers, adoption, recovery.
    #[must_use]
    pub fn reelfs() -> Requester {
        Requester {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            pid: rustix::process::getpid().as_raw_nonzero().get().unsigned_abs(),
        }
    }
}

/// Room that one operation may need in the journal, payload aside: attributes, a name, extended attributes.
const OPERATION_BYTES: u64 = 256 << 10;
/// Records that one operation may need.
const OPERATION_RECORDS: u64 = 8;

/// A change is under way until this is dropped.
#[derive(Debug)]
struct Admitted<'p> {
    _gate: RwLockReadGuard<'p, ()>,
    _entered: grace::Entered<'p>,
}

/// No change is under way until this is dropped.
#[derive(Debug)]
pub struct Held<'p> {
    primary: &'p Primary,
    _gate: RwLockWriteGuard<'p, ()>,
}

impl Held<'_> {
    /// It is this volume that is held.
    #[must_use]
    pub fn is_of(&self, primary: &Primary) -> bool {
        std::ptr::eq(self.primary, primary)
    }
}

/// A primary volume with its journal.
pub struct Primary {
    pub(crate) volume: Volume,
    group: Arc<Group>,
    activity: activity::Activity,
    index: VolumeIndex,
    in_flight: Arc<InFlight>,
    due: lull::DueRedo,
    refusal: Arc<committer::Refusal>,
    closings: Arc<committer::Closings>,
    /// Changes read; who must have none under way writes.
    gate: RwLock<()>,
    grace: grace::Grace,
    /// Lookups read, changes of names write.
    names: RwLock<()>,
    known: Mutex<adopt::KnownDirectories>,
    walk: walk::Announcements,
    failed: AtomicBool,
    /// Where the volume's state lives.
    state: PathBuf,
    suspended: AtomicBool,
    /// How often it was suspended.
    suspensions: AtomicU64,
    /// What changed since, also while it is brought back.
    dirty: Mutex<Option<dirty::DirtyMap>>,
    /// What a base copy through the journal has told, until it ends.
    base: Mutex<Option<base_log::BaseLog>>,
    /// Wall time at which the last change of ours was applied: whatever carries a later change time is not ours.
    applied_at: AtomicI64,
    open_files: AtomicU64,
    pub(crate) writers: Writers,
}

impl std::fmt::Debug for Primary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Primary").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Primary {
    /// The inode number of the root directory.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.volume.root_id().ino
    }

    /// The id of the root directory.
    #[must_use]
    pub fn root_id(&self) -> FileId {
        self.volume.root_id()
    }

    /// The group that it is a volume of.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Which volume of the group it is.
    #[must_use]
    pub fn index(&self) -> VolumeIndex {
        self.index
    }

    /// The journal of the group.
    #[must_use]
    pub fn jvol(&self) -> &Arc<Jvol> {
        self.group.jvol()
    }

    fn clock(&self) -> &dyn Clock {
        &**self.group.clock()
    }

    /// Files open for anything right now.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        self.open_files.load(Ordering::Relaxed)
    }

    /// How often the group was suspended since it was opened: what began before and ended after it is not whole.
    #[must_use]
    pub fn suspensions(&self) -> u64 {
        self.suspensions.load(Ordering::SeqCst)
    }

    /// How long a change that brings so many bytes is to be held up now; see [`Group::delay`]. Nobody is while the volume is
    /// suspended.
    #[must_use]
    pub fn delay(&self, payload: u64) -> Duration {
        if self.is_suspended() { Duration::ZERO } else { self.group.delay(payload) }
    }

    /// Waits until the journal has room for an operation again; false when the time is over.
    #[must_use]
    pub fn wait_for_room(&self, payload: u64, timeout: Duration) -> bool {
        if self.is_suspended() || self.group.on_full() != OnFull::Block {
            return true; // a full journal keeps nobody waiting
        }
        self.jvol().wait_for_room(payload + OPERATION_BYTES, OPERATION_RECORDS, timeout)
    }

    /// Lets one change in, which is under way as long as what this gives is held. When the journal has no room for it, the group
    /// is suspended or the change refused, as its policy says; `EAGAIN`: the caller parks the request and tries again.
    fn admit(&self, payload: u64) -> Result<Admitted<'_>> {
        loop {
            self.group.settle_loss();
            let admitted = self.under_way();
            if self.has_failed() {
                return Err(Errno::ROFS);
            }
            if self.is_suspended() || self.has_room(payload) {
                return Ok(admitted);
            }
            match self.group.on_full() {
                OnFull::Block => return Err(Errno::AGAIN),
                OnFull::Fail => return Err(Errno::NOSPC),
                OnFull::Suspend => {
                    drop(admitted);
                    self.suspend_when_full(payload)?;
                }
            }
        }
    }

    /// Something is under way as long as what this gives is held.
    fn under_way(&self) -> Admitted<'_> {
        Admitted { _gate: self.gate.read(), _entered: self.grace.enter() }
    }

    /// The journal or the disk of the volume refused something: nothing is taken any more until the next opening.
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.refusal.is_there() || self.group.has_failed()
    }

    fn has_room(&self, payload: u64) -> bool {
        self.jvol().has_room(payload + OPERATION_BYTES, OPERATION_RECORDS)
    }

    /// Lets no change in, and none is under way, while what this gives is held; reads go on. At most `patience` is waited for
    /// changes that are under way.
    #[must_use]
    pub fn hold_changes(&self, patience: Duration) -> Option<Held<'_>> {
        self.gate.try_write_for(patience).map(|gate| Held { primary: self, _gate: gate })
    }

    fn node(&self, ino: u64) -> Result<Arc<Node>> {
        if ino == self.root() {
            Ok(self.volume.root.clone())
        } else {
            self.volume.nodes.by_ino(ino).ok_or(Errno::STALE)
        }
    }

    /// The wall clock as a file time.
    fn now(&self) -> FileTime {
        self.clock().read().wall.into()
    }

    /// Journals the changes of one operation and applies them in order. Returns the bytes written by the last.
    fn commit(&self, slot: &Slot<'_>, who: &Requester, changes: &[Change<'_>]) -> Result<u64> {
        if self.is_suspended() {
            return self.commit_noted(changes);
        }
        // who waited for the object meanwhile: the next opening does what was given up again, and behind it nothing may have come
        if self.failed.load(Ordering::Relaxed) {
            return Err(Errno::ROFS);
        }
        self.need_all(changes)?;
        let first = self.journal(Some(slot), who, changes, Reserve::Keep)?.first;
        if let [Change::Create { file, .. }] = changes {
            self.activity.born(file.ino, first);
        }
        let mut result = self.apply_all(slot, who, changes, first);
        if self.volume.refused_times()
            && let Err(error) = changes.iter().flat_map(touched).try_for_each(|id| self.read_back(who, id))
        {
            self.give_up(slot);
            result = result.and(Err(error));
        }
        self.note_applied();
        let _ = self.group.tell_clock();
        result
    }

    fn apply_all(&self, slot: &Slot<'_>, who: &Requester, changes: &[Change<'_>], first: Seq) -> Result<u64> {
        let mut done = 0;
        for (index, change) in changes.iter().enumerate() {
            let seq = Seq(first.0 + index as u64);
            match self.volume.apply(change) {
                Ok(written) => {
                    done = written;
                    if let Change::Write { file, data, .. } = change
                        && written < data.len() as u64
                    {
                        self.amend_short(slot, who, seq, *file, written).inspect_err(|_| self.give_up(slot))?;
                    }
                }
                Err(error) => {
                    // ext4 sets times, and fallocate the size, before it looks for room; told first, for an amended change is settled
                    let mut touched = touched(change).into_iter();
                    let told = self.tell_zeroed(who, change, error);
                    let told = told.and_then(|()| touched.try_for_each(|id| self.read_back(who, id)));
                    let mut voids = seq.0..first.0 + changes.len() as u64;
                    told.and_then(|()| voids.try_for_each(|void| self.amend(slot, who, Seq(void), AmendOutcome::Void)))
                        .inspect_err(|_| self.give_up(slot))?;
                    // EAGAIN is our own word for a full journal
                    return Err(if error == Errno::AGAIN { Errno::IO } else { error });
                }
            }
        }
        Ok(done)
    }

    /// What an operation did cannot be told: the next opening is to. Nobody is where the journal has lost the operation itself: the
    /// volume begins anew then, and nothing must wait for what nobody settles.
    fn leave(&self, slot: &Slot<'_>) -> bool {
        let is_left = !self.jvol().has_lost();
        if is_left {
            slot.leave();
            if self.in_flight.is_scarce() {
                tracing::error!("too much could not be undone: no more changes are taken until the next mount");
                self.failed.store(true, Ordering::Relaxed);
            }
        }
        is_left
    }

    /// The same of an operation that is in the journal: it never counts as settled, so no more changes are taken.
    fn give_up(&self, slot: &Slot<'_>) {
        self.failed.fetch_or(self.leave(slot), Ordering::Relaxed);
    }

    /// What a refused zeroing has taken: the rest goes as well, and is told as a hole.
    fn tell_zeroed(&self, who: &Requester, change: &Change<'_>, error: Errno) -> Result<()> {
        if !zeroing::may_be_begun(change, error) {
            return Ok(());
        }
        match self.volume.zero_the_rest(change)? {
            Some(zeroed) => self.journal(None, who, &[zeroed], Reserve::Use).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Journals size and attributes of an object as they stand, where a change did not do just what its record says.
    fn read_back(&self, who: &Requester, id: FileId) -> Result<()> {
        if self.is_suspended() {
            return Ok(()); // a resync says how it stands
        }
        let stat = self.volume.node(id).and_then(|node| self.volume.stat(&node));
        let Ok(stat) = stat else { return Ok(()) };
        let mut changes = Vec::new();
        if stat.file_type == rustix::fs::FileType::RegularFile {
            changes.push(Change::SetSize { file: id, size: stat.size, mtime: stat.mtime });
        }
        changes.push(Change::SetAttr { file: id, attributes: stat.attributes() });
        self.journal(None, who, &changes, Reserve::Use).map(|_| ()).inspect_err(|error| {
            tracing::error!(%error, %id, "what a failed change left could not be journaled");
        })
    }

    /// Remembers that a change of ours has just been applied. A clock that was put back since the last one counts: what others
    /// change later has times by that clock.
    fn note_applied(&self) {
        let now = self.clock().read().wall.0;
        let later = |last: i64| (now >= last || last.saturating_sub(now) >= STEP_MIN).then_some(now);
        let _ = self.applied_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    fn amend_short(&self, slot: &Slot<'_>, who: &Requester, seq: Seq, file: FileId, length: u64) -> Result<()> {
        let node = self.volume.node(file)?;
        let size = self.volume.stat(&node)?.size;
        self.amend(slot, who, seq, AmendOutcome::Short { length, size })
    }

    fn amend(&self, slot: &Slot<'_>, who: &Requester, amended: Seq, outcome: AmendOutcome) -> Result<()> {
        let last = self.journal(Some(slot), who, &[Change::Amend { amended, outcome }], Reserve::Use)?.last;
        self.group.amended(last);
        Ok(())
    }

    /// Appends without applying: control information, and what is true of the volume already. One operation: all but the
    /// last record carry MORE.
    fn journal(
        &self,
        slot: Option<&Slot<'_>>,
        who: &Requester,
        changes: &[Change<'_>],
        reserve: Reserve,
    ) -> Result<Appended> {
        self.group.journal(self.index, slot, who, changes, reserve)
    }

    fn marker(&self, kind: MarkerKind, name: &str, note: &str, since: Timestamp) -> Result<Seq> {
        self.place(kind, (name, note, &Tags::default()), since).map(|placed| placed.last)
    }

    fn place(&self, kind: MarkerKind, (name, note, tags): (&str, &str, &Tags), since: Timestamp) -> Result<Appended> {
        self.group.place(self.index, (kind, name, note, tags), since)
    }

    /// Appends control information of a base copy; waits until everything before it is settled.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be written.
    pub fn control(&self, change: &Change<'_>) -> Result<Seq> {
        let last = self.journal(None, &Requester::reelfs(), &[lend(change)], Reserve::Use)?.last;
        self.group.settle(last)?;
        Ok(last)
    }

    /// From now on reads of files and directories leave access times alone, as the mount option `noatime` wants it. What belongs
    /// to somebody else moves all the same unless we are root.
    pub fn leave_access_times(&self) {
        self.volume.set_unnoticed();
    }

    /// Brings the whole volume to its disk.
    ///
    /// # Errors
    /// What the file system says. It says so once: nothing may be freed after it.
    pub fn sync_volume(&self) -> Result<()> {
        if self.has_failed() {
            return Err(Errno::IO);
        }
        self.sync_or_note().inspect_err(|error| {
            tracing::error!(%error, "the volume cannot be synced: the mount takes no more changes");
            self.failed.store(true, Ordering::Relaxed);
        })
    }

    /// Brings the whole volume to its disk. What the disk refuses the kernel tells once and then throws away, so the next
    /// opening must do it again.
    fn sync_or_note(&self) -> Result<()> {
        self.volume.sync().inspect_err(|_| {
            if let Err(error) = self.due.note() {
                tracing::error!(%error, "that the volume has lost something could not be noted");
            }
        })
    }
}

/// Objects whose times, sizes or attributes a change sets.
fn touched(change: &Change<'_>) -> Vec<FileId> {
    match change {
        Change::Create { parent, file, .. } | Change::Link { parent, file, .. } => vec![*parent, *file],
        Change::Unlink { parent, .. } => vec![*parent],
        Change::Rename { parent, new_parent, .. } => vec![*parent, *new_parent],
        other => vec![other.file()],
    }
}
