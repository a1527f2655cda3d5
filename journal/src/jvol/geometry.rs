//! Where things lie in a journal volume: superblocks, control area, data area.

use crate::CONTROL_LEN;

/// Everything that is written whole, and both areas, are aligned to this.
pub(super) const PAGE: u64 = 4096;
/// Slots of control data in a page.
pub(super) const PAGE_SLOTS: u64 = PAGE / SLOT;
/// Length of a slot.
pub(super) const SLOT: u64 = CONTROL_LEN as u64;
/// Journal data starts at multiples of this.
const ALIGNMENT: u64 = 8;
/// The control area is this part of the file.
const CONTROL_PART: u64 = 16;
/// This part of each area is kept for markers and amends.
const RESERVE_PART: u64 = 32;

/// The layout that follows from the size alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JvolGeometry {
    /// Length of the file in bytes, a multiple of 4096.
    pub size: u64,
    /// Where the control area starts.
    pub control_offset: u64,
    /// Slots in the control area, a multiple of 64.
    pub control_slots: u64,
    /// Where the data area starts.
    pub data_offset: u64,
    /// Bytes of the data area, a multiple of 4096.
    pub data_size: u64,
}

impl JvolGeometry {
    /// The layout of a file of `size` bytes, rounded down to whole pages; `size` is at least [`crate::Jvol::SIZE_MIN`].
    #[must_use]
    pub fn new(size: u64) -> JvolGeometry {
        let size = size / PAGE * PAGE;
        let control_offset = 2 * PAGE;
        let control_size = (size - control_offset) / CONTROL_PART / PAGE * PAGE;
        let data_offset = control_offset + control_size;
        JvolGeometry {
            size,
            control_offset,
            control_slots: control_size / SLOT,
            data_offset,
            data_size: size - data_offset,
        }
    }

    /// Space that `length` bytes of journal data take.
    #[must_use]
    pub fn aligned(length: u64) -> u64 {
        length.next_multiple_of(ALIGNMENT)
    }

    /// Where the control data of record `seq` lies in the file.
    pub(super) fn slot_offset(&self, seq: u64) -> u64 {
        self.control_offset + seq % self.control_slots * SLOT
    }

    /// How many slots from that of `seq` on lie in one piece.
    pub(super) fn slots_to_end(&self, seq: u64) -> u64 {
        self.control_slots - seq % self.control_slots
    }

    /// Where a position of the data ring lies in the file.
    pub(super) fn data_place(&self, position: u64) -> u64 {
        self.data_offset + position % self.data_size
    }

    /// How many bytes from a position on lie in one piece.
    pub(super) fn data_to_end(&self, position: u64) -> u64 {
        self.data_size - position % self.data_size
    }

    /// Bytes of the data area kept for markers and amends.
    pub(super) fn data_reserve(&self) -> u64 {
        self.data_size / RESERVE_PART
    }

    /// Slots kept for markers and amends.
    pub(super) fn slot_reserve(&self) -> u64 {
        self.control_slots / RESERVE_PART
    }

    /// Bytes that applications may fill before they wait: without the reserve and without what appenders that asked at
    /// the same moment may take.
    pub(super) fn data_usable(&self) -> u64 {
        self.data_size - self.data_reserve() - (self.data_size / 8).min(16 << 20)
    }

    /// Slots that applications may fill before they wait.
    pub(super) fn slots_usable(&self) -> u64 {
        self.control_slots - self.slot_reserve() - (self.control_slots / 8).min(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_whole_pages_and_fill_the_file() {
        for size in [16 << 20, (16 << 20) + 4095, 1 << 30, (1 << 40) + 12_288] {
            let geometry = JvolGeometry::new(size);
            assert_eq!(geometry.size, size / PAGE * PAGE);
            assert_eq!(geometry.control_slots % PAGE_SLOTS, 0);
            assert_eq!(geometry.data_size % PAGE, 0);
            assert_eq!(geometry.control_offset + geometry.control_slots * SLOT, geometry.data_offset);
            assert_eq!(geometry.data_offset + geometry.data_size, geometry.size);
            assert_eq!(geometry.slot_offset(geometry.control_slots), geometry.control_offset);
            assert_eq!(geometry.data_place(geometry.data_size - 1), geometry.size - 1);
            assert!(geometry.data_usable() > geometry.data_size / 2);
        }
    }
}
