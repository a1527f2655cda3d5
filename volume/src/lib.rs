//! A directory tree on disk, and the one door to it.
//!
//! [`Volume::apply`] makes a change true, beneath a root, on the primary and on every replica. [`Primary`] is the door: it
//! numbers and journals each change of the primary volume in the order in which it is applied.

pub mod compare;

mod apply;
mod bracket;
mod group;
mod links;
mod node;
mod overtaken;
mod passed;
mod primary;
mod replica;
mod stat;
mod stretches;
mod sys;
mod volume;
mod xattr;
mod zeroing;

pub use bracket::{Bracket, Places};
pub use group::{ClockState, Group, GroupOptions, OnFull, RESTORE_MARK, WARN_PERCENT, believed_clock, restore_mark};
pub use primary::{
    Adopted, Based, DirEntry, DirtyCounts, Held, Identity, Lost, NewEpoch, Noticed, OpenError, OpenOptions, Opened,
    Primary, Reason, Recovered, Requester, ResyncError, Resynced, Session, SetAttr, Suspension, Telling, TimeSet,
    UnderWay, Visit, VolumeOptions, Waits, WalkError, Way, Writing, Written, base_under_way, recovery_table,
    suspension,
};
pub use replica::{Found, Recalled};
pub use stat::Stat;
pub use sys::keep_large_buffers_apart;
pub use volume::{Side, Volume};
