//! Files in memory: what is stored there is in the page cache at once and outlives the process. The crate's only unsafe code.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;

/// A mapped file, readable and writable. All of it has blocks, and nobody shortens it: it is private (0600) and locked by whoever
/// maps it.
#[derive(Debug)]
pub(crate) struct MappedFile {
    map: MmapRaw,
}

impl MappedFile {
    pub(crate) fn new(file: &File) -> io::Result<MappedFile> {
        MmapRaw::map_raw(file).map(|map| MappedFile { map })
    }

    /// Words of 8 bytes, from the word of this number on. They are not used as bytes.
    pub(crate) fn words(&self, first: usize, count: usize) -> &[AtomicU64] {
        assert!(first.checked_add(count).is_some_and(|end| end <= self.map.len() / 8), "words behind the end");
        // SAFETY: the mapping is page aligned, readable and writable, lives as long as `self`, and is at least `first + count`
        // words long. All access to these words is through atomics; no page vanishes, for nobody shortens the file.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>().add(first), count) }
    }

    /// Copies bytes to a place of which nothing is lent.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.map.len()), "bytes behind the end");
        // SAFETY: the range lies in the mapping, and `bytes` cannot: what is lent of it is never what is put there, as the users
        // of a map see to by their two ends (one thread puts, above the head; one lends, below it, until it gives that up).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) }
    }

    /// Bytes where nothing is put while they are lent.
    pub(crate) fn lend(&self, at: usize, length: usize) -> &[u8] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.map.len()), "bytes behind the end");
        // SAFETY: the range lies in the mapping, which lives as long as `self`; nothing is put there meanwhile, see `put`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at), length) }
    }
}
