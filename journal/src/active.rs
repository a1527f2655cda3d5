//! What may be about to change: the entries of a [`crate::Change::Active`] record.

use crate::RecordError;
use crate::bytes::{Reader, Writer};

/// Bytes of a unit in which [`Active::Bytes`] counts (64 KiB).
pub const ACTIVE_UNIT: u64 = 64 << 10;
/// The unit behind the last one: no file is longer than 2^63 bytes.
pub const ACTIVE_END: u64 = (1 << 63) / ACTIVE_UNIT;
/// Most entries that are put into one record.
pub const ACTIVE_MAX: usize = 4096;

/// What of one object may differ, after a power cut, from what the journal says. Objects are named by inode number alone:
/// an entry may have been foreseen from a listing, where nobody has looked at the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Active {
    /// Names in a directory, and its attributes.
    Names {
        /// Inode number of the directory.
        directory: u64,
    },
    /// Attributes, extended ones among them.
    Attributes {
        /// Inode number of the object.
        object: u64,
    },
    /// Bytes of a file, its size and its attributes.
    Bytes {
        /// Inode number of the file.
        file: u64,
        /// The first unit.
        first: u64,
        /// How many units.
        units: u64,
    },
}

const NAMES: u8 = 0;
const ATTRIBUTES: u8 = 1;
const BYTES: u8 = 2;

pub(crate) fn encode(entries: &[Active], writer: &mut Writer<'_>) {
    writer.u16(u16::try_from(entries.len()).unwrap_or(u16::MAX));
    for entry in entries {
        match *entry {
            Active::Names { directory } => {
                writer.u8(NAMES);
                writer.u64(directory);
            }
            Active::Attributes { object } => {
                writer.u8(ATTRIBUTES);
                writer.u64(object);
            }
            Active::Bytes { file, first, units } => {
                writer.u8(BYTES);
                writer.u64(file);
                writer.u64(first);
                writer.u64(units);
            }
        }
    }
}

pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Vec<Active>, RecordError> {
    // there are records of earlier programs with more than they should have
    let count = usize::from(reader.u16("number of entries")?);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let what = reader.u8("what is active")?;
        let ino = reader.u64("inode number")?;
        entries.push(match what {
            NAMES => Active::Names { directory: ino },
            ATTRIBUTES => Active::Attributes { object: ino },
            BYTES => {
                let (first, units) = (reader.u64("first unit")?, reader.u64("units")?);
                if units == 0 || first.checked_add(units).is_none_or(|end| end > ACTIVE_END) {
                    return Err(RecordError::Range("units"));
                }
                Active::Bytes { file: ino, first, units }
            }
            _ => return Err(RecordError::Range("what is active")),
        });
    }
    Ok(entries)
}
