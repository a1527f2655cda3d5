//! Where times come from: a strictly rising hybrid of the wall clock and the order of records.

use std::time::Duration;

use parking_lot::Mutex;

use crate::{FileTime, Timestamp};

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

    /// What this clock showed when the kernel gave a file this time. They are the same clock, but for one that a test moves.
    fn shown(&self, file_time: FileTime) -> FileTime {
        file_time
    }
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
/// clock steps more than five minutes away from the progress of the boot clock, the hybrid time follows the boot clock until
/// the wall clock comes back or somebody accepts it: one wrong NTP answer must not poison the history.
#[derive(Debug)]
pub struct HybridClock {
    last: Timestamp,
    anchor: ClockReading,
    /// The anchor is the last record and no clock: the machine came up with an earlier time, and a later one is its right one.
    stopgap: bool,
    /// How far the wall clock is ahead of what is believed, in nanoseconds, while it is not believed.
    ahead: Option<i64>,
    /// What was told last about that.
    told: bool,
}

/// That the wall clock is believed no more, or again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockTurn {
    /// How far it is ahead of what is believed, in nanoseconds; `None` when it is believed again.
    pub ahead: Option<i64>,
}

impl HybridClock {
    /// Disagreement of wall clock and boot clock that is still believed, in nanoseconds (5 min).
    pub const STEP_MAX: i64 = 300 * Timestamp::SECOND;

    /// Goes on after the last record of the journal (`Timestamp(i64::MIN)` if there is none). A wall clock that shows an
    /// earlier time than that record has is not believed until it shows a later one.
    #[must_use]
    pub fn new(now: ClockReading, last: Timestamp) -> HybridClock {
        let stopgap = now.wall < last;
        let anchor = if stopgap { ClockReading { wall: last, ..now } } else { now };
        HybridClock { last, anchor, stopgap, ahead: None, told: false }
    }

    /// Goes on from what was believed earlier in the same boot of the machine.
    #[must_use]
    pub fn after(believed: ClockReading, last: Timestamp) -> HybridClock {
        HybridClock { last, anchor: believed, stopgap: false, ahead: None, told: false }
    }

    /// The next time.
    pub fn tick(&mut self, now: ClockReading) -> Timestamp {
        let expected = self.expected(now);
        let ahead = now.wall.0.saturating_sub(expected.wall.0);
        let is_near = ahead.unsigned_abs() <= Self::STEP_MAX.unsigned_abs();
        if is_near || (self.stopgap && ahead > 0) {
            (self.anchor, self.stopgap, self.ahead) = (now, false, None);
        } else {
            self.ahead = Some(ahead);
        }
        let believed = if self.ahead.is_some() { expected.wall.0 } else { now.wall.0 };
        self.last = Timestamp(believed.max(self.last.0.saturating_add(1)));
        self.last
    }

    /// What the wall clock would show, had it gone on as it was when it was believed.
    fn expected(&self, now: ClockReading) -> ClockReading {
        let progress = i64::try_from(now.boot.saturating_sub(self.anchor.boot).as_nanos()).unwrap_or(i64::MAX);
        ClockReading { wall: Timestamp(self.anchor.wall.0.saturating_add(progress)), boot: now.boot }
    }

    /// Somebody says that the wall clock is right.
    pub fn accept(&mut self, now: ClockReading) {
        (self.anchor, self.stopgap, self.ahead) = (now, false, None);
    }

    /// What is believed, at the moment of a reading.
    #[must_use]
    pub fn believed(&self, now: ClockReading) -> ClockReading {
        if self.ahead.is_some() { self.expected(now) } else { now }
    }

    /// How far the wall clock is ahead of what is believed, in nanoseconds; `None` while it is believed.
    #[must_use]
    pub fn ahead(&self) -> Option<i64> {
        self.ahead
    }

    /// Something about the wall clock has not been told yet.
    #[must_use]
    pub fn has_turned(&self) -> bool {
        self.told != self.ahead.is_some()
    }

    /// The same, once.
    pub fn turn(&mut self) -> Option<ClockTurn> {
        let turned = self.has_turned();
        self.told = self.ahead.is_some();
        turned.then_some(ClockTurn { ahead: self.ahead })
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
        assert!(hybrid.ahead().is_some_and(|ahead| ahead > 364 * 86_400 * Timestamp::SECOND));
        assert!(third > second && third.0 < first.0 + 10 * Timestamp::SECOND);
        assert!(hybrid.turn().is_some() && hybrid.turn().is_none(), "told once");
        // a later opening in the same boot goes on with what was believed, not with what is shown
        let mut later = HybridClock::after(hybrid.believed(clock.read()), third);
        clock.advance(Duration::from_secs(1));
        let fourth = later.tick(clock.read());
        assert!(fourth.0 - third.0 < 2 * Timestamp::SECOND && later.ahead().is_some());
        later.accept(clock.read());
        assert!(later.tick(clock.read()).0 > fourth.0 + 364 * 86_400 * Timestamp::SECOND);
        assert!(later.ahead().is_none());
    }

    #[test]
    fn a_machine_that_comes_up_in_1970_goes_on_from_its_last_record_until_it_knows_the_time() {
        let last = Timestamp(1_700_000_000 * Timestamp::SECOND);
        let clock = ManualClock::new(Timestamp(0));
        let mut hybrid = HybridClock::new(clock.read(), last);
        assert_eq!(hybrid.tick(clock.read()).0, last.0 + 1);
        clock.advance(Duration::from_secs(10));
        assert_eq!(hybrid.tick(clock.read()).0, last.0 + 10 * Timestamp::SECOND);
        assert!(hybrid.ahead().is_some());
        clock.step(1_700_090_000 * Timestamp::SECOND);
        assert_eq!(hybrid.tick(clock.read()), clock.read().wall);
        assert!(hybrid.ahead().is_none());
    }
}
