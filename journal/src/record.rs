//! A change with its place in the order, and its bytes: 64 bytes of control data and the journal data.
//!
//! The byte tables are in `docs/FORMAT-journal.md`; the golden test at the end of this file holds the code to them.

use std::borrow::Cow;

use uuid::Uuid;

use crate::bytes::{Reader, Writer};
use crate::{
    AmendOutcome, Attributes, Change, Epoch, FileId, MarkerKind, NodeKind, RecordError, Seq, Timestamp, VolumeIndex,
    Xattr,
};

/// Length of control data, in bytes.
pub const CONTROL_LEN: usize = 64;
/// Most bytes that one [`Change::Write`] carries (1 MiB); larger requests are answered short or split.
pub const DATA_MAX: usize = 1 << 20;
/// Most bytes of journal data a record has: the bytes written and room for attributes (16 extended ones of 64 KiB).
pub const RECORD_DATA_MAX: usize = (2 << 20) + 65_536;
/// Control flag: the operation goes on in the next record; no state between the two ever existed.
pub const FLAG_MORE: u8 = 1;

/// Bytes of journal data before the fields of the kind: wall time, uid, pid.
const PREFIX_LEN: usize = 16;

const OFFSET_CHECKSUM: usize = 4;
const OFFSET_SEQ: usize = 8;
const OFFSET_TIME: usize = 16;

/// A change, numbered, with its two times and its requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number.
    pub seq: Seq,
    /// The operation goes on in the next record.
    pub more: bool,
    /// Hybrid time: strictly rising with `seq`.
    pub time: Timestamp,
    /// What the wall clock showed.
    pub wall: Timestamp,
    /// Who asked: user.
    pub uid: u32,
    /// Who asked: process, 0 if unknown.
    pub pid: u32,
    /// In which volume of the group.
    pub volume: VolumeIndex,
    /// What happened.
    pub change: Change<'a>,
}

/// A record's bytes; the payload of a write stays where it was.
#[derive(Debug, Clone)]
pub struct EncodedRecord<'a> {
    control: [u8; CONTROL_LEN],
    head: Vec<u8>,
    payload: &'a [u8],
    data_checksum: u32,
}

impl<'a> EncodedRecord<'a> {
    /// Gives the record its number and time, and seals both with the checksum.
    pub fn stamp(&mut self, seq: Seq, time: Timestamp) {
        self.control[OFFSET_CHECKSUM..OFFSET_SEQ].fill(0);
        self.control[OFFSET_SEQ..OFFSET_TIME].copy_from_slice(&seq.0.to_le_bytes());
        self.control[OFFSET_TIME..OFFSET_TIME + 8].copy_from_slice(&time.0.to_le_bytes());
        let checksum = crc32c::crc32c_append(self.data_checksum, &self.control);
        self.control[OFFSET_CHECKSUM..OFFSET_SEQ].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The 64 bytes.
    #[must_use]
    pub fn control(&self) -> &[u8; CONTROL_LEN] {
        &self.control
    }

    /// The journal data in its two parts, to be written one after the other.
    #[must_use]
    pub fn data(&self) -> [&[u8]; 2] {
        [&self.head, self.payload]
    }

    /// Length of the journal data in bytes.
    #[must_use]
    pub fn data_len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Control data taken apart, before its journal data is there.
struct Control {
    kind: u8,
    flags: u8,
    volume: u16,
    file: FileId,
    offset: u64,
    length: u64,
    size: u64,
}

impl Record<'_> {
    /// The record's bytes, stamped with its own number and time.
    #[must_use]
    pub fn encode(&self) -> EncodedRecord<'_> {
        let mut head = Vec::with_capacity(128);
        let mut writer = Writer(&mut head);
        writer.i64(self.wall.0);
        writer.u32(self.uid);
        writer.u32(self.pid);
        let mut control = Control {
            kind: 0,
            flags: if self.more { FLAG_MORE } else { 0 },
            volume: self.volume.0,
            file: self.change.file(),
            offset: 0,
            length: 0,
            size: 0,
        };
        let payload = encode_change(&self.change, &mut control, &mut writer);
        let data_checksum = crc32c::crc32c_append(crc32c::crc32c(&head), payload);
        let data_len = u32::try_from(head.len() + payload.len()).unwrap_or(u32::MAX);

        let mut bytes = Vec::with_capacity(CONTROL_LEN);
        let mut writer = Writer(&mut bytes);
        writer.u8(control.kind);
        writer.u8(control.flags);
        writer.u16(control.volume);
        writer.u32(0);
        writer.u64(0);
        writer.i64(0);
        writer.u64(control.file.ino);
        writer.u32(control.file.generation);
        writer.u32(data_len);
        writer.u64(control.offset);
        writer.u64(control.length);
        writer.u64(control.size);
        let mut encoded = EncodedRecord {
            control: [0; CONTROL_LEN],
            head,
            payload,
            data_checksum,
        };
        encoded.control.copy_from_slice(&bytes);
        encoded.stamp(self.seq, self.time);
        encoded
    }

    /// The length of journal data that control data announces.
    ///
    /// # Errors
    /// [`RecordError::Range`] when it is more than any record has: nothing must be allocated for it.
    pub fn data_len(control: &[u8; CONTROL_LEN]) -> Result<usize, RecordError> {
        let mut reader = Reader(&control[36..40]);
        let length = usize::try_from(reader.u32("length")?).map_err(|_| RecordError::Range("length"))?;
        if (PREFIX_LEN..=RECORD_DATA_MAX).contains(&length) {
            Ok(length)
        } else {
            Err(RecordError::Range("length"))
        }
    }

    /// Compares length and checksum, without taking the record apart.
    ///
    /// # Errors
    /// [`RecordError::Range`] or [`RecordError::Checksum`].
    pub fn check(control: &[u8; CONTROL_LEN], data: &[u8]) -> Result<(), RecordError> {
        if Record::data_len(control)? != data.len() {
            return Err(RecordError::Range("length"));
        }
        let mut unstamped = *control;
        unstamped[OFFSET_CHECKSUM..OFFSET_SEQ].fill(0);
        let stored = Reader(&control[OFFSET_CHECKSUM..OFFSET_SEQ]).u32("checksum")?;
        if crc32c::crc32c_append(crc32c::crc32c(data), &unstamped) == stored {
            Ok(())
        } else {
            Err(RecordError::Checksum)
        }
    }

    /// Whether control data is that of a marker or an amendment: the few records that a planner must read whole.
    #[must_use]
    pub fn is_marker_or_amendment(control: &[u8; CONTROL_LEN]) -> bool {
        matches!(control[0], kind::MARKER | kind::AMEND)
    }

    /// Whether control data says that the operation goes on in the next record.
    #[must_use]
    pub fn has_more(control: &[u8; CONTROL_LEN]) -> bool {
        control[1] & FLAG_MORE != 0
    }

    /// The number and the time that control data carries; not checked against the checksum, which needs the data.
    #[must_use]
    pub fn peek(control: &[u8; CONTROL_LEN]) -> (Seq, Timestamp) {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&control[at..at + 8]);
            bytes
        };
        (
            Seq(u64::from_le_bytes(word(OFFSET_SEQ))),
            Timestamp(i64::from_le_bytes(word(OFFSET_TIME))),
        )
    }
}

impl<'a> Record<'a> {
    /// Takes a record's bytes apart. Nothing is believed: checksum first, then every length and range.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(control: &[u8; CONTROL_LEN], data: &'a [u8]) -> Result<Record<'a>, RecordError> {
        Record::check(control, data)?;
        let mut fields = Reader(control);
        let (kind, flags, volume) = (fields.u8("kind")?, fields.u8("flags")?, fields.u16("volume")?);
        let _checksum = fields.u32("checksum")?;
        let (seq, time) = (Seq(fields.u64("sequence")?), Timestamp(fields.i64("time")?));
        let file = fields.file_id("file")?;
        let _data_len = fields.u32("length")?;
        let (offset, length, size) = (fields.u64("offset")?, fields.u64("length")?, fields.u64("size")?);
        if flags & !FLAG_MORE != 0 {
            return Err(RecordError::Range("flags"));
        }
        let control = Control {
            kind,
            flags,
            volume,
            file,
            offset,
            length,
            size,
        };
        let mut reader = Reader(data);
        let wall = Timestamp(reader.i64("wall time")?);
        let (uid, pid) = (reader.u32("uid")?, reader.u32("pid")?);
        let change = decode_change(&control, &mut reader)?;
        reader.end()?;
        Ok(Record {
            seq,
            more: flags & FLAG_MORE != 0,
            time,
            wall,
            uid,
            pid,
            volume: VolumeIndex(volume),
            change,
        })
    }

    /// The same record with its bytes owned.
    #[must_use]
    pub fn into_owned(self) -> Record<'static> {
        let Record {
            seq,
            more,
            time,
            wall,
            uid,
            pid,
            volume,
            change,
        } = self;
        Record {
            seq,
            more,
            time,
            wall,
            uid,
            pid,
            volume,
            change: change.into_owned(),
        }
    }
}

mod kind {
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
    pub(super) const BASE_BEGIN: u8 = 64;
    pub(super) const ENTRY: u8 = 65;
    pub(super) const BASE_DATA: u8 = 66;
    pub(super) const BASE_END: u8 = 67;
    pub(super) const LIST_BEGIN: u8 = 68;
    pub(super) const LIST_END: u8 = 69;
    pub(super) const MARKER: u8 = 80;
}

fn encode_change<'c>(change: &'c Change<'_>, control: &mut Control, writer: &mut Writer<'_>) -> &'c [u8] {
    match change {
        Change::Write {
            offset,
            data,
            size,
            mtime,
            ..
        } => {
            control.kind = kind::WRITE;
            (control.offset, control.length, control.size) = (*offset, data.len() as u64, *size);
            writer.file_time(*mtime);
            return data;
        }
        Change::SetSize { size, mtime, .. } => {
            (control.kind, control.size) = (kind::SET_SIZE, *size);
            writer.file_time(*mtime);
        }
        Change::Zero {
            offset,
            length,
            size,
            mtime,
            ..
        } => {
            control.kind = kind::ZERO;
            (control.offset, control.length, control.size) = (*offset, *length, *size);
            writer.file_time(*mtime);
        }
        Change::Punch {
            offset, length, mtime, ..
        } => {
            control.kind = kind::PUNCH;
            (control.offset, control.length) = (*offset, *length);
            writer.file_time(*mtime);
        }
        Change::Allocate {
            offset,
            length,
            size,
            mtime,
            ..
        } => {
            control.kind = kind::ALLOCATE;
            (control.offset, control.length, control.size) = (*offset, *length, *size);
            writer.file_time(*mtime);
        }
        Change::Create {
            parent,
            name,
            kind,
            attributes,
            xattrs,
            parent_mtime,
            ..
        } => {
            control.kind = kind::CREATE;
            writer.file_id(*parent);
            writer.name(name);
            encode_node(kind, writer);
            encode_attributes(attributes, writer);
            writer.xattrs(xattrs);
            writer.file_time(*parent_mtime);
        }
        Change::Link {
            parent,
            name,
            parent_mtime,
            ..
        }
        | Change::Unlink {
            parent,
            name,
            parent_mtime,
            ..
        } => {
            control.kind = if matches!(change, Change::Link { .. }) {
                kind::LINK
            } else {
                kind::UNLINK
            };
            writer.file_id(*parent);
            writer.name(name);
            writer.file_time(*parent_mtime);
        }
        Change::Rename {
            parent,
            name,
            new_parent,
            new_name,
            replaced,
            flags,
            parent_mtime,
            ..
        } => {
            control.kind = kind::RENAME;
            writer.file_id(*parent);
            writer.name(name);
            writer.file_id(*new_parent);
            writer.name(new_name);
            writer.file_id(*replaced);
            writer.u32(*flags);
            writer.file_time(*parent_mtime);
        }
        Change::Drop { .. } => control.kind = kind::DROP,
        Change::SetAttr { attributes, .. } => {
            control.kind = kind::SET_ATTR;
            encode_attributes(attributes, writer);
        }
        Change::SetXattr { xattr, .. } => {
            control.kind = kind::SET_XATTR;
            writer.blob(&xattr.name);
            writer.blob(&xattr.value);
        }
        Change::RemoveXattr { name, .. } => {
            control.kind = kind::REMOVE_XATTR;
            writer.blob(name);
        }
        Change::Sync { .. } => control.kind = kind::SYNC,
        Change::Amend { amended, outcome } => {
            (control.kind, control.offset) = (kind::AMEND, amended.0);
            match outcome {
                AmendOutcome::Void => writer.u8(0),
                AmendOutcome::Short { length, size } => {
                    writer.u8(1);
                    (control.length, control.size) = (*length, *size);
                }
            }
        }
        Change::BaseBegin { base, .. } => {
            control.kind = kind::BASE_BEGIN;
            writer.0.extend_from_slice(base.as_bytes());
        }
        Change::Entry {
            parent,
            name,
            kind,
            attributes,
            xattrs,
            size,
            ..
        } => {
            (control.kind, control.size) = (kind::ENTRY, *size);
            writer.file_id(*parent);
            writer.name(name);
            encode_node(kind, writer);
            encode_attributes(attributes, writer);
            writer.xattrs(xattrs);
        }
        Change::BaseData {
            stream_offset,
            stream_length,
            size,
            ..
        } => {
            control.kind = kind::BASE_DATA;
            (control.offset, control.length, control.size) = (*stream_offset, *stream_length, *size);
        }
        Change::BaseEnd { base, began, digest } => {
            (control.kind, control.offset) = (kind::BASE_END, began.0);
            writer.0.extend_from_slice(base.as_bytes());
            writer.0.extend_from_slice(digest);
        }
        Change::ListBegin { .. } => control.kind = kind::LIST_BEGIN,
        Change::ListEnd { .. } => control.kind = kind::LIST_END,
        Change::Marker {
            kind,
            epoch,
            name,
            note,
            since,
        } => {
            control.kind = kind::MARKER;
            writer.u8(marker_code(*kind));
            writer.u32(epoch.0);
            writer.i64(since.0);
            writer.blob(name.as_bytes());
            writer.blob(note.as_bytes());
        }
    }
    &[]
}

fn decode_change<'a>(control: &Control, reader: &mut Reader<'a>) -> Result<Change<'a>, RecordError> {
    let &Control {
        kind,
        file,
        offset,
        length,
        size,
        ..
    } = control;
    let range_fits = offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok());
    if !range_fits || i64::try_from(size).is_err() {
        return Err(RecordError::Range("range"));
    }
    Ok(match kind {
        kind::WRITE => {
            let mtime = reader.file_time("mtime")?;
            let data = reader.take(reader.0.len(), "data")?;
            if data.len() as u64 != length || data.len() > DATA_MAX {
                return Err(RecordError::Range("data"));
            }
            Change::Write {
                file,
                offset,
                data: Cow::Borrowed(data),
                size,
                mtime,
            }
        }
        kind::SET_SIZE => Change::SetSize {
            file,
            size,
            mtime: reader.file_time("mtime")?,
        },
        kind::ZERO => Change::Zero {
            file,
            offset,
            length,
            size,
            mtime: reader.file_time("mtime")?,
        },
        kind::PUNCH => Change::Punch {
            file,
            offset,
            length,
            mtime: reader.file_time("mtime")?,
        },
        kind::ALLOCATE => Change::Allocate {
            file,
            offset,
            length,
            size,
            mtime: reader.file_time("mtime")?,
        },
        kind::CREATE => Change::Create {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            kind: decode_node(reader)?,
            attributes: decode_attributes(reader)?,
            xattrs: reader.xattrs("extended attributes")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::LINK => Change::Link {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::UNLINK => Change::Unlink {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::RENAME => Change::Rename {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            new_parent: reader.file_id("new parent")?,
            new_name: reader.name("new name")?,
            replaced: reader.file_id("replaced")?,
            flags: match reader.u32("flags")? {
                flags @ 0..=2 => flags,
                _ => return Err(RecordError::Range("rename flags")),
            },
            parent_mtime: reader.file_time("parent mtime")?,
        },
        kind::DROP => Change::Drop { file },
        kind::SET_ATTR => Change::SetAttr {
            file,
            attributes: decode_attributes(reader)?,
        },
        kind::SET_XATTR => {
            let (name, value) = (decode_xattr_name(reader)?, reader.blob("value")?.to_vec());
            if value.len() > 65_536 {
                return Err(RecordError::Range("value"));
            }
            Change::SetXattr {
                file,
                xattr: Xattr { name, value },
            }
        }
        kind::REMOVE_XATTR => Change::RemoveXattr {
            file,
            name: decode_xattr_name(reader)?,
        },
        kind::SYNC => Change::Sync { file },
        kind::AMEND => Change::Amend {
            amended: Seq(offset),
            outcome: match reader.u8("outcome")? {
                0 => AmendOutcome::Void,
                1 => AmendOutcome::Short { length, size },
                _ => return Err(RecordError::Range("outcome")),
            },
        },
        kind::BASE_BEGIN => Change::BaseBegin {
            base: decode_uuid(reader)?,
            root: file,
        },
        kind::ENTRY => Change::Entry {
            file,
            parent: reader.file_id("parent")?,
            name: reader.name("name")?,
            kind: decode_node(reader)?,
            attributes: decode_attributes(reader)?,
            xattrs: reader.xattrs("extended attributes")?,
            size,
        },
        kind::BASE_DATA => Change::BaseData {
            file,
            stream_offset: offset,
            stream_length: length,
            size,
        },
        kind::BASE_END => {
            let base = decode_uuid(reader)?;
            let mut digest = [0; 32];
            digest.copy_from_slice(reader.take(32, "digest")?);
            Change::BaseEnd {
                base,
                began: Seq(offset),
                digest,
            }
        }
        kind::LIST_BEGIN => Change::ListBegin { directory: file },
        kind::LIST_END => Change::ListEnd { directory: file },
        kind::MARKER => Change::Marker {
            kind: marker_kind(reader.u8("marker kind")?)?,
            epoch: Epoch(reader.u32("epoch")?),
            since: Timestamp(reader.i64("since")?),
            name: reader.text("marker name")?,
            note: reader.text("marker note")?,
        },
        unknown => return Err(RecordError::UnknownKind(unknown)),
    })
}

fn encode_attributes(attributes: &Attributes, writer: &mut Writer<'_>) {
    writer.u32(attributes.mode);
    writer.u32(attributes.uid);
    writer.u32(attributes.gid);
    writer.file_time(attributes.mtime);
}

fn decode_attributes(reader: &mut Reader<'_>) -> Result<Attributes, RecordError> {
    let mode = reader.u32("mode")?;
    if mode & !0o7777 != 0 {
        return Err(RecordError::Range("mode"));
    }
    Ok(Attributes {
        mode,
        uid: reader.u32("uid")?,
        gid: reader.u32("gid")?,
        mtime: reader.file_time("mtime")?,
    })
}

fn encode_node(kind: &NodeKind, writer: &mut Writer<'_>) {
    match kind {
        NodeKind::File => writer.u8(0),
        NodeKind::Directory => writer.u8(1),
        NodeKind::Symlink(target) => {
            writer.u8(2);
            writer.blob(target);
        }
        NodeKind::Fifo => writer.u8(3),
        NodeKind::Socket => writer.u8(4),
        NodeKind::CharDevice(device) => {
            writer.u8(5);
            writer.u64(*device);
        }
        NodeKind::BlockDevice(device) => {
            writer.u8(6);
            writer.u64(*device);
        }
    }
}

fn decode_node(reader: &mut Reader<'_>) -> Result<NodeKind, RecordError> {
    Ok(match reader.u8("type")? {
        0 => NodeKind::File,
        1 => NodeKind::Directory,
        2 => {
            let target = reader.blob("target")?;
            if target.is_empty() || target.len() > 4096 || target.contains(&0) {
                return Err(RecordError::Range("target"));
            }
            NodeKind::Symlink(target.to_vec())
        }
        3 => NodeKind::Fifo,
        4 => NodeKind::Socket,
        5 => NodeKind::CharDevice(reader.u64("device")?),
        6 => NodeKind::BlockDevice(reader.u64("device")?),
        _ => return Err(RecordError::Range("type")),
    })
}

fn decode_xattr_name(reader: &mut Reader<'_>) -> Result<Vec<u8>, RecordError> {
    let name = reader.blob("attribute name")?;
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err(RecordError::Range("attribute name"));
    }
    Ok(name.to_vec())
}

fn decode_uuid(reader: &mut Reader<'_>) -> Result<Uuid, RecordError> {
    Uuid::from_slice(reader.take(16, "uuid")?).map_err(|_| RecordError::Range("uuid"))
}

fn marker_code(kind: MarkerKind) -> u8 {
    match kind {
        MarkerKind::Named => 0,
        MarkerKind::EpochStart => 1,
        MarkerKind::AcquisitionStart => 2,
        MarkerKind::AcquisitionStop => 3,
        MarkerKind::AdoptBegin => 4,
        MarkerKind::AdoptEnd => 5,
        MarkerKind::RecoveryBegin => 6,
        MarkerKind::RecoveryEnd => 7,
    }
}

fn marker_kind(code: u8) -> Result<MarkerKind, RecordError> {
    Ok(match code {
        0 => MarkerKind::Named,
        1 => MarkerKind::EpochStart,
        2 => MarkerKind::AcquisitionStart,
        3 => MarkerKind::AcquisitionStop,
        4 => MarkerKind::AdoptBegin,
        5 => MarkerKind::AdoptEnd,
        6 => MarkerKind::RecoveryBegin,
        7 => MarkerKind::RecoveryEnd,
        _ => return Err(RecordError::Range("marker kind")),
    })
}

#[cfg(test)]
mod tests;
