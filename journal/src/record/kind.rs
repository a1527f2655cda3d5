//! The byte that says what a record is, and the one that says what a marker is.

use crate::{MarkerKind, RecordError};

pub(super) const WRITE: u8 = 1;
pub(super) const SET_SIZE: u8 = 2;
pub(super) const ZERO: u8 = 3;
pub(super) const PUNCH: u8 = 4;
pub(super) const ALLOCATE: u8 = 5;
pub(super) const CREATE: u8 = 16;
pub(super) const LINK: u8 = 17;
pub(super) const UNLINK: u8 = 18;
pub(super) const RENAME: u8 = 19;
pub(super) const DROP: u8 = 20;
pub(super) const SET_ATTR: u8 = 32;
pub(super) const SET_XATTR: u8 = 33;
pub(super) const REMOVE_XATTR: u8 = 34;
pub(super) const SYNC: u8 = 48;
pub(super) const AMEND: u8 = 49;
pub(super) const ACTIVE: u8 = 50;
pub(super) const BASE_BEGIN: u8 = 64;
pub(super) const ENTRY: u8 = 65;
pub(super) const BASE_DATA: u8 = 66;
pub(super) const BASE_END: u8 = 67;
pub(super) const LIST_BEGIN: u8 = 68;
pub(super) const LIST_END: u8 = 69;
pub(super) const MARKER: u8 = 80;

pub(super) fn marker_code(kind: MarkerKind) -> u8 {
    match kind {
        MarkerKind::Named => 0,
        MarkerKind::EpochStart => 1,
        MarkerKind::AcquisitionStart => 2,
        MarkerKind::AcquisitionStop => 3,
        MarkerKind::AdoptBegin => 4,
        MarkerKind::AdoptEnd => 5,
        MarkerKind::RecoveryBegin => 6,
        MarkerKind::RecoveryEnd => 7,
        MarkerKind::Suspended => 8,
        MarkerKind::ResyncBegin => 9,
        MarkerKind::ResyncEnd => 10,
        MarkerKind::VolumeLeft => 11,
        MarkerKind::ClockStep => 12,
        MarkerKind::Quiet => 13,
    }
}

pub(super) fn marker_kind(code: u8) -> Result<MarkerKind, RecordError> {
    Ok(match code {
        0 => MarkerKind::Named,
        1 => MarkerKind::EpochStart,
        2 => MarkerKind::AcquisitionStart,
        3 => MarkerKind::AcquisitionStop,
        4 => MarkerKind::AdoptBegin,
        5 => MarkerKind::AdoptEnd,
        6 => MarkerKind::RecoveryBegin,
        7 => MarkerKind::RecoveryEnd,
        8 => MarkerKind::Suspended,
        9 => MarkerKind::ResyncBegin,
        10 => MarkerKind::ResyncEnd,
        11 => MarkerKind::VolumeLeft,
        12 => MarkerKind::ClockStep,
        13 => MarkerKind::Quiet,
        _ => return Err(RecordError::Range("marker kind")),
    })
}
