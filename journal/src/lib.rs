//! The vocabulary of reelfs and its log.
//!
//! A replicated directory is a sequence of [`Change`]s. A [`Record`] is a change with its place in the order: a dense
//! [`Seq`], a strictly rising hybrid [`Timestamp`] and the requester. The journal volume ([`Jvol`]) is the preallocated
//! cyclic store where records wait until they are on tape. A [`Position`] names a point of a history together with a
//! digest of everything before it, so that a gap, a fork and a foreign tape are all one comparison.
//!
//! This crate knows no directory, no kernel and no tape; everything else knows it.

mod active;
mod amends;
mod bytes;
mod change;
pub mod checksum;
mod clock;
mod digest;
pub mod disk;
mod error;
mod id;
mod inflight;
mod jvol;
mod map;
mod marker;
mod name;
mod node;
mod record;
mod seal;
mod seams;
mod tags;
mod time;

pub use active::{ACTIVE_END, ACTIVE_MAX, ACTIVE_UNIT, Active};
pub use amends::Amends;
pub use change::{AmendOutcome, Change, RENAME_EXCHANGE, RENAME_NOREPLACE};
pub use clock::{Clock, ClockReading, ClockTurn, HybridClock, ManualClock, SystemClock};
pub use digest::{Digest, Position};
pub use error::{JournalError, RecordError};
pub use id::{Epoch, FileId, GroupName, GroupNameError, Seq, VolumeIndex, VolumeName, VolumeNameError};
pub use inflight::{InFlight, InFlightState, Slot};
pub use jvol::{
    Appended, Found, JVOL_FORMAT_VERSION, Jvol, JvolControls, JvolGeometry, JvolOwner, JvolPointers, JvolReader, Look,
    Mending, Place, RecordBytes, Reserve, Spare, discard_ring, unfinished,
};
pub use marker::MarkerKind;
pub use name::{Name, NameError};
pub use node::{Attributes, NodeKind, Xattr};
pub use record::{CONTROL_LEN, DATA_MAX, EncodedRecord, FLAG_MORE, RECORD_DATA_MAX, Record};
pub use seal::Seal;
pub use seams::{Amended, Seams};
pub use tags::{TAG_TEXT_MAX, TAGS_MAX, Tags, TagsError};
pub use time::{FileTime, Timestamp};
