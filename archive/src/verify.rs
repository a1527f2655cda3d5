//! Verifying a tape: every byte is read before anything on it is used.

use std::sync::Arc;

use reelfs_journal::{Change, Position, Seq};

use crate::bytes::{BaseBytes, BaseExtent, tree_frames};
use crate::records::{Controls, Records};
use crate::sealed::{SealedTape, TapeHead};
use crate::trailer::{Root, is_padding};
use crate::update::may_hold;
use crate::walk::walk_tree;
use crate::{TapeError, TapeKind};

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every byte of the file is the one that was written.
    Bytes,
    /// And everything unpacks: records with their checksums, numbers, times and chained digest, and the tree's entries.
    Records,
}

/// A tape of which every byte was read and found to be as written. Whatever is read from it later is checked again.
pub struct VerifiedTape {
    tape: SealedTape,
}

impl SealedTape {
    /// Reads the whole tape once (twice for [`Depth::Records`]). `progress` is told how many bytes of the file are
    /// done.
    ///
    /// # Errors
    /// What is wrong with the tape.
    pub fn verify(self, depth: Depth, progress: &mut dyn FnMut(u64)) -> Result<VerifiedTape, TapeError> {
        let frames = &self.frames;
        let root_frame = frames.digests.len() as u64;
        let mut packed = Vec::new();
        for frame in 0..root_frame {
            frames.read_checked(frame, &mut packed)?;
            progress(frames.span(frame)?.offset + packed.len() as u64);
        }
        frames.read(root_frame, &mut packed)?;
        if packed != (Root { digest: self.head.root, index_frame: self.index_frame }).frame()? {
            return Err(frames.altered(root_frame, "the root digest is not as it was written"));
        }
        frames.read(root_frame + 1, &mut packed)?;
        if !is_padding(&packed) {
            return Err(frames.altered(root_frame + 1, "the padding is not zeros"));
        }
        let tape = VerifiedTape { tape: self };
        if depth == Depth::Records {
            tape.check_readme()?;
            match tape.head().label.kind {
                TapeKind::Update => tape.check_records()?,
                TapeKind::Base => tape.check_tree()?,
            }
        }
        progress(tape.head().bytes);
        Ok(tape)
    }
}

impl VerifiedTape {
    /// What the tape says about itself.
    #[must_use]
    pub fn head(&self) -> &TapeHead {
        &self.tape.head
    }

    /// The control data of all records, in order, without reading journal data.
    #[must_use]
    pub fn controls(&self) -> Controls {
        Controls::new(Arc::clone(&self.tape.frames), self.head())
    }

    /// The records from this number on. On a base tape all records have the number of its first.
    ///
    /// # Errors
    /// [`TapeError::NotHeld`] when the tape does not hold it; the number after the last one gives no record.
    pub fn records(&self, from: Seq) -> Result<Records, TapeError> {
        Records::new(Arc::clone(&self.tape.frames), self.head(), from)
    }

    /// The bytes of the files on a base tape.
    ///
    /// # Errors
    /// [`TapeError::Unfit`] on an update tape.
    pub fn base_bytes(&self) -> Result<BaseBytes, TapeError> {
        match self.head().label.kind {
            TapeKind::Base => Ok(BaseBytes::new(Arc::clone(&self.tape.frames), tree_frames(&self.tape))),
            TapeKind::Update => Err(TapeError::Unfit("the files of a base tape, from an update tape")),
        }
    }

    /// Where the history stands after this record of an update tape, or before its first: chains the digest up to it.
    ///
    /// # Errors
    /// [`TapeError::NotHeld`], or what is wrong with the tape.
    pub fn position_at(&self, seq: Seq) -> Result<Position, TapeError> {
        let head = self.head();
        let asked = TapeError::NotHeld { asked: seq, first: head.first(), last: head.last() };
        let (Some(before), Some(after)) = (head.label.before, head.after()) else {
            return Err(asked);
        };
        if seq < before.seq || seq > after.seq {
            return Err(asked);
        }
        let mut position = Position { epoch: head.label.epoch, ..before };
        let mut records = self.records(head.first())?;
        while position.seq < seq {
            let Some(record) = records.next()? else {
                return Err(asked);
            };
            let digest = position.digest.chain(record.control, record.data);
            position = Position { seq: record.seq(), digest, ..position };
        }
        Ok(position)
    }

    fn check_readme(&self) -> Result<(), TapeError> {
        let (mut unpacker, mut raw) = (crate::decode::Unpacker::new(), Vec::new());
        unpacker.frame(&self.tape.frames, 0, &mut raw)?;
        let size = crate::header::announced_size(&raw).and_then(|size| usize::try_from(size).ok());
        let is_readme = size.and_then(|size| crate::header::member_data(crate::readme::NAME, size, &raw)).is_some();
        if is_readme { Ok(()) } else { Err(TapeError::malformed(crate::readme::NAME, "it is not the first member")) }
    }

    fn check_records(&self) -> Result<(), TapeError> {
        let (head, Some(after)) = (self.head(), self.head().after()) else {
            return Ok(());
        };
        let mut records = self.records(head.first())?;
        let (mut digest, mut time) = (head.label.before.map(|before| before.digest).unwrap_or_default(), None);
        while let Some(raw) = records.next()? {
            let record = raw.decode()?;
            let rises = time.map_or(record.time == head.label.first_time, |time| record.time > time);
            if !rises {
                return Err(TapeError::malformed(
                    "control data",
                    format!("the time of record {} does not rise", record.seq),
                ));
            }
            if !may_hold(&head.label, raw.control) {
                let reason = format!("record {} is of a volume that the label does not list", record.seq);
                return Err(TapeError::malformed("control data", reason));
            }
            if matches!(record.change, Change::BaseData { .. }) {
                return Err(TapeError::malformed("control data", "an update tape tells where a file's bytes are"));
            }
            time = Some(record.time);
            digest = digest.chain(raw.control, raw.data);
        }
        if digest != after.digest {
            return Err(TapeError::Chain { seq: after.seq, found: digest, claimed: after.digest });
        }
        if time != Some(head.index.last_time) {
            return Err(TapeError::malformed("index", "its times are not those of the records"));
        }
        Ok(())
    }

    fn check_tree(&self) -> Result<(), TapeError> {
        let head = self.head();
        let mut records = self.records(head.first())?;
        let mut extents = Vec::new();
        while let Some(raw) = records.next()? {
            let record = raw.decode()?;
            if !head.label.lists(record.volume) {
                return Err(TapeError::malformed("control data", "a record is of another volume than the label says"));
            }
            match record.change {
                Change::Entry { .. } => {}
                Change::BaseData { stream_offset, stream_length, size, .. } => {
                    extents.push(BaseExtent { stream_offset, stream_length, size });
                }
                other => {
                    let reason = format!("a base tape holds a {} record", other.verb());
                    return Err(TapeError::malformed("control data", reason));
                }
            }
        }
        let files = walk_tree(&mut self.base_bytes()?, &self.tape, &extents)?;
        if files == head.index.counts.files {
            Ok(())
        } else {
            Err(TapeError::malformed("base", "it has another number of entries than the index says"))
        }
    }
}
