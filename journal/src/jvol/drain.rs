//! Draining: what is in the ring goes to the file, data first, control data last, in pieces of 1 MiB.

use super::file::VolumeFile;
use super::geometry::{PAGE, PAGE_SLOTS, SLOT};
use super::ring::{Place, Ring};
use super::{Jvol, Store};
use crate::JournalError;
use crate::disk::Label;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one write of journal data (1 MiB). Through the page cache: who exports them reads them soon, and a copy costs less than
/// reading from the disk beside its writes.
const PIECE: u64 = 1 << 20;
/// An append that finds no room makes so much at a time (4 MiB).
const ROOM: u64 = 4 << 20;

/// How often an append without room looks whether somebody else has made some.
const PATIENCE: Duration = Duration::from_millis(1);

static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// The ends of the rings of a journal volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// Journal-in.
    pub(super) place: Place,
    /// Journal-out, which may have moved on since.
    pub(super) out: Place,
}

/// What the drain lock protects: up to where the file has what was appended. Taken after the append lock, if both are needed.
#[derive(Debug)]
pub(super) struct Drain {
    /// Journal data before this position, and control data before this number, are in the file.
    pub(super) done: Place,
    /// Up to here whole pages of this lap were written; beyond, they may not be in memory.
    data_written: u64,
    /// The same for slots, as a record number.
    slots_written: u64,
    pub(super) ring: Option<Arc<Ring>>,
    /// Where rings may be.
    pub(super) places: Vec<PathBuf>,
}

impl Drain {
    /// Everything is in the file: the page of the last byte is in memory, later ones may not be.
    pub(super) fn at(done: Place) -> Drain {
        let (data_written, slots_written) =
            (done.position.next_multiple_of(PAGE), done.next.next_multiple_of(PAGE_SLOTS));
        Drain { done, data_written, slots_written, ring: None, places: Vec::new() }
    }

    /// The file is another one, which has everything up to here.
    pub(super) fn begin_at(&mut self, done: Place) {
        *self = Drain { places: std::mem::take(&mut self.places), ..Drain::at(done) };
    }

    /// Up to here everything went to the file, past the ring.
    pub(super) fn skip_to(&mut self, to: Place) {
        self.done = to;
        if let Some(ring) = &self.ring {
            ring.skip(to);
        }
    }

    /// Journal data from where the file's ends to `ends`, and on to the end of its last page when that page is new in this lap and
    /// free: a page written whole need not be read first.
    pub(super) fn write_data(&mut self, store: &Store, mut parts: Vec<&[u8]>, ends: Ends) -> Result<(), JournalError> {
        let (start, end) = (self.done.position, ends.place.position);
        let page_end = end.next_multiple_of(PAGE);
        let is_free = page_end <= ends.out.position + store.geometry.data_size;
        let fill = if end > self.data_written && is_free { page_end - end } else { 0 };
        parts.push(&ZEROS[..length(fill)]);
        let room = store.geometry.data_to_end(start);
        let wrapped = if end + fill - start > room { split_off(&mut parts, room) } else { Vec::new() };
        store.file.write_parts(Label::JvolData, &parts, store.geometry.data_place(start))?;
        if !wrapped.is_empty() {
            store.file.write_parts(Label::JvolData, &wrapped, store.geometry.data_place(start + room))?;
        }
        self.data_written = self.data_written.max((end + fill) / PAGE * PAGE);
        self.done.position = end;
        Ok(())
    }

    /// The control data; a page of slots that is new in this lap is written whole, like a page of data.
    pub(super) fn write_slots(&mut self, store: &Store, mut parts: Vec<&[u8]>, ends: Ends) -> Result<(), JournalError> {
        let (first, end) = (self.done.next, ends.place.next);
        let page_end = end.next_multiple_of(PAGE_SLOTS);
        let is_free = page_end <= ends.out.next + store.geometry.control_slots;
        let fill = if end > self.slots_written && is_free { page_end - end } else { 0 };
        parts.push(&ZEROS[..length(fill * SLOT)]);
        let room = store.geometry.slots_to_end(first);
        let wrapped = if end + fill - first > room { split_off(&mut parts, room * SLOT) } else { Vec::new() };
        store.file.write_parts(Label::JvolControl, &parts, store.geometry.slot_offset(first))?;
        if !wrapped.is_empty() {
            store.file.write_parts(Label::JvolControl, &wrapped, store.geometry.slot_offset(first + room))?;
        }
        self.slots_written = self.slots_written.max((end + fill) / PAGE_SLOTS * PAGE_SLOTS);
        self.done.next = end;
        Ok(())
    }

    /// Journal data of the ring up to a position, piece by piece: who waits for room goes on after each.
    fn pour_data(&mut self, store: &Store, ring: &Ring, ends: Ends) -> Result<(), JournalError> {
        // somebody who made room may have been faster
        while self.done.position < ends.place.position {
            let start = self.done.position;
            let position = (start + 1).next_multiple_of(PIECE).min(ends.place.position);
            let upto = Ends { place: Place { position, ..ends.place }, ..ends };
            self.write_data(store, ring.data(start, position).to_vec(), upto)?;
            ring.release_data(position);
        }
        Ok(())
    }

    fn pour_slots(&mut self, store: &Store, ring: &Ring, ends: Ends) -> Result<(), JournalError> {
        let (first, end) = (self.done.next, ends.place.next);
        if end > first {
            self.write_slots(store, ring.slots(first, end).to_vec(), ends)?;
            ring.release_slots(end);
        }
        Ok(())
    }
}

impl Jvol {
    /// Everything appended is in the file; gives up to where.
    pub(super) fn drain(&self) -> Result<Place, JournalError> {
        let ends = self.tail.lock().ends();
        self.pour(&mut self.drain.lock(), ends)?;
        Ok(ends.place)
    }

    /// The records before this one are in the file, so that it can be read.
    pub(super) fn drain_before(&self, next: u64) -> Result<(), JournalError> {
        let is_there = {
            let drain = self.drain.lock();
            drain.ring.is_none() || drain.done.next >= next
        };
        if is_there { Ok(()) } else { self.drain().map(|_| ()) }
    }

    /// Reads slots of control data that lie in one piece, from the file and, what that has not yet, from the ring.
    pub(super) fn read_control(&self, store: &Store, seq: u64, bytes: &mut [u8]) -> Result<(), JournalError> {
        let drain = self.drain.lock();
        let end = seq + bytes.len() as u64 / SLOT;
        let split = if drain.ring.is_some() { drain.done.next.clamp(seq, end) } else { end };
        let (there, beyond) = bytes.split_at_mut(length((split - seq) * SLOT));
        if let Some(ring) = drain.ring.as_ref().filter(|_| split < end) {
            fill_from(beyond, ring.slots(split, end));
        }
        drop(drain);
        store.file.read(there, store.geometry.slot_offset(seq))
    }

    /// The same for journal data.
    pub(super) fn read_data(&self, store: &Store, position: u64, bytes: &mut [u8]) -> Result<(), JournalError> {
        let drain = self.drain.lock();
        let end = position + bytes.len() as u64;
        let split = if drain.ring.is_some() { drain.done.position.clamp(position, end) } else { end };
        let (there, beyond) = bytes.split_at_mut(length(split - position));
        if let Some(ring) = drain.ring.as_ref().filter(|_| split < end) {
            fill_from(beyond, ring.data(split, end));
        }
        drop(drain);
        store.file.read(there, store.geometry.data_place(position))
    }

    /// Journal data that is read next, as far as it is in the file.
    pub(super) fn read_data_ahead(&self, store: &Store, start: u64, end: u64) {
        let end = {
            let drain = self.drain.lock();
            if drain.ring.is_some() { end.min(drain.done.position) } else { end }
        };
        let length = end.saturating_sub(start);
        let before_end = length.min(store.geometry.data_to_end(start));
        store.file.read_ahead(store.geometry.data_place(start), before_end);
        store.file.read_ahead(store.geometry.data_place(start + before_end), length - before_end);
    }

    /// Brings the file up to these ends. After a failure there is none that can be trusted, and nothing is written.
    pub(super) fn pour(&self, drain: &mut Drain, ends: Ends) -> Result<(), JournalError> {
        let Some(ring) = drain.ring.clone() else { return Ok(()) };
        if drain.done.next >= ends.place.next {
            return Ok(());
        }
        self.check_failed()?;
        let store = self.store();
        self.fail(drain.pour_data(&store, &ring, ends).and_then(|()| drain.pour_slots(&store, &ring, ends)))
    }

    /// Room in the ring up to `end`, by whoever appends: some of it, for others wait meanwhile.
    pub(super) fn make_room(&self, ring: &Ring, ends: Ends, end: Place) -> Result<(), JournalError> {
        let mut drain = loop {
            if ring.has_room(end) {
                return Ok(()); // somebody drains, piece by piece
            }
            if let Some(drain) = self.drain.try_lock_for(PATIENCE) {
                break drain;
            }
        };
        if ring.has_room(end) {
            return Ok(());
        }
        self.check_failed()?;
        let some = (drain.done.position + ROOM).min(ends.place.position) / PAGE * PAGE;
        if some > drain.done.position {
            let store = self.store();
            let upto = Ends { place: Place { position: some, ..ends.place }, ..ends };
            self.fail(drain.pour_data(&store, ring, upto))?;
        }
        if ring.has_room(end) { Ok(()) } else { self.pour(&mut drain, ends) }
    }
}

/// Brings what a ring was left with into the file of its journal volume.
pub(super) fn bring_in(store: &Store, ring: &Ring, out: Place) -> Result<(), JournalError> {
    let (head, drained) = (ring.head(), ring.drained());
    let mut drain = Drain::at(drained);
    let ends = Ends { place: head, out };
    if head.next > drained.next {
        if head.position > drained.position {
            drain.pour_data(store, ring, ends)?;
        }
        drain.pour_slots(store, ring, ends)?;
    }
    Ok(())
}

/// Writes what is only in a ring into another file.
pub(super) fn copy_out(
    label: Label,
    file: &VolumeFile,
    (ring, from): (&Ring, Place),
    geometry: super::JvolGeometry,
    end: Place,
) -> Result<(), JournalError> {
    let mut parts = ring.data(from.position, end.position).to_vec();
    let room = geometry.data_to_end(from.position);
    let wrapped = if end.position - from.position > room { split_off(&mut parts, room) } else { Vec::new() };
    file.write_parts(label, &parts, geometry.data_place(from.position))?;
    file.write_parts(label, &wrapped, geometry.data_place(from.position + room))?;
    let mut parts = ring.slots(from.next, end.next).to_vec();
    let room = geometry.slots_to_end(from.next);
    let wrapped = if end.next - from.next > room { split_off(&mut parts, room * SLOT) } else { Vec::new() };
    file.write_parts(label, &parts, geometry.slot_offset(from.next))?;
    file.write_parts(label, &wrapped, geometry.slot_offset(from.next + room))
}

fn fill_from(bytes: &mut [u8], pieces: [&[u8]; 2]) {
    let (first, second) = bytes.split_at_mut(pieces[0].len());
    first.copy_from_slice(pieces[0]);
    second.copy_from_slice(pieces[1]);
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
