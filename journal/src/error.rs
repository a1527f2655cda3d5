//! What can go wrong with records and journal volumes.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::{NameError, Seq};

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The kind byte means nothing to this version.
    #[error("record kind {0} is unknown to this version")]
    UnknownKind(u8),
    /// Shorter than its fields need.
    #[error("a record ends before its `{0}`")]
    Short(&'static str),
    /// Bytes are left after its last field.
    #[error("a record has {0} bytes too many")]
    Long(usize),
    /// A field holds something impossible.
    #[error("a record's `{0}` is out of range")]
    Range(&'static str),
    /// The checksum does not match.
    #[error("a record's checksum does not match")]
    Checksum,
    /// A name breaks the rules.
    #[error("a record's name is not one: {0}")]
    Name(#[from] NameError),
}

/// What can go wrong with a journal volume.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system said no.
    #[error("journal volume {path}: {operation}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Not a journal volume at all.
    #[error("{path} is not a journal volume", path = .0.display())]
    Foreign(PathBuf),
    /// A journal volume of another format version.
    #[error("{path} is a journal volume of format {found}; this program reads {wanted}", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// Durable journal data does not read back.
    #[error("journal volume {path} is damaged at record {seq} (byte {offset}): {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first record that is not there.
        seq: Seq,
        /// Where it should be, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// A journal volume of another group.
    #[error("journal volume {path} belongs to group {found}, not to {wanted}", path = path.display())]
    OtherGroup {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Uuid,
        /// Whose it should be.
        wanted: Uuid,
    },
    /// The file is not as long as its superblock says.
    #[error("journal volume {path} has {found} bytes instead of {wanted}", path = path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// Length at its creation.
        wanted: u64,
    },
    /// Too small a journal volume was asked for.
    #[error("a journal volume of {asked} bytes is too small; the least is {least}")]
    TooSmall {
        /// What was asked for.
        asked: u64,
        /// [`crate::Jvol::SIZE_MIN`].
        least: u64,
    },
    /// A journal volume only grows.
    #[error("journal volume {path} has {present} bytes already; it grows, and never shrinks to {asked}", path = path.display())]
    NoGrowth {
        /// The file.
        path: PathBuf,
        /// What was asked for, in bytes.
        asked: u64,
        /// Its length.
        present: u64,
    },
    /// The last records of an unclean stop are incomplete; nothing is appended before they are cut off.
    #[error("journal volume {path} has a torn tail from record {seq} on", path = path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// The first record that is not whole.
        seq: Seq,
    },
    /// Writing or syncing failed before: what the disk holds is uncertain until the journal volume is opened again.
    #[error("journal volume {path} failed earlier and takes nothing more", path = .0.display())]
    Failed(PathBuf),
    /// A spare took over, and what the group's journal held is gone: the owner must take note of it first.
    #[error("the records that the journal held are lost; it goes on in {path}", path = .0.display())]
    Lost(PathBuf),
    /// The last record of an append carries MORE: an operation is appended whole or not at all.
    #[error("an append ends in the middle of an operation")]
    Unfinished,
    /// A record was asked for that is no longer, or not yet, in the journal.
    #[error("record {asked} is not in the journal, which holds {first} to {last}")]
    NotHeld {
        /// What was asked for.
        asked: Seq,
        /// First held.
        first: Seq,
        /// Last held.
        last: Seq,
    },
    /// The record can never fit.
    #[error("a record of {0} bytes does not fit into this journal volume")]
    TooLarge(u64),
    /// No room now; export frees it.
    #[error("the journal volume is full")]
    Full,
}
