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
}
