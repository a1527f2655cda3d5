//! A directory tree on disk, and the one door to it.
//!
//! [`Volume::apply`] makes a change true, beneath a root, on the primary and on every replica. [`Primary`] is the door: it
//! numbers and journals each change of the primary volume in the order in which it is applied.

pub mod compare;

mod apply;
mod bracket;
mod group;
mod node;
mod primary;
mod stat;
mod sys;
mod volume;
mod xattr;

pub use bracket::Bracket;
pub use group::{Group, GroupOptions};
pub use primary::{
    Adopted, DirEntry, DirtyCounts, Held, Identity, Lost, NewEpoch, OnFull, OpenError, OpenOptions, Opened, Primary,
    Reason, Recovered, Requester, ResyncError, Resynced, Session, SetAttr, Suspension, TimeSet, Visit, VolumeOptions,
    WalkError, recovery_table, suspension,
};
pub use stat::Stat;
pub use volume::{Side, Volume};
