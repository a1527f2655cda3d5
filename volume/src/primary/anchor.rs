//! The clock from one opening to the next: what was shown and what was believed, so that a step of the wall clock is known
//! as one while nobody had the volume open.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use reelfs_journal::{ClockReading, ClockTurn, MarkerKind, Tags, Timestamp};

use super::Primary;

/// A step back of less than this is not told from the time that passes between two readings, in nanoseconds (1 s).
pub(super) const STEP_MIN: i64 = Timestamp::SECOND;

/// How the group takes the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClockState {
    /// What the wall clock shows.
    pub shown: Timestamp,
    /// The time that records get.
    pub believed: Timestamp,
    /// How far the wall clock is ahead of what is believed, in nanoseconds; `None` while it is believed.
    pub ahead_ns: Option<i64>,
}

/// Where the wall clock stood, as its distance from the boot clock, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Boot of the machine.
    boot: String,
    shown: i64,
    believed: i64,
    /// The furthest that it was ahead since the volume was opened; after a clean stop, where it stood then.
    furthest: i64,
}

impl Anchor {
    fn place(state: &Path) -> PathBuf {
        state.join("clock")
    }

    fn of(boot: &str, shown: ClockReading, believed: ClockReading) -> Anchor {
        let shown = distance(shown);
        Anchor { boot: boot.to_owned(), shown, believed: distance(believed), furthest: shown }
    }

    /// What the last session left; one that cannot be read is none, and the clock is believed as on another machine.
    pub(super) fn load(state: &Path) -> Option<Anchor> {
        let text = fs::read_to_string(Anchor::place(state)).ok()?;
        let mut words = text.split_whitespace();
        let boot = words.next()?.to_owned();
        let mut distance = || words.next()?.parse().ok();
        Some(Anchor { boot, shown: distance()?, believed: distance()?, furthest: distance()? })
    }

    fn store(&self, state: &Path) -> io::Result<()> {
        let temporary = state.join("clock.new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{} {} {} {}", self.boot, self.shown, self.believed, self.furthest)?;
        file.sync_all()?;
        fs::rename(&temporary, Anchor::place(state))?;
        File::open(state)?.sync_all()
    }

    /// What is believed now, in the same boot.
    pub(super) fn believed(&self, boot: &str, now: ClockReading) -> Option<ClockReading> {
        (self.boot == boot).then(|| ClockReading { wall: at(now.boot, self.believed), boot: now.boot })
    }

    /// How far the wall clock was put back since, in nanoseconds; 0 when it was not, and after another boot nobody knows.
    pub(super) fn put_back(&self, boot: &str, now: ClockReading) -> i64 {
        let back = self.furthest.saturating_sub(distance(now));
        if self.boot == boot && back >= STEP_MIN { back } else { 0 }
    }

    /// What was believed when the wall clock of that session showed this.
    pub(super) fn hybrid(&self, shown: Timestamp) -> Timestamp {
        Timestamp(shown.0.saturating_sub(self.shown).saturating_add(self.believed))
    }
}

/// How far the wall clock is ahead of the boot clock, in nanoseconds.
pub(super) fn distance(reading: ClockReading) -> i64 {
    reading.wall.0.saturating_sub(nanoseconds(reading.boot))
}

fn at(boot: Duration, distance: i64) -> Timestamp {
    Timestamp(nanoseconds(boot).saturating_add(distance))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Primary {
    /// How the group takes the wall clock.
    #[must_use]
    pub fn clock_state(&self) -> ClockState {
        let now = self.clock.read();
        let (believed, ahead_ns) = self.jvol.believed(now);
        ClockState { shown: now.wall, believed: believed.wall, ahead_ns }
    }

    /// Takes the wall clock for right, whatever was believed before; false when it was believed already.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn accept_clock(&self) -> io::Result<bool> {
        let _ = self.jvol.tick(&*self.clock);
        let _ = self.tell_clock();
        let is_news = self.clock_state().ahead_ns.is_some();
        self.jvol.accept_clock(self.clock.read());
        let _ = self.jvol.tick(&*self.clock);
        let _ = self.tell_clock();
        self.keep_clock()?;
        Ok(is_news)
    }

    /// Goes on with what was believed, and gives what is known of the last session, and whether it was in this boot.
    pub(super) fn take_up_clock(&self, boot: Option<&str>) -> (bool, Option<Anchor>) {
        let anchor = Anchor::load(&self.state);
        // another boot may stand in the session alone
        let same_boot = boot == Some(self.boot.as_str());
        let known = anchor.as_ref().filter(|_| same_boot);
        if let Some(believed) = known.and_then(|anchor| anchor.believed(&self.boot, self.clock.read())) {
            self.jvol.follow(believed);
        }
        (same_boot, anchor)
    }

    /// The last moment at which the volume was what the journal says, as records have it, by what the wall clock showed then.
    pub(super) fn certain_until(&self, anchor: Option<&Anchor>, shown: Timestamp) -> Timestamp {
        let last = self.jvol.pointers().last_time;
        anchor.map_or(shown, |anchor| anchor.hybrid(shown)).min(last)
    }

    /// Notes where the clock stands, for the next opening.
    pub(super) fn keep_clock(&self) -> io::Result<()> {
        let present = self.clock_now();
        let furthest = self.furthest.fetch_max(present.shown, Ordering::Relaxed).max(present.shown);
        Anchor { furthest, ..present }.store(&self.state)
    }

    /// How far the wall clock was put back since the volume was opened, at most, in nanoseconds.
    pub(super) fn clock_put_back(&self) -> i64 {
        let present = self.clock_now();
        let back = self.furthest.load(Ordering::Relaxed).saturating_sub(present.shown);
        if back >= STEP_MIN { back } else { 0 }
    }

    /// The same at a clean stop: nothing was changed after it.
    pub(super) fn keep_clock_closed(&self) -> io::Result<()> {
        self.clock_now().store(&self.state)
    }

    fn clock_now(&self) -> Anchor {
        let now = self.clock.read();
        Anchor::of(&self.boot, now, self.jvol.believed(now).0)
    }

    /// Says in the journal that the wall clock is believed no more, or again, if that is news, and whether it was.
    pub(super) fn tell_clock(&self) -> bool {
        if self.is_suspended() {
            return false; // later, when it is journaled again
        }
        let Some(ClockTurn { ahead }) = self.jvol.clock_turn() else { return false };
        let wall = self.clock.read().wall;
        let note = match ahead {
            Some(ahead) => {
                let by = humane(ahead);
                format!("the wall clock was put {by} and is not believed; times go on as before")
            }
            None => "the wall clock is believed again".to_owned(),
        };
        tracing::warn!(note, "a step of the clock");
        if let Err(error) = self.place(MarkerKind::ClockStep, ("", &note, &Tags::default()), wall) {
            tracing::warn!(%error, "a step of the clock could not be journaled");
        }
        if let Err(error) = self.keep_clock() {
            tracing::warn!(%error, "a step of the clock could not be noted");
        }
        true
    }
}

/// "forward by 31536000 s", to the second.
fn humane(ahead: i64) -> String {
    let seconds = ahead.unsigned_abs() / Timestamp::SECOND.unsigned_abs();
    format!("{} by {seconds} s", if ahead < 0 { "back" } else { "forward" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: i64, boot: u64) -> ClockReading {
        ClockReading { wall: Timestamp(wall * Timestamp::SECOND), boot: Duration::from_secs(boot) }
    }

    #[test]
    fn what_was_believed_is_known_in_the_same_boot_only() {
        let state = tempfile::tempdir().expect("a directory");
        assert_eq!(Anchor::load(state.path()), None);
        // shown a day ahead of what is believed
        let anchor = Anchor::of("boot", reading(1_086_400, 50), reading(1_000_000, 50));
        anchor.store(state.path()).expect("stored");
        assert_eq!(Anchor::load(state.path()).as_ref(), Some(&anchor));
        let later = reading(1_000_100, 150);
        assert_eq!(anchor.believed("boot", later), Some(later));
        assert_eq!(anchor.believed("another", later), None);
        assert_eq!(anchor.put_back("boot", later), 86_400 * Timestamp::SECOND);
        assert_eq!(anchor.put_back("another", later), 0);
        assert_eq!(anchor.put_back("boot", reading(1_086_500, 150)), 0);
        assert_eq!(anchor.hybrid(reading(1_086_400, 50).wall), reading(1_000_000, 50).wall);
    }
}
