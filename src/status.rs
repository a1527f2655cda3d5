//! How a group is: from its mount process when there is one, else from its files.

use std::path::PathBuf;
use std::time::Duration;

use reelfs_journal::{Jvol, VolumeIndex};
use reelfs_volume::{DirtyCounts, OnFull, Suspension};

use crate::daemon::Live;
use crate::error::Result;
use crate::group_file::{GroupFile, VolumeEntry};
use crate::journal_state::JournalState;
use crate::lock::GroupLock;
use crate::mounts::{self, MountEntry};
use crate::open_group::under_way;
use crate::output::count;
use crate::pair;
use crate::pair_state::PairState;
use crate::request;
use crate::state::GroupDir;

/// A group as it is now.
#[derive(Debug)]
pub struct GroupStatus {
    /// What it is.
    pub file: GroupFile,
    /// Told by the process that has it mounted.
    pub live: Option<Live>,
    /// Another verb works on it just now ("4711 (reelfs tape export)").
    pub busy: Option<String>,
    /// The mount process is there and does not answer.
    pub silent: bool,
    /// Volumes of which nothing is journaled: since when, why, and what changed since.
    pub suspended: Vec<(VolumeIndex, Suspension, DirtyCounts)>,
    /// Volumes of which a base copy through the journal has begun and not ended.
    pub under_way: Vec<VolumeIndex>,
    /// The journal; absent while it is busy or cannot be read.
    pub journal: Option<JournalState>,
    /// What is wrong, one sentence each.
    pub troubles: Vec<String>,
}

/// Verbs while which the pair is in the state COPY.
const COPYING: [&str; 2] = ["reelfs base copy", "reelfs pair resync"];

impl GroupStatus {
    /// Looks at a group. What is wrong with it is part of the answer.
    ///
    /// # Errors
    /// There is no such group.
    pub fn of(group: &GroupDir) -> Result<GroupStatus> {
        let file = GroupFile::load(group)?;
        let (live, busy, suspended, journal) = (None, None, Vec::new(), None);
        let has_begun = |entry: &&VolumeEntry| under_way(group, entry.index, file.epoch).is_some();
        let under_way = file.volumes.iter().filter(has_begun).map(|entry| entry.index).collect();
        let (silent, troubles) = (false, Vec::new());
        let mut status = GroupStatus { file, live, busy, silent, suspended, under_way, journal, troubles };
        match request::ask_status::<Live>(group) {
            Ok(Some(live)) => {
                status.journal = Some(live.journal.clone());
                status.suspended.clone_from(&live.suspended);
                status.live = Some(live);
            }
            Ok(None) => status.look_at_files(group)?,
            Err(error) => {
                status.silent = true;
                status.troubles.push(error.chain());
                status.look_at_maps(group);
            }
        }
        status.note_troubles();
        Ok(status)
    }

    /// What the files say of suspensions, which they do whoever works on the group.
    fn look_at_maps(&mut self, group: &GroupDir) {
        for entry in &self.file.volumes {
            match reelfs_volume::suspension(&group.volume(entry.index)) {
                Ok(found) => self.suspended.extend(found.map(|(since, counts)| (entry.index, since, counts))),
                Err(error) => self.troubles.push(format!("the dirty map of {}: {error}", self.file.title(entry))),
            }
        }
    }

    fn look_at_files(&mut self, group: &GroupDir) -> Result<()> {
        self.look_at_maps(group);
        let _lock = match GroupLock::attempt(group, "reelfs status")? {
            Ok(lock) => lock,
            Err(holder) => {
                self.busy = Some(holder);
                return Ok(());
            }
        };
        let opened = Jvol::open(&self.file.journal, self.file.uuid).map_err(crate::error::Error::from);
        match opened.and_then(|jvol| JournalState::of(&jvol, &self.file, None)) {
            Ok(state) => self.journal = Some(state),
            Err(error) => self.troubles.push(error.chain()),
        }
        Ok(())
    }

    fn note_troubles(&mut self) {
        let waiting = self.live.as_ref().map_or(0, Live::waiting);
        let name = &self.file.name;
        if let Some((suspension, _)) = self.suspension(None) {
            let reason = pair::word(suspension.reason);
            self.troubles
                .push(format!("suspended ({reason}): nothing is journaled; bring it back: reelfs pair resync {name}"));
        } else if waiting > 0 {
            let (verb, who) = if waiting == 1 { ("is", "writer") } else { ("are", "writers") };
            self.troubles.push(format!(
                "{waiting} {who} {verb} parked: the journal is full; make room: reelfs tape export {name} --to DIR"
            ));
        } else if let Some(journal) =
            self.journal.as_ref().filter(|journal| journal.used * 100.0 >= f64::from(self.file.settings.warn.0))
        {
            let then = match self.file.on_full {
                OnFull::Suspend => "the group is suspended",
                OnFull::Block => "writers are parked",
                OnFull::Fail => "writers get ENOSPC",
            };
            let percent = journal.used * 100.0;
            let delay = self.live.as_ref().map_or(0.0, Live::delay_ms);
            let slowed =
                if delay > 0.0 { format!(", writers are slowed down ({delay:.1} ms a MiB)") } else { String::new() };
            self.troubles.push(format!(
                "the journal is {percent:.0} % full{slowed}; at 100 % {then}: reelfs tape export {name} --to DIR"
            ));
        }
        if let Some(ahead) = self.live.as_ref().and_then(|live| live.clock.ahead_ns) {
            let by = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs() / 1_000_000_000));
            let way = if ahead < 0 { "back" } else { "forward" };
            self.troubles.push(format!(
                "the clock was put {way} by {by} and is not believed; if it is right now: reelfs clock accept {name}"
            ));
        }
        let stale = |entry: &MountEntry| entry.is_of(name) && entry.is_stale();
        // only then: a look at a live mount keeps umount(8) from taking it away
        let table = if self.live.is_none() { mounts::table().unwrap_or_default() } else { Vec::new() };
        if let Some(entry) = table.into_iter().find(stale) {
            let shown = entry.point.display();
            self.troubles
                .push(format!("the process behind {shown} is dead; go on with: reelfs mount {} {shown}", entry.source));
        } else if self.live.is_none() && self.busy.is_none() {
            let gone = self.file.volumes.iter().filter(|entry| !entry.pvol.is_dir());
            self.troubles.extend(gone.map(|entry| format!("the PVOL {} is not there", entry.pvol.display())));
        }
        let gone: Vec<PathBuf> = self.file.targets.iter().map(|t| t.dir.clone()).filter(|dir| !dir.is_dir()).collect();
        self.troubles.extend(gone.iter().map(|dir| format!("the tape directory {} is not there", dir.display())));
    }

    /// Since when nothing of a volume is journaled, why, and what changed since; without an index the first suspension, and
    /// everything that changed since in all volumes.
    #[must_use]
    pub fn suspension(&self, index: Option<VolumeIndex>) -> Option<(Suspension, DirtyCounts)> {
        let chosen = self.suspended.iter().filter(|(of, ..)| index.is_none_or(|index| *of == index));
        chosen.fold(None, |all, (_, since, counts)| {
            let (first, sum) = all.unwrap_or((*since, DirtyCounts::default()));
            Some((if since.seq < first.seq { *since } else { first }, sum.plus(*counts)))
        })
    }

    /// Whether the state is known: who works on the group without a mount, or does not answer, may just be changing it.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !self.silent && (self.busy.is_none() || self.state() == PairState::Copy)
    }

    /// The state word.
    #[must_use]
    pub fn state(&self) -> PairState {
        self.state_of(None)
    }

    /// The state word of one volume, or of the group as a whole.
    #[must_use]
    pub fn state_of(&self, index: Option<VolumeIndex>) -> PairState {
        let activity = self.live.as_ref().and_then(|live| live.activity.as_ref());
        let without_mount = self.busy.as_ref().and_then(|holder| holder.split_once('(')?.1.strip_suffix(')'));
        let verb = activity.map(|activity| activity.verb.as_str()).or(without_mount);
        if verb.is_some_and(|verb| COPYING.contains(&verb)) {
            PairState::Copy
        } else {
            let chosen = self.file.volumes.iter().filter(|entry| index.is_none_or(|index| entry.index == index));
            PairState::together(chosen.map(|entry| {
                let is_under_way = self.under_way.contains(&entry.index);
                PairState::of(self.suspension(Some(entry.index)).is_some(), entry.base.is_some(), is_under_way)
            }))
        }
    }

    /// The state in plain words.
    #[must_use]
    pub fn plain(&self) -> String {
        self.plain_of(None)
    }

    /// The state of one volume, or of the group as a whole, in plain words.
    #[must_use]
    pub fn plain_of(&self, index: Option<VolumeIndex>) -> String {
        let activity = self.live.as_ref().and_then(|live| live.activity.as_ref());
        match (self.state_of(index), activity) {
            (PairState::Copy, Some(activity)) => {
                let what = activity.verb.trim_start_matches("reelfs ").trim_start_matches("pair ");
                match activity.step.done.saturating_mul(100).checked_div(activity.step.total) {
                    Some(percent) => format!("{what} {percent} %"),
                    None => what.to_owned(),
                }
            }
            (PairState::Copy, None) if self.busy.is_some() => "a copy or a resync runs without a mount".to_owned(),
            (PairState::Copy, None) => {
                format!("base copy not finished; it goes on: reelfs pair resync {}", self.file.name)
            }
            (PairState::Susp, _) => self.suspension(index).map_or_else(String::new, |(suspension, counts)| {
                format!(
                    "{}: {} and {} changed since",
                    pair::word(suspension.reason),
                    count(counts.directories, "directory"),
                    count(counts.objects, "object")
                )
            }),
            (PairState::Smpl, _) => "no base copy yet".to_owned(),
            (PairState::Pair, _) if self.live.is_some() => "every change is journaled".to_owned(),
            (PairState::Pair, _) => "not mounted".to_owned(),
        }
    }
}
