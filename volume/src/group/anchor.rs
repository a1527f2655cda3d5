//! The clock from one opening to the next: what was shown and what was believed, so that a step of the wall clock is known
//! as one while nobody had the volume open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reelfs_journal::disk::{self, Label};
use reelfs_journal::{ClockReading, ClockTurn, MarkerKind, Tags, Timestamp, VolumeIndex};

use super::Group;

/// A step back of less than this is not told from the time that passes between two readings, in nanoseconds (1 s).
pub(crate) const STEP_MIN: i64 = Timestamp::SECOND;

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
pub(crate) struct Anchor {
    /// Boot of the machine.
    boot: String,
    shown: i64,
    believed: i64,
    /// The furthest that it was ahead since the volume was opened; after a clean stop, where it stood then.
    furthest: i64,
}

impl Anchor {
    fn of(boot: &str, shown: ClockReading, believed: ClockReading) -> Anchor {
        let shown = distance(shown);
        Anchor { boot: boot.to_owned(), shown, believed: distance(believed), furthest: shown }
    }

    fn parse<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<Anchor> {
        let boot = words.next()?.to_owned();
        let mut distance = || words.next()?.parse().ok();
        Some(Anchor { boot, shown: distance()?, believed: distance()?, furthest: distance()? })
    }

    /// What is believed now, in the same boot.
    fn believed(&self, boot: &str, now: ClockReading) -> Option<ClockReading> {
        (self.boot == boot).then(|| ClockReading { wall: at(now.boot, self.believed), boot: now.boot })
    }

    /// How far the wall clock was put back since, in nanoseconds; 0 when it was not, and after another boot nobody knows.
    pub(crate) fn put_back(&self, boot: &str, now: ClockReading) -> i64 {
        let back = self.furthest.saturating_sub(distance(now));
        if self.boot == boot && back >= STEP_MIN { back } else { 0 }
    }

    /// What was believed when the wall clock of that session showed this.
    pub(crate) fn hybrid(&self, shown: Timestamp) -> Timestamp {
        Timestamp(shown.0.saturating_sub(self.shown).saturating_add(self.believed))
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.boot, self.shown, self.believed, self.furthest)
    }
}

/// A file in the group's state: where the clock stands, and where it stood when each volume was last open. One line each, that of
/// the group without an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Anchors {
    known: BTreeMap<Option<u16>, Anchor>,
    /// Volumes that are open.
    open: BTreeSet<u16>,
}

impl Anchors {
    fn place(state: &Path) -> PathBuf {
        state.join("clock")
    }

    /// What was noted; a line that cannot be read is none, and the clock is believed as on another machine.
    pub(super) fn load(state: &Path) -> Anchors {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let index = match words.next()? {
                "-" => None,
                index => Some(index.parse().ok()?),
            };
            Some((index, Anchor::parse(words)?))
        };
        let text = fs::read_to_string(Anchors::place(state)).unwrap_or_default();
        Anchors { known: text.lines().filter_map(line).collect(), open: BTreeSet::new() }
    }

    fn store(&self, state: &Path) -> io::Result<()> {
        let (place, temporary) = (Anchors::place(state), state.join("clock.new"));
        let mut text = String::new();
        for (index, anchor) in &self.known {
            let index = index.map_or_else(|| "-".to_owned(), |index| index.to_string());
            text.push_str(&format!("{index} {anchor}\n"));
        }
        let options = File::options().create(true).truncate(true).write(true).clone();
        let file = disk::create(Label::ClockCreate, &temporary, &options)?;
        disk::append(Label::ClockWrite, &file, text.as_bytes())?;
        disk::sync(Label::ClockSync, &file)?;
        disk::rename(Label::ClockRename, &temporary, &place)?;
        disk::sync_parent(Label::ClockNameSync, &place)
    }

    /// What is believed now, in the same boot.
    pub(super) fn believed(&self, boot: &str, now: ClockReading) -> Option<ClockReading> {
        self.known.get(&None).and_then(|anchor| anchor.believed(boot, now))
    }

    /// It stands there now, for the group and every volume that is open.
    fn note(&mut self, present: &Anchor) {
        for index in self.open.iter().copied().map(Some) {
            let furthest =
                self.known.get(&index).map_or(present.furthest, |known| known.furthest.max(present.furthest));
            self.known.insert(index, Anchor { furthest, ..present.clone() });
        }
        self.known.insert(None, present.clone());
    }
}

/// What a group that nobody has open believes of a reading of the clock, as it noted in its state directory; `None` when it noted
/// nothing in this boot of the machine.
#[must_use]
pub fn believed_clock(state: &Path, now: ClockReading) -> Option<ClockReading> {
    Anchors::load(state).believed(&boot_of_machine(), now)
}

/// How far the wall clock is ahead of the boot clock, in nanoseconds.
pub(crate) fn distance(reading: ClockReading) -> i64 {
    reading.wall.0.saturating_sub(nanoseconds(reading.boot))
}

fn at(boot: Duration, distance: i64) -> Timestamp {
    Timestamp(nanoseconds(boot).saturating_add(distance))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Group {
    /// The time that a record would get now: what is believed of the wall clock, also when it has stepped since the last record.
    #[must_use]
    pub fn believed_now(&self) -> Timestamp {
        let _ = self.jvol.tick(&*self.clock);
        self.clock_state().believed
    }

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

    /// Boot of the machine.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Where the clock stood when a volume was last open.
    pub(crate) fn anchor(&self, volume: VolumeIndex) -> Option<Anchor> {
        self.anchors.lock().known.get(&Some(volume.0)).cloned()
    }

    /// The last moment at which a volume was what the journal says, as records have it, by what the wall clock showed then.
    pub(crate) fn certain_until(&self, anchor: Option<&Anchor>, shown: Timestamp) -> Timestamp {
        let last = self.jvol.pointers().last_time;
        anchor.map_or(shown, |anchor| anchor.hybrid(shown)).min(last)
    }

    /// A volume is open, and was opened when the wall clock was so far ahead of the boot clock, in nanoseconds.
    pub(crate) fn watch_clock(&self, volume: VolumeIndex, opened: i64) -> io::Result<()> {
        self.change_anchors(|anchors, present| {
            anchors.known.insert(Some(volume.0), Anchor { furthest: opened, ..present });
            anchors.open.insert(volume.0);
        })
    }

    /// How far the wall clock was put back since a volume was opened, at most, in nanoseconds.
    pub(crate) fn clock_put_back(&self, volume: VolumeIndex) -> i64 {
        let present = self.clock_now();
        let furthest = self.anchor(volume).map_or(present.furthest, |anchor| anchor.furthest);
        let back = furthest.saturating_sub(present.shown);
        if back >= STEP_MIN { back } else { 0 }
    }

    /// A volume was closed: nothing is changed in it after this.
    pub(crate) fn keep_clock_closed(&self, volume: VolumeIndex) -> io::Result<()> {
        self.change_anchors(|anchors, present| {
            anchors.known.insert(Some(volume.0), present);
            anchors.open.remove(&volume.0);
        })
    }

    /// A volume has left the group.
    pub(super) fn forget_clock(&self, volume: VolumeIndex) -> io::Result<()> {
        self.change_anchors(|anchors, _| drop(anchors.known.remove(&Some(volume.0))))
    }

    /// Notes where the clock stands, for the next opening.
    fn keep_clock(&self) -> io::Result<()> {
        self.change_anchors(|_, _| {})
    }

    /// What cannot be stored is not so.
    fn change_anchors(&self, change: impl FnOnce(&mut Anchors, Anchor)) -> io::Result<()> {
        let mut anchors = self.anchors.lock();
        let (mut changed, present) = (anchors.clone(), self.clock_now());
        change(&mut changed, present.clone());
        changed.note(&present);
        changed.store(&self.state)?;
        *anchors = changed;
        Ok(())
    }

    fn clock_now(&self) -> Anchor {
        let now = self.clock.read();
        Anchor::of(&self.boot, now, self.jvol.believed(now).0)
    }

    /// Says in the journal that the wall clock is believed no more, or again, if that is news, and whether it was.
    pub(crate) fn tell_clock(&self) -> bool {
        // while nothing of any volume is journaled: later, when it is again
        if !self.jvol.has_clock_turned() || self.all_sealed().is_some() {
            return false;
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
        let what = (MarkerKind::ClockStep, "", note.as_str(), &Tags::default());
        if let Err(error) = self.place(VolumeIndex(0), what, wall) {
            tracing::warn!(%error, "a step of the clock could not be journaled");
        }
        if let Err(error) = self.keep_clock() {
            tracing::warn!(%error, "a step of the clock could not be noted");
        }
        true
    }
}

/// The boot of the machine.
pub(crate) fn boot_of_machine() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
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
        assert_eq!(Anchors::load(state.path()), Anchors::default());
        // shown a day ahead of what is believed
        let anchor = Anchor::of("boot", reading(1_086_400, 50), reading(1_000_000, 50));
        let mut anchors = Anchors { known: BTreeMap::new(), open: BTreeSet::from([3]) };
        anchors.note(&anchor);
        anchors.store(state.path()).expect("stored");
        let loaded = Anchors::load(state.path());
        assert_eq!((&loaded.known, loaded.open.len()), (&anchors.known, 0));
        assert_eq!(loaded.known.keys().collect::<Vec<_>>(), [&None, &Some(3)]);
        let later = reading(1_000_100, 150);
        assert_eq!(loaded.believed("boot", later), Some(later));
        assert_eq!(loaded.believed("another", later), None);
        assert_eq!(anchor.put_back("boot", later), 86_400 * Timestamp::SECOND);
        assert_eq!(anchor.put_back("another", later), 0);
        assert_eq!(anchor.put_back("boot", reading(1_086_500, 150)), 0);
        assert_eq!(anchor.hybrid(reading(1_086_400, 50).wall), reading(1_000_000, 50).wall);
    }

    #[test]
    fn a_volume_that_is_closed_stays_where_the_clock_stood() {
        let stood = |wall| Anchor::of("boot", reading(wall, 50), reading(wall, 50));
        let mut anchors = Anchors { known: BTreeMap::new(), open: BTreeSet::from([0, 1]) };
        anchors.note(&stood(2_000));
        anchors.open.remove(&1);
        anchors.note(&stood(1_000));
        let furthest = |index| anchors.known.get(&index).map(|anchor: &Anchor| (anchor.shown, anchor.furthest));
        let (first, second) = (stood(1_000).shown, stood(2_000).shown);
        assert_eq!(furthest(None), Some((first, first)));
        assert_eq!(furthest(Some(0)), Some((first, second)), "put back while it was open");
        assert_eq!(furthest(Some(1)), Some((second, second)));
    }
}
