//! Positions whose digest this process knows, because it has read or written everything before them: the way to the next one is short.

use parking_lot::Mutex;
use reelfs_journal::{Digest, Position, Seq};

/// One for each directory, replica and site of a group, and some more.
const MOST: usize = 64;

/// What is known of the journal of an open group. Not of the group's files: what these say of another history is to be noticed.
#[derive(Debug, Default)]
pub(crate) struct KnownPositions(Mutex<Vec<(Seq, Digest)>>);

impl KnownPositions {
    /// Everything up to here has this digest. Of too many, that goes which was not asked for the longest.
    pub(crate) fn note(&self, position: Position) {
        let mut known = self.0.lock();
        known.retain(|(seq, _)| *seq != position.seq);
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push((position.seq, position.digest));
    }

    /// The last record before `first` whose digest is known and which the journal still holds, as it does from `out` on.
    pub(crate) fn before(&self, first: Seq, out: Seq) -> Option<(Seq, Digest)> {
        let mut known = self.0.lock();
        let is_held = |(_, (seq, _)): &(usize, &(Seq, Digest))| (out..first).contains(seq);
        let (at, _) = known.iter().enumerate().filter(is_held).max_by_key(|(_, (seq, _))| *seq)?;
        let found = known.remove(at);
        known.push(found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use reelfs_journal::Epoch;

    use super::*;

    #[test]
    fn the_nearest_that_is_held_is_given() {
        let known = KnownPositions::default();
        let digest = |seq: u8| Digest([seq; 32]);
        for seq in [7, 3, 5] {
            known.note(Position { epoch: Epoch(1), seq: Seq(seq), digest: digest(seq as u8) });
        }
        let before = |first, out| known.before(Seq(first), Seq(out)).map(|(seq, digest)| (seq.0, digest));
        assert_eq!(before(9, 1), Some((7, digest(7))));
        assert_eq!(before(7, 1), Some((5, digest(5))));
        assert_eq!(before(5, 3), Some((3, digest(3))));
        assert_eq!(before(5, 4), None);
        assert_eq!((before(3, 1), before(2, 2), before(1, 8)), (None, None, None));
    }

    #[test]
    fn who_is_asked_for_stays() {
        let known = KnownPositions::default();
        let note = |seq| known.note(Position { epoch: Epoch(1), seq: Seq(seq), digest: Digest::default() });
        note(5);
        for seq in 1000..2000 {
            note(seq);
            assert!(known.before(Seq(6), Seq(1)).is_some(), "the one of a slow directory");
        }
        assert_eq!(known.0.lock().len(), MOST);
        assert_eq!(known.before(Seq(1500), Seq(6)), None);
    }
}
