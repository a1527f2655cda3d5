//! The machine's clock, and in a debug build one that a test moves: no test sets the clock of its machine.

use std::sync::Arc;

use reelfs_journal::{Clock, SystemClock};

/// The clock of this process. A debug build takes steps from the file that `REELFS_CLOCK_STEPS` names, also while it runs:
/// lines of a real time and of how far the wall clock is ahead from then on, both in nanoseconds, in order.
#[must_use]
pub fn of_machine() -> Arc<dyn Clock> {
    #[cfg(debug_assertions)]
    if let Some(steps) = std::env::var_os("REELFS_CLOCK_STEPS") {
        return Arc::new(stepped::SteppedClock::new(steps.into()));
    }
    Arc::new(SystemClock)
}

#[cfg(debug_assertions)]
mod stepped {
    use std::path::PathBuf;

    use reelfs_journal::{Clock, ClockReading, FileTime, SystemClock, Timestamp};

    /// The machine's clock with steps that never happened.
    #[derive(Debug)]
    pub(super) struct SteppedClock {
        steps: PathBuf,
    }

    impl SteppedClock {
        pub(super) fn new(steps: PathBuf) -> SteppedClock {
            SteppedClock { steps }
        }

        /// How far it was ahead at a real time, in nanoseconds.
        fn ahead(&self, real: i64) -> i64 {
            let text = std::fs::read_to_string(&self.steps).unwrap_or_default();
            let steps = text.lines().filter_map(|line| {
                let (since, ahead) = line.split_once(' ')?;
                Some((since.parse::<i64>().ok()?, ahead.parse::<i64>().ok()?))
            });
            steps.take_while(|(since, _)| *since <= real).last().map_or(0, |(_, ahead)| ahead)
        }
    }

    impl Clock for SteppedClock {
        fn read(&self) -> ClockReading {
            let real = SystemClock.read();
            ClockReading { wall: Timestamp(real.wall.0.saturating_add(self.ahead(real.wall.0))), ..real }
        }

        fn shown(&self, file_time: FileTime) -> FileTime {
            let real = file_time.seconds.saturating_mul(Timestamp::SECOND).saturating_add(file_time.nanos.into());
            Timestamp(real.saturating_add(self.ahead(real))).into()
        }
    }
}
