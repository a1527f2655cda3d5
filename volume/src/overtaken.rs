//! What was written past the page cache while somebody may have old bytes of it in a page there.
//!
//! The kernel drops the pages of a file before a write that passes its cache, and once more after it. Who stores into a mapping in
//! between got the page as it was before the write, and what he stored is in it together with the old bytes around; these come
//! back here when the kernel drops the page. A page that was read since the write has the new ones.

/// So many stretches are remembered; of older ones the pages are long gone.
const KEPT: usize = 64;

/// Stretches of one file, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Overtaken(Vec<(u64, u64)>);

impl Overtaken {
    pub(crate) const NOTHING: Overtaken = Overtaken(Vec::new());

    /// Was written, just now.
    pub(crate) fn note(&mut self, from: u64, to: u64) {
        let (mut from, mut to) = (from, to);
        // what overlaps it or touches it is one with it
        self.0.retain(|&(begin, end)| {
            let is_apart = end < from || to < begin;
            if !is_apart {
                (from, to) = (from.min(begin), to.max(end));
            }
            is_apart
        });
        self.0.push((from, to));
        self.bound();
    }

    /// Was read since, or written through the cache: what is in a page there is what stands.
    pub(crate) fn forget(&mut self, from: u64, to: u64) {
        let is_left = |(from, to): &(u64, u64)| from < to;
        let around = self.0.iter().flat_map(|&(begin, end)| [(begin, end.min(from)), (begin.max(to), end)]);
        self.0 = around.filter(is_left).collect();
        self.bound();
    }

    fn bound(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(KEPT));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which of these bytes a page that comes back has in an old state.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let cut = self.0.iter().map(|&(begin, end)| (begin.max(from), end.min(to)));
        cut.filter(|(begin, end)| begin < end).collect()
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
        (0..100).for_each(|place| overtaken.note(place * 4_096, place * 4_096 + 1));
        assert_eq!(overtaken.0.len(), KEPT);
        assert_eq!(overtaken.within(0, 36 * 4_096), []);
        assert_eq!(overtaken.within(36 * 4_096, 37 * 4_096), [(36 * 4_096, 36 * 4_096 + 1)]);
        overtaken.forget(0, u64::MAX);
        overtaken.note(0, 1 << 20);
        (0..100).for_each(|place| overtaken.forget(place * 4_096, place * 4_096 + 1));
        assert_eq!(overtaken.0.len(), KEPT);
    }
}
