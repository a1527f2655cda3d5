//! Opening: which records are there, what is torn, what is damaged. Nothing is written here but by `cut_tail`.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Condvar, Mutex, RwLock};
use uuid::Uuid;

use super::drain::{Drain, bring_in};
use super::file::VolumeFile;
use super::index::PositionIndex;
use super::reader::JvolControls;
use super::ring::{self, Left, Place, Ring};
use super::superblock::{Chosen, SUPERBLOCK_LEN, Superblock};
use super::sync::{Flusher, SuperblockWriter};
use super::{Jvol, Store, Tail};
use crate::disk::{self, Label, Mistake};
use crate::{CONTROL_LEN, FLAG_MORE, JournalError, Record, RecordError, Seq};

/// So many bytes of journal data before the end are compared with their checksums, durable or not.
const VERIFIED: u64 = 4 << 20;

impl Jvol {
    /// Opens the journal volume of a group and finds journal-in, after the file got what a killed process left in its ring:
    /// whoever opens it holds the group's lock. Nothing is repaired: see [`Jvol::torn`].
    ///
    /// # Errors
    /// [`JournalError::Foreign`], [`JournalError::Version`], [`JournalError::OtherGroup`], [`JournalError::Truncated`];
    /// [`JournalError::Damaged`] when a record at or before the durable watermark is not there.
    pub fn open(path: &Path, group: Uuid) -> Result<Jvol, JournalError> {
        let (file, chosen) = open_file(path, group, true)?;
        let store = Store { file, geometry: chosen.superblock.geometry };
        let superblock = &chosen.superblock;
        let out = Place { position: superblock.out_position, next: superblock.out };
        let (left, is_lost) = match ring::look(&store.file, store.geometry, group, out)? {
            Left::Nothing => (None, false),
            Left::Lost => (None, true),
            Left::Ring(ring) => {
                bring_in(&store, &ring, out)?;
                (Some(ring), false)
            }
        };
        let mut jvol = Jvol::find_in(store.file, &chosen)?;
        let (next, reach) = (jvol.tail.get_mut().next, left.as_ref().map_or(0, Ring::reach));
        jvol.has_lost = is_lost || next < reach;
        *jvol.has_left.get_mut() = true;
        if let Some(ring) = left.filter(|_| next < reach) {
            // others are journaled up to there before all of that is dealt with
            ring.give_up_memory()?;
        }
        if jvol.has_lost {
            tracing::warn!(path = %path.display(), next, reach, "the journal lacks what was in its ring");
        }
        Ok(jvol)
    }

    /// Opens the journal volume of a group to read it, while another process may write it: what that has in its ring is not
    /// seen.
    ///
    /// # Errors
    /// As [`Jvol::open`].
    pub fn glance(path: &Path, group: Uuid) -> Result<Jvol, JournalError> {
        let (file, chosen) = open_file(path, group, true)?;
        Jvol::find_in(file, &chosen)
    }

    fn find_in(file: VolumeFile, chosen: &Chosen) -> Result<Jvol, JournalError> {
        let path = file.path.clone();
        let watermark = chosen.superblock.durable;
        let mut jvol = Jvol::assemble(file, chosen);
        jvol.scan(&chosen.superblock)?;
        let is_cut_short = jvol.verify(watermark)?;
        jvol.settle_end()?;
        let torn = is_cut_short || jvol.first_stray()?.is_some();
        jvol.tail.get_mut().torn = torn;
        if torn {
            tracing::warn!(path = %path.display(), record = jvol.tail.get_mut().next, "the journal has a torn tail");
        }
        Ok(jvol)
    }

    pub(super) fn assemble(file: VolumeFile, chosen: &Chosen) -> Jvol {
        let superblock = &chosen.superblock;
        let tail = Tail {
            out: superblock.out,
            out_position: superblock.out_position,
            out_digest: superblock.out_digest,
            next: superblock.out,
            position: superblock.out_position,
            ring: None,
            index: PositionIndex::default(),
            clock: None,
            last_time: superblock.last_time,
            torn: false,
        };
        // the chosen slot may be on its way to the disk still; when the other is whole, it alone may be written again
        let (slot, dirty) = if chosen.both { (chosen.slot, true) } else { (1 - chosen.slot, false) };
        let writer = SuperblockWriter {
            generation: superblock.generation,
            slot,
            dirty,
            durable: superblock.durable,
            written: super::sync::now(),
        };
        Jvol {
            store: RwLock::new(Arc::new(Store { file, geometry: superblock.geometry })),
            group: superblock.group,
            moving: Mutex::new(()),
            drain: Mutex::new(Drain::at(tail.place())),
            tail: Mutex::new(tail),
            has_left: AtomicBool::new(false),
            has_lost: false,
            freed: Condvar::new(),
            flusher: Mutex::new(Flusher {
                durable: superblock.durable,
                durable_position: superblock.durable_position,
                writer: Some(writer),
            }),
            flushed: Condvar::new(),
            failed: AtomicBool::new(false),
            spare: Mutex::new(None),
            lost: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            clock_turned: AtomicBool::new(false),
        }
    }

    /// Goes from journal-out through all slots that carry the number expected.
    fn scan(&mut self, superblock: &Superblock) -> Result<(), JournalError> {
        let to = superblock.out + self.geometry().control_slots - 1;
        let geometry = self.geometry();
        let mut index = PositionIndex::default();
        let mut controls = JvolControls::new(self, superblock.out, to, superblock.out_position);
        let mut fault = None;
        let (mut next, mut position) = (superblock.out, superblock.out_position);
        let mut at_watermark = superblock.out_position;
        loop {
            match controls.next().map(|control| control.map(|_| ())) {
                Some(Ok(())) if controls.position() - superblock.out_position <= geometry.data_size => {}
                Some(Err(error @ JournalError::Damaged { .. })) => {
                    fault = Some(error);
                    break;
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(())) | None => break,
            }
            index.note(next, position);
            (next, position) = (controls.next_seq(), controls.position());
            if next - 1 == superblock.durable {
                at_watermark = position;
            }
        }
        let tail = self.tail.get_mut();
        (tail.next, tail.position, tail.index) = (next, position, index);
        if next <= superblock.durable || at_watermark != superblock.durable_position {
            return Err(self.find_damage(fault, superblock));
        }
        Ok(())
    }

    /// Numbers or lengths at or before the watermark are wrong: the first record that does not read back.
    fn find_damage(&self, fault: Option<JournalError>, superblock: &Superblock) -> JournalError {
        let damaged = |seq: u64, reason| JournalError::Damaged {
            path: self.path(),
            seq: Seq(seq),
            offset: self.geometry().slot_offset(seq),
            reason,
        };
        let next = self.tail.lock().next;
        let first_broken = self.read(Seq(superblock.out), Seq(next - 1)).map(|mut records| {
            loop {
                match records.next() {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            }
        });
        match first_broken {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) if next <= superblock.durable => {
                fault.unwrap_or_else(|| damaged(next, RecordError::Range("length")))
            }
            Ok(None) => damaged(superblock.durable, RecordError::Range("position")),
        }
    }

    /// Compares checksums near the end and of everything beyond the watermark: after a power cut a slot may be there
    /// without its data. Takes back what is not whole, incomplete operations included; says whether that was anything.
    fn verify(&mut self, watermark: u64) -> Result<bool, JournalError> {
        let tail = self.tail.get_mut();
        let (out, end) = (tail.out, tail.next);
        let near = tail.index.at_position(tail.position.saturating_sub(VERIFIED)).unwrap_or(out);
        let from = near.min(watermark + 1).max(out);
        let (mut good, mut operation, mut more) = (from, from, false);
        let mut records = self.read(Seq(from), Seq(end - 1))?;
        loop {
            match records.next() {
                None => break,
                Some(Ok((control, _))) => {
                    operation = if more { operation } else { good };
                    more = control[1] & FLAG_MORE != 0;
                    good += 1;
                }
                Some(Err(JournalError::Damaged { .. })) if good > watermark => break,
                Some(Err(error)) => return Err(error),
            }
        }
        if more && good > watermark + 1 {
            good = operation.max(watermark + 1);
        }
        if good == end {
            return Ok(false);
        }
        if disk::makes(Mistake::TailCutBelowMark) {
            good = good.min(watermark).max(out);
        }
        let position = self.locate(good)?;
        let tail = self.tail.get_mut();
        (tail.next, tail.position) = (good, position);
        tail.index.cut(good);
        Ok(true)
    }

    /// Goes on where the last record ended: its page is in memory now, later ones may not be.
    fn settle_end(&mut self) -> Result<(), JournalError> {
        let mut slot = Vec::new();
        let tail = self.tail.get_mut();
        let (out, next) = (tail.out, tail.next);
        *self.drain.get_mut() = Drain::at(tail.place());
        if next > out {
            self.read_slots(next - 1, 1, &mut slot)?;
            let mut control = [0; CONTROL_LEN];
            control.copy_from_slice(&slot);
            let tail = self.tail.get_mut();
            tail.last_time = tail.last_time.max(Record::peek(&control).1);
        }
        Ok(())
    }

    /// The first slot outside the held ones that is neither empty nor of an older lap: a record whose predecessors a
    /// power cut lost. It must not come back when the numbers reach it again.
    fn first_stray(&self) -> Result<Option<u64>, JournalError> {
        let (out, next) = {
            let tail = self.tail.lock();
            (tail.out, tail.next)
        };
        let slots = self.geometry().control_slots;
        let (mut at, mut bytes) = (next, Vec::new());
        while at < out + slots {
            self.read_slots(at, out + slots - at, &mut bytes)?;
            for slot in bytes.as_chunks::<CONTROL_LEN>().0 {
                if is_stray(slot, at, next, slots) {
                    return Ok(Some(at));
                }
                at += 1;
            }
        }
        Ok(None)
    }

    /// Cuts a torn tail off: a step of recovery, taken knowingly. Whatever follows the last whole operation is made
    /// zeros, and that made durable.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn cut_tail(&mut self) -> Result<(), JournalError> {
        let store = self.store();
        let tail = self.tail.get_mut();
        let (next, to) = (tail.next, tail.out + store.geometry.control_slots);
        let (mut at, mut bytes) = (next, Vec::new());
        while at < to {
            self.read_slots(at, to - at, &mut bytes)?;
            for slot in bytes.as_chunks::<CONTROL_LEN>().0 {
                if is_stray(slot, at, next, store.geometry.control_slots) {
                    let offset = store.geometry.slot_offset(at);
                    self.fail(store.file.write(Label::JvolCutTail, &[0; CONTROL_LEN], offset))?;
                }
                at += 1;
            }
        }
        self.flush_all()?;
        self.tail.get_mut().torn = false;
        Ok(())
    }
}

/// Whether what stands in the slot of a record to come is neither empty nor of an older lap, when `next` is the next record.
fn is_stray(slot: &[u8; CONTROL_LEN], at: u64, next: u64, slots: u64) -> bool {
    let (Seq(seq), _) = Record::peek(slot);
    let is_older = seq != 0 && seq < next && seq % slots == at % slots;
    !is_older && *slot != [0; CONTROL_LEN]
}

/// The file of a group's journal volume, whole, and its superblock.
pub(super) fn open_file(path: &Path, group: Uuid, writes: bool) -> Result<(VolumeFile, Chosen), JournalError> {
    let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(writes).open(path).map_err(failed("open"))?;
    let length = file.metadata().map_err(failed("stat"))?.len();
    let file = VolumeFile::new(file, path.to_owned());
    let chosen = read_superblock(&file, length)?;
    let superblock = &chosen.superblock;
    if superblock.group != group {
        return Err(JournalError::OtherGroup { path: file.path, found: superblock.group, wanted: group });
    }
    if length < superblock.geometry.size {
        return Err(JournalError::Truncated { path: file.path, found: length, wanted: superblock.geometry.size });
    }
    Ok((file, chosen))
}

pub(super) fn read_superblock(file: &VolumeFile, length: u64) -> Result<Chosen, JournalError> {
    let mut slots = vec![0; 2 * SUPERBLOCK_LEN];
    if length < slots.len() as u64 {
        return Err(JournalError::Foreign(file.path.clone()));
    }
    file.read(&mut slots, 0)?;
    let (first, second) = slots.split_at(SUPERBLOCK_LEN);
    Superblock::choose(&file.path, [first, second])
}
