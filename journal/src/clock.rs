//! Where times come from: a strictly rising hybrid of the wall clock and the order of records.

use std::time::Duration;

use parking_lot::Mutex;

use crate::Timestamp;

/// What the clocks of the machine show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Wall clock (`CLOCK_REALTIME`).
    pub wall: Timestamp,
    /// Time since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot: Duration,
}

/// A source of time; tests bring their own.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn read(&self) -> ClockReading;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> ClockReading {
        use rustix::time::{ClockId, clock_gettime};
        let (wall, boot) = (clock_gettime(ClockId::Realtime), clock_gettime(ClockId::Boottime));
        ClockReading {
            wall: Timestamp(wall.tv_sec.saturating_mul(Timestamp::SECOND).saturating_add(wall.tv_nsec)),
            boot: Duration::new(u64::try_from(boot.tv_sec).unwrap_or(0), u32::try_from(boot.tv_nsec).unwrap_or(0)),
        }
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock(Mutex<ClockReading>);

impl ManualClock {
    /// Starts at this wall time, an hour after boot.
    #[must_use]
    pub fn new(wall: Timestamp) -> ManualClock {
        ManualClock(Mutex::new(ClockReading { wall, boot: Duration::from_secs(3600) }))
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let mut reading = self.0.lock();
        reading.wall.0 += i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        reading.boot += by;
    }

    /// Steps the wall clock alone, as an administrator or a wrong NTP server does.
    pub fn step(&self, by_ns: i64) {
        self.0.lock().wall.0 += by_ns;
    }
}

impl Clock for ManualClock {
    fn read(&self) -> ClockReading {
        *self.0.lock()
    }
}

/// Gives each record its time: the wall clock, but always at least one nanosecond after the record before. When the wall
/// clock steps more than five minutes away from the progress of the boot clock, the hybrid time follows the boot clock:
/// one wrong NTP answer must not poison the history.
#[derive(Debug)]
pub struct HybridClock {
    last: Timestamp,
    anchor: ClockReading,
    suspect: bool,
}

impl HybridClock {
    /// Disagreement of wall clock and boot clock that is still believed, in nanoseconds (5 min).
    pub const STEP_MAX: i64 = 300 * Timestamp::SECOND;

    /// Goes on after the last record of the journal (`Timestamp(i64::MIN)` if there is none).
    #[must_use]
    pub fn new(now: ClockReading, last: Timestamp) -> HybridClock {
        HybridClock { last, anchor: now, suspect: false }
    }

    /// The next time.
    pub fn tick(&mut self, now: ClockReading) -> Timestamp {
        let progress = i64::try_from(now.boot.saturating_sub(self.anchor.boot).as_nanos()).unwrap_or(i64::MAX);
        let expected = self.anchor.wall.0.saturating_add(progress);
        self.suspect = now.wall.0.abs_diff(expected) > Self::STEP_MAX.unsigned_abs();
        let believed = if self.suspect {
            expected
        } else {
            self.anchor = now;
            now.wall.0
        };
        self.last = Timestamp(believed.max(self.last.0.saturating_add(1)));
        self.last
    }

    /// The wall clock is not believed at present.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_through_a_step_back_and_ignores_a_year_forward() {
        let clock = ManualClock::new(Timestamp(1_000 * Timestamp::SECOND));
        let mut hybrid = HybridClock::new(clock.read(), Timestamp(i64::MIN));
        let first = hybrid.tick(clock.read());
        clock.step(-60 * Timestamp::SECOND);
        let second = hybrid.tick(clock.read());
        assert_eq!(second.0, first.0 + 1);
        clock.step(365 * 86_400 * Timestamp::SECOND);
        clock.advance(Duration::from_secs(1));
        let third = hybrid.tick(clock.read());
        assert!(hybrid.is_suspect());
        assert!(third > second && third.0 < first.0 + 10 * Timestamp::SECOND);
    }
}
