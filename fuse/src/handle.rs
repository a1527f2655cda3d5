//! The number that the kernel has for an open handle: how it is served, and what it makes durable.

use crate::answer::asks_to_sync;
use crate::kernel::FileHandle;
use crate::open_mode::Mode;

/// The lower bits are the mode, the one above them what `open(2)` was told.
const MODES: u64 = 0b111;
const SYNC: u64 = 0b1000;

/// An open handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) mode: Mode,
    /// Opened with `O_DSYNC` or `O_SYNC`. Requests that are no writes do not say so.
    pub(crate) sync: bool,
}

impl Handle {
    /// Opened with these flags.
    pub(crate) fn new(mode: Mode, flags: i32) -> Handle {
        Handle { mode, sync: asks_to_sync(flags) }
    }

    pub(crate) fn number(self) -> FileHandle {
        FileHandle(self.mode.number() | if self.sync { SYNC } else { 0 })
    }

    /// None of a number that is not ours.
    pub(crate) fn of_number(number: FileHandle) -> Option<Handle> {
        let (sync, rest) = (number.0 & SYNC != 0, number.0 & !SYNC);
        if rest & !MODES != 0 {
            return None;
        }
        Mode::of_number(rest).map(|mode| Handle { mode, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_all_of_it() {
        for mode in Mode::ALL {
            for flags in [libc::O_RDWR, libc::O_WRONLY | libc::O_DSYNC, libc::O_WRONLY | libc::O_SYNC] {
                let handle = Handle::new(mode, flags);
                assert_eq!(Handle::of_number(handle.number()), Some(handle));
            }
        }
        assert!(Handle::new(Mode::Direct, libc::O_SYNC).sync && Handle::new(Mode::Direct, libc::O_DSYNC).sync);
        assert!(!Handle::new(Mode::Direct, libc::O_WRONLY).sync);
        assert_eq!(Handle::of_number(FileHandle(16)), None);
    }
}
