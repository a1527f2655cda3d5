//! Stretches of records that tell what was found afterwards, and why nobody knows how it stood in between.

use reelfs_journal::{MarkerKind, Seq, Timestamp, VolumeIndex};

/// Why no point of a stretch can be restored: mostly that changes were not journaled as they happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncertain {
    /// Found behind the mount.
    Adopted,
    /// Read back after an unclean stop.
    Recovered,
    /// Made while the group was suspended.
    Suspended,
    /// The volume is part of the group, and no base copy leads to it yet.
    NoBase,
    /// No volume is left.
    Left,
}

impl Uncertain {
    /// There was a state, but nothing leads to it.
    #[must_use]
    pub fn is_out_of_reach(self) -> bool {
        matches!(self, Uncertain::NoBase | Uncertain::Left)
    }

    pub(super) fn of(kind: MarkerKind) -> Uncertain {
        match kind {
            MarkerKind::AdoptBegin | MarkerKind::AdoptEnd => Uncertain::Adopted,
            MarkerKind::Suspended | MarkerKind::ResyncBegin | MarkerKind::ResyncEnd => Uncertain::Suspended,
            MarkerKind::Named
            | MarkerKind::EpochStart
            | MarkerKind::AcquisitionStart
            | MarkerKind::AcquisitionStop
            | MarkerKind::RecoveryBegin
            | MarkerKind::RecoveryEnd
            | MarkerKind::VolumeLeft
            | MarkerKind::ClockStep
            | MarkerKind::Quiet => Uncertain::Recovered,
        }
    }
}

/// Records that tell what was found afterwards, not what happened: no point in them was ever a state of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bracket {
    /// Why it is told only now.
    pub why: Uncertain,
    /// The volume that it concerns.
    pub volume: VolumeIndex,
    /// First record of it.
    pub first: Seq,
    /// Its end marker, the first certain point again; `Seq(u64::MAX)` while that is not known.
    pub end: Seq,
    /// Since when the state is uncertain.
    pub since: Timestamp,
    /// Time of the end marker.
    pub until: Timestamp,
}

impl Bracket {
    /// The record is inside.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        (self.first..self.end).contains(&seq)
    }

    /// The time is inside.
    #[must_use]
    pub fn holds_time(&self, time: Timestamp) -> bool {
        (self.since..self.until).contains(&time)
    }
}
