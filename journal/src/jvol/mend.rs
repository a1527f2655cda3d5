//! Mending: what does not read back at or below the watermark is written again, from records that somebody else has kept.

use std::path::Path;

use uuid::Uuid;

use super::Jvol;
use super::geometry::JvolGeometry;
use super::open::open_file;
use super::reader::JvolReader;
use crate::disk::Label;
use crate::{CONTROL_LEN, Digest, JournalError, Record, RecordError, Seq, Timestamp};

/// A journal volume of which every durable record is looked at. Nothing is written but by [`Look::supply`], and nobody else
/// may have the journal volume open for writing.
#[derive(Debug)]
pub struct Mending {
    jvol: Jvol,
    out: u64,
    durable: u64,
    durable_position: u64,
    writes: bool,
}

/// What one record turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It reads back.
    Whole,
    /// It does not; [`Look::supply`] comes before the next one.
    Broken {
        /// Where it should be, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        reason: RecordError,
    },
}

/// One way through all durable records, in order.
#[derive(Debug)]
pub struct Look<'m> {
    mending: &'m Mending,
    reader: JvolReader<'m>,
    /// The last record that is whole or was supplied.
    seq: u64,
    /// Position after its journal data.
    position: u64,
    digest: Digest,
    time: Timestamp,
    awaits: bool,
}

impl Mending {
    /// Opens the journal volume of a group; `writes` says whether what is supplied is written into it.
    ///
    /// # Errors
    /// As [`Jvol::open`], but damage below the watermark is none here; both superblocks broken is.
    pub fn open(path: &Path, group: Uuid, writes: bool) -> Result<Mending, JournalError> {
        let (file, chosen) = open_file(path, group, writes)?;
        let superblock = &chosen.superblock;
        let (out, durable, durable_position) = (superblock.out, superblock.durable, superblock.durable_position);
        Ok(Mending { jvol: Jvol::assemble(file, &chosen), out, durable, durable_position, writes })
    }

    /// Journal-out and the durable watermark: what is looked at. The second is one less than the first when nothing is.
    #[must_use]
    pub fn range(&self) -> (Seq, Seq) {
        (Seq(self.out), Seq(self.durable))
    }

    /// Begins at journal-out.
    #[must_use]
    pub fn look(&self) -> Look<'_> {
        let (position, digest) = {
            let tail = self.jvol.tail.lock();
            (tail.out_position, tail.out_digest)
        };
        let reader = JvolReader::stretch(&self.jvol, (self.out, self.durable), (position, self.durable_position));
        let time = Timestamp(i64::MIN);
        Look { mending: self, reader, seq: self.out - 1, position, digest, time, awaits: false }
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`JournalError::Io`]: what was supplied may or may not be there.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.jvol.store().file.sync(Label::JvolMendSync)
    }
}

impl Look<'_> {
    /// The last record that is whole or was supplied, and the chained digest up to it.
    #[must_use]
    pub fn at(&self) -> (Seq, Digest) {
        (Seq(self.seq), self.digest)
    }

    /// The next record, until the watermark.
    ///
    /// # Errors
    /// [`JournalError::Io`]; [`JournalError::Damaged`] when the record is whole and does not join what comes before it, or the
    /// last one does not end where the superblock says.
    #[expect(clippy::should_implement_trait, reason = "what it gives is to be answered before the next one")]
    pub fn next(&mut self) -> Option<Result<Found, JournalError>> {
        let Mending { jvol, durable, durable_position, .. } = self.mending;
        if self.awaits {
            return Some(Err(self.misfit(self.seq + 1, "record")));
        }
        if self.seq == *durable {
            let ends = self.position == *durable_position;
            return if ends { None } else { Some(Err(self.misfit(self.seq, "position"))) };
        }
        let seq = self.seq + 1;
        let joined = match self.reader.next()? {
            Ok((control, data)) => {
                let (_, time) = Record::peek(control);
                Ok((time, data.len(), self.digest.chain(control, data)))
            }
            Err(error) => Err(error),
        };
        match joined {
            Ok((time, ..)) if time <= self.time => Some(Err(self.misfit(seq, "time"))),
            Ok((time, length, digest)) => {
                self.go_on(time, length, digest);
                Some(Ok(Found::Whole))
            }
            Err(JournalError::Damaged { offset, reason, .. }) => {
                self.awaits = true;
                tracing::debug!(seq, offset, path = %jvol.path().display(), "a durable record does not read back");
                Some(Ok(Found::Broken { offset, reason }))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// The record that does not read back: checked against number, checksum, time and room, and written, control data last, if
    /// this journal volume was opened for that. Not durable before [`Mending::sync`]; a kill leaves it broken or whole.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when these bytes cannot have stood there; [`JournalError::Io`].
    pub fn supply(&mut self, control: &[u8; CONTROL_LEN], data: &[u8]) -> Result<(), JournalError> {
        let Mending { jvol, durable, durable_position, writes, .. } = self.mending;
        let seq = self.seq + 1;
        let (found, time) = Record::peek(control);
        let position = self.position;
        let end = position + JvolGeometry::aligned(data.len() as u64);
        if !self.awaits || found.0 != seq {
            return Err(self.misfit(seq, "sequence"));
        }
        if time <= self.time {
            return Err(self.misfit(seq, "time"));
        }
        let offset = jvol.geometry().slot_offset(seq);
        Record::check(control, data).map_err(|reason| JournalError::Damaged {
            path: jvol.path(),
            seq: found,
            offset,
            reason,
        })?;
        if end > *durable_position || (seq == *durable) != (end == *durable_position) {
            return Err(self.misfit(seq, "length"));
        }
        if *writes {
            self.write(control, data)?;
        }
        let digest = self.digest.chain(control, data);
        self.reader.go_on_at(seq + 1, *durable, end);
        self.go_on(time, data.len(), digest);
        self.awaits = false;
        Ok(())
    }

    fn go_on(&mut self, time: Timestamp, length: usize, digest: Digest) {
        self.seq += 1;
        self.position += JvolGeometry::aligned(length as u64);
        (self.time, self.digest) = (time, digest);
    }

    fn write(&self, control: &[u8; CONTROL_LEN], data: &[u8]) -> Result<(), JournalError> {
        let store = self.mending.jvol.store();
        let (geometry, position) = (store.geometry, self.position);
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(8), 0);
        let room = usize::try_from(geometry.data_to_end(position)).unwrap_or(usize::MAX);
        let (piece, wrapped) = padded.split_at(padded.len().min(room));
        store.file.write(Label::JvolMendData, piece, geometry.data_place(position))?;
        if !wrapped.is_empty() {
            store.file.write(Label::JvolMendData, wrapped, geometry.data_place(position + piece.len() as u64))?;
        }
        store.file.write(Label::JvolMendControl, control, geometry.slot_offset(self.seq + 1))
    }

    fn misfit(&self, seq: u64, what: &'static str) -> JournalError {
        let jvol = &self.mending.jvol;
        let (offset, reason) = (jvol.geometry().slot_offset(seq), RecordError::Range(what));
        JournalError::Damaged { path: jvol.path(), seq: Seq(seq), offset, reason }
    }
}
