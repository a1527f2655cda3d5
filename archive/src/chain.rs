//! Tapes of one history in their order: what follows what, what is missing, what contradicts.

use reelfs_journal::{Epoch, Position, Seq};
use uuid::Uuid;

use crate::TapeKind;
use crate::catalog::CatalogTape;

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
    /// What is missing between the first and the last of them.
    pub gaps: Vec<Gap>,
    /// Which of the tapes contradict each other.
    pub diverged: Vec<Diverged<'a>>,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(group: Uuid, epoch: Epoch, tapes: &'a [CatalogTape]) -> Chain<'a> {
        let own = tapes.iter().filter(|tape| tape.head.label.group_uuid == group && tape.head.label.epoch == epoch);
        let (mut bases, mut all): (Vec<_>, Vec<_>) = own.partition(|tape| tape.head.label.kind == TapeKind::Base);
        bases.sort_by_key(|tape| (tape.head.first(), tape.head.label.created));
        // longest first among those that begin together, so that the others add nothing
        all.sort_by_key(|tape| (tape.head.first(), std::cmp::Reverse(tape.head.last())));
        let (mut updates, mut gaps) = (Vec::new(), Vec::new());
        let mut end: Option<Seq> = None;
        for (at, tape) in all.iter().enumerate() {
            let (first, last) = (tape.head.first(), tape.head.last());
            if end.is_some_and(|end| last <= end) || is_overtaken(&all[at + 1..], end, last) {
                continue;
            }
            if let Some(end) = end.filter(|end| first > end.next()) {
                gaps.push(Gap { from: end.next(), to: first.previous() });
            }
            end = Some(last);
            updates.push(*tape);
        }
        let diverged = contradictions(&all);
        Chain { group, epoch, bases, updates, gaps, diverged }
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

/// Positions are known at both ends of every tape: any two that share a number must share its digest. A tape that names
/// the tape before it must find that very tape, not another with its UUID.
fn contradictions<'a>(tapes: &[&'a CatalogTape]) -> Vec<Diverged<'a>> {
    let mut ends: Vec<(Position, &'a CatalogTape)> = Vec::new();
    for tape in tapes {
        ends.extend(tape.head.label.before.map(|before| (before, *tape)));
        ends.extend(tape.head.after().map(|after| (after, *tape)));
    }
    ends.sort_by_key(|(position, _)| position.seq);
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
