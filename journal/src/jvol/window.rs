//! A window on a journal volume that another process writes: some of its records, to be read and nothing else.

use std::fs::File;
use std::path::Path;

use uuid::Uuid;

use super::Jvol;
use super::drain::Drain;
use super::file::VolumeFile;
use super::open::read_superblock;
use crate::{JournalError, Seq};

/// A record and the position of its journal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The record.
    pub seq: Seq,
    /// Bytes of journal data before it, as `docs/FORMAT-journal.md` counts them.
    pub position: u64,
}

impl Jvol {
    /// Where a record that is held lies, or where the next one will.
    ///
    /// # Errors
    /// [`JournalError::NotHeld`]; otherwise as [`Jvol::read`].
    pub fn place(&self, seq: Seq) -> Result<Place, JournalError> {
        self.drain_before(seq.0)?;
        Ok(Place { seq, position: self.locate(seq.0)? })
    }

    /// The records from `from` to the one before `next`, as the process that writes the journal told their places. It opens
    /// the file to read it only, and looks at nothing but the superblock. Whoever reads sees to it that the records are not
    /// freed meanwhile.
    ///
    /// # Errors
    /// As [`Jvol::open`].
    pub fn window(path: &Path, group: Uuid, from: Place, next: Place) -> Result<Jvol, JournalError> {
        let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("stat"))?.len();
        let file = VolumeFile::new(file, path.to_owned());
        let mut chosen = read_superblock(&file, length)?;
        if chosen.superblock.group != group {
            return Err(JournalError::OtherGroup { path: file.path, found: chosen.superblock.group, wanted: group });
        }
        (chosen.superblock.out, chosen.superblock.out_position) = (from.seq.0, from.position);
        let mut jvol = Jvol::assemble(file, &chosen);
        let tail = jvol.tail.get_mut();
        (tail.next, tail.position) = (next.seq.0, next.position);
        *jvol.drain.get_mut() = Drain::at(tail.place());
        Ok(jvol)
    }
}
