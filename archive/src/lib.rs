//! Tapes: write, read, verify, catalog.
//!
//! A tape is a `.tar.zst` that stock `tar` and `zstd` open, made of independent zstd frames. An update tape carries the
//! records of a range of sequence numbers, control data apart from journal data; a base tape carries a directory tree
//! as ordinary tar entries, and the control data that says what they are. The byte tables are in `docs/FORMAT-tape.md`.
//!
//! Writing: [`UpdateWriter`] and [`BaseWriter`] give a [`Sealed`] tape. Reading: [`SealedTape::open`] believes the
//! trailer, index and label only after checking them against each other; [`SealedTape::verify`] reads every byte, and
//! only the [`VerifiedTape`] that it gives hands out records and file bytes. [`Catalog`] orders many tapes into chains.

mod acl;
mod agree;
mod base;
mod bytes;
mod catalog;
mod chain;
mod chunk;
mod compress;
mod decode;
mod error;
mod header;
mod index;
mod label;
mod name;
mod pax;
mod readme;
mod records;
mod sealed;
mod trailer;
mod update;
mod verify;
mod walk;

pub use base::{BaseFile, BaseWriter, Source};
pub use bytes::{BaseBytes, BaseExtent, Sink};
pub use catalog::{Catalog, CatalogTape, Damaged, GroupSummary};
pub use chain::{Chain, Diverged, Gap, Overlap};
pub use error::TapeError;
pub use index::{Chunk, Counts, FrameEntry, Index};
pub use label::{FORMAT_VERSION, FrameParameters, Label, LabelVolume, Previous};
pub use name::{TapeKind, TapeName, TapeNameError};
pub use readme::{BSDTAR_COMMAND, GNU_TAR_COMMAND};
pub use records::{Controls, RawRecord, Records};
pub use sealed::{SealedTape, TapeHead};
pub use update::{Sealed, UpdateWriter, WriteOptions};
pub use verify::{Depth, VerifiedTape};
