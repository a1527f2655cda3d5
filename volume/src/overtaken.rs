//! What was written past the page cache while somebody may have old bytes of it in a page there.
//!
//! The kernel drops the pages of a file before a write that passes its cache, and once more after it. Who stores into a mapping in
//! between got the page as it was before the write, and what he stored is in it together with the old bytes around; these come
//! back here when the kernel drops the page. A page that was read since the write has the new ones.

use crate::stretches::Stretches;

/// So many stretches are remembered; of older ones the pages are long gone. One write that waited may leave as many as it has pages.
const KEPT: usize = 256;

/// Stretches of one file, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Overtaken(Stretches);

impl Overtaken {
    pub(crate) const NOTHING: Overtaken = Overtaken(Stretches::NONE);

    /// Was written, just now.
    pub(crate) fn note(&mut self, from: u64, to: u64) {
        self.0.add(from, to);
        self.0.keep(KEPT);
    }

    /// Was read since, or written through the cache: what is in a page there is what stands.
    pub(crate) fn forget(&mut self, from: u64, to: u64) {
        self.0.take(from, to);
        self.0.keep(KEPT);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which of these bytes a page that comes back has in an old state.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        self.0.within(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_no_longer_old() {
        let mut overtaken = Overtaken::default();
        overtaken.note(100, 200);
        overtaken.note(5_000, 6_000);
        assert_eq!(overtaken.within(0, 4_096), [(100, 200)]);
        assert_eq!(overtaken.within(150, 5_500), [(150, 200), (5_000, 5_500)]);
        overtaken.forget(150, 160);
        assert_eq!(overtaken.within(0, 4_096), [(100, 150), (160, 200)]);
        overtaken.forget(4_096, 8_192);
        overtaken.note(140, 170);
        assert_eq!(overtaken.within(0, 8_192), [(100, 200)]);
        overtaken.note(200, 300);
        overtaken.note(301, 400);
        assert_eq!(overtaken.within(0, 8_192), [(100, 300), (301, 400)]);
        overtaken.note(50, 301);
        assert_eq!(overtaken.within(0, 8_192), [(50, 400)]);
        overtaken.forget(0, 4_096);
        assert!(overtaken.is_empty());
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut overtaken = Overtaken::default();
        (0..300).for_each(|place| overtaken.note(place * 4_096, place * 4_096 + 1));
        assert_eq!(overtaken.within(0, u64::MAX).len(), KEPT);
        assert_eq!(overtaken.within(0, 44 * 4_096), []);
        assert_eq!(overtaken.within(44 * 4_096, 45 * 4_096), [(44 * 4_096, 44 * 4_096 + 1)]);
        overtaken.forget(0, u64::MAX);
        overtaken.note(0, 2 << 20);
        (0..300).for_each(|place| overtaken.forget(place * 4_096, place * 4_096 + 1));
        assert_eq!(overtaken.within(0, u64::MAX).len(), KEPT);
    }
}
