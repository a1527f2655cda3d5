//! Which tapes a restore needs, worked out before anything is read whole or written.

use reelfs_journal::{GroupName, Seq};
use uuid::Uuid;

use super::deck::Deck;
use super::reel::{Reel, Winding};
use super::tape::Tape;
use crate::error::{Error, ErrorKind, Result};
use crate::points::{Base, Target};

/// A tape with the records that are wanted of it.
#[derive(Debug, Clone)]
pub struct Needed {
    /// The tape.
    pub tape: Tape,
    /// First record wanted.
    pub from: Seq,
    /// Last record wanted.
    pub to: Seq,
}

/// What a restore will read.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The group's name.
    pub group: GroupName,
    /// The group.
    pub uuid: Uuid,
    /// Where it ends.
    pub target: Target,
    /// Where it starts.
    pub base: Base,
    /// The base tape.
    pub base_tape: Tape,
    /// Update tapes in order: every record after the base's `BaseBegin`, up to the target.
    pub updates: Vec<Needed>,
}

impl Plan {
    /// Works it out.
    ///
    /// # Errors
    /// No base leads there (13), or two histories are mixed (21).
    pub fn new(deck: &Deck, target: Target) -> Result<Plan> {
        let (tapes, history) = deck.epoch(target.epoch)?;
        let unreachable =
            || Error::new(ErrorKind::OutsideWindow, format!("no base copy leads to record {}", target.seq));
        let base = history.base_for(target.seq).ok_or_else(unreachable)?.clone();
        let of_base = |tape: &&Tape| tape.head.label.base == Some(base.base) && tape.head.first() == base.began;
        let base_tape = tapes.bases.iter().find(of_base).ok_or_else(unreachable)?.clone();
        let wanted = |stretch: &&crate::points::Stretch| stretch.last > base.began && stretch.first <= target.seq;
        let mut updates = Vec::new();
        for stretch in history.stretches.iter().filter(wanted) {
            let tape = tapes.updates.iter().find(|tape| tape.name() == stretch.name).ok_or_else(unreachable)?;
            updates.push(Needed {
                tape: tape.clone(),
                from: stretch.first.max(base.began.next()),
                to: stretch.last.min(target.seq),
            });
        }
        Ok(Plan { group: deck.group.clone(), uuid: deck.uuid, target, base, base_tape, updates })
    }

    /// All tapes, the base first.
    pub fn tapes(&self) -> impl Iterator<Item = &Tape> {
        std::iter::once(&self.base_tape).chain(self.updates.iter().map(|needed| &needed.tape))
    }

    /// Bytes that are read to verify the tapes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tapes().map(|tape| tape.head.bytes).sum()
    }

    /// Records that are replayed.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.updates.iter().map(|needed| (needed.to.0 + 1).saturating_sub(needed.from.0)).sum()
    }

    /// Opens all tapes and reads them whole, before anything is changed anywhere.
    ///
    /// # Errors
    /// A damaged tape (19), or one that does not follow from the one before (21).
    pub fn load(&self, deck: &Deck, progress: &mut dyn FnMut(u64)) -> Result<Reel> {
        let mut done = 0;
        let mut verify = |tape: &Tape| {
            let verified = deck.verified(tape, &mut |bytes| progress(done + bytes))?;
            done += tape.head.bytes;
            Ok::<_, Error>(verified)
        };
        let base = verify(&self.base_tape)?;
        let mut windings = Vec::with_capacity(self.updates.len());
        for needed in &self.updates {
            let tape = verify(&needed.tape)?;
            let told = deck.told(&needed.tape)?;
            windings.push(Winding::new(tape, told, &needed.tape.path, (needed.from, needed.to)));
        }
        for pair in windings.windows(2) {
            pair[1].check_follows(&pair[0])?;
        }
        Ok(Reel::new(base, &self.base_tape.path, windings))
    }
}
