//! Opening a tape: trailer, index and label, checked against each other before anything else is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use reelfs_journal::{Digest, Position, Seq};

use crate::agree::check_head;
use crate::compress::FRAME_BYTES;
use crate::decode::{Frames, Unpacker};
use crate::header::{BLOCK, announced_size, member_data};
use crate::index::Index;
use crate::label::LABEL_MAX;
use crate::trailer::{FOOTER_LEN, Root, RootHasher, Span, begins_like_a_tape, parse_table, table_len};
use crate::update::{INDEX_NAME, LABEL_NAME};
use crate::{Label, TapeError, TapeName};

/// Frame of the label; the README is before it.
const LABEL_FRAME: u64 = 1;
/// The first frame after the label.
pub(crate) const BODY_FRAME: u64 = 2;

/// What a tape says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapeHead {
    /// At its beginning.
    pub label: Label,
    /// At its end.
    pub index: Index,
    /// Digest of everything on it.
    pub root: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

impl TapeHead {
    /// The file name that belongs to it.
    #[must_use]
    pub fn name(&self) -> TapeName {
        let Label { group, epoch, first, kind, .. } = &self.label;
        TapeName { group: group.clone(), epoch: *epoch, first: *first, last: self.last(), kind: *kind }
    }

    /// The first record.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.label.first
    }

    /// The last record; on a base tape the same as the first.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.index.last(self.label.first)
    }

    /// Position after the last record of an update tape.
    #[must_use]
    pub fn after(&self) -> Option<Position> {
        self.index.after
    }
}

/// A tape whose trailer, index and label make sense and agree with the root digest. What lies between is not read yet.
pub struct SealedTape {
    pub(crate) frames: Arc<Frames>,
    pub(crate) head: TapeHead,
    pub(crate) index_frame: u64,
}

impl SealedTape {
    /// Reads trailer, index and label. The file may be large: only these parts are read, and nothing is allocated for a
    /// length that was not checked.
    ///
    /// # Errors
    /// What is wrong with the tape.
    pub fn open(file: File) -> Result<SealedTape, TapeError> {
        let metadata = file.metadata().map_err(TapeError::io("look at the tape"))?;
        if !metadata.is_file() {
            return Err(TapeError::NotATape);
        }
        let bytes = metadata.len();
        let spans = read_table(&file, bytes)?;
        let mut frames = Frames { file, spans, digests: Vec::new() };
        let root_frame = frames.spans.len() as u64 - 2;
        let mut packed = Vec::new();
        frames.read(root_frame, &mut packed)?;
        let root = Root::parse(&packed)
            .ok_or_else(|| frames.altered(root_frame, "the root digest is not as it was written"))?;
        if packed.last_chunk() != Some(&frames.span(root_frame)?.check) {
            return Err(frames.altered(root_frame, "the seek table has another checksum for it"));
        }
        if root.index_frame <= LABEL_FRAME || root.index_frame >= root_frame {
            return Err(TapeError::malformed("root", "its index is not on the tape"));
        }
        let index = read_index(&mut frames, root, root_frame)?;
        let mut unpacker = Unpacker::new();
        let mut raw = Vec::new();
        if frames.span(LABEL_FRAME)?.raw as usize > LABEL_MAX + 2 * BLOCK {
            return Err(TapeError::malformed("label", "it is too long"));
        }
        unpacker.frame(&frames, LABEL_FRAME, &mut raw)?;
        let label = Label::parse(whole_member(LABEL_NAME, &raw)?)?;
        let head = TapeHead { label, index, root: root.digest, bytes };
        check_head(&head, &frames, root.index_frame)?;
        Ok(SealedTape { frames: Arc::new(frames), head, index_frame: root.index_frame })
    }

    /// What the tape says about itself.
    #[must_use]
    pub fn head(&self) -> &TapeHead {
        &self.head
    }
}

/// The data of a member that fills `raw`.
fn whole_member<'a>(name: &str, raw: &'a [u8]) -> Result<&'a [u8], TapeError> {
    let size = announced_size(raw).and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= raw.len());
    let data = size.and_then(|size| member_data(name, size, raw));
    data.ok_or_else(|| TapeError::malformed(name, "it is not the member that belongs here"))
}

fn read_table(file: &File, bytes: u64) -> Result<Vec<Span>, TapeError> {
    let read = |buffer: &mut [u8], offset: u64| match file.read_exact_at(buffer, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(TapeError::Truncated { length: bytes }),
        result => result.map_err(TapeError::io("read the tape")),
    };
    let mut head = [0; 64];
    let head = &mut head[..usize::try_from(bytes).unwrap_or(64).min(64)];
    read(head, 0)?;
    let begins = begins_like_a_tape(head);
    let incomplete = || {
        if begins { TapeError::Truncated { length: bytes } } else { TapeError::NotATape }
    };
    let mut footer = [0; FOOTER_LEN];
    read(&mut footer, bytes.checked_sub(FOOTER_LEN as u64).ok_or_else(incomplete)?)?;
    let length = table_len(&footer, bytes).ok_or_else(incomplete)?;
    let offset = bytes - length;
    // the table is part of the file, so what is allocated here is there
    let mut table = vec![0; usize::try_from(length).map_err(|_| TapeError::malformed("seek table", "it is too long"))?];
    read(&mut table, offset)?;
    let altered = |reason| TapeError::Altered { frame: 0, offset, reason };
    let spans = parse_table(&table, bytes).ok_or_else(|| altered("the seek table does not describe this file"))?;
    if !begins {
        return Err(TapeError::Altered { frame: 0, offset: 0, reason: "the beginning is not that of a tape" });
    }
    let packed_max = zstd_safe::compress_bound(FRAME_BYTES);
    let body = &spans[..spans.len() - 2];
    let is_odd = |span: &Span| {
        span.raw as usize > FRAME_BYTES || span.raw == 0 || span.packed == 0 || span.packed as usize > packed_max
    };
    if body.iter().any(is_odd) {
        return Err(TapeError::malformed("seek table", "a frame is longer than frames are, or empty"));
    }
    Ok(spans)
}

/// Reads the index, checks it against the seek table and, together with it, against the root digest.
fn read_index(frames: &mut Frames, root: Root, root_frame: u64) -> Result<Index, TapeError> {
    let span_bytes = |range: std::ops::Range<u64>| -> Result<u64, TapeError> {
        range.map(|frame| frames.span(frame).map(|span| u64::from(span.raw))).sum()
    };
    let length = span_bytes(root.index_frame..root_frame)?;
    // generous for what the body's frames need, and never more than the tape's own length allows for
    if length > (64 << 10) + root.index_frame * 1024 {
        return Err(TapeError::malformed("index", "it is longer than its tape explains"));
    }
    let mut packed = Vec::new();
    let mut digests = Vec::new();
    for frame in root.index_frame..root_frame {
        frames.read(frame, &mut packed)?;
        digests.push(Digest(*blake3::hash(&packed).as_bytes()));
    }
    let (text, mut unpacker, mut raw) = (&mut Vec::new(), Unpacker::new(), Vec::new());
    // unpacking checks digests by number: those before the index are not known yet
    frames.digests = vec![Digest::ZERO; usize::try_from(root.index_frame).unwrap_or(usize::MAX)];
    frames.digests.extend(digests);
    for frame in root.index_frame..root_frame {
        unpacker.frame(frames, frame, &mut raw)?;
        text.extend_from_slice(&raw);
    }
    let data = whole_member(INDEX_NAME, text)?;
    let index: Index =
        serde_json::from_slice(data).map_err(|error| TapeError::malformed("index", error.to_string()))?;
    if index.frames.len() as u64 != root.index_frame {
        return Err(TapeError::malformed("index", "it has another number of frames than the seek table"));
    }
    for (digest, entry) in frames.digests.iter_mut().zip(&index.frames) {
        *digest = entry.2;
    }
    let mut hasher = RootHasher::new();
    for frame in 0..root_frame {
        let entry = frames.entry(frame)?;
        if index.frames.get(frame as usize).is_some_and(|listed| *listed != entry) {
            return Err(frames.altered(frame, "index and seek table give it different lengths"));
        }
        hasher.frame(&entry);
    }
    if hasher.finish() != root.digest {
        return Err(frames.altered(root.index_frame, "the index does not match the root digest"));
    }
    Ok(index)
}

#[cfg(test)]
mod tests;
