//! Which tapes a restore needs, worked out for all volumes before anything is read whole or written.

use reelfs_journal::{GroupName, Seq, VolumeIndex, VolumeName};
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

/// What a restore will read: of every volume up to the same record.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The group's name.
    pub group: GroupName,
    /// The group.
    pub uuid: Uuid,
    /// Where it ends.
    pub target: Target,
    /// The volumes that are part of the group there.
    pub parts: Vec<Part>,
    /// Each volume goes into a directory of its own name.
    pub is_split: bool,
}

/// What is read for one volume.
#[derive(Debug, Clone)]
pub struct Part {
    /// The volume.
    pub volume: VolumeIndex,
    /// Its name.
    pub name: VolumeName,
    /// Where it starts.
    pub base: Base,
    /// The base tape; none when the base is in the records.
    pub base_tape: Option<Tape>,
    /// Update tapes in order: every record after the base's `BaseBegin` (from there on when the base is in the records), up to
    /// the target.
    pub updates: Vec<Needed>,
}

impl Plan {
    /// Works it out.
    ///
    /// # Errors
    /// No base of one of the volumes leads there (13), two histories are mixed (21), or two volumes have one name (19).
    pub fn new(deck: &Deck, target: Target) -> Result<Plan> {
        let (_, history) = deck.epoch(target.epoch)?;
        let mut parts: Vec<Part> = Vec::new();
        for volume in history.alive(target.seq) {
            let part = Part::new(deck, &target, volume)?;
            if parts.iter().any(|other| other.name == part.name) {
                let message = format!("two volumes of group {} are called {}", deck.group, part.name);
                return Err(Error::new(ErrorKind::Damaged, message));
            }
            parts.push(part);
        }
        if parts.is_empty() {
            let message = format!("no volume of {} is there at record {}", deck.scope, target.seq);
            return Err(Error::new(ErrorKind::OutsideWindow, message));
        }
        let is_split = deck.volumes.are_several();
        Ok(Plan { group: deck.group.clone(), uuid: deck.uuid, target, parts, is_split })
    }

    /// An error with the name of the volume that it is about, when there are several.
    #[must_use]
    pub fn of_part(&self, part: &Part, error: Error) -> Error {
        if self.is_split { error.within(format!("volume {}", part.name)) } else { error }
    }

    /// All tapes, each once: the bases first.
    #[must_use]
    pub fn tapes(&self) -> Vec<&Tape> {
        let bases = self.parts.iter().filter_map(|part| part.base_tape.as_ref());
        let mut updates: Vec<&Tape> = self.parts.iter().flat_map(Part::updates).collect();
        updates.sort_by_key(|tape| tape.head.first());
        updates.dedup_by_key(|tape| tape.path.clone());
        bases.chain(updates).collect()
    }

    /// Bytes that are read to verify the tapes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tapes().iter().map(|tape| tape.head.bytes).sum()
    }

    /// Records after the first base that are read, those of all volumes.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.parts.iter().map(Part::records).max().unwrap_or(0)
    }
}

impl Part {
    fn new(deck: &Deck, target: &Target, volume: VolumeIndex) -> Result<Part> {
        let (tapes, history) = deck.epoch(target.epoch)?;
        let name = deck.volumes.name(volume);
        let unreachable = || {
            let of = if deck.volumes.are_several() { format!(" of volume {name}") } else { String::new() };
            Error::new(ErrorKind::OutsideWindow, format!("no base copy{of} leads to record {}", target.seq))
        };
        let base = history.base_for(volume, target.seq).ok_or_else(unreachable)?.clone();
        let of_base = |tape: &&Tape| {
            let label = &tape.head.label;
            label.base == Some(base.base) && tape.head.first() == base.began && label.lists(volume)
        };
        let base_tape = match base.is_in_journal {
            true => None,
            false => Some(tapes.bases.iter().find(of_base).ok_or_else(unreachable)?.clone()),
        };
        let first = base.first();
        let wanted = |stretch: &&crate::points::Stretch| stretch.last >= first && stretch.first <= target.seq;
        let mut updates = Vec::new();
        for stretch in history.stretches.iter().filter(wanted) {
            let tape = tapes.updates.iter().find(|tape| tape.name() == stretch.name).ok_or_else(unreachable)?;
            updates.push(Needed {
                tape: tape.clone(),
                from: stretch.first.max(first),
                to: stretch.last.min(target.seq),
            });
        }
        Ok(Part { volume, name, base, base_tape, updates })
    }

    fn updates(&self) -> impl Iterator<Item = &Tape> {
        self.updates.iter().map(|needed| &needed.tape)
    }

    /// Bytes of its tapes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.base_tape.iter().chain(self.updates()).map(|tape| tape.head.bytes).sum()
    }

    /// Records after the base.
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
        let base = match &self.base_tape {
            Some(tape) => Some((verify(tape)?, tape.path.clone())),
            None => None,
        };
        let mut windings = Vec::with_capacity(self.updates.len());
        for needed in &self.updates {
            let tape = verify(&needed.tape)?;
            let told = deck.told(&needed.tape)?;
            windings.push(Winding::new(tape, told, &needed.tape.path, (needed.from, needed.to)));
        }
        for pair in windings.windows(2) {
            pair[1].check_follows(&pair[0])?;
        }
        Ok(Reel::new(self.volume, base, windings))
    }
}
