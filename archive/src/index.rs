//! The index: what a tape says about itself at its end.

use reelfs_journal::{Digest, Position, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How much is on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Bytes of journal data.
    pub bytes: u64,
    /// Tar entries of the tree (base tapes).
    pub files: u64,
    /// Bytes of file data in those entries, holes left out (base tapes).
    pub file_bytes: u64,
}

/// A run of records: a control member that is exactly one frame, and the journal member in the frame after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Number of the control member's frame; the journal member is the next frame.
    pub frame: u64,
    /// How many records.
    pub records: u64,
    /// Bytes of journal data.
    pub bytes: u64,
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Time of the first record.
    pub first_time: Timestamp,
    /// Time of the last record.
    pub last_time: Timestamp,
}

/// A zstd frame: compressed length, uncompressed length, BLAKE3 of the compressed bytes. Frames follow each other from
/// the first byte of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameEntry(pub u32, pub u32, pub Digest);

/// What a tape says about itself at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The same as on the label.
    pub tape: Uuid,
    /// The tape was sealed: always true.
    pub complete: bool,
    /// Position after the last record; `None` on base tapes.
    pub after: Option<Position>,
    /// The time until which the tape vouches (hybrid clock).
    pub sealed: Timestamp,
    /// Time of the last record.
    pub last_time: Timestamp,
    /// How much is on it.
    pub counts: Counts,
    /// Its records, in order.
    pub chunks: Vec<Chunk>,
    /// All frames before the index.
    pub frames: Vec<FrameEntry>,
}

impl Index {
    /// The last record on a tape whose first is `first`.
    #[must_use]
    pub fn last(&self, first: Seq) -> Seq {
        self.after.map_or(first, |position| position.seq)
    }
}
