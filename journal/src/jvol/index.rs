//! Where journal data lies: the position of every 1024th record, so that finding one reads a few pages.

use std::collections::VecDeque;

/// Records between two entries.
const STRIDE: u64 = 1024;

/// Positions of the held records whose number is a multiple of 1024.
#[derive(Debug, Default)]
pub(super) struct PositionIndex {
    first: u64,
    positions: VecDeque<u64>,
}

impl PositionIndex {
    /// Notes where the record after all noted ones starts.
    pub(super) fn note(&mut self, seq: u64, position: u64) {
        if seq.is_multiple_of(STRIDE) {
            if self.positions.is_empty() {
                self.first = seq;
            }
            self.positions.push_back(position);
        }
    }

    /// The last noted record not after `seq`, and its position.
    pub(super) fn before(&self, seq: u64) -> Option<(u64, u64)> {
        let entry = usize::try_from(seq.checked_sub(self.first)? / STRIDE).ok()?;
        let entry = entry.min(self.positions.len().checked_sub(1)?);
        Some((self.first + entry as u64 * STRIDE, *self.positions.get(entry)?))
    }

    /// The last noted record whose position is not after this one.
    pub(super) fn at_position(&self, position: u64) -> Option<u64> {
        let entry = self.positions.partition_point(|&noted| noted <= position).checked_sub(1)?;
        Some(self.first + entry as u64 * STRIDE)
    }

    /// Forgets records before `out`.
    pub(super) fn free(&mut self, out: u64) {
        while self.first < out && self.positions.pop_front().is_some() {
            self.first += STRIDE;
        }
    }

    /// Forgets records from `end` on.
    pub(super) fn cut(&mut self, end: u64) {
        while !self.positions.is_empty() && self.first + (self.positions.len() as u64 - 1) * STRIDE >= end {
            self.positions.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_noted_after_freeing_and_cutting() {
        let mut index = PositionIndex::default();
        assert_eq!(index.before(5), None);
        for seq in 1..=5000 {
            index.note(seq, seq * 10);
        }
        assert_eq!(index.before(1023), None);
        assert_eq!(index.before(1024), Some((1024, 10_240)));
        assert_eq!(index.before(3000), Some((2048, 20_480)));
        assert_eq!(index.before(9000), Some((4096, 40_960)));
        index.free(2049);
        assert_eq!(index.before(2048), None);
        assert_eq!(index.before(3073), Some((3072, 30_720)));
        index.cut(4096);
        assert_eq!(index.before(9000), Some((3072, 30_720)));
        assert_eq!(index.at_position(30_719), None);
        assert_eq!(index.at_position(99_999), Some(3072));
        index.note(4096, 7);
        assert_eq!(index.before(9000), Some((4096, 7)));
    }
}
