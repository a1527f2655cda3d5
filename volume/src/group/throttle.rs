//! A journal that fills: a warning, writers slowed down more and more, so that exports can keep up, and what happens in the end.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use reelfs_journal::DATA_MAX;
use serde::{Deserialize, Serialize};

use super::Group;

/// How long one request of 1 MiB is held up at most, just before the journal is full (100 ms).
const DELAY_MAX: Duration = Duration::from_millis(100);
/// What a request without data counts as, in bytes: it takes room too, and processor time of whoever exports.
const LEAST: u64 = 32 << 10;
/// How far occupancy must fall below the warning, in percent of the journal, before it is told again.
const CALM: f64 = 0.05;

/// Where the warning stands unless it is set, in percent of the journal.
pub const WARN_PERCENT: u8 = 80;

/// What happens when the journal is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// Nothing is journaled any more; what changes is noted, and a resync tells it.
    Suspend,
    /// Writers wait for room.
    #[default]
    Block,
    /// Writers get `ENOSPC`.
    Fail,
}

/// From which occupancy on writers are slowed down, and whether that has been told.
#[derive(Debug)]
pub(super) struct Warning {
    percent: AtomicU8,
    told: AtomicBool,
}

impl Default for Warning {
    fn default() -> Warning {
        Warning { percent: AtomicU8::new(WARN_PERCENT), told: AtomicBool::new(false) }
    }
}

impl Group {
    /// From which occupancy on (percent, 1 to 100) it is warned and writers are slowed down; at 100 they never are.
    pub fn set_warning(&self, percent: u8) {
        self.warning.percent.store(percent.clamp(1, 100), Ordering::Relaxed);
    }

    /// What happens from now on when the journal is full.
    pub fn set_on_full(&self, on_full: OnFull) {
        *self.on_full.lock() = on_full;
    }

    /// How long a change that brings so many bytes is to be held up now, before it begins and where it holds nothing: nothing below
    /// the warning, then more and more, 100 ms for 1 MiB when the journal is full. In proportion to the bytes, so that who fills the
    /// journal waits for it, and a small write beside them does not.
    #[must_use]
    pub fn delay(&self, payload: u64) -> Duration {
        let warn = f64::from(self.warning.percent.load(Ordering::Relaxed)) / 100.0;
        let used = self.jvol.occupancy();
        if used >= warn && !self.warning.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("the journal is {:.0} % full: writers are slowed down until it is exported", used * 100.0);
        } else if used < warn - CALM {
            self.warning.told.store(false, Ordering::Relaxed);
        }
        delay(used, warn).mul_f64(share(payload))
    }
}

/// The part of a MiB that so many bytes count as.
fn share(payload: u64) -> f64 {
    payload.clamp(LEAST, DATA_MAX as u64) as f64 / DATA_MAX as f64
}

/// From 0 at the warning to [`DELAY_MAX`] at 1, gently at first.
fn delay(used: f64, warn: f64) -> Duration {
    if used <= warn || warn >= 1.0 {
        return Duration::ZERO;
    }
    let way = ((used - warn) / (1.0 - warn)).min(1.0);
    DELAY_MAX.mul_f64(way * way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_brings_more_waits_longer() {
        assert_eq!((share(1 << 20), share(1 << 19)), (1.0, 0.5));
        assert_eq!((share(0), share(4096), share(LEAST)), (1.0 / 32.0, 1.0 / 32.0, 1.0 / 32.0));
    }

    #[test]
    fn a_delay_rises_from_nothing_to_its_bound() {
        assert_eq!((delay(0.0, 0.8), delay(0.8, 0.8)), (Duration::ZERO, Duration::ZERO));
        let rising: Vec<Duration> = (81..=100).map(|percent| delay(f64::from(percent) / 100.0, 0.8)).collect();
        assert!(rising.is_sorted() && rising[0] > Duration::ZERO, "{rising:?}");
        assert_eq!((rising.last(), delay(7.0, 0.8)), (Some(&DELAY_MAX), DELAY_MAX));
        assert_eq!(delay(1.0, 1.0), Duration::ZERO, "switched off");
    }
}
