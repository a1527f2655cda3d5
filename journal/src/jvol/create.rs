//! Making a journal volume: every block allocated and written once, so that no later sync commits an allocation.

use std::fs::{self, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use uuid::Uuid;

use super::Jvol;
use super::file::VolumeFile;
use super::geometry::{JvolGeometry, PAGE};
use super::superblock::Superblock;
use crate::JournalError;
use crate::disk::{self, Label};

/// Bytes of one write of zeros.
const CHUNK: usize = 1 << 20;
/// The disk is waited for after so many bytes, so that the progress shown is progress made.
const SYNC_EVERY: u64 = 64 << 20;

impl Jvol {
    /// The smallest journal volume, in bytes (16 MiB).
    pub const SIZE_MIN: u64 = 16 << 20;

    /// Makes a journal volume: preallocated, written full of zeros, mode 0600, durable on return. `progress` is told
    /// bytes done and bytes in all.
    ///
    /// # Errors
    /// [`JournalError::TooSmall`], or [`JournalError::Io`] when the file exists or the disk is full; a file begun is
    /// removed again.
    pub fn create(path: &Path, size: u64, group: Uuid, progress: &mut dyn FnMut(u64, u64)) -> Result<(), JournalError> {
        if size < Self::SIZE_MIN {
            return Err(JournalError::TooSmall { asked: size, least: Self::SIZE_MIN });
        }
        let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = VolumeFile::new(
            disk::create(Label::JvolCreate, path, &options).map_err(failed("create"))?,
            path.to_owned(),
        );
        let made = fill(&file, &Superblock::new(group, JvolGeometry::new(size)), progress)
            .and_then(|()| disk::sync_parent(Label::JvolTemporarySync, path).map_err(failed("sync directory")));
        if made.is_err() {
            // the first error is the one to tell; a file left behind is recognised as unfinished
            let _ = fs::remove_file(path);
        }
        made
    }
}

fn fill(file: &VolumeFile, first: &Superblock, progress: &mut dyn FnMut(u64, u64)) -> Result<(), JournalError> {
    let size = first.geometry.size;
    let mut filled = |done, size| {
        progress(done, size);
        Ok(())
    };
    fill_zeros(file, size, &mut filled)?;
    // only now: a creation cut short leaves no file that looks like a journal volume
    write_superblocks(file, first, (Label::JvolFirstSuperblocks, Label::JvolFirstSync))?;
    file.forget(0, size);
    Ok(())
}

/// Both slots, durably: this one, and the one before.
pub(super) fn write_superblocks(
    file: &VolumeFile,
    first: &Superblock,
    (write, sync): (Label, Label),
) -> Result<(), JournalError> {
    let older = Superblock { generation: first.generation - 1, ..first.clone() };
    file.write(write, &first.encode(), 0)?;
    file.write(write, &older.encode(), PAGE)?;
    disk::sync(sync, &file.file).map_err(|errno| file.error("sync", errno.into()))
}

/// Every block allocated and written once, durably.
pub(super) fn fill_zeros(
    file: &VolumeFile,
    size: u64,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let operation = || disk::Operation::Allocate { file: file.file.as_fd(), offset: 0, length: size, may_grow: true };
    let allocate = || rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, size);
    match disk::call(Label::JvolPreallocate, operation, allocate) {
        // a file system without preallocation gets its blocks from the zeros
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(file.error("preallocate", errno.into())),
    }
    let zeros = vec![0; CHUNK];
    let mut done = 0;
    progress(0, size)?;
    while done < size {
        let length = usize::try_from(size - done).map_or(CHUNK, |rest| rest.min(CHUNK));
        file.write(Label::JvolFill, &zeros[..length], done)?;
        done += length as u64;
        if done % SYNC_EVERY == 0 {
            file.sync(Label::JvolFillSync)?;
        }
        progress(done, size)?;
    }
    disk::sync(Label::JvolFillSync, &file.file).map_err(|errno| file.error("sync", errno.into()))
}
