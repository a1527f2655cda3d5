//! Parts of one file, none of which touches another.

/// The one that was added last is last.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stretches(Vec<(u64, u64)>);

impl Stretches {
    pub(crate) const NONE: Stretches = Stretches(Vec::new());

    /// What overlaps it or touches it is one with it; nothing is added of an empty one.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        self.0.retain(|&(begin, end)| {
            let is_apart = end < from || to < begin;
            if !is_apart {
                (from, to) = (from.min(begin), to.max(end));
            }
            is_apart
        });
        self.0.push((from, to));
    }

    /// Takes these bytes out.
    pub(crate) fn take(&mut self, from: u64, to: u64) {
        let is_left = |(from, to): &(u64, u64)| from < to;
        let around = self.0.iter().flat_map(|&(begin, end)| [(begin, end.min(from)), (begin.max(to), end)]);
        self.0 = around.filter(is_left).collect();
    }

    /// Forgets all but so many that were added last.
    pub(crate) fn keep(&mut self, count: usize) {
        self.0.drain(..self.0.len().saturating_sub(count));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts of them that lie here.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let cut = self.0.iter().map(|&(begin, end)| (begin.max(from), end.min(to)));
        cut.filter(|(begin, end)| begin < end).collect()
    }
}
