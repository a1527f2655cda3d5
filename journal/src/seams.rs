//! Where a journal can be parted: nowhere between a record and the amendment that says what it really did.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::iter::Peekable;

use crate::Seq;

/// Records that an amendment speaks of which comes later, each with the last that does.
#[derive(Debug, Default, Clone)]
pub struct Amended(BTreeMap<Seq, Seq>);

impl Amended {
    /// The record `by` amends another.
    pub fn note(&mut self, amended: Seq, by: Seq) {
        let last = self.0.entry(amended).or_insert(by);
        *last = (*last).max(by);
    }

    /// Nobody asks about places up to there any more.
    pub fn forget(&mut self, upto: Seq) {
        self.0.retain(|_, by| *by > upto);
    }

    /// To go through the places, in order.
    #[must_use]
    pub fn seams(&self) -> Seams<'_> {
        Seams { rest: self.0.iter().peekable(), closed_until: Seq::ZERO }
    }
}

/// Goes through the places behind records, in order.
pub struct Seams<'a> {
    rest: Peekable<Iter<'a, Seq, Seq>>,
    closed_until: Seq,
}

impl Seams<'_> {
    /// Whether the journal can be parted behind this record; the ones before it were asked about before.
    pub fn is_behind(&mut self, seq: Seq) -> bool {
        while let Some((_, by)) = self.rest.next_if(|(amended, _)| **amended <= seq) {
            self.closed_until = self.closed_until.max(*by);
        }
        self.closed_until <= seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_parted_where_no_amendment_looks_back_over_the_place() {
        // as the definition has it, for all sets of two amendments in a short journal
        for (first, second) in (1..8).flat_map(|one| (1..8).map(move |other| (one, other))) {
            for (by, later) in (first + 1..9).flat_map(|one| (second + 1..9).map(move |other| (one, other))) {
                let pairs = [(Seq(first), Seq(by)), (Seq(second), Seq(later))];
                let mut amended = Amended::default();
                pairs.iter().for_each(|(amends, by)| amended.note(*amends, *by));
                let open = |seq: Seq| pairs.iter().any(|(amends, by)| *amends <= seq && seq < *by);
                let mut seams = amended.seams();
                (0..10).map(Seq).for_each(|seq| assert_eq!(seams.is_behind(seq), !open(seq), "{pairs:?} behind {seq}"));
                amended.forget(Seq(4));
                let mut seams = amended.seams();
                (4..10).map(Seq).for_each(|seq| assert_eq!(seams.is_behind(seq), !open(seq), "{pairs:?} behind {seq}"));
            }
        }
    }
}
