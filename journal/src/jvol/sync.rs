//! Making it durable: one flush for all who wait, the watermark, freeing, closing.

use std::sync::atomic::Ordering;

use rustix::time::{ClockId, clock_gettime};

use super::Jvol;
use super::geometry::{PAGE, SLOT};
use super::superblock::Superblock;
use crate::disk::Label;
use crate::{Digest, JournalError, Seq};

/// Least time between two writes of the watermark by syncs, in milliseconds.
const WATERMARK_EVERY: i64 = 1000;

/// Bytes that are read and written anew at a time.
const ANEW_MAX: u64 = 1 << 20;

/// What is durable, and the right to flush.
#[derive(Debug)]
pub(super) struct Flusher {
    pub(super) durable: u64,
    pub(super) durable_position: u64,
    /// Whoever takes it flushes, alone: the kernel reports a lost write to one caller only.
    pub(super) writer: Option<SuperblockWriter>,
}

/// Writes the superblock, never both slots before a flush: one of them is always whole.
#[derive(Debug)]
pub(super) struct SuperblockWriter {
    pub(super) generation: u64,
    /// Where the next one goes, 0 or 1.
    pub(super) slot: usize,
    /// Written, not flushed yet.
    pub(super) dirty: bool,
    /// The watermark last written, and when.
    pub(super) durable: u64,
    pub(super) written: i64,
}

impl Jvol {
    /// Makes every record up to `upto` durable, and as a rule everything appended so far; callers at the same time share
    /// one flush. Gives back the last record known to be durable. About once a second it also notes the watermark.
    ///
    /// # Errors
    /// [`JournalError::Io`] when flushing fails. It is never tried again: this journal volume then takes and syncs
    /// nothing more ([`JournalError::Failed`]).
    pub fn sync(&self, upto: Seq) -> Result<Seq, JournalError> {
        let losses = self.losses.load(Ordering::SeqCst);
        let durable = self.with_spare(|| self.sync_once(upto))?;
        // who waited while a spare took over without the records finds them behind its durable end
        if self.losses.load(Ordering::SeqCst) == losses { Ok(durable) } else { Err(JournalError::Lost(self.path())) }
    }

    /// Makes durable what an opening has read, written anew: it may have been in the page cache alone, and what the superblock
    /// calls free is about to be written over. A page that the disk refused once is no longer dirty, and no flush tries it again
    /// (fsyncgate).
    ///
    /// # Errors
    /// As [`Jvol::sync`].
    pub fn confirm(&self) -> Result<(), JournalError> {
        self.write_anew()?;
        self.keep_time()
    }

    /// Makes durable what time it is by now: what is journaled later is later, whatever the clock says after a crash.
    ///
    /// # Errors
    /// As [`Jvol::sync`].
    pub fn keep_time(&self) -> Result<(), JournalError> {
        self.with_spare(|| {
            let mut writer = self.take_writer()?;
            let kept = self.write_superblock(&mut writer, None).and_then(|()| self.flush(&mut writer));
            self.hand_back(writer);
            kept.map(|_| ())
        })
    }

    /// Writes again what lies beyond the watermark, as it reads.
    fn write_anew(&self) -> Result<(), JournalError> {
        let (mut seq, mut position) = {
            let flusher = self.flusher.lock();
            (flusher.durable + 1, flusher.durable_position)
        };
        let (next, end) = {
            let tail = self.tail.lock();
            (tail.next, tail.position)
        };
        let (store, mut bytes) = (self.store(), Vec::new());
        while position < end {
            let length = store.geometry.data_to_end(position).min(end - position).min(ANEW_MAX);
            bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            self.read_data(&store, position, &mut bytes)?;
            self.fail(store.file.write(Label::JvolData, &bytes, store.geometry.data_place(position)))?;
            position += length;
        }
        while seq < next {
            self.read_slots(seq, next - seq, &mut bytes)?;
            self.fail(store.file.write(Label::JvolControl, &bytes, store.geometry.slot_offset(seq)))?;
            seq += bytes.len() as u64 / SLOT;
        }
        Ok(())
    }

    fn sync_once(&self, upto: Seq) -> Result<Seq, JournalError> {
        let upto = upto.0.min(self.tail.lock().next - 1);
        let mut flusher = self.flusher.lock();
        let mut writer = loop {
            self.check_failed()?;
            if flusher.durable >= upto {
                let durable = Seq(flusher.durable);
                drop(flusher);
                self.note_watermark()?;
                return Ok(durable);
            }
            match flusher.writer.take() {
                Some(writer) => break writer,
                None => self.flushed.wait(&mut flusher),
            }
        };
        drop(flusher);
        let due = now() - writer.written >= WATERMARK_EVERY;
        let flushed = if due { self.write_superblock(&mut writer, None) } else { Ok(()) };
        let flushed = flushed.and_then(|()| self.flush(&mut writer));
        self.hand_back(writer);
        flushed
    }

    /// Frees the space of all records before `first_kept` and makes that durable; `digest` is the chained digest at the
    /// record before it. Writes the superblock even when nothing is freed.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`] when `first_kept` lies before journal-out or after journal-in; otherwise as
    /// [`Jvol::sync`].
    pub fn free(&self, first_kept: Seq, digest: Digest) -> Result<(), JournalError> {
        self.sync(first_kept.previous())?;
        let mut writer = self.take_writer()?;
        let freed = self.free_as_writer(&mut writer, first_kept, digest);
        self.hand_back(writer);
        freed
    }

    fn free_as_writer(
        &self,
        writer: &mut SuperblockWriter,
        first_kept: Seq,
        digest: Digest,
    ) -> Result<(), JournalError> {
        let position = self.locate(first_kept.0)?;
        // durable first: until then a crash goes on from the old pointer, whose records must not be overwritten
        self.write_superblock(writer, Some((first_kept.0, position, digest)))?;
        self.flush(writer)?;
        let mut tail = self.tail.lock();
        let freed = tail.out_position..position;
        (tail.out, tail.out_position, tail.out_digest) = (first_kept.0, position, digest);
        tail.index.free(first_kept.0);
        drop(tail);
        self.forget_data(freed);
        self.freed.notify_all();
        Ok(())
    }

    /// Journal data between two positions is no longer needed in memory.
    fn forget_data(&self, range: std::ops::Range<u64>) {
        let store = self.store();
        let before_end = store.geometry.data_to_end(range.start).min(range.end - range.start);
        let wrapped = range.end - range.start - before_end;
        for (position, length) in [(range.start, before_end), (range.start + before_end, wrapped)] {
            if length > 0 {
                store.file.forget(store.geometry.data_place(position), length);
            }
        }
    }

    /// Makes everything durable and notes that, so that the next opening has nothing to doubt.
    ///
    /// # Errors
    /// As [`Jvol::sync`].
    pub fn close(self) -> Result<(), JournalError> {
        self.flush_all()?;
        let mut writer = self.take_writer()?;
        self.write_superblock(&mut writer, None)?;
        self.flush(&mut writer)?;
        self.end_ring()?;
        // what is lost with it is the business of whoever opens the volumes
        if self.has_lost_ring() { Ok(()) } else { self.forget_left() }
    }

    /// Makes everything durable and notes that, and goes on: what does not read back later is damage then, and no torn tail.
    ///
    /// # Errors
    /// As [`Jvol::sync`].
    pub fn note_durable(&self) -> Result<(), JournalError> {
        let mut writer = self.take_writer()?;
        let noted = self.flush(&mut writer).and_then(|durable| {
            if writer.durable == durable.0 {
                return Ok(durable);
            }
            self.write_superblock(&mut writer, None)?;
            self.flush(&mut writer)
        });
        self.hand_back(writer);
        noted.map(|_| ())
    }

    /// Flushes even when all records are known to be durable.
    pub(super) fn flush_all(&self) -> Result<(), JournalError> {
        let mut writer = self.take_writer()?;
        let flushed = self.flush(&mut writer);
        self.hand_back(writer);
        flushed.map(|_| ())
    }

    /// Waits for the right to flush.
    pub(super) fn take_writer(&self) -> Result<SuperblockWriter, JournalError> {
        let mut flusher = self.flusher.lock();
        loop {
            self.check_failed()?;
            match flusher.writer.take() {
                Some(writer) => return Ok(writer),
                None => self.flushed.wait(&mut flusher),
            }
        }
    }

    /// The same, also after a failure.
    pub(super) fn wait_for_writer(&self) -> SuperblockWriter {
        let mut flusher = self.flusher.lock();
        loop {
            match flusher.writer.take() {
                Some(writer) => return writer,
                None => self.flushed.wait(&mut flusher),
            }
        }
    }

    pub(super) fn hand_back(&self, writer: SuperblockWriter) {
        self.flusher.lock().writer = Some(writer);
        self.flushed.notify_all();
    }

    /// Flushes, and knows what that made durable.
    fn flush(&self, writer: &mut SuperblockWriter) -> Result<Seq, JournalError> {
        let end = self.drain()?;
        let (last, position) = (end.next - 1, end.position);
        self.fail(self.store().file.sync(Label::JvolSync))?;
        if writer.dirty {
            (writer.dirty, writer.slot) = (false, 1 - writer.slot);
        }
        let mut flusher = self.flusher.lock();
        (flusher.durable, flusher.durable_position) = (last, position);
        Ok(Seq(last))
    }

    /// Notes the watermark when it is behind and nobody is flushing; it reaches the disk with whatever is next.
    fn note_watermark(&self) -> Result<(), JournalError> {
        let mut flusher = self.flusher.lock();
        let durable = flusher.durable;
        let due = |writer: &mut SuperblockWriter| writer.durable < durable && now() - writer.written >= WATERMARK_EVERY;
        let Some(mut writer) = flusher.writer.take_if(due) else {
            return Ok(());
        };
        drop(flusher);
        let noted = self.write_superblock(&mut writer, None);
        self.hand_back(writer);
        noted
    }

    /// Writes what is durable *now*, and journal-out as it stands or as it is to be, without a flush.
    pub(super) fn write_superblock(
        &self,
        writer: &mut SuperblockWriter,
        out: Option<(u64, u64, Digest)>,
    ) -> Result<(), JournalError> {
        let (durable, durable_position) = {
            let flusher = self.flusher.lock();
            (flusher.durable, flusher.durable_position)
        };
        let (standing, last_time) = {
            let tail = self.tail.lock();
            ((tail.out, tail.out_position, tail.out_digest), tail.last_time)
        };
        let (out, out_position, out_digest) = out.unwrap_or(standing);
        writer.generation += 1;
        let superblock = Superblock {
            group: self.group,
            generation: writer.generation,
            geometry: self.geometry(),
            out,
            out_position,
            out_digest,
            durable,
            durable_position,
            last_time,
        };
        writer.dirty = true;
        self.fail(self.store().file.write(Label::JvolSuperblock, &superblock.encode(), writer.slot as u64 * PAGE))?;
        (writer.durable, writer.written) = (durable, now());
        Ok(())
    }
}

/// Milliseconds of a clock that never steps; only distances count.
pub(super) fn now() -> i64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}
