//! Whether label, index and seek table of a tape agree.

use reelfs_journal::{CONTROL_LEN, Seq};

use crate::chunk::{CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX};
use crate::decode::Frames;
use crate::header::{BLOCK, padded};
use crate::index::Chunk;
use crate::name::SEQ_MAX;
use crate::sealed::{BODY_FRAME, TapeHead};
use crate::{TapeError, TapeKind};

/// Walks over the chunks: each begins where the one before it ends.
struct Walk<'a> {
    kind: TapeKind,
    frames: &'a Frames,
    /// The index's first frame: the body ends here.
    index_frame: u64,
    next_frame: u64,
    next: Seq,
    records: u64,
    bytes: u64,
}

/// Refuses a tape whose index does not describe it.
pub(crate) fn check_head(head: &TapeHead, frames: &Frames, index_frame: u64) -> Result<(), TapeError> {
    let TapeHead { label, index, .. } = head;
    if !index.complete || index.tape != label.tape {
        return wrong("it does not belong to this label");
    }
    match (label.kind, index.after) {
        (TapeKind::Update, Some(after))
            if after.epoch == label.epoch && (label.first..=SEQ_MAX).contains(&after.seq) => {}
        (TapeKind::Base, None) => {}
        _ => return wrong("its position is not one of this tape"),
    }
    if index.last_time < label.first_time || index.sealed < index.last_time {
        return wrong("its times do not rise");
    }
    let (kind, next) = (label.kind, label.first);
    let mut walk = Walk { kind, frames, index_frame, next_frame: BODY_FRAME, next, records: 0, bytes: 0 };
    index.chunks.iter().try_for_each(|chunk| walk.step(chunk))?;
    if (walk.records, walk.bytes) != (index.counts.records, index.counts.bytes) {
        return wrong("its counts are not those of its members");
    }
    let is_all = walk.records > 0 && walk.next_frame == index_frame && walk.next.previous() == head.last();
    if kind == TapeKind::Update && !is_all {
        return wrong("its control members are not all of the tape");
    }
    Ok(())
}

impl Walk<'_> {
    fn step(&mut self, chunk: &Chunk) -> Result<(), TapeError> {
        let is_update = self.kind == TapeKind::Update;
        // between those of a base tape lie files
        let in_order = if is_update { chunk.frame == self.next_frame } else { chunk.frame >= self.next_frame };
        if !in_order || chunk.frame.checked_add(2).is_none_or(|end| end > self.index_frame) {
            return wrong("its control members do not follow each other");
        }
        let is_held = (1..=CHUNK_RECORDS_MAX as u64).contains(&chunk.records);
        if !is_held || chunk.bytes > CHUNK_BYTES_MAX as u64 || chunk.first != self.next {
            return wrong("a control member is out of range");
        }
        let (control, journal) = (self.frames.span(chunk.frame)?.raw, self.frames.span(chunk.frame + 1)?.raw);
        let member_len = |data: u64| BLOCK as u64 + padded(data);
        let control_len = member_len(chunk.records * CONTROL_LEN as u64);
        if (u64::from(control), u64::from(journal)) != (control_len, member_len(chunk.bytes)) {
            return wrong("a control member is not as long as its frame");
        }
        if is_update {
            self.next = Seq(self.next.0.saturating_add(chunk.records));
        }
        if chunk.last != if is_update { self.next.previous() } else { self.next } {
            return wrong("a control member ends with another record");
        }
        self.next_frame = chunk.frame + 2;
        self.records += chunk.records;
        self.bytes += chunk.bytes;
        Ok(())
    }
}

fn wrong(reason: &str) -> Result<(), TapeError> {
    Err(TapeError::malformed("index", reason))
}
