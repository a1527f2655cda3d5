//! What can be gone back to: windows, gaps, bases, markers and uncertain stretches of one epoch's history, worked out
//! from what tapes (or the journal) say about themselves.

use reelfs_journal::{Change, Epoch, MarkerKind, Record, Seq, Tags, Timestamp, VolumeIndex};
use uuid::Uuid;

use crate::error::Result;

mod bracket;
mod resolve;
mod windows;

pub use bracket::{Bracket, Uncertain};
pub use resolve::{Resolver, Target};

/// Records that follow each other without a hole on one tape (or in the journal).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// First record.
    pub first: Seq,
    /// Last record; before `first` when there is none.
    pub last: Seq,
    /// Time of the first record.
    pub first_time: Timestamp,
    /// The time that it vouches for: later than its last record when it was quiet before the seal.
    pub sealed: Timestamp,
    /// The tape's name, for people.
    pub name: String,
}

/// A base tape that is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseTape {
    /// The volume that it holds.
    pub volume: VolumeIndex,
    /// The base copy.
    pub base: Uuid,
    /// Its `BaseBegin`: what it holds counts as standing there.
    pub began: Seq,
    /// Root digest of the tape.
    pub digest: [u8; 32],
    /// The tape's name, for people.
    pub name: String,
}

/// A control record that matters for points, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Its number.
    pub seq: Seq,
    /// Its hybrid time.
    pub time: Timestamp,
    /// The volume that it concerns; markers of the whole group carry 0.
    pub volume: VolumeIndex,
    /// What it says.
    pub what: What,
}

/// What a [`Happening`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The volume is part of the group here: there is a record of it.
    Lives,
    /// A base copy is complete.
    BaseEnd {
        /// The base copy.
        base: Uuid,
        /// Its `BaseBegin`.
        began: Seq,
        /// Root digest of its tape; zeros when it is in the journal.
        digest: [u8; 32],
    },
    /// A marker.
    Marker {
        /// Why.
        kind: MarkerKind,
        /// The name of a named point, else empty.
        name: String,
        /// Free text.
        note: String,
        /// What programs say about a named point.
        tags: Tags,
        /// Since when the state is uncertain (begin markers).
        since: Timestamp,
    },
}

impl Happening {
    /// The record as a happening, when it is one.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Option<Happening> {
        let what = match &record.change {
            Change::BaseEnd { base, began, digest } => What::BaseEnd { base: *base, began: *began, digest: *digest },
            Change::Marker { kind, name, note, tags, since, .. } => {
                let (name, note, tags) = (name.clone(), note.clone(), tags.clone());
                What::Marker { kind: *kind, name, note, tags, since: *since }
            }
            _ => return None,
        };
        Some(Happening { seq: record.seq, time: record.time, volume: record.volume, what })
    }

    /// It concerns the whole group.
    #[must_use]
    pub fn is_of_group(&self) -> bool {
        matches!(self.what, What::Marker { kind, .. } if kind.is_of_group())
    }
}

/// A named point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub seq: Seq,
    /// Its time.
    pub time: Timestamp,
    /// Its name.
    pub name: String,
    /// Free text.
    pub note: String,
    /// What programs say about it.
    pub tags: Tags,
}

/// A base copy whose end is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The volume.
    pub volume: VolumeIndex,
    /// The base copy.
    pub base: Uuid,
    /// Its `BaseBegin`.
    pub began: Seq,
    /// Its `BaseEnd`: the first point that it leads to.
    pub ended: Seq,
    /// Time of the `BaseEnd`.
    pub time: Timestamp,
    /// Its tape, when that is at hand and the right one.
    pub tape: Option<String>,
    /// It has no tape: the records from its `BaseBegin` to its `BaseEnd` tell all of the volume.
    pub is_in_journal: bool,
}

impl Base {
    /// The first record that a restore from it reads.
    #[must_use]
    pub fn first(&self) -> Seq {
        if self.is_in_journal { self.began } else { self.began.next() }
    }

    /// Nothing but records is missing to begin with it.
    #[must_use]
    pub fn is_at_hand(&self) -> bool {
        self.is_in_journal || self.tape.is_some()
    }
}

/// How long a volume was part of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The volume.
    pub volume: VolumeIndex,
    /// The first record that is known of it.
    pub from: Seq,
    /// Time of that record.
    pub since: Timestamp,
    /// Where it left: from that record on it is not there.
    pub left: Option<(Seq, Timestamp)>,
}

impl Life {
    /// The volume is part of the group after this record.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        self.from <= seq && self.left.is_none_or(|(left, _)| seq < left)
    }
}

/// Stretches that follow each other without a hole, and the bases that stand in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Time of the first record.
    pub first_time: Timestamp,
    /// The time that the last stretch vouches for.
    pub sealed: Timestamp,
    /// The first restorable point, when usable bases of all volumes that live there stand in it.
    pub from: Option<(Seq, Timestamp)>,
}

/// Everything about points of one epoch.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Which epoch.
    pub epoch: Option<Epoch>,
    /// In order, without overlap.
    pub stretches: Vec<Stretch>,
    /// Maximal stretches of stretches.
    pub runs: Vec<Run>,
    /// In the order of their ends.
    pub bases: Vec<Base>,
    /// In order.
    pub marks: Vec<Mark>,
    /// In order; those of different volumes may overlap.
    pub brackets: Vec<Bracket>,
    /// The volumes that it is about, in the order in which they appear.
    pub lives: Vec<Life>,
    /// Steps of the wall clock, in order.
    pub steps: Vec<ClockStep>,
    /// Moments at which no file was open for writing, in order.
    pub quiet: Vec<QuietMoment>,
}

/// That no file of the group was open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietMoment {
    /// The marker's number.
    pub seq: Seq,
    /// Its hybrid time.
    pub time: Timestamp,
    /// Since when that was so.
    pub since: Timestamp,
}

/// That the wall clock was believed no more from here on, or again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockStep {
    /// The marker's number.
    pub seq: Seq,
    /// Its hybrid time, which did not step.
    pub time: Timestamp,
    /// Which way, and how far.
    pub note: String,
    /// What the wall clock showed.
    pub shown: Timestamp,
}

impl History {
    /// Puts what is known together. Stretches may come in any order but must not overlap. The history is about the volumes
    /// that are told of: what concerns others is left out by the caller.
    #[must_use]
    pub fn new(epoch: Epoch, mut stretches: Vec<Stretch>, bases: &[BaseTape], mut told: Vec<Happening>) -> History {
        stretches.retain(|stretch| stretch.first <= stretch.last);
        stretches.sort_by_key(|stretch| stretch.first);
        told.sort_by_key(|happening| happening.seq);
        let mut history = History { epoch: Some(epoch), stretches, ..History::default() };
        history.find_runs();
        for happening in told {
            history.tell(happening, bases);
        }
        history.find_windows();
        history
    }

    fn find_runs(&mut self) {
        for stretch in &self.stretches {
            match self.runs.last_mut() {
                Some(run) if run.last.next() == stretch.first => {
                    (run.last, run.sealed) = (stretch.last, stretch.sealed);
                }
                _ => self.runs.push(Run {
                    first: stretch.first,
                    last: stretch.last,
                    first_time: stretch.first_time,
                    sealed: stretch.sealed,
                    from: None,
                }),
            }
        }
    }

    fn tell(&mut self, happening: Happening, tapes: &[BaseTape]) {
        if !happening.is_of_group() {
            self.live(&happening);
        }
        let Happening { seq, time, volume, what } = happening;
        match what {
            What::Lives => {}
            What::BaseEnd { base, began, digest } => {
                let told = (volume, base, began, digest);
                let right = |tape: &&BaseTape| (tape.volume, tape.base, tape.began, tape.digest) == told;
                let tape = tapes.iter().find(right).map(|tape| tape.name.clone());
                let is_in_journal = digest == [0; 32];
                self.bases.push(Base { volume, base, began, ended: seq, time, tape, is_in_journal });
            }
            What::Marker { kind: MarkerKind::Named, name, note, tags, .. } => {
                self.marks.push(Mark { seq, time, name, note, tags });
            }
            What::Marker { kind: MarkerKind::ClockStep, note, since, .. } => {
                self.steps.push(ClockStep { seq, time, note, shown: since });
            }
            What::Marker { kind: MarkerKind::Quiet, since, .. } => {
                self.quiet.push(QuietMoment { seq, time, since: since.min(time) });
            }
            What::Marker { kind, since, .. } if kind.begins_bracket() && self.open_bracket(volume).is_some() => {
                // killed in the middle of a bracket: the next one goes on where this one stopped
                if let Some(open) = self.open_bracket(volume) {
                    open.since = open.since.min(since);
                }
            }
            What::Marker { kind, since, .. } if kind.begins_bracket() => {
                self.brackets.push(Bracket {
                    why: Uncertain::of(kind),
                    volume,
                    first: seq,
                    end: Seq(u64::MAX),
                    since: since.min(time),
                    until: Timestamp(i64::MAX),
                });
            }
            What::Marker { kind, .. } if kind.ends_bracket() => {
                if self.open_bracket(volume).is_none() {
                    // its begin is on a tape that is not here
                    let run = self.runs.iter().find(|run| (run.first..=run.last).contains(&seq));
                    let (first, since) = run.map_or((seq, time), |run| (run.first, run.first_time));
                    let why = Uncertain::of(kind);
                    self.brackets.push(Bracket { why, volume, first, end: seq, since, until: time });
                }
                self.close_bracket(volume, (seq, time));
            }
            What::Marker { kind: MarkerKind::VolumeLeft, .. } => {
                self.close_bracket(volume, (seq, time));
                if let Some(life) = self.lives.iter_mut().find(|life| life.volume == volume) {
                    life.left = Some((seq, time));
                }
            }
            What::Marker { .. } => {}
        }
    }

    /// There is a record of this volume.
    fn live(&mut self, happening: &Happening) {
        let (seq, volume) = (happening.seq, happening.volume);
        let from = match happening.what {
            What::BaseEnd { began, .. } => began.min(seq),
            _ => seq,
        };
        match self.lives.iter_mut().find(|life| life.volume == volume) {
            Some(life) => life.from = life.from.min(from),
            None => self.lives.push(Life { volume, from, since: happening.time, left: None }),
        }
    }

    fn open_bracket(&mut self, volume: VolumeIndex) -> Option<&mut Bracket> {
        let is_open = |bracket: &&mut Bracket| bracket.volume == volume && bracket.end == Seq(u64::MAX);
        self.brackets.iter_mut().find(is_open)
    }

    fn close_bracket(&mut self, volume: VolumeIndex, (seq, time): (Seq, Timestamp)) {
        if let Some(open) = self.open_bracket(volume) {
            (open.end, open.until) = (seq, time);
        }
    }

    fn find_windows(&mut self) {
        let begins: Vec<Timestamp> = self.runs.iter().map(|run| run.first_time).collect();
        for (index, run) in self.runs.iter_mut().enumerate() {
            let next = begins.get(index + 1).copied();
            self.brackets.extend(windows::open(run, next, &self.lives, &self.bases));
        }
        self.brackets.sort_by_key(|bracket| bracket.first);
    }

    /// The volumes that are part of the group after this record.
    pub fn alive(&self, seq: Seq) -> impl Iterator<Item = VolumeIndex> {
        self.lives.iter().filter(move |life| life.holds(seq)).map(|life| life.volume)
    }

    /// The latest usable base of a volume that leads to this record.
    #[must_use]
    pub fn base_for(&self, volume: VolumeIndex, seq: Seq) -> Option<&Base> {
        let run = self.run(seq)?;
        self.bases.iter().rev().find(|base| base.volume == volume && base.ended <= seq && usable(base, run))
    }

    /// Bases of all volumes that are part of the group after this record lead to it.
    #[must_use]
    pub fn is_reached(&self, seq: Seq) -> bool {
        self.alive(seq).next().is_some() && self.alive(seq).all(|volume| self.base_for(volume, seq).is_some())
    }

    /// The newest quiet moment that can be restored.
    #[must_use]
    pub fn last_quiet(&self) -> Option<&QuietMoment> {
        let restorable = |quiet: &&QuietMoment| self.is_reached(quiet.seq) && self.bracket(quiet.seq).is_none();
        self.quiet.iter().rev().find(restorable)
    }

    /// The run that holds a record.
    #[must_use]
    pub fn run(&self, seq: Seq) -> Option<&Run> {
        self.runs.iter().find(|run| (run.first..=run.last).contains(&seq))
    }

    /// Records that are missing between what is at hand: first and last of each gap.
    #[must_use]
    pub fn gaps(&self) -> Vec<(Seq, Seq)> {
        self.runs.windows(2).map(|pair| (pair[0].last.next(), pair[1].first.previous())).collect()
    }

    /// The bracket that holds a record.
    #[must_use]
    pub fn bracket(&self, seq: Seq) -> Option<&Bracket> {
        self.brackets.iter().find(|bracket| bracket.holds(seq))
    }

    /// The stretch that holds a record.
    #[must_use]
    pub fn stretch(&self, seq: Seq) -> Option<&Stretch> {
        self.stretches.iter().find(|stretch| (stretch.first..=stretch.last).contains(&seq))
    }

    /// The runs from which something can be restored.
    pub fn windows(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.from.is_some())
    }
}

fn usable(base: &Base, run: &Run) -> bool {
    let held = run.first <= base.first() && (run.first..=run.last).contains(&base.ended);
    base.is_at_hand() && held
}

/// A look at a record without its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Its number.
    pub seq: Seq,
    /// Its hybrid time.
    pub time: Timestamp,
    /// Its operation goes on in the next record.
    pub more: bool,
}

/// Where single records of a stretch can be looked up; reads control data only.
pub trait Glances {
    /// Visits every record of a stretch in order, until the visitor says no.
    ///
    /// # Errors
    /// The tape cannot be read.
    fn glance(&self, epoch: Epoch, stretch: &Stretch, visit: &mut dyn FnMut(Glance) -> bool) -> Result<()>;
}

/// What a marker says to a person, in a word or three.
#[must_use]
pub fn kind_word(kind: MarkerKind) -> &'static str {
    match kind {
        MarkerKind::Named => "point",
        MarkerKind::EpochStart => "epoch start",
        MarkerKind::AcquisitionStart => "mounted",
        MarkerKind::AcquisitionStop => "unmounted",
        MarkerKind::AdoptBegin => "adoption begins",
        MarkerKind::AdoptEnd => "adoption ends",
        MarkerKind::RecoveryBegin => "recovery begins",
        MarkerKind::RecoveryEnd => "recovery ends",
        MarkerKind::Suspended => "suspended",
        MarkerKind::ResyncBegin => "resync begins",
        MarkerKind::ResyncEnd => "resync ends",
        MarkerKind::VolumeLeft => "volume left",
        MarkerKind::ClockStep => "clock step",
        MarkerKind::Quiet => "quiet",
    }
}

#[cfg(test)]
mod tests;
