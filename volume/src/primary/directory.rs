//! Reading directories.

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Result;

use super::Primary;
use crate::volume::open_directory;

/// Bytes of entries read at once.
const PAGE: usize = 32 << 10;

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

impl Primary {
    /// Tells entries of a directory from `offset` (0, or a `next_offset`) until `visit` says that it is full (true). An
    /// entry that filled it was not taken and comes again. Nothing is kept between two calls: an offset is the file
    /// system's own and good in any descriptor.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_dir(&self, ino: u64, offset: u64, visit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<()> {
        let directory = {
            let _names = self.names.read();
            let node = self.node(ino)?;
            self.volume.noticed_as_wished(open_directory(&*self.volume.path(&node)?)?)
        };
        if offset > 0 {
            rustix::fs::seek(&directory, SeekFrom::Start(offset))?;
        }
        let mut buffer = Vec::with_capacity(PAGE);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let next_offset = entry.next_entry_cookie();
            let name = entry.file_name().to_bytes();
            if visit(&DirEntry { ino: entry.ino(), file_type: entry.file_type(), name, next_offset }) {
                break;
            }
        }
        Ok(())
    }
}
