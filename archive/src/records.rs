//! The records of a verified tape.

use std::sync::Arc;

use reelfs_journal::{CONTROL_LEN, Record, Seq};

use crate::chunk::{control_name, journal_name, member_number};
use crate::decode::{FrameStream, Frames, Unpacker};
use crate::header::member_data;
use crate::index::Chunk;
use crate::sealed::TapeHead;
use crate::{TapeError, TapeKind};

/// A record's bytes, as they are on the tape.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Control data.
    pub control: &'a [u8; CONTROL_LEN],
    /// Journal data.
    pub data: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Takes the record apart; its checksum is checked.
    ///
    /// # Errors
    /// [`TapeError::Record`].
    pub fn decode(&self) -> Result<Record<'a>, TapeError> {
        Record::decode(self.control, self.data).map_err(|source| TapeError::Record { seq: self.seq(), source })
    }

    /// Its number.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Record::peek(self.control).0
    }
}

/// A chunk and the number in its members' names.
pub(crate) fn numbered_chunks(head: &TapeHead) -> Vec<(Chunk, u64)> {
    let mut earlier = 0;
    let mut numbered = Vec::with_capacity(head.index.chunks.len());
    for chunk in &head.index.chunks {
        numbered.push((*chunk, member_number(head.label.kind, chunk.first, earlier)));
        earlier += chunk.records;
    }
    numbered
}

/// The data of a chunk's member, or why it is none.
fn chunk_member<'a>(name: &str, size: u64, raw: &'a [u8]) -> Result<&'a [u8], TapeError> {
    let data = usize::try_from(size).ok().and_then(|size| member_data(name, size, raw));
    data.ok_or_else(|| TapeError::malformed(name, "it is not the member that belongs here"))
}

/// The control data of all records of a tape, in order. Its numbers are dense; its checksums need the journal data.
pub struct Controls {
    frames: Arc<Frames>,
    kind: TapeKind,
    chunks: std::vec::IntoIter<(Chunk, u64)>,
    unpacker: Unpacker,
    raw: Vec<u8>,
    at: usize,
    end: usize,
    expected: Seq,
}

impl Controls {
    pub(crate) fn new(frames: Arc<Frames>, head: &TapeHead) -> Controls {
        Controls {
            frames,
            kind: head.label.kind,
            chunks: numbered_chunks(head).into_iter(),
            unpacker: Unpacker::new(),
            raw: Vec::new(),
            at: 0,
            end: 0,
            expected: head.label.first,
        }
    }

    fn advance(&mut self) -> Result<Option<[u8; CONTROL_LEN]>, TapeError> {
        if self.at == self.end {
            let Some((chunk, number)) = self.chunks.next() else {
                return Ok(None);
            };
            self.unpacker.frame(&self.frames, chunk.frame, &mut self.raw)?;
            let size = chunk.records * CONTROL_LEN as u64;
            let length = chunk_member(&control_name(number), size, &self.raw)?.len();
            (self.at, self.end) = (crate::header::BLOCK, crate::header::BLOCK + length);
        }
        let control = self.raw.get(self.at..).and_then(|rest| rest.first_chunk::<CONTROL_LEN>()).copied();
        let control = control.ok_or_else(|| TapeError::malformed("control data", "it ends within a record"))?;
        self.at += CONTROL_LEN;
        expect(&mut self.expected, self.kind, &control)?;
        Ok(Some(control))
    }
}

impl Iterator for Controls {
    type Item = Result<[u8; CONTROL_LEN], TapeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.chunks = Vec::new().into_iter();
            self.end = self.at;
        }
        next
    }
}

/// Checks that this record's number is the one that comes next.
fn expect(expected: &mut Seq, kind: TapeKind, control: &[u8; CONTROL_LEN]) -> Result<(), TapeError> {
    let found = Record::peek(control).0;
    if found != *expected {
        return Err(TapeError::malformed("control data", format!("record {found} stands where {expected} belongs")));
    }
    if kind == TapeKind::Update {
        *expected = expected.next();
    }
    Ok(())
}

/// The records of a tape, in order, decoded ahead on a thread.
pub struct Records {
    stream: FrameStream,
    kind: TapeKind,
    chunks: std::vec::IntoIter<(Chunk, u64)>,
    control: Vec<u8>,
    journal: Vec<u8>,
    left: u64,
    control_at: usize,
    journal_at: usize,
    journal_end: usize,
    expected: Seq,
    from: Seq,
}

impl Records {
    pub(crate) fn new(frames: Arc<Frames>, head: &TapeHead, from: Seq) -> Result<Records, TapeError> {
        let (first, last) = (head.first(), head.last());
        if from < first || from > last.next() {
            return Err(TapeError::NotHeld { asked: from, first, last });
        }
        let mut chunks = numbered_chunks(head);
        if head.label.kind == TapeKind::Update || from > last {
            chunks.retain(|(chunk, _)| chunk.last >= from);
        }
        let numbers: Vec<u64> = chunks.iter().flat_map(|(chunk, _)| [chunk.frame, chunk.frame + 1]).collect();
        let expected = chunks.first().map_or(from, |(chunk, _)| chunk.first);
        Ok(Records {
            stream: FrameStream::new(frames, numbers.into_iter())?,
            kind: head.label.kind,
            chunks: chunks.into_iter(),
            control: Vec::new(),
            journal: Vec::new(),
            left: 0,
            control_at: 0,
            journal_at: 0,
            journal_end: 0,
            expected,
            from,
        })
    }

    /// The next record, or `None` after the last one.
    ///
    /// # Errors
    /// What is wrong with the tape; its bytes are checked again as they are read.
    // not an iterator: what it gives is borrowed from the buffer that the next one goes into
    #[expect(clippy::should_implement_trait, reason = "a lending iterator cannot be an `Iterator`")]
    pub fn next(&mut self) -> Result<Option<RawRecord<'_>>, TapeError> {
        loop {
            if self.left == 0 && !self.load_chunk()? {
                return Ok(None);
            }
            let (control_at, journal_at, length) = self.step()?;
            let control = self.control.get(control_at..).and_then(|rest| rest.first_chunk::<CONTROL_LEN>());
            let control = control.ok_or_else(|| TapeError::malformed("control data", "it ends within a record"))?;
            let (seq, _) = Record::peek(control);
            expect(&mut self.expected, self.kind, control)?;
            if seq >= self.from {
                // read again: the borrow checker cannot see that this path returns
                let data = self.journal.get(journal_at..journal_at + length);
                let data = data.ok_or_else(|| TapeError::malformed("journal data", "it ends within a record"))?;
                let control = self.control[control_at..].first_chunk::<CONTROL_LEN>();
                let control = control.ok_or_else(|| TapeError::malformed("control data", "it ends within a record"))?;
                return Ok(Some(RawRecord { control, data }));
            }
        }
    }

    /// Moves past the next record and gives where it is.
    fn step(&mut self) -> Result<(usize, usize, usize), TapeError> {
        let control = self.control.get(self.control_at..).and_then(|rest| rest.first_chunk::<CONTROL_LEN>());
        let control = control.ok_or_else(|| TapeError::malformed("control data", "it ends within a record"))?;
        let (seq, _) = Record::peek(control);
        let length = Record::data_len(control).map_err(|source| TapeError::Record { seq, source })?;
        let at = (self.control_at, self.journal_at, length);
        self.left -= 1;
        self.control_at += CONTROL_LEN;
        self.journal_at += length;
        let fits =
            if self.left == 0 { self.journal_at == self.journal_end } else { self.journal_at <= self.journal_end };
        if fits {
            Ok(at)
        } else {
            Err(TapeError::malformed("journal data", format!("record {seq} does not fit into it")))
        }
    }

    fn load_chunk(&mut self) -> Result<bool, TapeError> {
        let Some((chunk, number)) = self.chunks.next() else {
            return Ok(false);
        };
        let gone = || TapeError::malformed("frames", "they end before the records do");
        let (_, control) = self.stream.next()?.ok_or_else(gone)?;
        let (_, journal) = self.stream.next()?.ok_or_else(gone)?;
        chunk_member(&control_name(number), chunk.records * CONTROL_LEN as u64, &control)?;
        let length = chunk_member(&journal_name(number), chunk.bytes, &journal)?.len();
        self.stream.give_back(std::mem::replace(&mut self.control, control));
        self.stream.give_back(std::mem::replace(&mut self.journal, journal));
        self.left = chunk.records;
        (self.control_at, self.journal_at) = (crate::header::BLOCK, crate::header::BLOCK);
        self.journal_end = crate::header::BLOCK + length;
        Ok(true)
    }
}
