//! Reading directories, and handles of what is open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::{Errno, Result};

use super::Primary;
use crate::volume::reopen;

/// Bytes of entries read at once.
const PAGE: usize = 32 << 10;

/// An open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// An entry of a directory, lent to a visitor.
#[derive(Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Type, as the directory knows it.
    pub file_type: FileType,
    /// Name; `.` and `..` are told too.
    pub name: &'a [u8],
    /// Where to go on after it.
    pub next_offset: u64,
}

#[derive(Debug)]
struct OpenDirectory {
    file: OwnedFd,
    ino: u64,
    /// Held while a page is read: position and buffer.
    position: Mutex<(u64, Vec<u8>)>,
}

/// Open directories by handle.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
}

impl Primary {
    /// Opens a directory for reading.
    ///
    /// # Errors
    /// What the file system says.
    pub fn opendir(&self, ino: u64) -> Result<Handle> {
        let _names = self.names.read();
        let path = self.volume.path(&self.node(ino)?)?;
        let file = reopen(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let handle = self.directories.next.fetch_add(1, Ordering::Relaxed);
        let directory = OpenDirectory { file, ino, position: Mutex::new((0, Vec::with_capacity(PAGE))) };
        self.directories.open.write().insert(handle, Arc::new(directory));
        Ok(Handle(handle))
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: Handle) {
        self.directories.open.write().remove(&handle.0);
    }

    /// The inode number behind a directory handle.
    #[must_use]
    pub fn directory_ino(&self, handle: Handle) -> Option<u64> {
        self.directories.open.read().get(&handle.0).map(|directory| directory.ino)
    }

    /// Tells entries from `offset` (0, or a `next_offset`) until `visit` says that it is full (true). An entry that
    /// filled it was not taken and comes again.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_dir(&self, handle: Handle, offset: u64, visit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let directory = self.directories.open.read().get(&handle.0).cloned().ok_or(Errno::BADF)?;
        let mut guard = directory.position.lock();
        let (position, buffer) = &mut *guard;
        if *position != offset || offset == 0 {
            rustix::fs::seek(&directory.file, SeekFrom::Start(offset))?;
            *position = offset;
        }
        let mut taken = *position;
        let mut full = false;
        let mut entries = RawDir::new(&directory.file, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let next_offset = entry.next_entry_cookie();
            let name = entry.file_name().to_bytes();
            full = visit(&DirEntry { ino: entry.ino(), file_type: entry.file_type(), name, next_offset });
            if full {
                break;
            }
            taken = next_offset;
        }
        if full {
            rustix::fs::seek(&directory.file, SeekFrom::Start(taken))?;
        }
        *position = taken;
        Ok(())
    }
}
