//! What an opening does about how the last session ended: from facts to a verdict, one row for each case.
//!
//! | same volume | closed | boot, mounts, ring | disk refused | clock back | epoch begun | dirty map | activity | room | verdict |
//! |---|---|---|---|---|---|---|---|---|---|
//! | no | - | - | - | - | - | - | - | - | new epoch |
//! | yes | - | - | - | yes | - | - | - | - | new epoch, after a redo where something was lost |
//! | yes | yes | - | - | no | yes | - | - | - | new epoch, as the opening that was cut off had begun |
//! | yes | no | same | no | no | yes | - | - | - | the same |
//! | yes | yes | - | - | no | no | yes | - | - | go on suspended |
//! | yes | no | same | no | no | no | yes | - | - | go on suspended |
//! | yes | yes, or no with the same boot, mounts and ring | | no | no | no | no | - | yes | adopt |
//! | as before | | | | no | no | no | - | no | new epoch: more than the journal takes |
//! | yes | no | other, or refused | | no | - | yes | - | - | new epoch: the map is not on disk change by change |
//! | yes | no | other, or refused | | no | - | no | no | - | new epoch: the journal does not say what is active |
//! | yes | no | other, or refused | | no | - | no | yes | yes | redo, then tell what is active |
//! | yes | no | other, or refused | | no | - | no | yes | no | redo, then suspend with what is active for a map |
//!
//! `ROWS` says the same exactly, and the test below that every combination of facts has one row, and that [`Facts::verdict`] goes
//! by it.

use serde::Serialize;

/// Why the journal can no longer say how the volume came to its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewEpoch {
    /// Another directory or file system stands in its place.
    OtherVolume,
    /// The machine stopped while nothing was journaled (the dirty map may lack what the volume has), or under a version that did not
    /// say what may change.
    PowerCut,
    /// The ring before the journal went while nothing was journaled, likewise.
    RingGone,
    /// The disk of the volume refused what had been written to it, likewise.
    DiskRefused,
    /// The clock shows a time before the last session: change times say nothing.
    ClockWentBack,
    /// Telling what changed behind the mount would fill more than half of the journal.
    TooMuchChanged,
    /// An opening had begun it, and was cut off before that was noted: a dirty map may be gone already.
    CutOff,
}

/// Why the volume may lack something that was written to it, or have something that the journal lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// The machine, or the disk, stopped without closing it: what of the volume reached the disk, and what of the journal, the
    /// kernel decided for each page by itself.
    PowerCut,
    /// The ring before the journal is gone, and records with it: somebody removed it after its daemon was killed.
    RingGone,
    /// The disk of the volume refused what had been written to it: the kernel may have thrown that away.
    DiskRefused,
}

/// What is known when a volume is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// It is the directory, on the file system, that it was.
    pub(super) same_volume: bool,
    /// The last session was closed, or there was none.
    pub(super) closed: bool,
    /// The machine was not booted since.
    pub(super) same_boot: bool,
    /// The file system was not mounted anew since.
    pub(super) same_mount: bool,
    /// No record of the last session went with the ring before the journal.
    pub(super) ring: bool,
    /// The disk refused what was written to it.
    pub(super) disk_refused: bool,
    /// It is earlier than it was.
    pub(super) clock_back: bool,
    /// Behind the last session the journal begins an epoch that the group does not know.
    pub(super) begun: bool,
    /// Nothing was journaled: there is a dirty map.
    pub(super) map: bool,
    /// The last session said in the journal what may change.
    pub(super) active: bool,
    /// The journal can take what is to be told.
    pub(super) room: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was in flight is settled, and what changed behind the mount told.
    Adopt,
    /// Nothing is journaled, as before.
    StaySuspended,
    /// The journal is done again on the volume, and what the volume may have beyond it is told.
    Restate,
    /// The journal is done again on the volume; what the volume may have beyond it is the dirty map of a suspension.
    Suspend,
    /// A new base must be copied; after a power cut the journal is done again on the volume first.
    NewEpoch(NewEpoch),
}

impl Facts {
    /// Why something may be lost, if so.
    pub(super) fn lost(&self) -> Option<Lost> {
        match (self.same_volume && !self.closed, self.same_boot && self.same_mount, self.ring, self.disk_refused) {
            (false, _, _, _) | (true, true, true, false) => None,
            (true, false, _, _) => Some(Lost::PowerCut),
            (true, true, false, _) => Some(Lost::RingGone),
            (true, true, true, true) => Some(Lost::DiskRefused),
        }
    }

    /// What is to be done.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.same_volume, self.clock_back, self.lost(), self.map, self.active, self.room) {
            (false, _, _, _, _, _) => Verdict::NewEpoch(NewEpoch::OtherVolume),
            (true, true, _, _, _, _) => Verdict::NewEpoch(NewEpoch::ClockWentBack),
            (true, false, Some(lost), true, _, _) | (true, false, Some(lost), false, false, _) => {
                Verdict::NewEpoch(match lost {
                    Lost::PowerCut => NewEpoch::PowerCut,
                    Lost::RingGone => NewEpoch::RingGone,
                    Lost::DiskRefused => NewEpoch::DiskRefused,
                })
            }
            (true, false, None, _, _, _) if self.begun => Verdict::NewEpoch(NewEpoch::CutOff),
            (true, false, None, true, _, _) => Verdict::StaySuspended,
            (true, false, Some(_), false, true, true) => Verdict::Restate,
            (true, false, Some(_), false, true, false) => Verdict::Suspend,
            (true, false, None, false, _, true) => Verdict::Adopt,
            (true, false, None, false, _, false) => Verdict::NewEpoch(NewEpoch::TooMuchChanged),
        }
    }
}

/// A row: what each fact must be, in the order of [`HEADINGS`]; `None` is either.
type Row = ([Option<bool>; 11], Verdict);

const HEADINGS: [&str; 11] = [
    "same volume",
    "closed",
    "same boot",
    "same mounts",
    "ring there",
    "disk refused",
    "clock went back",
    "epoch begun",
    "dirty map",
    "activity known",
    "room",
];

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

const ROWS: [Row; 26] = [
    ([NO, None, None, None, None, None, None, None, None, None, None], Verdict::NewEpoch(NewEpoch::OtherVolume)),
    ([YES, None, None, None, None, None, YES, None, None, None, None], Verdict::NewEpoch(NewEpoch::ClockWentBack)),
    ([YES, YES, None, None, None, None, NO, YES, None, None, None], Verdict::NewEpoch(NewEpoch::CutOff)),
    ([YES, NO, YES, YES, YES, NO, NO, YES, None, None, None], Verdict::NewEpoch(NewEpoch::CutOff)),
    ([YES, YES, None, None, None, None, NO, NO, YES, None, None], Verdict::StaySuspended),
    ([YES, YES, None, None, None, None, NO, NO, NO, None, YES], Verdict::Adopt),
    ([YES, YES, None, None, None, None, NO, NO, NO, None, NO], Verdict::NewEpoch(NewEpoch::TooMuchChanged)),
    ([YES, NO, YES, YES, YES, NO, NO, NO, YES, None, None], Verdict::StaySuspended),
    ([YES, NO, YES, YES, YES, NO, NO, NO, NO, None, YES], Verdict::Adopt),
    ([YES, NO, YES, YES, YES, NO, NO, NO, NO, None, NO], Verdict::NewEpoch(NewEpoch::TooMuchChanged)),
    ([YES, NO, YES, YES, YES, YES, NO, None, YES, None, None], Verdict::NewEpoch(NewEpoch::DiskRefused)),
    ([YES, NO, YES, YES, YES, YES, NO, None, NO, NO, None], Verdict::NewEpoch(NewEpoch::DiskRefused)),
    ([YES, NO, YES, YES, YES, YES, NO, None, NO, YES, YES], Verdict::Restate),
    ([YES, NO, YES, YES, YES, YES, NO, None, NO, YES, NO], Verdict::Suspend),
    ([YES, NO, YES, YES, NO, None, NO, None, YES, None, None], Verdict::NewEpoch(NewEpoch::RingGone)),
    ([YES, NO, YES, YES, NO, None, NO, None, NO, NO, None], Verdict::NewEpoch(NewEpoch::RingGone)),
    ([YES, NO, YES, YES, NO, None, NO, None, NO, YES, YES], Verdict::Restate),
    ([YES, NO, YES, YES, NO, None, NO, None, NO, YES, NO], Verdict::Suspend),
    ([YES, NO, YES, NO, None, None, NO, None, YES, None, None], Verdict::NewEpoch(NewEpoch::PowerCut)),
    ([YES, NO, YES, NO, None, None, NO, None, NO, NO, None], Verdict::NewEpoch(NewEpoch::PowerCut)),
    ([YES, NO, YES, NO, None, None, NO, None, NO, YES, YES], Verdict::Restate),
    ([YES, NO, YES, NO, None, None, NO, None, NO, YES, NO], Verdict::Suspend),
    ([YES, NO, NO, None, None, None, NO, None, YES, None, None], Verdict::NewEpoch(NewEpoch::PowerCut)),
    ([YES, NO, NO, None, None, None, NO, None, NO, NO, None], Verdict::NewEpoch(NewEpoch::PowerCut)),
    ([YES, NO, NO, None, None, None, NO, None, NO, YES, YES], Verdict::Restate),
    ([YES, NO, NO, None, None, None, NO, None, NO, YES, NO], Verdict::Suspend),
];

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Adopt => "what was in flight is settled, what changed behind the mount is told",
        Verdict::StaySuspended => "it stays suspended",
        Verdict::Restate => "the journal is done again, what may differ is told",
        Verdict::Suspend => "the journal is done again, the pair is suspended (`error`)",
        Verdict::NewEpoch(NewEpoch::OtherVolume) => "a new epoch: file ids mean nothing any more",
        Verdict::NewEpoch(NewEpoch::ClockWentBack) => {
            "a new epoch: change times say nothing; after a power cut the journal is done again first"
        }
        Verdict::NewEpoch(NewEpoch::PowerCut | NewEpoch::RingGone | NewEpoch::DiskRefused) => {
            "a new epoch: nobody knows what was lost"
        }
        Verdict::NewEpoch(NewEpoch::CutOff) => "a new epoch, as an opening that was cut off had begun",
        Verdict::NewEpoch(NewEpoch::TooMuchChanged) => "a new epoch: telling it would fill half of the journal",
    }
}

/// The rows as Markdown, for the documents.
#[must_use]
pub fn table() -> String {
    let cell = |fact: &Option<bool>| match fact {
        None => "any",
        Some(true) => "yes",
        Some(false) => "no",
    };
    let mut table = format!("| {} | then |\n|{}\n", HEADINGS.join(" | "), "---|".repeat(12));
    for (facts, verdict) in &ROWS {
        let cells: Vec<&str> = facts.iter().map(cell).collect();
        table.push_str(&format!("| {} | {} |\n", cells.join(" | "), words(*verdict)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_facts_has_one_row_and_the_program_goes_by_it() {
        let mut met = [0; ROWS.len()];
        for bits in 0..1_u32 << 11 {
            let fact = |index: u32| bits & (1 << index) != 0;
            let facts = Facts {
                same_volume: fact(0),
                closed: fact(1),
                same_boot: fact(2),
                same_mount: fact(3),
                ring: fact(4),
                disk_refused: fact(5),
                clock_back: fact(6),
                begun: fact(7),
                map: fact(8),
                active: fact(9),
                room: fact(10),
            };
            let holds =
                |row: &Row| (0..11).all(|index| row.0[index as usize].is_none_or(|wanted| wanted == fact(index)));
            let rows: Vec<usize> = (0..ROWS.len()).filter(|&row| holds(&ROWS[row])).collect();
            assert_eq!(rows.len(), 1, "{facts:?} has rows {rows:?}");
            assert_eq!(ROWS[rows[0]].1, facts.verdict(), "{facts:?}");
            met[rows[0]] += 1;
        }
        assert!(met.iter().all(|count| *count > 0), "a row that nothing leads to: {met:?}");
    }
}
