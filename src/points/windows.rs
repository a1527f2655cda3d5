//! Where all volumes that lived can be reached, and where one of them cannot: worked out for one run of records.

use reelfs_journal::{Seq, Timestamp, VolumeIndex};

use super::{Base, Bracket, Life, Run, Uncertain, usable};

/// Opens a run for restores: its first point, and the stretches after it that cannot be reached. `next` is when the run
/// after it begins.
pub(super) fn open(run: &mut Run, next: Option<Timestamp>, lives: &[Life], bases: &[Base]) -> Vec<Bracket> {
    let edges = Edges { run, next };
    let mut closed: Vec<Bracket> = lives.iter().filter_map(|life| edges.without_base(life, bases)).collect();
    closed.extend(edges.without_volume(lives));
    closed.sort_by_key(|bracket| bracket.first);
    let mut from = (run.first, run.first_time);
    // what is closed from the beginning on is before the first point
    closed.retain(|bracket| {
        let at_the_front = bracket.first <= from.0;
        if at_the_front && bracket.end > from.0 {
            from = (bracket.end, bracket.until);
        }
        !at_the_front
    });
    run.from = Some(from).filter(|(seq, _)| *seq <= run.last);
    if run.from.is_some() { closed } else { Vec::new() }
}

/// A run and where it ends.
struct Edges<'r> {
    run: &'r Run,
    next: Option<Timestamp>,
}

impl Edges<'_> {
    /// After the last record: open when nothing follows.
    fn end(&self) -> (Seq, Timestamp) {
        match self.next {
            Some(next) => (self.run.last.next(), next),
            None => (Seq(u64::MAX), Timestamp(i64::MAX)),
        }
    }

    /// From where to where in this run a volume lived; nothing if it did not.
    fn lived(&self, life: &Life) -> Option<((Seq, Timestamp), (Seq, Timestamp))> {
        let begin = (self.run.first, self.run.first_time);
        let from = if life.from > begin.0 { (life.from, life.since) } else { begin };
        let to = life.left.filter(|(seq, _)| *seq <= self.run.last).unwrap_or_else(|| self.end());
        (from.0 <= self.run.last && from.0 < to.0).then_some((from, to))
    }

    /// The stretch in which a volume lived and no base led to it.
    fn without_base(&self, life: &Life, bases: &[Base]) -> Option<Bracket> {
        let ((first, since), to) = self.lived(life)?;
        let own = |base: &&Base| base.volume == life.volume && usable(base, self.run);
        let based = bases.iter().find(own).map(|base| (base.ended, base.time));
        let (end, until) = based.filter(|(ended, _)| *ended < to.0).unwrap_or(to);
        let (why, volume) = (Uncertain::NoBase, life.volume);
        (first < end).then_some(Bracket { why, volume, first, end, since, until })
    }

    /// The stretches in which no volume lived.
    fn without_volume(&self, lives: &[Life]) -> Vec<Bracket> {
        let mut lived: Vec<_> = lives.iter().filter_map(|life| Some((self.lived(life)?, life.volume))).collect();
        lived.sort_by_key(|((from, _), _)| from.0);
        let (mut at, mut last) = ((self.run.first, self.run.first_time), VolumeIndex::FIRST);
        let mut closed = Vec::new();
        let mut close = |(first, since): (Seq, Timestamp), (end, until): (Seq, Timestamp), volume| {
            if first < end {
                closed.push(Bracket { why: Uncertain::Left, volume, first, end, since, until });
            }
        };
        for ((from, to), volume) in lived {
            close(at, from, last);
            if to.0 > at.0 {
                (at, last) = (to, volume);
            }
        }
        if at.0 <= self.run.last {
            close(at, self.end(), last);
        }
        closed
    }
}
