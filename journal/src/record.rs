//! A change with its place in the order, and its bytes: 64 bytes of control data and the journal data.
//!
//! The byte tables are in `docs/FORMAT-journal.md`; the golden test in `record/tests.rs` holds the code to them.

mod decode;
mod encode;
mod fields;
mod kind;

use self::decode::decode_change;
use self::encode::encode_change;
use crate::bytes::{Reader, Writer};
use crate::checksum;
use crate::{Change, FileId, RecordError, Seq, Timestamp, VolumeIndex};

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

const OFFSET_VOLUME: usize = 2;
const OFFSET_CHECKSUM: usize = 4;
const OFFSET_SEQ: usize = 8;
const OFFSET_TIME: usize = 16;
const OFFSET_OFFSET: usize = 40;

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
        let checksum = checksum::crc32c_append(self.data_checksum, &self.control);
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
        let data_checksum = checksum::crc32c_append(checksum::crc32c(&head), payload);
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
        let mut encoded = EncodedRecord { control: [0; CONTROL_LEN], head, payload, data_checksum };
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
        if (PREFIX_LEN..=RECORD_DATA_MAX).contains(&length) { Ok(length) } else { Err(RecordError::Range("length")) }
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
        if checksum::crc32c_append(checksum::crc32c(data), &unstamped) == stored {
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

    /// The record that control data of an amendment names; not checked against the checksum, which needs the data.
    #[must_use]
    pub fn peek_amended(control: &[u8; CONTROL_LEN]) -> Option<Seq> {
        let mut offset = [0; 8];
        offset.copy_from_slice(&control[OFFSET_OFFSET..OFFSET_OFFSET + 8]);
        (control[0] == kind::AMEND).then_some(Seq(u64::from_le_bytes(offset)))
    }

    /// Whether control data is that of a change of a volume, and not of something said about it.
    #[must_use]
    pub fn is_change(control: &[u8; CONTROL_LEN]) -> bool {
        control[0] < kind::SYNC
    }

    /// Whether control data is that of the end of a base copy.
    #[must_use]
    pub fn is_base_end(control: &[u8; CONTROL_LEN]) -> bool {
        control[0] == kind::BASE_END
    }

    /// Whether control data is that of a marker.
    #[must_use]
    pub fn is_marker(control: &[u8; CONTROL_LEN]) -> bool {
        control[0] == kind::MARKER
    }

    /// The volume that control data names; not checked against the checksum, which needs the data.
    #[must_use]
    pub fn peek_volume(control: &[u8; CONTROL_LEN]) -> VolumeIndex {
        VolumeIndex(u16::from_le_bytes([control[OFFSET_VOLUME], control[OFFSET_VOLUME + 1]]))
    }

    /// Whether the record concerns every volume of the group and not only the one whose index it carries.
    #[must_use]
    pub fn is_of_group(&self) -> bool {
        matches!(self.change, Change::Marker { kind, .. } if kind.is_of_group())
    }

    /// Whether the record concerns this volume: it is its own, or one of the group.
    #[must_use]
    pub fn concerns(&self, volume: VolumeIndex) -> bool {
        self.volume == volume || self.is_of_group()
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
        (Seq(u64::from_le_bytes(word(OFFSET_SEQ))), Timestamp(i64::from_le_bytes(word(OFFSET_TIME))))
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
        let control = Control { kind, flags, volume, file, offset, length, size };
        let mut reader = Reader(data);
        let wall = Timestamp(reader.i64("wall time")?);
        let (uid, pid) = (reader.u32("uid")?, reader.u32("pid")?);
        let change = decode_change(&control, &mut reader)?;
        reader.end()?;
        Ok(Record { seq, more: flags & FLAG_MORE != 0, time, wall, uid, pid, volume: VolumeIndex(volume), change })
    }

    /// The same record with its bytes owned.
    #[must_use]
    pub fn into_owned(self) -> Record<'static> {
        let Record { seq, more, time, wall, uid, pid, volume, change } = self;
        Record { seq, more, time, wall, uid, pid, volume, change: change.into_owned() }
    }
}

#[cfg(test)]
mod tests;
