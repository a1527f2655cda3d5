//! Appending: numbers and times under one lock, data first, control data last; into the ring, or past it.

use super::drain::Ends;
use super::geometry::JvolGeometry;
use super::ring::{Place, Ring};
use super::{Jvol, Tail};
use crate::{Clock, DATA_MAX, EncodedRecord, FLAG_MORE, JournalError, RECORD_DATA_MAX, Record, Seq, Timestamp};

static PADDING: [u8; 8] = [0; 8];

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
        // a spare may have taken over while it was waited for
        self.check_lost()?;
        if tail.torn {
            return Err(JournalError::Torn { path: self.path(), seq: Seq(tail.next) });
        }
        self.check_room(&tail, total, count, reserve)?;

        let first = tail.next;
        tail.tick(clock, records.len(), |index, time| records[index].stamp(Seq(first + index as u64), time));
        debug_assert!(records.iter().all(is_decodable), "what no reader takes must not be appended");
        self.note_clock(&tail);
        let appended = Appended { first: Seq(first), last: Seq(first + count).previous(), time: tail.last_time };
        if records.is_empty() {
            return Ok(appended);
        }
        reserved(appended.first, appended.last);
        let end = Place { position: tail.position + total, next: first + count };
        match tail.ring.clone().filter(|ring| ring.takes(total, count)) {
            Some(ring) => self.put(&tail, &ring, records, end)?,
            None => self.write(&tail, records, end)?,
        }
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

    /// Into the ring: a copy in memory. Without room there, whoever appends drains first.
    fn put(&self, tail: &Tail, ring: &Ring, records: &[EncodedRecord<'_>], end: Place) -> Result<(), JournalError> {
        if !ring.has_room(end) {
            self.make_room(ring, tail.ends(), end)?;
        }
        let Place { mut position, mut next } = tail.place();
        for record in records {
            let mut at = position;
            for part in record.data().into_iter().chain([padding(record)]) {
                ring.put_data(at, part);
                at += part.len() as u64;
            }
            ring.put_slot(next, record.control());
            (position, next) = (at, next + 1);
        }
        ring.publish(end);
        Ok(())
    }

    /// To the file at once, after what is in the ring.
    fn write(&self, tail: &Tail, records: &[EncodedRecord<'_>], end: Place) -> Result<(), JournalError> {
        let mut drain = self.drain.lock();
        let before = tail.ends();
        self.pour(&mut drain, before)?;
        let store = self.store();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(3 * records.len() + 1);
        for record in records {
            parts.extend(record.data());
            parts.push(padding(record));
        }
        let ends = Ends { place: end, ..before };
        let slots: Vec<&[u8]> = records.iter().map(|record| record.control().as_slice()).collect();
        let written = drain.write_data(&store, parts, ends).and_then(|()| drain.write_slots(&store, slots, ends));
        if written.is_err() {
            // what was begun is nobody's: a spare takes what came before it
            drain.done = before.place;
        }
        self.fail(written)?;
        drain.skip_to(end);
        Ok(())
    }
}

/// Zeros up to where the next record starts.
fn padding(record: &EncodedRecord<'_>) -> &'static [u8] {
    let padding = space(record) - record.data_len() as u64;
    &PADDING[..usize::try_from(padding).unwrap_or(0)]
}

/// Whether a reader would take the record; a longer one would stand in the journal like damage.
fn is_readable(record: &EncodedRecord<'_>) -> bool {
    record.data_len() <= RECORD_DATA_MAX && record.data()[1].len() <= DATA_MAX
}

fn is_decodable(record: &EncodedRecord<'_>) -> bool {
    Record::decode(record.control(), &record.data().concat()).is_ok()
}

/// Bytes of the data area that a record takes.
fn space(record: &EncodedRecord<'_>) -> u64 {
    JvolGeometry::aligned(record.data_len() as u64)
}
