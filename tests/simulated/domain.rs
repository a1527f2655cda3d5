//! Which file system of a simulated world an object lies on: what is lost and synced together.

/// Which file system an object lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// The protected directory.
    Volume,
    /// The state directory and the journal volume.
    State,
    /// Tapes: whatever else, always durable.
    Elsewhere,
}
