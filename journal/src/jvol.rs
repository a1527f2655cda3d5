//! The journal volume: a preallocated cyclic file in which records wait until they are on tape.
//!
//! Two rings share the file: 64-byte slots of control data, and journal data. An append writes the data first and the
//! slot last; the slot's checksum covers both, so a record is there exactly when its slot says so. Nothing is repaired
//! by reading: a torn tail is reported and cut off by [`Jvol::cut_tail`] alone, and what is broken below the durable
//! watermark is [`crate::JournalError::Damaged`]. Byte tables: `docs/FORMAT-journal.md`.

mod append;
mod claim;
mod create;
mod drain;
mod file;
mod geometry;
mod grow;
mod index;
mod keep;
mod mend;
mod open;
mod reader;
mod ring;
mod spare;
mod superblock;
mod sync;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use uuid::Uuid;

use self::drain::{Drain, Ends};
use self::file::VolumeFile;
use self::index::PositionIndex;
use self::ring::Ring;
use self::sync::Flusher;
use crate::{Clock, ClockReading, ClockTurn, Digest, HybridClock, JournalError, Seq, Timestamp};

pub use self::append::{Appended, Reserve};
pub use self::claim::JvolOwner;
pub use self::geometry::JvolGeometry;
pub use self::grow::unfinished;
pub use self::mend::{Found, Look, Mending};
pub use self::reader::{JvolControls, JvolReader, RecordBytes};
pub use self::ring::discard_ring;
pub use self::spare::Spare;
pub use self::window::Place;

/// Version of the format that this program writes and reads.
pub const JVOL_FORMAT_VERSION: u32 = 1;

/// An open journal volume. Dropping it without [`Jvol::close`] leaves it as a killed process does.
///
/// It takes no lock on the file: that only one process appends is the business of the group's lock.
#[derive(Debug)]
pub struct Jvol {
    /// Replaced as a whole when the journal volume grows, under the append lock and with the right to flush.
    store: RwLock<Arc<Store>>,
    group: Uuid,
    /// It grows once at a time.
    moving: Mutex<()>,
    tail: Mutex<Tail>,
    /// What of it is in the file; taken after the append lock.
    drain: Mutex<Drain>,
    /// The last process may have left a ring, or what says where it was.
    has_left: AtomicBool,
    /// Records that were in that are lost.
    has_lost: bool,
    /// Told when space was freed.
    freed: Condvar,
    flusher: Mutex<Flusher>,
    /// Told when a sync ended.
    flushed: Condvar,
    /// Set by the first failed write or sync, for good unless a spare takes over.
    failed: AtomicBool,
    spare: Mutex<Option<Arc<Spare>>>,
    /// A spare took over, and what the old file held is gone.
    lost: AtomicBool,
    /// How often that happened.
    losses: AtomicU64,
    /// There is something about the wall clock to tell.
    clock_turned: AtomicBool,
}

/// The file and where things lie in it: whoever uses both takes both at once.
#[derive(Debug)]
struct Store {
    file: VolumeFile,
    geometry: JvolGeometry,
}

/// What the append lock protects: both ends of the rings.
#[derive(Debug)]
struct Tail {
    out: u64,
    out_position: u64,
    out_digest: Digest,
    /// Number and position of the next record.
    next: u64,
    position: u64,
    /// Where appends go before the file has them.
    ring: Option<Arc<Ring>>,
    index: PositionIndex,
    /// Made with the first time that is asked for.
    clock: Option<HybridClock>,
    last_time: Timestamp,
    torn: bool,
}

impl Tail {
    fn tick(&mut self, clock: &dyn Clock, count: usize, mut each: impl FnMut(usize, Timestamp)) {
        let now = clock.read();
        let last = self.last_time;
        let hybrid = self.clock.get_or_insert_with(|| HybridClock::new(now, last));
        for index in 0..count {
            self.last_time = hybrid.tick(now);
            each(index, self.last_time);
        }
    }

    /// Journal-in.
    fn place(&self) -> ring::Place {
        ring::Place { position: self.position, next: self.next }
    }

    fn ends(&self) -> Ends {
        Ends { place: self.place(), out: ring::Place { position: self.out_position, next: self.out } }
    }

    fn data_used(&self) -> u64 {
        self.position - self.out_position
    }

    fn slots_used(&self) -> u64 {
        self.next - self.out
    }
}

/// Where the rings of a journal volume begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JvolPointers {
    /// Journal-out: the first record held (or the next one, when none is held).
    pub out: Seq,
    /// Journal-in: the number that the next record gets.
    pub next: Seq,
    /// Every record up to here is known to be durable.
    pub durable: Seq,
    /// Slots of control data in use.
    pub control_used: u64,
    /// Slots of control data in all.
    pub control_slots: u64,
    /// Bytes of journal data in use, padding included.
    pub data_used: u64,
    /// Bytes of the data area.
    pub data_size: u64,
    /// Length of the file in bytes.
    pub size: u64,
    /// The last hybrid time given out; `Timestamp(i64::MIN)` if none was.
    pub last_time: Timestamp,
}

impl Jvol {
    /// The first record of a torn tail. Nothing is appended before [`Jvol::cut_tail`].
    #[must_use]
    pub fn torn(&self) -> Option<Seq> {
        let tail = self.tail.lock();
        tail.torn.then_some(Seq(tail.next))
    }

    /// Whether there is room for that much journal data in that many records, without touching the reserve and with a
    /// margin for whoever asks at the same moment.
    #[must_use]
    pub fn has_room(&self, data_bytes: u64, records: u64) -> bool {
        self.fits(&self.tail.lock(), data_bytes, records)
    }

    /// Waits until [`Jvol::has_room`], woken by [`Jvol::free`]; false when the time is up.
    #[must_use]
    pub fn wait_for_room(&self, data_bytes: u64, records: u64, timeout: Duration) -> bool {
        let mut tail = self.tail.lock();
        let full = |tail: &mut Tail| !self.fits(tail, data_bytes, records);
        let _ = self.freed.wait_while_for(&mut tail, full, timeout);
        self.fits(&tail, data_bytes, records)
    }

    fn fits(&self, tail: &Tail, data_bytes: u64, records: u64) -> bool {
        // every record may need a few bytes of padding
        let data = data_bytes.saturating_add(records.saturating_mul(8));
        let geometry = self.geometry();
        tail.data_used().saturating_add(data) <= geometry.data_usable()
            && tail.slots_used().saturating_add(records) <= geometry.slots_usable()
    }

    /// The last number given out and a hybrid time: every later record is later than it, and no earlier one is.
    #[must_use]
    pub fn tick(&self, clock: &dyn Clock) -> (Seq, Timestamp) {
        let mut tail = self.tail.lock();
        tail.tick(clock, 1, |_, _| {});
        self.note_clock(&tail);
        (Seq(tail.next - 1), tail.last_time)
    }

    /// Chained digest of everything before journal-out.
    #[must_use]
    pub fn out_digest(&self) -> Digest {
        self.tail.lock().out_digest
    }

    /// What was believed of the clock earlier in this boot of the machine: times go on from there, whatever is shown now. To be
    /// said before the first time is given out.
    pub fn follow(&self, believed: ClockReading) {
        let mut tail = self.tail.lock();
        tail.clock = Some(HybridClock::after(believed, tail.last_time));
    }

    /// What is believed of a reading, and how far its wall clock is ahead of that, in nanoseconds; `None` while they are one.
    #[must_use]
    pub fn believed(&self, now: ClockReading) -> (ClockReading, Option<i64>) {
        let tail = self.tail.lock();
        tail.clock.as_ref().map_or((now, None), |clock| (clock.believed(now), clock.ahead()))
    }

    /// Somebody says that the wall clock is right.
    pub fn accept_clock(&self, now: ClockReading) {
        if let Some(clock) = self.tail.lock().clock.as_mut() {
            clock.accept(now);
            self.clock_turned.store(clock.has_turned(), Ordering::Relaxed);
        }
    }

    /// Whether there is something about the wall clock to tell.
    #[must_use]
    pub fn has_clock_turned(&self) -> bool {
        self.clock_turned.load(Ordering::Relaxed)
    }

    /// That the wall clock is believed no more, or again; once.
    #[must_use]
    pub fn clock_turn(&self) -> Option<ClockTurn> {
        if !self.has_clock_turned() {
            return None;
        }
        self.clock_turned.store(false, Ordering::Relaxed);
        self.tail.lock().clock.as_mut().and_then(HybridClock::turn)
    }

    /// Both ends of the rings.
    #[must_use]
    pub fn pointers(&self) -> JvolPointers {
        let durable = Seq(self.flusher.lock().durable);
        let tail = self.tail.lock();
        let geometry = self.geometry();
        JvolPointers {
            out: Seq(tail.out),
            next: Seq(tail.next),
            durable,
            control_used: tail.slots_used(),
            control_slots: geometry.control_slots,
            data_used: tail.data_used(),
            data_size: geometry.data_size,
            size: geometry.size,
            last_time: tail.last_time,
        }
    }

    /// The layout of the file.
    #[must_use]
    pub fn geometry(&self) -> JvolGeometry {
        self.store.read().geometry
    }

    fn store(&self) -> Arc<Store> {
        self.store.read().clone()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.store().file.path.clone()
    }

    /// How often the disk was asked to flush since this was opened, or since it grew.
    #[must_use]
    pub fn file_sync_count(&self) -> u64 {
        self.store().file.sync_count()
    }

    /// How full it is, 0 to 1: of what applications may fill before they wait.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        let tail = self.tail.lock();
        let geometry = self.geometry();
        let data = tail.data_used() as f64 / geometry.data_usable() as f64;
        let control = tail.slots_used() as f64 / geometry.slots_usable() as f64;
        data.max(control).min(1.0)
    }

    fn note_clock(&self, tail: &Tail) {
        if tail.clock.as_ref().is_some_and(HybridClock::has_turned) {
            self.clock_turned.store(true, Ordering::Relaxed);
        }
    }

    fn check_failed(&self) -> Result<(), JournalError> {
        if self.failed.load(Ordering::Acquire) { Err(JournalError::Failed(self.path())) } else { Ok(()) }
    }

    /// What was on its way to the disk may be lost and the kernel will not tell again: nothing more is taken.
    fn fail<T>(&self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        if let Err(error) = &result {
            self.failed.store(true, Ordering::Release);
            tracing::error!(%error, "the journal volume takes nothing more");
        }
        result
    }
}

impl JvolPointers {
    /// How full the journal volume is, 0 to 1: of what applications may fill before they wait.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        let geometry = JvolGeometry::new(self.size);
        let data = self.data_used as f64 / geometry.data_usable() as f64;
        let control = self.control_used as f64 / geometry.slots_usable() as f64;
        data.max(control).min(1.0)
    }
}

#[cfg(test)]
mod tests;
