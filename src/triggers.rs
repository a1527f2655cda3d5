//! When a directory of tapes is due by itself: on a schedule, by age or size of what it lacks, or because the journal fills.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reelfs_journal::{CONTROL_LEN, JvolPointers, Record, Seq, Timestamp};

use crate::group_file::{GroupFile, Target};
use crate::open_group::OpenGroup;
use crate::settings::Settings;

/// How often somebody looks whether a directory is due.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a directory that could not be written is left alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a directory lacks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Records.
    pub records: u64,
    /// Their bytes, about: exact for the directory that lacks most.
    pub bytes: u64,
    /// The part of the journal that they take, 0 to 1.
    pub part: f64,
    /// How old the first of them is.
    pub age: Duration,
    /// When the last tape was tried to be written, ago.
    pub last: Duration,
}

/// Why a directory is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The journal fills.
    Occupancy,
    /// It is time.
    Schedule,
    /// The oldest change that is on no tape is too old.
    Age,
    /// Too much is on no tape.
    Size,
}

/// Why a directory is due, if it is.
#[must_use]
pub fn cause(settings: &Settings, batch: &Batch) -> Option<Cause> {
    let over =
        |limit: Option<crate::settings::Seconds>, is: Duration| limit.is_some_and(|limit| is.as_secs() >= limit.0);
    if batch.records == 0 {
        None
    } else if settings.export_at.is_some_and(|at| batch.part * 100.0 >= f64::from(at.0)) {
        Some(Cause::Occupancy)
    } else if over(settings.export_every, batch.last) {
        Some(Cause::Schedule)
    } else if over(settings.export_age, batch.age) {
        Some(Cause::Age)
    } else {
        settings.export_size.filter(|size| batch.bytes >= *size).map(|_| Cause::Size)
    }
}

/// Looks again and again, and remembers when which directory was tried.
#[derive(Debug)]
pub struct Triggers {
    began: Duration,
    tried: HashMap<PathBuf, Duration>,
    failed: HashMap<PathBuf, Duration>,
}

impl Triggers {
    /// From now on.
    #[must_use]
    pub fn new(group: &OpenGroup) -> Triggers {
        Triggers { began: boot(group), tried: HashMap::new(), failed: HashMap::new() }
    }

    /// The directories that are due, each with the reason.
    #[must_use]
    pub fn due(&self, group: &OpenGroup) -> Vec<(PathBuf, Cause)> {
        let file = group.file();
        let due = |target: &Target| self.cause(group, &file, target).map(|cause| (target.dir.clone(), cause));
        file.targets.iter().filter_map(due).collect()
    }

    /// Whether one directory is.
    #[must_use]
    pub fn due_one(&self, group: &OpenGroup, dir: &Path) -> Option<Cause> {
        let file = group.file();
        file.target(dir).and_then(|target| self.cause(group, &file, target))
    }

    /// A directory was tried; one that could not be written is left alone for a while.
    pub fn tried(&mut self, group: &OpenGroup, dir: &Path, is_written: bool) {
        let now = boot(group);
        self.tried.insert(dir.to_owned(), now);
        match is_written {
            true => drop(self.failed.remove(dir)),
            false => drop(self.failed.insert(dir.to_owned(), now)),
        }
    }

    fn cause(&self, group: &OpenGroup, file: &GroupFile, target: &Target) -> Option<Cause> {
        let now = boot(group);
        if self.failed.get(&target.dir).is_some_and(|at| now.saturating_sub(*at) < PATIENCE) {
            return None;
        }
        let last = now.saturating_sub(*self.tried.get(&target.dir).unwrap_or(&self.began));
        cause(&file.settings, &batch(group, target, last)?)
    }
}

fn batch(group: &OpenGroup, target: &Target, last: Duration) -> Option<Batch> {
    let jvol = group.journal().jvol();
    let pointers = jvol.pointers();
    let held = pointers.next.0.saturating_sub(pointers.out.0);
    let first = target.seq.next().max(pointers.out);
    let records = pointers.next.0.saturating_sub(first.0);
    let share = if held == 0 { 0.0 } else { records as f64 / held as f64 };
    let bytes = pointers.data_used + held * CONTROL_LEN as u64;
    let age = if records == 0 { Duration::ZERO } else { age(group, first, &pointers)? };
    Some(Batch { records, bytes: (bytes as f64 * share) as u64, part: pointers.occupancy() * share, age, last })
}

/// How old a record is, by the clock that gave it its time.
pub(crate) fn age(group: &OpenGroup, seq: Seq, pointers: &JvolPointers) -> Option<Duration> {
    let mut controls = group.journal().jvol().controls(seq, seq).ok()?;
    let time = Record::peek(controls.next()?.ok()?).1;
    let now: Timestamp = group.journal().clock_state().believed.max(pointers.last_time);
    Some(Duration::from_nanos(u64::try_from(now.0.saturating_sub(time.0)).unwrap_or(0)))
}

/// The clock that no administrator sets.
fn boot(group: &OpenGroup) -> Duration {
    group.journal().clock().read().boot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Percent, Seconds};

    #[test]
    fn each_setting_alone_makes_a_directory_due_and_nothing_new_never_does() {
        let none = Settings { export_at: None, ..Settings::default() };
        let (age, last) = (Duration::from_secs(100), Duration::from_secs(200));
        let batch = Batch { records: 10, bytes: 5_000, part: 0.5, age, last };
        assert_eq!(cause(&none, &batch), None);
        let cases = [
            (
                Settings { export_at: Some(Percent(50)), ..none },
                Settings { export_at: Some(Percent(51)), ..none },
                Cause::Occupancy,
            ),
            (
                Settings { export_every: Some(Seconds(200)), ..none },
                Settings { export_every: Some(Seconds(201)), ..none },
                Cause::Schedule,
            ),
            (
                Settings { export_age: Some(Seconds(100)), ..none },
                Settings { export_age: Some(Seconds(101)), ..none },
                Cause::Age,
            ),
            (Settings { export_size: Some(5_000), ..none }, Settings { export_size: Some(5_001), ..none }, Cause::Size),
        ];
        for (due, not_yet, why) in cases {
            assert_eq!((cause(&due, &batch), cause(&not_yet, &batch)), (Some(why), None), "{why:?}");
            assert_eq!(cause(&due, &Batch { records: 0, ..batch }), None, "{why:?}");
        }
    }
}
