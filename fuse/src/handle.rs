//! The number that the kernel has for an open handle: how it is served, and what it makes durable.

use crate::answer::SyncAfter;
use crate::kernel::FileHandle;
use crate::open_mode::Mode;

/// The lower bits are the mode, the two above them what `open(2)` was told.
const MODES: u64 = 0b11;
const SYNC_DATA: u64 = 0b100;
const SYNC_ALL: u64 = 0b1000;

/// An open handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) mode: Mode,
    /// Opened with `O_DSYNC` or `O_SYNC`. Requests that are no writes do not say so.
    pub(crate) sync: Option<SyncAfter>,
}

impl Handle {
    /// Opened with these flags.
    pub(crate) fn new(mode: Mode, flags: i32) -> Handle {
        Handle { mode, sync: SyncAfter::asked(flags) }
    }

    pub(crate) fn number(self) -> FileHandle {
        let sync = match self.sync {
            None => 0,
            Some(SyncAfter::Data) => SYNC_DATA,
            Some(SyncAfter::All) => SYNC_ALL,
        };
        FileHandle(self.mode.number() | sync)
    }

    /// None of a number that is not ours.
    pub(crate) fn of_number(number: FileHandle) -> Option<Handle> {
        let sync = match number.0 & !MODES {
            0 => None,
            SYNC_DATA => Some(SyncAfter::Data),
            SYNC_ALL => Some(SyncAfter::All),
            _ => return None,
        };
        Mode::of_number(number.0 & MODES).map(|mode| Handle { mode, sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_all_of_it() {
        for mode in [Mode::Cached, Mode::Direct, Mode::Through, Mode::ThroughDirect] {
            for flags in [libc::O_RDWR, libc::O_WRONLY | libc::O_DSYNC, libc::O_WRONLY | libc::O_SYNC] {
                let handle = Handle::new(mode, flags);
                assert_eq!(Handle::of_number(handle.number()), Some(handle));
            }
        }
        assert_eq!(Handle::new(Mode::Direct, libc::O_SYNC).sync, Some(SyncAfter::All));
        assert_eq!(Handle::new(Mode::Direct, libc::O_DSYNC).sync, Some(SyncAfter::Data));
        assert_eq!(Handle::of_number(FileHandle(16)), None);
    }
}
