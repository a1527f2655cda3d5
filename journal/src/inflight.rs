//! The in-flight table: operations whose record may be in the journal without having been applied, or the reverse.
//!
//! A small mapped file of 64 slots of 512 bytes. What is written to it is in the page cache at once, so it survives the
//! death of the process. It is never synced: **after a power cut it may show any earlier moment**, so what it gives back
//! then is a hint to be compared with the journal and the tree, never a reason to apply a record again blindly.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::disk::{self, Label};
use crate::map::MappedFile;
use crate::{FileId, JournalError, Name, Seq};

const SLOTS: usize = 64;
/// Slots that are for what is under way: more than there are threads.
const SLOTS_SCARCE: u32 = 32;
/// 64-bit words of a slot (512 bytes).
const SLOT_WORDS: usize = 64;
const FILE_LEN: u64 = (SLOTS * SLOT_WORDS * 8) as u64;

/// Words of a slot: state (bits 0-7), name length (8-15) and generation (32-63) of the parent; then what they need.
const STATE: usize = 0;
const FIRST: usize = 1;
const LAST: usize = 2;
const PARENT: usize = 3;
const NAME: usize = 4;
const NAME_WORDS: usize = 32;

const FREE: u64 = 0;
const CREATING: u64 = 1;
const APPENDED: u64 = 2;
/// Creating, and numbered.
const CREATED: u64 = 3;

/// Not yet numbered.
const UNNUMBERED: Seq = Seq(u64::MAX);

/// What an unclean stop left unsettled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InFlightState {
    /// An object was about to be made, or was made, under this name. Its record may have been numbered (an `Appended` of the
    /// same slot follows) and still not be in the journal.
    Creating {
        /// The directory.
        parent: FileId,
        /// The name in it.
        name: Name,
    },
    /// These numbers were given out. Their records may be in the journal or not, applied or not.
    Appended {
        /// The first number.
        first: Seq,
        /// The last number.
        last: Seq,
    },
}

/// The table of a group.
#[derive(Debug)]
pub struct InFlight {
    map: MappedFile,
    table: Mutex<Table>,
    /// Told whenever a slot is settled.
    settled: Condvar,
}

#[derive(Debug)]
struct Table {
    /// A bit for each slot that can be taken.
    free: u64,
    /// The lowest unsettled number of each slot.
    first: [Seq; SLOTS],
    /// The lowest number that nobody settles any more.
    left: Seq,
}

impl Table {
    fn lowest(&self) -> Seq {
        self.first.iter().copied().min().unwrap_or(UNNUMBERED)
    }
}

/// An operation under way. Dropping it settles it.
#[derive(Debug)]
#[must_use = "dropping it settles the operation"]
pub struct Slot<'a> {
    owner: &'a InFlight,
    index: usize,
    /// It cannot be settled any more.
    left: AtomicBool,
    /// What the table said before the last numbers were given out.
    before: Mutex<Before>,
}

/// Lowest number, and the words of the first, the last and the state.
type Before = (Seq, u64, u64, u64);

impl InFlight {
    /// Opens the table, making it when there is none (mode 0600), and reads what an unclean stop left. Those slots stay
    /// taken until [`InFlight::clear`], so that a second crash before that finds them again.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn open(path: &Path) -> Result<(InFlight, Vec<InFlightState>), JournalError> {
        let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = disk::create(Label::InFlightCreate, path, &options).map_err(failed("open"))?;
        if file.metadata().map_err(failed("stat"))?.len() != FILE_LEN {
            // never written whole, so never used; real blocks, or a full disk would kill us at a store
            disk::set_size(Label::InFlightSetSize, &file, 0).map_err(|errno| failed("truncate")(errno.into()))?;
            let slots = vec![0; SLOTS * SLOT_WORDS * 8];
            disk::append(Label::InFlightFill, &file, &slots).map_err(|errno| failed("write")(errno.into()))?;
        }
        let map = MappedFile::new(&file).map_err(failed("map"))?;
        let table = Table { free: 0, first: [UNNUMBERED; SLOTS], left: UNNUMBERED };
        let inflight = InFlight { map, table: Mutex::new(table), settled: Condvar::new() };
        let mut left = Vec::new();
        let mut free = 0;
        for index in 0..SLOTS {
            let states = inflight.read_slot(index);
            if states.is_empty() {
                free |= 1 << index;
            }
            left.extend(states);
        }
        inflight.table.lock().free = free;
        Ok((inflight, left))
    }

    /// Forgets what an unclean stop left, after it was dealt with. No slot may be in use.
    pub fn clear(&self) {
        let mut table = self.table.lock();
        disk::store(Label::InFlightCleared, || {
            for index in 0..SLOTS {
                self.slot(index)[STATE].store(FREE, Ordering::Release);
            }
        });
        *table = Table { free: u64::MAX, first: [UNNUMBERED; SLOTS], left: UNNUMBERED };
        self.settled.notify_all();
    }

    /// Takes a slot for an operation; waits while all 64 are taken.
    pub fn begin(&self) -> Slot<'_> {
        let mut table = self.table.lock();
        while table.free == 0 {
            self.settled.wait(&mut table);
        }
        let index = table.free.trailing_zeros();
        table.free &= !(1 << index);
        let before = Mutex::new((UNNUMBERED, 0, 0, 0));
        Slot { owner: self, index: index as usize, left: AtomicBool::new(false), before }
    }

    /// Takes a slot for an operation that makes its object before its record.
    pub fn begin_create(&self, parent: FileId, name: &Name) -> Slot<'_> {
        let slot = self.begin();
        let words = self.slot(slot.index);
        words[PARENT].store(parent.ino, Ordering::Relaxed);
        for (word, bytes) in words[NAME..].iter().zip(name.as_bytes().chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        let head = CREATING | (name.as_bytes().len() as u64) << 8 | u64::from(parent.generation) << 32;
        disk::store(Label::InFlightCreating, || words[STATE].store(head, Ordering::Release));
        slot
    }

    /// The lowest number that is given out and not settled. Everything below it may leave the machine.
    #[must_use]
    pub fn lowest_unsettled(&self) -> Option<Seq> {
        Some(self.table.lock().lowest()).filter(|&lowest| lowest != UNNUMBERED)
    }

    /// Waits until every number up to `upto` that was given out is settled; false when the time is up.
    #[must_use]
    pub fn wait_settled(&self, upto: Seq, timeout: Duration) -> bool {
        let mut table = self.table.lock();
        let _ = self.settled.wait_while_for(&mut table, |table| table.lowest() <= upto, timeout);
        table.lowest() > upto
    }

    /// One of the numbers up to `upto` is never settled: its operation was left to the next opening.
    #[must_use]
    pub fn has_left(&self, upto: Seq) -> bool {
        self.table.lock().left <= upto
    }

    /// So many operations were left that those under way may soon find no slot.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.table.lock().free.count_ones() < SLOTS_SCARCE
    }

    fn slot(&self, index: usize) -> &[AtomicU64] {
        self.map.words(index * SLOT_WORDS, SLOT_WORDS)
    }

    /// What a slot says; nothing when it is free or, after a power cut, makes no sense.
    fn read_slot(&self, index: usize) -> Vec<InFlightState> {
        let words: Vec<u64> = self.slot(index).iter().map(|word| word.load(Ordering::Acquire)).collect();
        let state = words[STATE] & 0xff;
        let mut states = Vec::new();
        if matches!(state, CREATING | CREATED) {
            states.extend(read_creating(&words));
        }
        if matches!(state, APPENDED | CREATED) && 0 < words[FIRST] && words[FIRST] <= words[LAST] {
            states.push(InFlightState::Appended { first: Seq(words[FIRST]), last: Seq(words[LAST]) });
        }
        states
    }
}

fn read_creating(words: &[u64]) -> Option<InFlightState> {
    let head = words[STATE];
    let bytes: Vec<u8> = words[NAME..NAME + NAME_WORDS].iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = Name::new(bytes.get(..(head >> 8 & 0xff) as usize)?).ok()?;
    let parent = FileId { ino: words[PARENT], generation: (head >> 32) as u32 };
    Some(InFlightState::Creating { parent, name })
}

impl Slot<'_> {
    /// What the operation did cannot be journaled: it stays unsettled when this is dropped, so that the next opening finishes or
    /// amends it. Nothing above its numbers leaves the machine before.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// These numbers were given out to the operation: to be called before their records are written, under the lock that
    /// numbers them. A second call extends the range.
    pub fn appended(&self, first: Seq, last: Seq) {
        let mut table = self.owner.table.lock();
        let known = &mut table.first[self.index];
        let words = self.owner.slot(self.index);
        let load = |word: usize| words[word].load(Ordering::Relaxed);
        *self.before.lock() = (*known, load(FIRST), load(LAST), load(STATE));
        self.note(known, first, last);
    }

    /// The numbers that were given out last are nobody's, for a spare has taken over before their records were written; these are
    /// the operation's instead, likewise.
    pub fn numbered_anew(&self, first: Seq, last: Seq) {
        let mut table = self.owner.table.lock();
        let known = &mut table.first[self.index];
        let words = self.owner.slot(self.index);
        let (lowest, former_first, former_last, state) = *self.before.lock();
        // in between it has none: what others were given must not be done again for us
        words[LAST].store(0, Ordering::Release);
        words[FIRST].store(former_first, Ordering::Release);
        if lowest == UNNUMBERED {
            words[STATE].store(state, Ordering::Release);
        } else {
            words[LAST].store(former_last, Ordering::Release);
        }
        *known = lowest;
        self.note(known, first, last);
    }

    fn note(&self, known: &mut Seq, first: Seq, last: Seq) {
        let words = self.owner.slot(self.index);
        if *known == UNNUMBERED {
            words[FIRST].store(first.0, Ordering::Relaxed);
            words[LAST].store(last.0, Ordering::Relaxed);
            *known = first;
            let head = words[STATE].load(Ordering::Relaxed);
            // what a create is about stays: its record may never be written
            let head = if head & 0xff == CREATING { (head & !0xff) | CREATED } else { APPENDED };
            disk::store(Label::InFlightNumbered, || words[STATE].store(head, Ordering::Release));
        } else {
            *known = first.min(*known);
            words[FIRST].store(known.0, Ordering::Release);
            // with others' records between, the later ones (amendments) are not the operation's own to do again
            if words[LAST].load(Ordering::Relaxed) + 1 == first.0 {
                words[LAST].store(last.0, Ordering::Release);
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut table = self.owner.table.lock();
        if *self.left.get_mut() {
            table.left = table.left.min(table.first[self.index]);
            return;
        }
        let state = &self.owner.slot(self.index)[STATE];
        disk::store(Label::InFlightSettled, || state.store(FREE, Ordering::Release));
        table.first[self.index] = UNNUMBERED;
        table.free |= 1 << self.index;
        drop(table);
        self.owner.settled.notify_all();
    }
}

#[cfg(test)]
mod tests;
