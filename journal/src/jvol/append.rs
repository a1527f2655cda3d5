//! Appending: numbers and times under one lock, data first, control data last.

use super::geometry::{JvolGeometry, PAGE, PAGE_SLOTS, SLOT};
use super::{Jvol, Tail};
use crate::disk::Label;
use crate::{Clock, DATA_MAX, EncodedRecord, FLAG_MORE, JournalError, RECORD_DATA_MAX, Seq, Timestamp};

static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Whether an append may use the last part of the journal volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Leave it: the append is an application's.
    Keep,
    /// Use it: the append is a marker or an amend, without which the journal would not be whole.
    Use,
}

/// What an append gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Number of the first record.
    pub first: Seq,
    /// Number of the last record.
    pub last: Seq,
    /// Time of the last record.
    pub time: Timestamp,
}

impl Jvol {
    /// Appends one or more whole operations: all of them or nothing. The records get consecutive numbers and rising
    /// times. `reserved` is told the first and the last number under the append lock, before any byte is written, and once
    /// more if a spare takes over.
    ///
    /// # Errors
    /// [`JournalError::Full`] when there is no room now and [`JournalError::TooLarge`] when there never will be;
    /// [`JournalError::Unfinished`] when the last record carries MORE; [`JournalError::Torn`] before the tail is cut;
    /// [`JournalError::Io`] when writing fails, and [`JournalError::Failed`] ever after, unless a spare takes over.
    pub fn append(
        &self,
        records: &mut [EncodedRecord<'_>],
        clock: &dyn Clock,
        reserve: Reserve,
        mut reserved: impl FnMut(Seq, Seq),
    ) -> Result<Appended, JournalError> {
        self.with_spare(|| self.append_once(records, clock, reserve, &mut reserved))
    }

    fn append_once(
        &self,
        records: &mut [EncodedRecord<'_>],
        clock: &dyn Clock,
        reserve: Reserve,
        reserved: &mut dyn FnMut(Seq, Seq),
    ) -> Result<Appended, JournalError> {
        if records.last().is_some_and(|last| last.control()[1] & FLAG_MORE != 0) {
            return Err(JournalError::Unfinished);
        }
        if let Some(record) = records.iter().find(|record| !is_readable(record)) {
            return Err(JournalError::TooLarge(record.data_len() as u64));
        }
        let (total, count) = (records.iter().map(space).sum::<u64>(), records.len() as u64);
        let mut tail = self.tail.lock();
        self.check_failed()?;
        if tail.torn {
            return Err(JournalError::Torn { path: self.path(), seq: Seq(tail.next) });
        }
        self.check_room(&tail, total, count, reserve)?;

        let first = tail.next;
        tail.tick(clock, records.len(), |index, time| records[index].stamp(Seq(first + index as u64), time));
        self.note_clock(&tail);
        let appended = Appended { first: Seq(first), last: Seq(first + count).previous(), time: tail.last_time };
        if records.is_empty() {
            return Ok(appended);
        }
        reserved(appended.first, appended.last);
        self.fail(self.write_data(&mut tail, records, total))?;
        self.fail(self.write_control(&mut tail, records))?;
        for record in records.iter() {
            let (seq, position) = (tail.next, tail.position);
            tail.index.note(seq, position);
            tail.next += 1;
            tail.position += space(record);
        }
        Ok(appended)
    }

    fn check_room(&self, tail: &Tail, total: u64, count: u64, reserve: Reserve) -> Result<(), JournalError> {
        let geometry = self.geometry();
        let (data, slots) = match reserve {
            Reserve::Keep => {
                (geometry.data_size - geometry.data_reserve(), geometry.control_slots - geometry.slot_reserve())
            }
            Reserve::Use => (geometry.data_size, geometry.control_slots),
        };
        if total > data || count > slots {
            Err(JournalError::TooLarge(total))
        } else if tail.data_used() + total > data || tail.slots_used() + count > slots {
            Err(JournalError::Full)
        } else {
            Ok(())
        }
    }

    /// The journal data, up to the end of its last page when that page is new in this lap and free: a page written whole
    /// need not be read first.
    fn write_data(&self, tail: &mut Tail, records: &[EncodedRecord<'_>], total: u64) -> Result<(), JournalError> {
        let store = self.store();
        let end = tail.position + total;
        let page_end = end.next_multiple_of(PAGE);
        let is_free = page_end <= tail.out_position + store.geometry.data_size;
        let fill = if end > tail.data_written && is_free { page_end - end } else { 0 };
        let mut parts: Vec<&[u8]> = Vec::with_capacity(3 * records.len() + 1);
        for record in records {
            parts.extend(record.data());
            parts.push(&ZEROS[..length(space(record) - record.data_len() as u64)]);
        }
        parts.push(&ZEROS[..length(fill)]);

        let room = store.geometry.data_to_end(tail.position);
        let wrapped = if total + fill > room { split_off(&mut parts, room) } else { Vec::new() };
        store.file.write_parts(Label::JvolData, &parts, store.geometry.data_place(tail.position))?;
        if !wrapped.is_empty() {
            store.file.write_parts(Label::JvolData, &wrapped, store.geometry.data_place(tail.position + room))?;
        }
        tail.data_written = tail.data_written.max((end + fill) / PAGE * PAGE);
        Ok(())
    }

    /// The control data; a page of slots that is new in this lap is written whole, like a page of data.
    fn write_control(&self, tail: &mut Tail, records: &[EncodedRecord<'_>]) -> Result<(), JournalError> {
        let store = self.store();
        let (first, end) = (tail.next, tail.next + records.len() as u64);
        let page_end = end.next_multiple_of(PAGE_SLOTS);
        let is_free = page_end <= tail.out + store.geometry.control_slots;
        let fill = if end > tail.slots_written && is_free { page_end - end } else { 0 };
        let bytes = &mut tail.scratch;
        bytes.clear();
        for record in records {
            bytes.extend_from_slice(record.control());
        }
        bytes.resize(bytes.len() + length(fill * SLOT), 0);

        let room = store.geometry.slots_to_end(first);
        let (piece, wrapped) = bytes.split_at(bytes.len().min(length(room * SLOT)));
        store.file.write(Label::JvolControl, piece, store.geometry.slot_offset(first))?;
        if !wrapped.is_empty() {
            store.file.write(Label::JvolControl, wrapped, store.geometry.slot_offset(first + room))?;
        }
        tail.slots_written = tail.slots_written.max((end + fill) / PAGE_SLOTS * PAGE_SLOTS);
        Ok(())
    }
}

/// Whether a reader would take the record; a longer one would stand in the journal like damage.
fn is_readable(record: &EncodedRecord<'_>) -> bool {
    record.data_len() <= RECORD_DATA_MAX && record.data()[1].len() <= DATA_MAX
}

/// Bytes of the data area that a record takes.
fn space(record: &EncodedRecord<'_>) -> u64 {
    JvolGeometry::aligned(record.data_len() as u64)
}

/// A length that is known to fit into memory.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Leaves the first `at` bytes and gives back the rest.
fn split_off<'a>(parts: &mut Vec<&'a [u8]>, at: u64) -> Vec<&'a [u8]> {
    let mut left = length(at);
    for index in 0..parts.len() {
        let part = parts[index];
        if part.len() > left {
            let mut rest = parts.split_off(index);
            let (kept, moved) = part.split_at(left);
            rest[0] = moved;
            parts.push(kept);
            return rest;
        }
        left -= part.len();
    }
    Vec::new()
}
