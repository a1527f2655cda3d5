//! The ring: records that are appended and not in the journal volume yet, in memory that outlives the process.
//!
//! A file on a file system in memory, mapped: an append is a copy into it, and whoever needs the journal volume as a file
//! (a sync, a reader) drains it first. Two rings share it as they share the journal volume, smaller ones: journal data at its
//! position, control data at its number, each modulo the length of its ring, so that pages here are pages there. Four words say
//! what is in it; a record is there when the head says so. Byte table: `docs/FORMAT-journal.md`.

mod header;
mod place;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use self::header::Header;
use super::geometry::{JvolGeometry, PAGE, SLOT};
use crate::disk::{self, Label};
use crate::map::MappedFile;

pub use self::place::discard_ring;
pub(super) use self::place::{Left, look, remove_left};

/// A ring takes this part of the journal volume at most ...
const JVOL_PART: u64 = 8;
/// ... and never more than this (64 MiB).
const SIZE_MAX: u64 = 64 << 20;
/// Slots of control data take this part of it, as in the journal volume.
const CONTROL_PART: u64 = 16;

/// Words of the header: the head, where appends go on, and what was drained. Each pair on a cache line of its own.
const HEAD_POSITION: usize = 16;
const HEAD_NEXT: usize = 17;
const DRAINED_POSITION: usize = 24;
const DRAINED_NEXT: usize = 25;

/// A place in both rings: position of journal data, and number of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) next: u64,
}

/// How long the two rings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Bytes of journal data, a multiple of 4096.
    pub(super) data: u64,
    /// Slots of control data, a multiple of 64.
    pub(super) slots: u64,
}

impl Lengths {
    pub(super) fn of(geometry: JvolGeometry) -> Lengths {
        let size = (geometry.size / JVOL_PART).min(SIZE_MAX) / PAGE * PAGE;
        let control = size / CONTROL_PART / PAGE * PAGE;
        Lengths { data: size - control, slots: control / SLOT }
    }

    fn data_offset(self) -> u64 {
        PAGE + self.slots * SLOT
    }

    /// Length of the file.
    fn file(self) -> u64 {
        self.data_offset() + self.data
    }
}

/// A ring. Dropping it leaves it as a killed process does.
#[derive(Debug)]
pub(super) struct Ring {
    map: MappedFile,
    lengths: Lengths,
    path: PathBuf,
    /// Where the journal volume says where it is.
    link: PathBuf,
    /// Locked as long as it is in use.
    _file: File,
}

impl Ring {
    fn words(&self, position: usize, next: usize, order: Ordering) -> Place {
        let words = self.map.words(0, DRAINED_NEXT + 1);
        // the number first: what it counts is there when it is there
        let next = words[next].load(order);
        Place { next, position: words[position].load(order) }
    }

    /// Up to where records are in it.
    pub(super) fn head(&self) -> Place {
        self.words(HEAD_POSITION, HEAD_NEXT, Ordering::Acquire)
    }

    /// Up to where they are in the journal volume.
    pub(super) fn drained(&self) -> Place {
        self.words(DRAINED_POSITION, DRAINED_NEXT, Ordering::Acquire)
    }

    /// Up to which record the journal volume is to have everything when what is in it was brought there.
    pub(super) fn reach(&self) -> u64 {
        self.head().next.max(self.drained().next)
    }

    /// Whether what its words say can be: of a journal volume that begins at `out`. Bytes that are somewhere else in the journal
    /// volume would overwrite what is good.
    fn fits(&self, geometry: JvolGeometry, out: Place) -> bool {
        let is_within = |from: u64, to: u64, most: u64| to.checked_sub(from).is_some_and(|length| length <= most);
        let is_held = |place: Place| {
            is_within(out.next, place.next, geometry.control_slots)
                && is_within(out.position, place.position, geometry.data_size)
        };
        let (head, drained) = (self.head(), self.drained());
        let is_empty = head.next <= drained.next;
        is_held(drained)
            && (is_empty
                || is_held(head)
                    && is_within(drained.next, head.next, self.lengths.slots)
                    && is_within(drained.position, head.position, self.lengths.data))
    }

    /// Whether an operation of this size goes through it at all.
    pub(super) fn takes(&self, bytes: u64, slots: u64) -> bool {
        bytes <= self.lengths.data / 2 && slots <= self.lengths.slots / 2
    }

    /// Whether there is room up to this end.
    pub(super) fn has_room(&self, end: Place) -> bool {
        let drained = self.drained();
        end.position - drained.position <= self.lengths.data && end.next - drained.next <= self.lengths.slots
    }

    /// Copies journal data to its position, where there is room.
    pub(super) fn put_data(&self, position: u64, bytes: &[u8]) {
        self.put(self.lengths.data_offset(), self.lengths.data, position, bytes);
    }

    /// Copies control data to the slot of its number, where there is room.
    pub(super) fn put_slot(&self, seq: u64, control: &[u8]) {
        self.put(PAGE, self.lengths.slots * SLOT, seq * SLOT, control);
    }

    fn put(&self, offset: u64, length: u64, position: u64, bytes: &[u8]) {
        let at = position % length;
        let (piece, wrapped) = bytes.split_at(bytes.len().min(index(length - at)));
        self.map.put(index(offset + at), piece);
        if !wrapped.is_empty() {
            self.map.put(index(offset), wrapped);
        }
    }

    /// Records up to here are in it: from now on they outlive the process.
    pub(super) fn publish(&self, head: Place) {
        let words = self.map.words(0, DRAINED_NEXT + 1);
        disk::store(Label::JvolRingHead, || {
            words[HEAD_POSITION].store(head.position, Ordering::Release);
            words[HEAD_NEXT].store(head.next, Ordering::Release);
        });
    }

    /// Journal data up to this position is in the journal volume: its room can be had again.
    pub(super) fn release_data(&self, position: u64) {
        self.map.words(DRAINED_POSITION, 1)[0].store(position, Ordering::Release);
    }

    /// The same for control data.
    pub(super) fn release_slots(&self, next: u64) {
        self.map.words(DRAINED_NEXT, 1)[0].store(next, Ordering::Release);
    }

    /// Records up to here went to the journal volume without passing through it.
    pub(super) fn skip(&self, to: Place) {
        // while the drained end is ahead of the head, there is nothing in it
        self.release_data(to.position);
        self.release_slots(to.next);
        self.publish(to);
    }

    /// Journal data in one or two pieces.
    pub(super) fn data(&self, from: u64, to: u64) -> [&[u8]; 2] {
        self.pieces(self.lengths.data_offset(), self.lengths.data, from, to - from)
    }

    /// Control data in one or two pieces.
    pub(super) fn slots(&self, from: u64, to: u64) -> [&[u8]; 2] {
        self.pieces(PAGE, self.lengths.slots * SLOT, from * SLOT, (to - from) * SLOT)
    }

    fn pieces(&self, offset: u64, length: u64, position: u64, count: u64) -> [&[u8]; 2] {
        let at = position % length;
        let first = count.min(length - at);
        let pieces =
            (self.map.lend(index(offset + at), index(first)), self.map.lend(index(offset), index(count - first)));
        [pieces.0, pieces.1]
    }
}

/// A length that fits into memory, as a ring does.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
