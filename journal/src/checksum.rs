//! CRC-32C (RFC 3720, 12.1), the checksum of what stands in journals and of small files beside them.

use crc_fast::{CrcAlgorithm, Digest};

/// Of these bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Of bytes of which the first part has the checksum `before`, and the rest is `bytes`.
#[must_use]
pub fn crc32c_append(before: u32, bytes: &[u8]) -> u32 {
    // between two parts the state is the checksum without its last inversion
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!before));
    digest.update(bytes);
    u32::try_from(digest.finalize()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, B.4.
    #[test]
    fn it_is_that_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(&[]), 0);
    }

    /// Each length that the processor treats in another way, in all parts, bit by bit.
    #[test]
    fn it_is_the_same_in_parts_and_bit_by_bit() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|number| (number.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        for length in (0..300).chain([1_023, 1_024, 4_095, 4_096, 4_111, 65_536, 69_999]) {
            let (mut slow, whole) = (!0_u32, &bytes[1..=length]);
            for byte in whole {
                slow ^= u32::from(*byte);
                for _ in 0..8 {
                    slow = (slow >> 1) ^ (0x82f6_3b78 & (slow & 1).wrapping_neg());
                }
            }
            assert_eq!(crc32c(whole), !slow, "{length} bytes");
            for cut in [0, 1, length / 3, length.saturating_sub(1), length] {
                let (first, rest) = whole.split_at(cut.min(length));
                assert_eq!(crc32c_append(crc32c(first), rest), !slow, "{length} bytes cut at {cut}");
            }
        }
    }
}
