//! The superblock of a journal volume: who it belongs to, its layout, journal-out and the durable watermark.

use std::path::Path;

use uuid::Uuid;

use super::geometry::{JvolGeometry, PAGE};
use super::{JVOL_FORMAT_VERSION, Jvol};
use crate::bytes::{Reader, Writer};
use crate::checksum;
use crate::{Digest, JournalError, RecordError, Seq, Timestamp};

/// Length of a superblock slot; slot A is at 0, slot B after it.
pub(super) const SUPERBLOCK_LEN: usize = PAGE as usize;

/// First bytes of every slot, of every version.
const MAGIC: [u8; 8] = *b"REELJVOL";
const CHECKSUM: std::ops::Range<usize> = 12..16;

/// What a slot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) group: Uuid,
    /// Rises with each write; the valid slot with the higher one counts.
    pub(super) generation: u64,
    pub(super) geometry: JvolGeometry,
    /// Journal-out: the first record kept.
    pub(super) out: u64,
    /// Position of its journal data.
    pub(super) out_position: u64,
    /// Chained digest of everything before it.
    pub(super) out_digest: Digest,
    /// Every record up to here was durable when this was written.
    pub(super) durable: u64,
    /// Position after the journal data of that record.
    pub(super) durable_position: u64,
    /// The last hybrid time given out.
    pub(super) last_time: Timestamp,
}

/// The superblock that counts.
pub(super) struct Chosen {
    pub(super) superblock: Superblock,
    /// Where it stands, 0 or 1.
    pub(super) slot: usize,
    /// The other slot is whole too.
    pub(super) both: bool,
}

/// What a slot may turn out to be.
enum Reading {
    Valid(Box<Superblock>),
    OtherVersion(u32),
    Broken,
    Foreign,
}

impl Superblock {
    /// That of a new, empty journal volume.
    pub(super) fn new(group: Uuid, geometry: JvolGeometry) -> Superblock {
        Superblock {
            group,
            generation: 1,
            geometry,
            out: 1,
            out_position: 0,
            out_digest: Digest::ZERO,
            durable: 0,
            durable_position: 0,
            last_time: Timestamp(i64::MIN),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK_LEN);
        let mut writer = Writer(&mut bytes);
        writer.0.extend_from_slice(&MAGIC);
        writer.u32(JVOL_FORMAT_VERSION);
        writer.u32(0);
        writer.0.extend_from_slice(self.group.as_bytes());
        writer.u64(self.generation);
        writer.u64(self.geometry.size);
        writer.u64(self.geometry.control_offset);
        writer.u64(self.geometry.control_slots);
        writer.u64(self.geometry.data_offset);
        writer.u64(self.geometry.data_size);
        writer.u64(self.out);
        writer.u64(self.out_position);
        writer.0.extend_from_slice(&self.out_digest.0);
        writer.u64(self.durable);
        writer.u64(self.durable_position);
        writer.i64(self.last_time.0);
        bytes.resize(SUPERBLOCK_LEN, 0);
        let checksum = checksum::crc32c(&bytes);
        bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Picks the slot that counts out of both, and says whether the other one is whole too. Magic, version and checksum
    /// have the same place in every version.
    pub(super) fn choose(path: &Path, slots: [&[u8]; 2]) -> Result<Chosen, JournalError> {
        let readings = slots.map(Superblock::read);
        let both = readings.iter().all(|reading| matches!(reading, Reading::Valid(_)));
        let mut chosen: Option<Chosen> = None;
        let (mut version, mut ours) = (None, false);
        for (slot, reading) in readings.into_iter().enumerate() {
            match reading {
                Reading::Valid(found) => {
                    if chosen.as_ref().is_none_or(|best| found.generation > best.superblock.generation) {
                        chosen = Some(Chosen { superblock: *found, slot, both });
                    }
                }
                Reading::OtherVersion(found) => version = Some(found),
                Reading::Broken => ours = true,
                Reading::Foreign => {}
            }
        }
        match (version, chosen) {
            (Some(found), _) => {
                Err(JournalError::Version { path: path.to_owned(), found, wanted: JVOL_FORMAT_VERSION })
            }
            (None, Some(chosen)) => Ok(chosen),
            (None, None) if ours => Err(JournalError::Damaged {
                path: path.to_owned(),
                seq: Seq::ZERO,
                offset: 0,
                reason: RecordError::Checksum,
            }),
            (None, None) => Err(JournalError::Foreign(path.to_owned())),
        }
    }

    fn read(bytes: &[u8]) -> Reading {
        if !bytes.starts_with(&MAGIC) || bytes.len() != SUPERBLOCK_LEN {
            return Reading::Foreign;
        }
        let mut blank = bytes.to_vec();
        blank[CHECKSUM].fill(0);
        let sealed = Reader(&bytes[CHECKSUM]).u32("checksum") == Ok(checksum::crc32c(&blank));
        match (sealed, Reader(&bytes[8..]).u32("version")) {
            (true, Ok(JVOL_FORMAT_VERSION)) => {
                Superblock::decode(&bytes[16..]).map_or(Reading::Broken, |found| Reading::Valid(Box::new(found)))
            }
            (true, Ok(version)) => Reading::OtherVersion(version),
            _ => Reading::Broken,
        }
    }

    fn decode(bytes: &[u8]) -> Result<Superblock, RecordError> {
        let mut reader = Reader(bytes);
        let group = Uuid::from_slice(reader.take(16, "group")?).map_err(|_| RecordError::Range("group"))?;
        let generation = reader.u64("generation")?;
        let geometry = JvolGeometry {
            size: reader.u64("size")?,
            control_offset: reader.u64("control offset")?,
            control_slots: reader.u64("control slots")?,
            data_offset: reader.u64("data offset")?,
            data_size: reader.u64("data size")?,
        };
        let (out, out_position) = (reader.u64("journal-out")?, reader.u64("journal-out position")?);
        let mut out_digest = Digest::ZERO;
        out_digest.0.copy_from_slice(reader.take(32, "digest")?);
        let (durable, durable_position) = (reader.u64("watermark")?, reader.u64("watermark position")?);
        let last_time = Timestamp(reader.i64("time")?);
        let found = Superblock {
            group,
            generation,
            geometry,
            out,
            out_position,
            out_digest,
            durable,
            durable_position,
            last_time,
        };
        if found.is_plausible() { Ok(found) } else { Err(RecordError::Range("superblock")) }
    }

    fn is_plausible(&self) -> bool {
        let Superblock { geometry, out, out_position, durable, durable_position, .. } = self;
        let records = durable.checked_add(1).and_then(|next| next.checked_sub(*out));
        let bytes = durable_position.checked_sub(*out_position);
        let is_countable = |number: &u64| *number < 1 << 62;
        geometry.size >= Jvol::SIZE_MIN
            && [out, out_position, durable, durable_position].into_iter().all(is_countable)
            && *geometry == JvolGeometry::new(geometry.size)
            && *out >= 1
            && records.is_some_and(|records| records <= geometry.control_slots)
            && bytes.is_some_and(|bytes| bytes <= geometry.data_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/FORMAT-journal.md, byte for byte.
    #[test]
    fn golden_bytes() {
        let superblock = Superblock {
            group: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            generation: 5,
            geometry: JvolGeometry::new(16 << 20),
            out: 7,
            out_position: 4096,
            out_digest: Digest([0xd1; 32]),
            durable: 9,
            durable_position: 4200,
            last_time: Timestamp(-3),
        };
        let bytes = superblock.encode();
        let mut expected = b"REELJVOL\x01\0\0\0".to_vec();
        expected.extend([0; 4]);
        expected.extend(1..=16);
        for field in [5, 16_777_216_u64, 8192, 16_320, 1_052_672, 15_724_544, 7, 4096] {
            expected.extend(field.to_le_bytes());
        }
        expected.extend([0xd1; 32]);
        expected.extend([9_u64.to_le_bytes(), 4200_u64.to_le_bytes(), (-3_i64).to_le_bytes()].concat());
        expected.resize(4096, 0);
        let checksum = checksum::crc32c(&expected);
        expected[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(bytes, expected);
        assert!(matches!(Superblock::read(&bytes), Reading::Valid(found) if *found == superblock));
    }

    #[test]
    fn numbers_that_nobody_counts_to_are_refused() {
        let good = Superblock { out: 7, durable: 9, ..Superblock::new(Uuid::nil(), JvolGeometry::new(16 << 20)) };
        let is_valid = |superblock: &Superblock| matches!(Superblock::read(&superblock.encode()), Reading::Valid(_));
        assert!(is_valid(&good));
        let far = u64::MAX - 10;
        let (out, durable) = (far, far + 2);
        assert!(!is_valid(&Superblock { out, durable, ..good.clone() }));
        let (out_position, durable_position) = (far & !7, far & !7);
        assert!(!is_valid(&Superblock { out_position, durable_position, ..good }));
    }
}
