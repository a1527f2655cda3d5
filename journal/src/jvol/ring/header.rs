//! The header of a ring: whose it is, and in which boot of the machine.

use uuid::Uuid;

use super::Lengths;
use crate::checksum;

/// Length of what does not change after the ring was made.
pub(super) const HEADER_LEN: usize = 128;

const MAGIC: &[u8; 8] = b"REELRING";
const VERSION: u32 = 1;
const CRC: std::ops::Range<usize> = 12..16;

/// What does not change while a ring is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) group: Uuid,
    pub(super) boot: Uuid,
    /// Inode number and length of the journal volume.
    pub(super) jvol: (u64, u64),
    pub(super) lengths: Lengths,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.group.as_bytes());
        bytes[32..48].copy_from_slice(self.boot.as_bytes());
        bytes[48..56].copy_from_slice(&self.jvol.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.jvol.1.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.lengths.data.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.lengths.slots.to_le_bytes());
        let crc = checksum::crc32c(&bytes);
        bytes[CRC].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let header = Header {
            group: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            boot: Uuid::from_u128(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20),
            jvol: (0x2122, 16 << 20),
            lengths: Lengths { data: 0x1e_0000, slots: 0x800 },
        };
        let mut golden = vec![];
        golden.extend(b"REELRING\x01\0\0\0");
        golden.extend([0; 4]);
        golden.extend(1..=32_u8);
        golden.extend([0x22, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        golden.extend([0, 0, 0x1e, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]);
        golden.resize(HEADER_LEN, 0);
        let crc = checksum::crc32c(&golden).to_le_bytes();
        golden[CRC].copy_from_slice(&crc);
        assert_eq!(header.encode().as_slice(), golden);
    }
}
