//! Whose a journal volume is: asked without opening it as a journal, and changed when it changes hands.

use std::fs::{File, OpenOptions};
use std::path::Path;

use uuid::Uuid;

use super::Jvol;
use super::create::write_superblocks;
use super::file::VolumeFile;
use super::geometry::SLOT;
use super::open::read_superblock;
use super::superblock::Superblock;
use crate::JournalError;
use crate::disk::Label;

/// Bytes of one write of zeros.
const CHUNK: usize = 1 << 20;

/// Whose a journal volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JvolOwner {
    /// The group; nil while it is prepared and nobody's.
    pub group: Uuid,
    /// Length of the file in bytes.
    pub size: u64,
}

impl Jvol {
    /// Looks at the superblock alone, and writes nothing.
    ///
    /// # Errors
    /// [`JournalError::Foreign`], [`JournalError::Version`], [`JournalError::Truncated`], [`JournalError::Damaged`] when neither
    /// slot is whole; [`JournalError::Io`].
    pub fn owner(path: &Path) -> Result<JvolOwner, JournalError> {
        let file = File::open(path).map_err(|source| io("open", path, source))?;
        owner_of(&VolumeFile::new(file, path.to_owned()))
    }

    /// Gives the journal volume of `from` to `to`, empty. Its blocks stay allocated; what they hold is not wiped but for the control
    /// data, without which nobody takes it for records. Durable on return; after a crash on the way it is still of `from`.
    ///
    /// # Errors
    /// [`JournalError::OtherGroup`] when it is not of `from`, and nothing is changed then; otherwise as [`Jvol::owner`].
    pub fn hand_over(path: &Path, from: Uuid, to: Uuid) -> Result<(), JournalError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|source| io("open", path, source))?;
        let file = VolumeFile::new(file, path.to_owned());
        let owner = owner_of(&file)?;
        if owner.group != from {
            return Err(JournalError::OtherGroup { path: path.to_owned(), found: owner.group, wanted: from });
        }
        let geometry = super::JvolGeometry::new(owner.size);
        // a prepared one has none
        if !from.is_nil() {
            let zeros = vec![0; CHUNK];
            let (mut at, end) = (geometry.control_offset, geometry.control_offset + geometry.control_slots * SLOT);
            while at < end {
                let length = usize::try_from(end - at).map_or(CHUNK, |rest| rest.min(CHUNK));
                file.write(Label::JvolHandOverWipe, &zeros[..length], at)?;
                at += length as u64;
            }
            file.sync(Label::JvolHandOverWipeSync)?;
        }
        let labels = (Label::JvolHandOverSuperblocks, Label::JvolHandOverSync);
        write_superblocks(&file, &Superblock::new(to, geometry), labels)
    }
}

fn owner_of(file: &VolumeFile) -> Result<JvolOwner, JournalError> {
    let length = file.file.metadata().map_err(|source| file.error("stat", source))?.len();
    let superblock = read_superblock(file, length)?.superblock;
    let wanted = superblock.geometry.size;
    if length < wanted {
        return Err(JournalError::Truncated { path: file.path.clone(), found: length, wanted });
    }
    Ok(JvolOwner { group: superblock.group, size: wanted })
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> JournalError {
    JournalError::Io { operation, path: path.to_owned(), source }
}
