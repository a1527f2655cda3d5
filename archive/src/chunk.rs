//! Records on their way to a tape: collected until they fill a control member and a journal member.

use std::io::Write;
use std::mem;

use reelfs_journal::{CONTROL_LEN, Record, Seq, Timestamp};

use crate::compress::{FRAME_BYTES, FrameSink};
use crate::header::{BLOCK, member_header};
use crate::index::{Chunk, Counts};
use crate::{TapeError, TapeKind};

/// Most journal data of a chunk: with its header and padding it fills one frame.
pub(crate) const CHUNK_BYTES_MAX: usize = FRAME_BYTES - 2 * BLOCK;
/// Most records of a chunk.
pub(crate) const CHUNK_RECORDS_MAX: usize = 32_768;

/// Name of the control member that begins with this number.
pub(crate) fn control_name(number: u64) -> String {
    format!("reelfs/control/{number:015}.ctl")
}

/// Name of the journal member that begins with this number.
pub(crate) fn journal_name(number: u64) -> String {
    format!("reelfs/journal/{number:015}.jd")
}

/// The number in the names of a chunk's members: that of its first record; on a base tape, where all records have the
/// same, they are counted from 1.
pub(crate) fn member_number(kind: TapeKind, first: Seq, earlier: u64) -> u64 {
    match kind {
        TapeKind::Update => first.0,
        TapeKind::Base => earlier + 1,
    }
}

/// Collects records and writes them as pairs of members, each a frame of its own.
pub(crate) struct ChunkWriter {
    kind: TapeKind,
    control: Vec<u8>,
    /// The frame of the journal member: room for its header, and behind that so many bytes of journal data.
    journal: Vec<u8>,
    bytes: usize,
    span: Option<[(Seq, Timestamp); 2]>,
    chunks: Vec<Chunk>,
    counts: Counts,
}

impl ChunkWriter {
    pub(crate) fn new(kind: TapeKind) -> ChunkWriter {
        ChunkWriter {
            kind,
            control: Vec::new(),
            journal: vec![0; FRAME_BYTES],
            bytes: 0,
            span: None,
            chunks: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a record; a full chunk goes to the sink first.
    pub(crate) fn push<W: Write>(
        &mut self,
        sink: &mut FrameSink<W>,
        control: &[u8; CONTROL_LEN],
        data: [&[u8]; 2],
    ) -> Result<(), TapeError> {
        let length = data[0].len() + data[1].len();
        let (seq, time) = Record::peek(control);
        if Record::data_len(control).ok() != Some(length) {
            return Err(TapeError::Unfit("a record whose journal data is not as long as its control data says"));
        }
        if self.bytes + length > CHUNK_BYTES_MAX || self.control.len() == CHUNK_RECORDS_MAX * CONTROL_LEN {
            self.flush(sink)?;
        }
        self.control.extend_from_slice(control);
        for part in data {
            let at = BLOCK + self.bytes;
            self.journal[at..at + part.len()].copy_from_slice(part);
            self.bytes += part.len();
        }
        let first = self.span.map_or((seq, time), |[first, _]| first);
        self.span = Some([first, (seq, time)]);
        self.counts.records += 1;
        self.counts.bytes += length as u64;
        Ok(())
    }

    /// Writes what was collected.
    pub(crate) fn flush<W: Write>(&mut self, sink: &mut FrameSink<W>) -> Result<(), TapeError> {
        let Some([(first, first_time), (last, last_time)]) = self.span.take() else {
            return Ok(());
        };
        sink.cut()?;
        let frame = sink.frame_number();
        let records = (self.control.len() / CONTROL_LEN) as u64;
        let number = member_number(self.kind, first, self.counts.records - records);
        sink.write(&member_header(&control_name(number), self.control.len() as u64))?;
        sink.write(&self.control)?;
        sink.pad_block()?;
        sink.cut()?;
        let bytes = mem::take(&mut self.bytes);
        let (end, padded) = (BLOCK + bytes, (BLOCK + bytes).next_multiple_of(BLOCK));
        self.journal[..BLOCK].copy_from_slice(&member_header(&journal_name(number), bytes as u64));
        self.journal[end..padded].fill(0);
        sink.exchange(&mut self.journal, padded)?;
        let bytes = bytes as u64;
        self.chunks.push(Chunk { frame, records, bytes, first, last, first_time, last_time });
        self.control.clear();
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The chunks written.
    pub(crate) fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }
}
