//! Markers: why control information stands in the journal.

/// Why a marker stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerKind {
    /// A point that a person or a program named.
    Named,
    /// The journal of a new epoch starts here; nothing before it leads to what comes after.
    EpochStart,
    /// A mount began to journal.
    AcquisitionStart,
    /// A mount ended cleanly.
    AcquisitionStop,
    /// What follows, up to the end marker, was found changed behind the mount.
    AdoptBegin,
    /// The volume is again what the journal says.
    AdoptEnd,
    /// What follows, up to the end marker, is read back after an unclean stop.
    RecoveryBegin,
    /// The volume is again what the journal says.
    RecoveryEnd,
    /// From here on nothing is journaled; the note says why.
    Suspended,
    /// What follows, up to the end marker, changed while nothing was journaled.
    ResyncBegin,
    /// The volume is again what the journal says.
    ResyncEnd,
    /// The volume is no longer part of its group; its index is never used again.
    VolumeLeft,
    /// The wall clock is believed no more, or again; the note says which, `since` is what it shows.
    ClockStep,
    /// No file of the group was open for writing, since `since`.
    Quiet,
}

impl MarkerKind {
    /// What follows is not in the order in which it happened, up to a marker that [`MarkerKind::ends_bracket`].
    #[must_use]
    pub fn begins_bracket(self) -> bool {
        match self {
            MarkerKind::AdoptBegin | MarkerKind::RecoveryBegin | MarkerKind::Suspended | MarkerKind::ResyncBegin => {
                true
            }
            MarkerKind::Named
            | MarkerKind::EpochStart
            | MarkerKind::AcquisitionStart
            | MarkerKind::AcquisitionStop
            | MarkerKind::AdoptEnd
            | MarkerKind::RecoveryEnd
            | MarkerKind::ResyncEnd
            | MarkerKind::VolumeLeft
            | MarkerKind::ClockStep
            | MarkerKind::Quiet => false,
        }
    }

    /// It concerns every volume of the group, whatever index its record carries.
    #[must_use]
    pub fn is_of_group(self) -> bool {
        matches!(self, MarkerKind::Named | MarkerKind::EpochStart | MarkerKind::ClockStep | MarkerKind::Quiet)
    }

    /// The volume is again what the journal says.
    #[must_use]
    pub fn ends_bracket(self) -> bool {
        matches!(self, MarkerKind::AdoptEnd | MarkerKind::RecoveryEnd | MarkerKind::ResyncEnd)
    }
}
