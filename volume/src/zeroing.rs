//! Ranges that are to read as zeros, where the file system gave up halfway: what it had zeroed by then is gone, and nobody knows how
//! much that is. The rest is zeroed too, by ways that need no room, and told.

use std::os::fd::{AsFd, OwnedFd};

use reelfs_journal::Change;
use reelfs_journal::disk::{self, Label, Operation};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, Result};

use crate::apply::write_zeros;
use crate::volume::Volume;

/// Whether some of a change may be there that failed with this: what is found wrong before anything is changed says something else.
pub(crate) fn may_be_begun(change: &Change<'_>, error: Errno) -> bool {
    matches!(change, Change::Zero { .. } | Change::Punch { .. })
        && matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::INTR | Errno::NOMEM)
}

impl Volume {
    /// Zeroes what there is of the range of a change for which [`may_be_begun`] said so, and gives the change that this is: it
    /// takes no room where it is done again, and makes no file longer. None when there was nothing.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` for a file that is not known.
    pub(crate) fn zero_the_rest(&self, change: &Change<'_>) -> Result<Option<Change<'static>>> {
        let (Change::Zero { file, offset, length, mtime, .. } | Change::Punch { file, offset, length, mtime }) = change
        else {
            return Ok(None);
        };
        let (file, offset, mtime) = (*file, *offset, *mtime);
        let data = self.data(&self.node(file)?, true)?;
        let end = offset.saturating_add(*length).min(rustix::fs::fstat(&data)?.st_size.unsigned_abs());
        let Some(length) = end.checked_sub(offset).filter(|&length| length > 0) else { return Ok(None) };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let operation = || Operation::Allocate { file: data.as_fd(), offset, length, may_grow: false };
        let punch = || rustix::fs::fallocate(&data, flags, offset, length);
        disk::call(Label::ApplyAllocate, operation, punch).or_else(|_| zero_data(&data, offset, end))?;
        Ok(Some(Change::Punch { file, offset, length, mtime }))
    }
}

/// Over what is no hole: blocks that are there are enough for it.
fn zero_data(file: &OwnedFd, mut offset: u64, end: u64) -> Result<()> {
    while offset < end {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(begin) if begin < end => begin,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        offset = rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(end);
        write_zeros(file, begin, offset - begin)?;
    }
    Ok(())
}
