//! The file under a journal volume: whole reads and writes, errors with the operation and the path.

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::JournalError;
use crate::disk::{self, Label};

/// What the kernel reads ahead of a file in one go, unless it is told otherwise (128 KiB).
const READAHEAD: u64 = 128 << 10;

/// Most parts of one vectored write (`IOV_MAX`).
const PARTS_MAX: usize = 1024;

/// An open file that knows its path.
#[derive(Debug)]
pub(super) struct VolumeFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    syncs: AtomicU64,
}

impl VolumeFile {
    /// Without readahead, which would bring in large folios (see [`VolumeFile::forget`]); all reads here are large ones.
    pub(super) fn new(file: File, path: PathBuf) -> VolumeFile {
        // advice: without it everything is only slower
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        VolumeFile { file, path, syncs: AtomicU64::new(0) }
    }

    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { operation, path: self.path.clone(), source }
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), JournalError> {
        self.file.read_exact_at(bytes, offset).map_err(|source| self.error("read", source))
    }

    pub(super) fn write(&self, label: Label, bytes: &[u8], offset: u64) -> Result<(), JournalError> {
        self.write_parts(label, &[bytes], offset)
    }

    /// Writes the parts one after the other.
    pub(super) fn write_parts(&self, label: Label, parts: &[&[u8]], mut offset: u64) -> Result<(), JournalError> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let count = rest.len().min(PARTS_MAX);
            match disk::write_parts_at(label, &self.file, &rest[..count], offset) {
                Ok(0) => return Err(self.error("write", io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.error("write", errno.into())),
            }
        }
        Ok(())
    }

    /// Has the kernel begin to read a range that is asked for next: in small steps, of each of which it takes at least the beginning
    /// that is its usual readahead.
    pub(super) fn read_ahead(&self, offset: u64, length: u64) {
        let mut at = offset;
        while at < offset + length {
            let step = READAHEAD.min(offset + length - at);
            // advice: without it everything is only slower
            let _ = rustix::fs::fadvise(&self.file, at, NonZeroU64::new(step), rustix::fs::Advice::WillNeed);
            at += step;
        }
    }

    /// Lets the kernel forget what it holds of a range that is durable. What was written in large pieces stays in memory as
    /// large folios, and ext4 walks through all blocks of a folio at each small write (Linux 6.18: 2 us of 13).
    pub(super) fn forget(&self, offset: u64, length: u64) {
        // advice: without it everything is only slower
        let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
    }

    /// `fdatasync`, counted.
    pub(super) fn sync(&self, label: Label) -> Result<(), JournalError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        disk::sync_data(label, &self.file).map_err(|errno| self.error("sync", errno.into()))
    }

    pub(super) fn sync_count(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}
