//! Activity: what of the volume a durable record of the journal says may change, so that a power cut hides nothing.
//!
//! The rule: the volume changes for the first time since the window of a redo begins ("cold") only after a durable
//! [`Change::Active`] names what changes. Then it is "hot", and may be changed before the records of its changes are durable. What
//! was created in the window needs no entry: the names of its directory have one, and its birth time tells.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{
    ACTIVE_END, ACTIVE_MAX, ACTIVE_UNIT, Active, Change, DATA_MAX, FileId, JournalError, Reserve, Seq, Timestamp,
};
use rustix::io::{Errno, Result};

use super::foresight::RECORDS;
use super::resync::NAME_BYTES;
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

/// A record that named something, and whether a change has trusted it.
#[derive(Debug)]
struct Named {
    seq: u64,
    used: AtomicBool,
}

impl Named {
    fn by(seq: Seq) -> Named {
        Named { seq: seq.0, used: AtomicBool::new(false) }
    }

    fn counts(&self, floor: u64, sight: Sight) -> bool {
        let counts = self.seq >= floor;
        if counts && sight == Sight::Used && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        counts
    }

    /// It was used, and goes with the records before this one.
    fn goes_while_used(&self, floor: Seq) -> bool {
        self.seq < floor.0 && self.used.load(Ordering::Relaxed)
    }
}

/// Why it is looked whether something is hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// To change it.
    Used,
    /// To know.
    Asked,
}

/// Units of a file, and the record that named them.
#[derive(Debug)]
struct Stretch {
    first: u64,
    end: u64,
    named: Named,
}

/// What of one file was named, how often, and how long the file was at most.
#[derive(Debug, Default)]
struct Stretches {
    of: Vec<Stretch>,
    times: u32,
    size: AtomicU64,
}

impl Stretches {
    fn note_size(&self, size: u64) {
        if self.size.load(Ordering::Relaxed) < size {
            self.size.fetch_max(size, Ordering::Relaxed);
        }
    }

    /// Bytes of the file in a stretch, which may reach beyond its end.
    fn bytes_in(&self, stretch: &Stretch) -> u64 {
        let size = self.size.load(Ordering::Relaxed);
        stretch.end.saturating_mul(ACTIVE_UNIT).min(size).saturating_sub(stretch.first * ACTIVE_UNIT)
    }
}

/// What is hot, by inode number, each with the number of the record that counts for it.
#[derive(Debug, Default)]
struct Hot {
    names: HashMap<u64, Named>,
    attributes: HashMap<u64, Named>,
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
        self.hot.write().forget_before(floor);
    }

    /// What was in use among what was named before a record, as entries, cheapest first, and what they cost together: within a limit.
    pub(super) fn in_use(&self, kept: Seq, limit: Cost, most: usize) -> (Vec<Active>, Cost) {
        let hot = self.hot.read();
        let used = |of: &HashMap<u64, Named>, entry: fn(u64) -> Active| -> Vec<(u64, Active)> {
            of.iter().filter(|(_, named)| named.goes_while_used(kept)).map(|(ino, _)| (0, entry(*ino))).collect()
        };
        let mut found = used(&hot.names, |directory| Active::Names { directory });
        found.extend(used(&hot.attributes, |object| Active::Attributes { object }));
        for (&file, known) in &hot.stretches {
            let used = known.of.iter().filter(|stretch| stretch.named.goes_while_used(kept));
            found.extend(used.map(|stretch| {
                let units = stretch.end - stretch.first;
                (known.bytes_in(stretch), Active::Bytes { file, first: stretch.first, units })
            }));
        }
        drop(hot);
        found.sort_by_key(|(bytes, _)| *bytes);
        let (mut entries, mut all) = (Vec::new(), Cost::default());
        for (bytes, entry) in found.into_iter().take(most) {
            let cost = all.plus(Cost { bytes: bytes + NAME_BYTES, records: RECORDS + bytes / DATA_MAX as u64 });
            if cost.bytes > limit.bytes || cost.records > limit.records {
                break;
            }
            all = cost;
            entries.push(entry);
        }
        (entries, all)
    }

    /// As [`Activity::raise_floor`], but what this record says counts, and there is no moment at which nothing does. The record need
    /// not be durable, so the lowest wall time is that of what is, until the records go, and not below its own, when they have gone.
    pub(super) fn carry(&self, floor: Seq, (seq, entries, wall): (Seq, &[Active], Timestamp), cost: Cost) {
        let mut hot = self.hot.write();
        // what somebody else took back meanwhile cannot be said again
        if self.floor.fetch_max(floor.0, Ordering::SeqCst) >= floor.0 {
            return;
        }
        self.low.fetch_max(wall.0, Ordering::SeqCst);
        hot.forget_before(floor);
        hot.take(seq, entries);
        hot.unasked = cost;
    }

    /// An object was created by this record.
    pub(super) fn born(&self, ino: u64, seq: Seq) {
        self.hot.write().born.insert(ino, seq.0);
    }

    fn is_late(&self, wall: Timestamp) -> bool {
        wall.0 >= self.low.load(Ordering::SeqCst)
    }

    pub(super) fn is_hot(&self, need: &Need) -> bool {
        self.hot.read().has(need, self.floor.load(Ordering::SeqCst), Sight::Asked)
    }

    /// The same for who changes it if it is.
    fn lets(&self, need: &Need) -> bool {
        self.hot.read().has(need, self.floor.load(Ordering::SeqCst), Sight::Used)
    }

    /// A durable record says so.
    fn took(&self, seq: Seq, entries: &[Active], wall: Timestamp) {
        let mut hot = self.hot.write();
        hot.take(seq, entries);
        hot.count(entries);
        if seq.0 >= self.floor.load(Ordering::SeqCst) {
            self.low.fetch_min(wall.0, Ordering::SeqCst);
        }
    }

    /// The units that are named for a need: those, or wider ones when the file was often cold.
    pub(super) fn widen(&self, file: u64, (from, to, size): (u64, u64, u64), limit: Cost) -> Active {
        let (mut first, mut end) = (from / ACTIVE_UNIT, to.div_ceil(ACTIVE_UNIT).max(from / ACTIVE_UNIT + 1));
        let mut hot = self.hot.write();
        hot.stretches.entry(file).or_default().note_size(size.max(to));
        let (kept, times) = hot.stretches.get(&file).map_or((0, 0), |known| (known.of.len(), known.times));
        if kept >= STRETCHES_MAX {
            return Active::Bytes { file, first: 0, units: ACTIVE_END };
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
        let Need::Bytes { file, .. } = need else { return false };
        self.hot.read().stretches.get(&file.ino).is_some_and(|known| known.times > 0)
    }
}

impl Hot {
    fn take(&mut self, seq: Seq, entries: &[Active]) {
        for entry in entries {
            match *entry {
                Active::Names { directory } => _ = self.names.insert(directory, Named::by(seq)),
                Active::Attributes { object } => _ = self.attributes.insert(object, Named::by(seq)),
                Active::Bytes { file, first, units } => {
                    let stretch = Stretch { first, end: first + units, named: Named::by(seq) };
                    let known = self.stretches.entry(file).or_default();
                    known.of.retain(|known| known.first < stretch.first || stretch.end < known.end);
                    known.of.push(stretch);
                }
            }
        }
    }

    /// These were asked for: the files were cold once more.
    fn count(&mut self, entries: &[Active]) {
        for entry in entries {
            if let Active::Bytes { file, .. } = entry {
                self.stretches.entry(*file).or_default().times += 1;
            }
        }
    }

    fn forget_before(&mut self, floor: Seq) {
        self.names.retain(|_, named| named.seq >= floor.0);
        self.attributes.retain(|_, named| named.seq >= floor.0);
        self.born.retain(|_, seq| *seq >= floor.0);
        self.stretches.retain(|_, known| {
            // of a file that is in use it stays known how widely it is written
            let is_used = known.of.iter().any(|stretch| stretch.named.used.load(Ordering::Relaxed));
            known.of.retain(|stretch| stretch.named.seq >= floor.0);
            is_used || !known.of.is_empty()
        });
        self.unasked = Cost::default();
    }

    fn spend(&mut self, cost: Cost, limit: Cost) -> bool {
        let all = self.unasked.plus(cost);
        let fits = (cost.bytes == 0 || all.bytes <= limit.bytes) && (cost.records == 0 || all.records <= limit.records);
        if fits {
            self.unasked = all;
        }
        fits
    }

    fn has(&self, need: &Need, floor: u64, sight: Sight) -> bool {
        let counts = |known: Option<&Named>| known.is_some_and(|named| named.counts(floor, sight));
        let is_born = |ino: &u64| self.born.get(ino).is_some_and(|seq| *seq >= floor);
        match need {
            Need::Names(id) => counts(self.names.get(&id.ino)) || is_born(&id.ino),
            Need::Attributes(id) => {
                let is_written = |known: &Stretches| known.of.iter().any(|stretch| stretch.named.counts(floor, sight));
                counts(self.attributes.get(&id.ino))
                    || counts(self.names.get(&id.ino))
                    || is_born(&id.ino)
                    || self.stretches.get(&id.ino).is_some_and(is_written)
            }
            Need::Bytes { file, from, to, size } => {
                let is_named = |known: &Stretches| {
                    if sight == Sight::Used {
                        known.note_size(*size);
                    }
                    covers(&known.of, (floor, sight), *from, *to)
                };
                is_born(&file.ino) || self.stretches.get(&file.ino).is_some_and(is_named)
            }
        }
    }
}

fn covers(of: &[Stretch], (floor, sight): (u64, Sight), from: u64, to: u64) -> bool {
    let (mut at, end) = (from / ACTIVE_UNIT, to.div_ceil(ACTIVE_UNIT));
    while at < end {
        let holds = |stretch: &&Stretch| stretch.first <= at && at < stretch.end && stretch.named.counts(floor, sight);
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
        let mut seen = HashSet::with_capacity(needs.len());
        needs.retain(|need| seen.insert(*need) && !self.activity.is_hot(need));
        if needs.is_empty() && self.activity.is_late(self.clock().read().wall) {
            return Ok(());
        }
        self.activate(&needs)
    }

    /// Lets the changes of one operation go on when all that they touch is hot; it was let in before, and has changed nothing.
    pub(super) fn need_all(&self, changes: &[Change<'_>]) -> Result<()> {
        let mut is_hot = self.activity.is_late(self.clock().read().wall);
        for change in changes {
            is_hot &= self.needs(change)?.iter().flatten().all(|need| self.activity.lets(need));
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
        if self.is_suspended() || (self.activity.is_late(self.clock().read().wall) && self.activity.lets(&need)) {
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
        // without any it says from when on there is something durable
        let parts =
            if entries.is_empty() { vec![Vec::new()] } else { entries.chunks(ACTIVE_MAX).map(Vec::from).collect() };
        let mut named = Vec::with_capacity(parts.len());
        for entries in parts {
            let active = Change::Active { entries };
            let seq = self.journal(None, &Requester::reelfs(), std::slice::from_ref(&active), Reserve::Keep)?.last;
            named.push((seq, active));
        }
        let last = named.last().map_or(Seq::ZERO, |(seq, _)| *seq);
        self.jvol().sync(last).map_err(|error| match error {
            // as when there is no room: whoever tries again finds the volume suspended
            JournalError::Lost(_) => Errno::AGAIN,
            _ => Errno::IO,
        })?;
        for (seq, active) in &named {
            if let Change::Active { entries } = active {
                self.activity.took(*seq, entries, self.clock().read().wall);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
