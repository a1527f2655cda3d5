//! 1 MiB of memory, and where in a page it begins.

use std::ops::{Deref, DerefMut};

use crate::support::Random;

const LENGTH: usize = 1 << 20;
const PAGE: usize = 4096;
/// Where memory of this size begins that `malloc(3)` gives: behind its own notes.
const OF_MALLOC: usize = 16;

/// 1 MiB that begins with a page of memory, as the buffers of `dd` and `cp` do. The kernel takes 256 pages of
/// a writer's memory at most into one request of FUSE (`fs.fuse.max_pages_limit`): what begins within a page makes a second request.
pub struct Block {
    bytes: Vec<u8>,
    start: usize,
}

impl Block {
    /// Of bytes that do not compress.
    pub fn new() -> Block {
        let bytes = Random::new("block", 0).bytes((LENGTH + 2 * PAGE) as u64);
        let start = bytes.as_ptr().align_offset(PAGE);
        Block { bytes, start }
    }

    /// Of which all but the first page is one byte over and over.
    pub fn compressible() -> Block {
        let mut block = Block::new();
        block[PAGE..].fill(7);
        block
    }

    /// 1 MiB that begins within a page.
    pub fn of_malloc(&self) -> &[u8] {
        let start = self.start + OF_MALLOC;
        &self.bytes[start..start + LENGTH]
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + LENGTH]
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + LENGTH]
    }
}
