//! Deliberate mistakes: a debug build makes one when the watcher of the thread asks for it, so that the tests of power cuts can
//! show that they would find it.

use super::{is_watched, watcher};

/// What the program does wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Nothing is said to be active before it changes.
    NoActivityMap,
    /// What was active is forgotten, and its records are freed, before journal and volume are synced.
    MapDroppedBeforeSyncs,
    /// The bytes of a file are active with the directory in which it was found.
    ContentsByDirectory,
    /// The tail of the journal is cut off from the durable mark on.
    TailCutBelowMark,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 4] = [
        Mistake::NoActivityMap,
        Mistake::MapDroppedBeforeSyncs,
        Mistake::ContentsByDirectory,
        Mistake::TailCutBelowMark,
    ];
}

/// Whether this mistake is to be made here. Never in a release build.
#[must_use]
pub fn makes(mistake: Mistake) -> bool {
    cfg!(debug_assertions) && is_watched() && watcher().is_some_and(|watcher| watcher.mistake() == Some(mistake))
}
