//! Tapes of one history in their order: what follows what, what is missing, what contradicts.

use reelfs_journal::{Epoch, Position, Seq};
use uuid::Uuid;

use crate::catalog::CatalogTape;
use crate::{TapeError, TapeKind, VerifiedTape};

/// Records that no tape holds, between tapes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First missing record.
    pub from: Seq,
    /// Last missing record.
    pub to: Seq,
}

/// Two tapes that tell different histories.
#[derive(Debug, Clone, Copy)]
pub struct Diverged<'a> {
    /// A record after which they disagree.
    pub seq: Seq,
    /// One.
    pub left: &'a CatalogTape,
    /// The other.
    pub right: &'a CatalogTape,
}

/// Where a tape begins or ends within another one: only the records of that other tape tell whether both tell one
/// history.
#[derive(Debug, Clone, Copy)]
pub struct Overlap<'a> {
    /// Where the history stands there, as the one that begins or ends there says.
    pub position: Position,
    /// The one that begins or ends there.
    pub end_of: &'a CatalogTape,
    /// The other.
    pub within: &'a CatalogTape,
}

impl Overlap<'_> {
    /// Whether the records of the other tape (`within`, verified) lead to the same position.
    ///
    /// # Errors
    /// What is wrong with the tape.
    pub fn agrees(&self, within: &VerifiedTape) -> Result<bool, TapeError> {
        Ok(within.position_at(self.position.seq)?.digest == self.position.digest)
    }
}

/// The tapes of one group and epoch.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// The group.
    pub group: Uuid,
    /// The epoch.
    pub epoch: Epoch,
    /// Base tapes, oldest first.
    pub bases: Vec<&'a CatalogTape>,
    /// Update tapes in order. Each adds records to those before it; it may begin before they end.
    pub updates: Vec<&'a CatalogTape>,
    /// What is missing between the first and the last of them, and between the base tape before the first update tape and
    /// that one.
    pub gaps: Vec<Gap>,
    /// Which of the tapes contradict each other by their labels and indexes.
    pub diverged: Vec<Diverged<'a>>,
    /// What their labels and indexes cannot tell: where one of them lies across the end of another.
    pub overlaps: Vec<Overlap<'a>>,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(group: Uuid, epoch: Epoch, tapes: &'a [CatalogTape]) -> Chain<'a> {
        let own = tapes.iter().filter(|tape| tape.head.label.group_uuid == group && tape.head.label.epoch == epoch);
        let (mut bases, mut all): (Vec<_>, Vec<_>) = own.partition(|tape| tape.head.label.kind == TapeKind::Base);
        bases.sort_by_key(|tape| (tape.head.first(), tape.head.label.created));
        // longest first among those that begin together, so that the others add nothing
        all.sort_by_key(|tape| (tape.head.first(), std::cmp::Reverse(tape.head.last())));
        let (mut updates, mut gaps) = (Vec::new(), Vec::new());
        // a base tape is followed by the record after the one that it stands at
        let begun = all.first().and_then(|tape| {
            let before = bases.iter().map(|base| base.head.first()).filter(|base| *base < tape.head.first());
            before.max()
        });
        let mut end: Option<Seq> = None;
        for (at, tape) in all.iter().enumerate() {
            let (first, last) = (tape.head.first(), tape.head.last());
            if end.is_some_and(|end| last <= end) || is_overtaken(&all[at + 1..], end, last) {
                continue;
            }
            if let Some(end) = end.or(begun).filter(|end| first > end.next()) {
                gaps.push(Gap { from: end.next(), to: first.previous() });
            }
            end = Some(last);
            updates.push(*tape);
        }
        let (diverged, overlaps) = (contradictions(&all), overlaps(&all));
        Chain { group, epoch, bases, updates, gaps, diverged, overlaps }
    }

    /// The last record of the last tape.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        self.updates.last().and_then(|tape| tape.head.after())
    }
}

/// A later tape goes on where the tapes so far end, and reaches further.
fn is_overtaken(later: &[&CatalogTape], end: Option<Seq>, last: Seq) -> bool {
    let Some(end) = end else { return false };
    let joins = later.iter().take_while(|tape| tape.head.first() <= end.next());
    joins.into_iter().any(|tape| tape.head.last() > last)
}

/// The positions at both ends of the tapes, in order.
fn ends<'a>(tapes: &[&'a CatalogTape]) -> Vec<(Position, &'a CatalogTape)> {
    let mut ends: Vec<(Position, &'a CatalogTape)> = Vec::new();
    for tape in tapes {
        ends.extend(tape.head.label.before.map(|before| (before, *tape)));
        ends.extend(tape.head.after().map(|after| (after, *tape)));
    }
    ends.sort_by_key(|(position, _)| position.seq);
    ends
}

/// Which ends lie within which tapes, each position once a tape. The tapes are in the order of their first records.
fn overlaps<'a>(tapes: &[&'a CatalogTape]) -> Vec<Overlap<'a>> {
    let mut ends = ends(tapes);
    ends.dedup_by_key(|(position, _)| (position.seq, position.digest));
    let mut reach = Seq::ZERO;
    // how far the tapes up to each one reach: those that end before can be passed over together
    let reaches: Vec<Seq> = tapes
        .iter()
        .map(|tape| {
            reach = reach.max(tape.head.last());
            reach
        })
        .collect();
    let mut overlaps = Vec::new();
    for (position, end_of) in ends {
        let begun = tapes.partition_point(|tape| tape.head.first() <= position.seq);
        let near = (0..begun).rev().take_while(|&at| reaches[at] > position.seq);
        let within = near.map(|at| tapes[at]).filter(|tape| tape.head.last() > position.seq);
        overlaps.extend(within.map(|within| Overlap { position, end_of, within }));
    }
    overlaps
}

/// Positions are known at both ends of every tape: any two that share a number must share its digest. A tape that names
/// the tape before it must find that very tape, not another with its UUID.
fn contradictions<'a>(tapes: &[&'a CatalogTape]) -> Vec<Diverged<'a>> {
    let ends = ends(tapes);
    let mut diverged = Vec::new();
    for pair in ends.windows(2) {
        let [(left, left_tape), (right, right_tape)] = pair else {
            continue;
        };
        if left.seq == right.seq && left.digest != right.digest {
            diverged.push(Diverged { seq: left.seq, left: left_tape, right: right_tape });
        }
    }
    for right in tapes {
        let Some(previous) = &right.head.label.previous else {
            continue;
        };
        let namesake =
            |tape: &&&'a CatalogTape| tape.head.label.tape == previous.tape && tape.head.root != previous.root;
        if let Some(left) = tapes.iter().find(namesake) {
            diverged.push(Diverged { seq: left.head.last(), left, right });
        }
    }
    diverged
}
