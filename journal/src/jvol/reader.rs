//! Reading: records in order, in large pieces, each one checked, none repaired.

use std::sync::Arc;

use super::Jvol;
use super::geometry::{JvolGeometry, SLOT};
use crate::{CONTROL_LEN, JournalError, Record, RecordError, Seq};

/// Most slots read at once (1 MiB).
const SLOTS_MAX: u64 = 16_384;
/// Journal data read at once, in bytes.
const DATA_CHUNK: u64 = 1 << 20;
/// So much more is on its way meanwhile (8 MiB), when the kernel has it no longer in memory.
const AHEAD: u64 = 8 << 20;

/// A record as it stands in the journal volume: control data and journal data.
pub type RecordBytes<'a> = (&'a [u8; CONTROL_LEN], &'a [u8]);

/// Control data in order, lent one by one. Its checksum covers the journal data too, so only number and length are
/// checked here.
#[derive(Debug)]
pub struct JvolControls<'a> {
    jvol: &'a Jvol,
    next: u64,
    to: u64,
    /// Position of the next record's journal data.
    position: u64,
    slots: Vec<u8>,
    slots_first: u64,
    current: [u8; CONTROL_LEN],
}

/// Records in order, lent one by one, each one checked against its checksum.
#[derive(Debug)]
pub struct JvolReader<'a> {
    controls: JvolControls<'a>,
    end: u64,
    data: Vec<u8>,
    data_start: u64,
    data_end: u64,
    /// Up to here the kernel was told what comes.
    told: u64,
}

impl Jvol {
    /// The records from..=to, in order.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] when one of them is not, or no longer, in the journal; [`JournalError::Damaged`] or
    /// [`JournalError::Io`] when the way to the first one cannot be read.
    pub fn read(&self, from: Seq, to: Seq) -> Result<JvolReader<'_>, JournalError> {
        let controls = self.controls(from, to)?;
        let end = self.locate(to.0.saturating_add(1).max(from.0))?;
        let start = controls.position;
        Ok(JvolReader { controls, end, data: Vec::new(), data_start: start, data_end: start, told: start })
    }

    /// The control data of the records from..=to, in order, without their journal data.
    ///
    /// # Errors
    /// As [`Jvol::read`].
    pub fn controls(&self, from: Seq, to: Seq) -> Result<JvolControls<'_>, JournalError> {
        let next = self.tail.lock().next;
        if to.0 >= next && to >= from {
            return Err(self.not_held(to.0));
        }
        Ok(JvolControls::new(self, from.0, to.0, self.locate(from.0)?))
    }

    /// The position of a record's journal data; of the end, for the next record.
    pub(super) fn locate(&self, seq: u64) -> Result<u64, JournalError> {
        let (near, position) = {
            let tail = self.tail.lock();
            if seq == tail.next {
                return Ok(tail.position);
            }
            if seq < tail.out || seq > tail.next {
                drop(tail);
                return Err(self.not_held(seq));
            }
            tail.index.before(seq).filter(|(near, _)| *near >= tail.out).unwrap_or((tail.out, tail.out_position))
        };
        let mut controls = JvolControls::new(self, near, seq.saturating_sub(1), position);
        while controls.next().transpose()?.is_some() {}
        Ok(controls.position)
    }

    fn not_held(&self, asked: u64) -> JournalError {
        let tail = self.tail.lock();
        JournalError::NotHeld { asked: Seq(asked), first: Seq(tail.out), last: Seq(tail.next - 1) }
    }

    /// A record that does not read back: freed meanwhile, or damaged.
    fn unreadable(&self, seq: u64, offset: u64, reason: RecordError) -> JournalError {
        if seq < self.tail.lock().out {
            return self.not_held(seq);
        }
        JournalError::Damaged { path: self.path(), seq: Seq(seq), offset, reason }
    }

    /// Reads slots from that of `seq` on, as far as they lie in one piece: at most `count`.
    pub(super) fn read_slots(&self, seq: u64, count: u64, bytes: &mut Vec<u8>) -> Result<(), JournalError> {
        loop {
            let store = self.store();
            let count = count.min(store.geometry.slots_to_end(seq)).min(SLOTS_MAX);
            bytes.resize(usize::try_from(count * SLOT).unwrap_or(0), 0);
            let read = self.read_control(&store, seq, bytes);
            // when a spare has taken over meanwhile, the old file lacks what only the ring had
            if Arc::ptr_eq(&store, &self.store()) {
                return read;
            }
        }
    }
}

impl<'a> JvolControls<'a> {
    pub(super) fn new(jvol: &'a Jvol, from: u64, to: u64, position: u64) -> JvolControls<'a> {
        JvolControls { jvol, next: from, to, position, slots: Vec::new(), slots_first: from, current: [0; CONTROL_LEN] }
    }

    /// The next one; after an error nothing more comes.
    #[expect(clippy::should_implement_trait, reason = "it lends, which Iterator cannot")]
    pub fn next(&mut self) -> Option<Result<&[u8; CONTROL_LEN], JournalError>> {
        match self.step()? {
            Ok(_) => Some(Ok(&self.current)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Number of the next record.
    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }

    /// Position of the next record's journal data.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes one on; gives back the length of the journal data.
    fn step(&mut self) -> Option<Result<usize, JournalError>> {
        if self.next > self.to {
            return None;
        }
        let stepped = self.load();
        match &stepped {
            Ok(length) => {
                self.next += 1;
                self.position += JvolGeometry::aligned(*length as u64);
            }
            Err(_) => self.to = 0,
        }
        Some(stepped)
    }

    fn load(&mut self) -> Result<usize, JournalError> {
        let loaded = self.slots.len() as u64 / SLOT;
        if self.next >= self.slots_first + loaded {
            self.slots_first = self.next;
            self.jvol.read_slots(self.next, self.to - self.next + 1, &mut self.slots)?;
        }
        let at = usize::try_from((self.next - self.slots_first) * SLOT).unwrap_or(0);
        self.current.copy_from_slice(&self.slots[at..at + CONTROL_LEN]);
        let (seq, _) = Record::peek(&self.current);
        let length =
            if seq.0 == self.next { Record::data_len(&self.current) } else { Err(RecordError::Range("sequence")) };
        length.map_err(|reason| self.jvol.unreadable(self.next, self.jvol.geometry().slot_offset(self.next), reason))
    }
}

impl<'a> JvolReader<'a> {
    /// The records of a stretch whose position is known, and where its journal data ends, whatever the ends of the rings are.
    pub(super) fn stretch(jvol: &'a Jvol, (from, to): (u64, u64), (position, end): (u64, u64)) -> JvolReader<'a> {
        let controls = JvolControls::new(jvol, from, to, position);
        JvolReader { controls, end, data: Vec::new(), data_start: position, data_end: position, told: position }
    }

    /// Goes on further ahead, also after an error: at a record whose position is known.
    pub(super) fn go_on_at(&mut self, seq: u64, to: u64, position: u64) {
        let controls = &mut self.controls;
        (controls.next, controls.to, controls.position) = (seq, to, position);
    }

    /// The next one, control data and journal data; after an error nothing more comes.
    #[expect(clippy::should_implement_trait, reason = "it lends, which Iterator cannot")]
    pub fn next(&mut self) -> Option<Result<RecordBytes<'_>, JournalError>> {
        let (seq, position) = (self.controls.next, self.controls.position);
        let checked = self.controls.step()?.and_then(|length| self.check(seq, position, length));
        match checked {
            Ok(range) => Some(Ok((&self.controls.current, &self.data[range]))),
            Err(error) => {
                self.controls.to = 0;
                Some(Err(error))
            }
        }
    }

    fn check(&mut self, seq: u64, position: u64, length: usize) -> Result<std::ops::Range<usize>, JournalError> {
        let jvol = self.controls.jvol;
        if position + length as u64 > self.end {
            let slot = jvol.geometry().slot_offset(seq);
            return Err(jvol.unreadable(seq, slot, RecordError::Range("length")));
        }
        self.fill(position, length as u64)?;
        let start = usize::try_from(position - self.data_start).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(length);
        Record::check(&self.controls.current, &self.data[range.clone()])
            .map_err(|reason| jvol.unreadable(seq, jvol.geometry().data_place(position), reason))?;
        Ok(range)
    }

    /// Has the bytes from `position` on in memory, and as many more as are worth one read.
    fn fill(&mut self, position: u64, length: u64) -> Result<(), JournalError> {
        if position + length <= self.data_end {
            return Ok(());
        }
        let kept = self.data_end.saturating_sub(position);
        let wanted = length.max(DATA_CHUNK.min(self.end - position));
        let index = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        if self.data.len() < index(wanted) {
            self.data.resize(index(wanted), 0);
        }
        if kept > 0 {
            let start = index(position - self.data_start);
            self.data.copy_within(start..start + index(kept), 0);
        }
        (self.data_start, self.data_end) = (position, position + kept);
        let jvol = self.controls.jvol;
        self.tell(position + wanted);
        while self.data_end < position + wanted {
            let store = jvol.store();
            let piece = store.geometry.data_to_end(self.data_end).min(position + wanted - self.data_end);
            let at = index(self.data_end - position);
            let bytes = &mut self.data[at..at + index(piece)];
            let read = jvol.read_data(&store, self.data_end, bytes);
            // as above
            if Arc::ptr_eq(&store, &jvol.store()) {
                read?;
                self.data_end += piece;
            }
        }
        Ok(())
    }

    /// Has the kernel read what comes after a read up to `end`, half of it at a time. The last read needs no such help.
    fn tell(&mut self, end: u64) {
        let (from, ahead) = (self.told.max(self.data_end), (end + AHEAD).min(self.end));
        if end < self.end && self.told < end + AHEAD / 2 {
            self.controls.jvol.read_data_ahead(&self.controls.jvol.store(), from, ahead);
            self.told = ahead;
        }
    }
}
