//! Activity: what of the volume a durable record of the journal says may change, so that a power cut hides nothing.
//!
//! The rule: the volume changes for the first time since the window of a redo begins ("cold") only after a durable
//! [`Change::Active`] names what changes. Then it is "hot", and may be changed before the records of its changes are durable. What
//! was created in the window needs no entry: the names of its directory have one, and its birth time tells.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use reelfs_journal::disk::{self, Mistake};
use reelfs_journal::{ACTIVE_UNIT, Active, Change, FileId, JournalError, Reserve, Seq, Timestamp};
use rustix::io::{Errno, Result};

use super::{Primary, Requester};

/// Stretches of one file that are kept apart; of a file that has more, everything is active.
const STRETCHES_MAX: usize = 1024;

/// Something that a change is about to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// Names in a directory.
    Names(FileId),
    /// Attributes of an object.
    Attributes(FileId),
    /// Bytes of a file, which is as long as that before or after the change, whichever is longer.
    Bytes { file: FileId, from: u64, to: u64, size: u64 },
}

/// Units of a file, and the record that named them.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    first: u64,
    end: u64,
    seq: u64,
}

/// What of one file was named, and how often.
#[derive(Debug, Default)]
struct Stretches {
    of: Vec<Stretch>,
    times: u32,
}

/// What is hot, by inode number, each with the number of the record that counts for it.
#[derive(Debug, Default)]
struct Hot {
    names: HashMap<u64, u64>,
    attributes: HashMap<u64, u64>,
    stretches: HashMap<u64, Stretches>,
    /// Created since the window began: all of them.
    born: HashMap<u64, u64>,
    /// What telling all takes that was named and that nobody had asked for.
    unasked: Cost,
}

/// What it takes of the journal to tell something after a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Of its data area.
    pub(super) bytes: u64,
    /// Of its control area.
    pub(super) records: u64,
}

impl Cost {
    fn plus(self, other: Cost) -> Cost {
        Cost { bytes: self.bytes.saturating_add(other.bytes), records: self.records.saturating_add(other.records) }
    }
}

/// The activity of one volume since it was opened.
#[derive(Debug)]
pub(super) struct Activity {
    /// Entries of earlier records no longer count.
    floor: AtomicU64,
    /// The lowest wall time of a durable record from the floor on; a change at an earlier one must wait for another record, or an
    /// object born at it would look older than the window.
    low: AtomicI64,
    hot: RwLock<Hot>,
    pending: Mutex<Vec<Need>>,
    parks: AtomicBool,
    /// Entries that the next record foresees, and the time of the last one.
    pub(super) reach: Mutex<(usize, Timestamp)>,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            floor: AtomicU64::new(0),
            low: AtomicI64::new(i64::MAX),
            hot: RwLock::default(),
            pending: Mutex::default(),
            parks: AtomicBool::new(false),
            reach: Mutex::new((0, Timestamp(0))),
        }
    }
}

impl Activity {
    /// Only records from here on count. A first record of the window that is durable has this wall time.
    pub(super) fn begin(&self, floor: Seq, wall: Timestamp) {
        self.floor.store(floor.0, Ordering::SeqCst);
        self.low.store(wall.0, Ordering::SeqCst);
    }

    /// Entries of records before this one no longer count.
    pub(super) fn raise_floor(&self, floor: Seq) {
        if self.floor.fetch_max(floor.0, Ordering::SeqCst) >= floor.0 {
            return;
        }
        self.low.store(i64::MAX, Ordering::SeqCst);
        let mut hot = self.hot.write();
        let counts = |seq: &u64| *seq >= floor.0;
        let Hot { names, attributes, stretches, born, unasked } = &mut *hot;
        names.retain(|_, seq| counts(seq));
        attributes.retain(|_, seq| counts(seq));
        born.retain(|_, seq| counts(seq));
        stretches.retain(|_, known| {
            known.of.retain(|stretch| counts(&stretch.seq));
            !known.of.is_empty()
        });
        *unasked = Cost::default();
    }

    /// An object was created by this record.
    pub(super) fn born(&self, ino: u64, seq: Seq) {
        self.hot.write().born.insert(ino, seq.0);
    }

    fn is_late(&self, wall: Timestamp) -> bool {
        wall.0 >= self.low.load(Ordering::SeqCst)
    }

    pub(super) fn is_hot(&self, need: &Need) -> bool {
        self.hot.read().has(need, self.floor.load(Ordering::SeqCst))
    }

    /// A durable record says so.
    fn took(&self, seq: Seq, entries: &[Active], wall: Timestamp) {
        let mut hot = self.hot.write();
        for entry in entries {
            match *entry {
                Active::Names { directory } => _ = hot.names.insert(directory, seq.0),
                Active::Attributes { object } => _ = hot.attributes.insert(object, seq.0),
                Active::Bytes { file, first, units } => {
                    let stretch = Stretch { first, end: first + units, seq: seq.0 };
                    let known = hot.stretches.entry(file).or_default();
                    known.of.retain(|known| known.first < stretch.first || stretch.end < known.end);
                    known.of.push(stretch);
                    known.times += 1;
                }
            }
        }
        self.low.fetch_min(wall.0, Ordering::SeqCst);
    }

    /// The units that are named for a need: those, or wider ones when the file was often cold.
    pub(super) fn widen(&self, file: u64, (from, to, size): (u64, u64, u64), limit: Cost) -> Active {
        let (mut first, mut end) = (from / ACTIVE_UNIT, to.div_ceil(ACTIVE_UNIT).max(from / ACTIVE_UNIT + 1));
        let mut hot = self.hot.write();
        let (kept, times) = hot.stretches.get(&file).map_or((0, 0), |known| (known.of.len(), known.times));
        if kept >= STRETCHES_MAX {
            let all = i64::MAX.cast_unsigned() / ACTIVE_UNIT;
            return Active::Bytes { file, first: 0, units: all };
        }
        let bytes_of = |first: u64, end: u64| {
            (end * ACTIVE_UNIT).min(size.max(to)).saturating_sub(first * ACTIVE_UNIT) // the file ends somewhere
        };
        let widest = (2 * times).min(20);
        for width in (1..=widest).rev().step_by(2).map(|shift| 1_u64 << shift) {
            let wide = (first / width * width, end.next_multiple_of(width));
            let within = |stretch: &&Stretch| wide.0 <= stretch.first && stretch.end <= wide.1;
            let before = hot.stretches.get(&file).map_or(0, |known| {
                known.of.iter().filter(within).map(|stretch| bytes_of(stretch.first, stretch.end)).sum()
            });
            let bytes = bytes_of(wide.0, wide.1).saturating_sub(before);
            if hot.spend(Cost { bytes, records: 0 }, limit) {
                (first, end) = wide;
                break;
            }
        }
        Active::Bytes { file, first, units: end - first }
    }

    /// Whether something that nobody has asked for may be named too, with all that was.
    pub(super) fn foresees(&self, cost: Cost, limit: Cost) -> bool {
        self.hot.write().spend(cost, limit)
    }

    /// Whether it is in a file of which other bytes were named before: somebody writes here and there in that one.
    pub(super) fn is_again(&self, need: &Need) -> bool {
        matches!(need, Need::Bytes { file, .. } if self.hot.read().stretches.contains_key(&file.ino))
    }
}

impl Hot {
    fn spend(&mut self, cost: Cost, limit: Cost) -> bool {
        let all = self.unasked.plus(cost);
        let fits = (cost.bytes == 0 || all.bytes <= limit.bytes) && (cost.records == 0 || all.records <= limit.records);
        if fits {
            self.unasked = all;
        }
        fits
    }

    fn has(&self, need: &Need, floor: u64) -> bool {
        let counts = |known: Option<&u64>| known.is_some_and(|seq| *seq >= floor);
        match need {
            Need::Names(id) => counts(self.names.get(&id.ino)) || counts(self.born.get(&id.ino)),
            Need::Attributes(id) => {
                counts(self.attributes.get(&id.ino))
                    || counts(self.names.get(&id.ino))
                    || counts(self.born.get(&id.ino))
                    || self
                        .stretches
                        .get(&id.ino)
                        .is_some_and(|known| known.of.iter().any(|stretch| stretch.seq >= floor))
            }
            Need::Bytes { file, from, to, .. } => {
                counts(self.born.get(&file.ino))
                    || self.stretches.get(&file.ino).is_some_and(|known| covers(&known.of, floor, *from, *to))
            }
        }
    }
}

fn covers(of: &[Stretch], floor: u64, from: u64, to: u64) -> bool {
    let (mut at, end) = (from / ACTIVE_UNIT, to.div_ceil(ACTIVE_UNIT));
    while at < end {
        let holds = |stretch: &&Stretch| stretch.seq >= floor && stretch.first <= at && at < stretch.end;
        let Some(stretch) = of.iter().rev().find(holds) else { return false };
        at = stretch.end;
    }
    true
}

impl Primary {
    /// Cold changes are refused with `EINPROGRESS`, and the caller parks them until [`Primary::warm`] has returned; without it
    /// they wait for the disk where they are.
    pub fn let_cold_changes_park(&self) {
        self.activity.parks.store(true, Ordering::SeqCst);
    }

    /// Makes what cold changes were refused for hot: one flush for all of them.
    ///
    /// # Errors
    /// `EAGAIN` when the journal has no room now; `EIO` when it cannot be written or made durable.
    pub fn warm(&self) -> Result<()> {
        let mut needs = std::mem::take(&mut *self.activity.pending.lock());
        if self.is_suspended() {
            return Ok(());
        }
        needs.retain(|need| !self.activity.is_hot(need));
        if needs.is_empty() && self.activity.is_late(self.clock().read().wall) {
            return Ok(());
        }
        self.activate(&needs)
    }

    /// Lets the changes of one operation go on when all that they touch is hot; it was let in before, and has changed nothing.
    pub(super) fn need_all(&self, changes: &[Change<'_>]) -> Result<()> {
        let mut is_hot = self.activity.is_late(self.clock().read().wall);
        for change in changes {
            is_hot &= self.needs(change)?.iter().flatten().all(|need| self.activity.is_hot(need));
        }
        if is_hot {
            return Ok(());
        }
        let mut cold = Vec::new();
        for change in changes {
            cold.extend(self.needs(change)?.into_iter().flatten().filter(|need| !self.activity.is_hot(need)));
        }
        self.wait_for(cold)
    }

    /// The same for a name that is about to be made.
    pub(super) fn need_names(&self, directory: FileId) -> Result<()> {
        let need = Need::Names(directory);
        if self.is_suspended() || (self.activity.is_late(self.clock().read().wall) && self.activity.is_hot(&need)) {
            return Ok(());
        }
        self.wait_for(vec![need])
    }

    fn wait_for(&self, cold: Vec<Need>) -> Result<()> {
        let Some(cold) = self.mistaken(cold) else { return Ok(()) };
        if !self.activity.parks.load(Ordering::SeqCst) {
            return self.activate(&cold);
        }
        self.activity.pending.lock().extend(cold);
        Err(Errno::INPROGRESS)
    }

    fn needs(&self, change: &Change<'_>) -> Result<[Option<Need>; 2]> {
        Ok(match change {
            Change::Write { file, offset, data, size, .. } => {
                let (from, to) = (*offset, offset + data.len() as u64);
                [Some(Need::Bytes { file: *file, from, to, size: *size }), None]
            }
            Change::Zero { file, offset, length, size, .. } => {
                [Some(Need::Bytes { file: *file, from: *offset, to: offset + length, size: *size }), None]
            }
            Change::Punch { file, offset, length, .. } => {
                let (from, to) = (*offset, offset + length);
                [Some(Need::Bytes { file: *file, from, to, size: to }), None]
            }
            Change::SetSize { file, size, .. } => {
                let before = self.volume.stat(&self.volume.node(*file)?)?.size;
                let (from, to) = (before.min(*size), before.max(*size));
                [(from < to).then_some(Need::Bytes { file: *file, from, to, size: to }), Some(Need::Attributes(*file))]
            }
            Change::Allocate { file, .. }
            | Change::SetAttr { file, .. }
            | Change::SetXattr { file, .. }
            | Change::RemoveXattr { file, .. } => [Some(Need::Attributes(*file)), None],
            Change::Link { parent, .. } | Change::Unlink { parent, .. } => [Some(Need::Names(*parent)), None],
            Change::Rename { parent, new_parent, .. } => {
                [Some(Need::Names(*parent)), (parent != new_parent).then_some(Need::Names(*new_parent))]
            }
            // made before its record: asked for then
            Change::Create { .. }
            | Change::Drop { .. }
            | Change::Sync { .. }
            | Change::Active { .. }
            | Change::Amend { .. }
            | Change::BaseBegin { .. }
            | Change::Entry { .. }
            | Change::BaseData { .. }
            | Change::BaseEnd { .. }
            | Change::ListBegin { .. }
            | Change::ListEnd { .. }
            | Change::Marker { .. } => [None, None],
        })
    }

    /// Says durably what is about to change, and what may change soon.
    fn activate(&self, needs: &[Need]) -> Result<()> {
        let entries = self.foresee(needs);
        let active = Change::Active { entries };
        let seq = self.journal(None, &Requester::reelfs(), std::slice::from_ref(&active), Reserve::Keep)?.last;
        self.jvol().sync(seq).map_err(|error| match error {
            // as when there is no room: whoever tries again finds the volume suspended
            JournalError::Lost(_) => Errno::AGAIN,
            _ => Errno::IO,
        })?;
        if let Change::Active { entries } = &active {
            self.activity.took(seq, entries, self.clock().read().wall);
        }
        Ok(())
    }

    /// To be called before records before `first_kept` are freed: what they said to be active no longer is, no change that
    /// trusted them is under way, and the volume is on its disk as a whole.
    ///
    /// # Errors
    /// What the file system says. It says so once: nothing may be freed after it.
    pub fn prepare_to_free(&self, first_kept: Seq) -> Result<()> {
        self.activity.raise_floor(first_kept);
        if disk::makes(Mistake::MapDroppedBeforeSyncs) {
            return Ok(());
        }
        drop(self.gate.write());
        // what was created by a change that trusted a record that goes must be in one that stays
        self.jvol().sync(self.jvol().pointers().next.previous()).map_err(|_| Errno::IO)?;
        self.known.lock().sync().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.sync_volume()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { ino: 7, generation: 1 };

    fn bytes(from: u64, to: u64) -> Need {
        Need::Bytes { file: FILE, from, to, size: to }
    }

    #[test]
    fn what_a_record_named_is_hot_until_the_floor_passes_it() {
        let activity = Activity::default();
        activity.begin(Seq(5), Timestamp(100));
        let entries = [Active::Names { directory: 3 }, Active::Bytes { file: 7, first: 1, units: 2 }];
        activity.took(Seq(6), &entries, Timestamp(100));
        let dir = FileId { ino: 3, generation: 0 };
        assert!(activity.is_hot(&Need::Names(dir)) && activity.is_hot(&Need::Attributes(dir)));
        assert!(activity.is_hot(&bytes(ACTIVE_UNIT, 3 * ACTIVE_UNIT)) && activity.is_hot(&Need::Attributes(FILE)));
        assert!(
            !activity.is_hot(&bytes(0, ACTIVE_UNIT + 1)) && !activity.is_hot(&bytes(ACTIVE_UNIT, 3 * ACTIVE_UNIT + 1))
        );
        assert!(!activity.is_hot(&Need::Names(FILE)));
        activity.took(Seq(9), &[Active::Bytes { file: 7, first: 0, units: 1 }], Timestamp(100));
        assert!(activity.is_hot(&bytes(0, 3 * ACTIVE_UNIT)));
        activity.raise_floor(Seq(7));
        assert!(!activity.is_hot(&Need::Names(dir)));
        assert!(!activity.is_hot(&bytes(ACTIVE_UNIT, 2 * ACTIVE_UNIT)) && activity.is_hot(&bytes(0, 1)));
    }

    #[test]
    fn a_file_that_is_often_cold_is_named_in_wider_stretches() {
        let activity = Activity::default();
        let mut named = Vec::new();
        for turn in 0..3 {
            let at = 77 * ACTIVE_UNIT;
            let entry = activity.widen(7, (at, at + 1, 1 << 40), Cost { bytes: 1 << 30, records: 0 });
            activity.took(Seq(turn), &[entry], Timestamp(0));
            let Active::Bytes { first, units, .. } = entry else { panic!("bytes") };
            named.push((first, units));
        }
        assert_eq!(named, [(77, 1), (76, 4), (64, 16)]);
        assert_eq!(activity.widen(8, (0, 10, 10), Cost::default()), Active::Bytes { file: 8, first: 0, units: 1 });
    }

    #[test]
    fn a_clock_that_goes_back_makes_everything_wait_for_a_record() {
        let activity = Activity::default();
        activity.begin(Seq(5), Timestamp(100));
        assert!(activity.is_late(Timestamp(100)) && !activity.is_late(Timestamp(99)));
        activity.took(Seq(6), &[], Timestamp(50));
        assert!(activity.is_late(Timestamp(99)));
        activity.raise_floor(Seq(7));
        assert!(!activity.is_late(Timestamp(99)));
    }
}
