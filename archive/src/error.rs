//! What can be wrong with a tape.

use std::io;

use reelfs_journal::{Digest, RecordError, Seq};

/// What can be wrong with a tape. The path is the caller's to add: a tape is read through an open file.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// Neither the beginning nor the end looks like a tape.
    #[error("this file is not a reelfs tape")]
    NotATape,
    /// A tape of a version that this program cannot read.
    #[error("this tape needs a program that reads tape format {needs}; this one reads up to {reads}")]
    Version {
        /// The lowest version that reads it.
        needs: u32,
        /// Ours.
        reads: u32,
    },
    /// The end is missing.
    #[error("the tape is cut off: {length} bytes are here, and the end that every complete tape has is not among them")]
    Truncated {
        /// Length of what is there, in bytes.
        length: u64,
    },
    /// Bytes are not those that were written.
    #[error("the tape is altered or damaged: frame {frame} (byte {offset}): {reason}")]
    Altered {
        /// Number of the zstd frame, from 0.
        frame: u64,
        /// Where it begins, in bytes from the start of the file.
        offset: u64,
        /// What does not match.
        reason: &'static str,
    },
    /// The bytes are intact, but they do not make a tape.
    #[error("the tape is malformed: {member}: {reason}")]
    Malformed {
        /// Which part.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A record does not read back.
    #[error("the tape is damaged: record {seq}: {source}")]
    Record {
        /// Its number.
        seq: Seq,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The records do not lead to the position that the tape claims.
    #[error(
        "the records do not lead to the position that the tape claims at {seq}: found {found}, the tape says {claimed}"
    )]
    Chain {
        /// Where.
        seq: Seq,
        /// What the records give.
        found: Digest,
        /// What the index says.
        claimed: Digest,
    },
    /// A record was written out of order.
    #[error("record {found} was given to the tape where {expected} belongs")]
    Order {
        /// The number that comes next.
        expected: Seq,
        /// The number that was given.
        found: Seq,
    },
    /// A record that the tape does not hold was asked for.
    #[error("record {asked} is not on this tape, which holds {first} to {last}")]
    NotHeld {
        /// What was asked for.
        asked: Seq,
        /// First held.
        first: Seq,
        /// Last held.
        last: Seq,
    },
    /// An update tape without a record was to be sealed.
    #[error("an update tape needs at least one record")]
    Empty,
    /// The writer was asked for something that a tape cannot hold.
    #[error("this cannot go on a tape: {0}")]
    Unfit(&'static str),
    /// A file's bytes could not be read while it was put on a base tape.
    #[error("the bytes of {path} at {offset} cannot be read: {source}")]
    Source {
        /// Its path beneath the volume.
        path: String,
        /// Where, in bytes.
        offset: u64,
        /// What came back.
        source: io::Error,
    },
    /// What takes the bytes of a base tape said no.
    #[error("the bytes from the tape cannot be taken: {0}")]
    Sink(#[source] io::Error),
    /// The operating system said no.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What came back.
        source: io::Error,
    },
}

impl TapeError {
    /// The tape itself is at fault: cut, altered, damaged or malformed (and not the disk, nor the caller).
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            TapeError::Truncated { .. }
                | TapeError::Altered { .. }
                | TapeError::Malformed { .. }
                | TapeError::Record { .. }
                | TapeError::Chain { .. }
        )
    }

    pub(crate) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> TapeError {
        move |source| TapeError::Io { operation, source }
    }

    pub(crate) fn malformed(member: impl Into<String>, reason: impl Into<String>) -> TapeError {
        TapeError::Malformed { member: member.into(), reason: reason.into() }
    }
}
