//! From a point as written to one record: where it is, whether it can be restored, and what is nearest when it cannot.

use reelfs_journal::{Epoch, Seq, Timestamp, VolumeIndex};

use super::{Base, Bracket, Glance, Glances, History, Mark, Run, Stretch, Uncertain, usable};
use crate::error::{Error, ErrorKind, Result};
use crate::point::Point;
use crate::volumes::Volumes;
use crate::when::Zone;

/// A point that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In which epoch.
    pub epoch: Epoch,
    /// After which record.
    pub seq: Seq,
    /// The time of that record.
    pub time: Timestamp,
    /// The tape (or journal) that holds it.
    pub tape: String,
}

/// Looks points up in all epochs of a group.
pub struct Resolver<'h> {
    /// The group's name, for sentences; `G/VOL` when the histories are about one volume of it.
    pub group: &'h str,
    /// The volumes that the histories are about.
    pub volumes: &'h Volumes,
    /// In order of epochs.
    pub histories: &'h [History],
    /// Where records are looked up.
    pub glances: &'h dyn Glances,
    /// In which times are told.
    pub zone: Zone,
}

impl Resolver<'_> {
    /// Finds the record.
    ///
    /// # Errors
    /// Outside the window (13), a tape is missing (15), no such marker or tape (10), each naming what is nearest.
    pub fn resolve(&self, point: &Point) -> Result<Target> {
        match point {
            Point::Latest => self.latest(),
            Point::Oldest => self.oldest(),
            Point::Time(time) => self.at_time(*time),
            Point::Seq(seq) => self.at_seq(*seq, &format!("record {seq}")),
            Point::Marker { name, back } => {
                let mark = self.mark(name, *back)?;
                self.at_seq(mark.seq, &format!("marker {name} (record {})", mark.seq))
            }
            Point::LastMarker => {
                let mark = self.histories.iter().rev().find_map(|history| history.marks.last());
                let mark =
                    mark.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{} has no marker", self.group)))?;
                self.at_seq(mark.seq, &format!("marker {} (record {})", mark.name, mark.seq))
            }
            Point::LastBase => {
                let base = self.last_base().ok_or_else(|| self.no_base())?;
                self.at_seq(base.ended, &format!("the end of the last base copy (record {})", base.ended))
            }
            Point::LastQuiet => {
                let quiet = self.histories.iter().rev().find_map(History::last_quiet);
                let quiet = quiet.ok_or_else(|| self.never_quiet())?;
                self.at_seq(quiet.seq, &format!("the last quiet moment (record {})", quiet.seq))
            }
            Point::Tape(id) => self.at_tape(id),
        }
    }

    fn never_quiet(&self) -> Error {
        let message = format!("{} has no quiet moment that can be restored", self.group);
        Error::new(ErrorKind::NotFound, message)
            .hint("one is noted when the last file that is open for writing is closed, about once a second")
    }

    fn newest(&self) -> Option<&History> {
        self.histories.iter().rev().find(|history| !history.stretches.is_empty())
    }

    fn last_base(&self) -> Option<&Base> {
        let usable = |history: &&History| history.windows().next().is_some();
        let history = self.histories.iter().rev().find(usable)?;
        let leads = |base: &&Base| history.base_for(base.volume, base.ended).is_some_and(|found| found == *base);
        history.bases.iter().rev().find(|base| leads(base) && history.is_reached(base.ended))
    }

    fn latest(&self) -> Result<Target> {
        let Some((history, run)) = self.newest().and_then(|history| Some((history, history.runs.last()?))) else {
            return Err(self.no_base());
        };
        let Some((from, _)) = run.from else {
            return Err(self.unreachable_run(history, run, "the latest point"));
        };
        let out_of_reach = |bracket: &&Bracket| bracket.why.is_out_of_reach() && bracket.holds(run.last);
        if let Some(bracket) = history.brackets.iter().find(out_of_reach) {
            return Err(self.uncertain(history, "the latest point", bracket));
        }
        match self.before(history, run.last, Timestamp(i64::MAX))? {
            Some(target) if target.seq >= from => Ok(target),
            _ => Err(self.outside(history, "the latest point", "is not a state that the volume ever had", run.last)),
        }
    }

    fn oldest(&self) -> Result<Target> {
        let first = self.histories.iter().find_map(|history| Some((history, history.windows().next()?)));
        let Some((history, (from, time))) = first.and_then(|(history, run)| Some((history, run.from?))) else {
            return Err(self.no_base());
        };
        // the end of a base is never in the middle of an operation, but it may be read back in a bracket
        match self.after(history, from)? {
            Some(target) => Ok(target),
            None => Ok(self.target(history, Glance { seq: from, time, more: false })),
        }
    }

    fn at_time(&self, time: Timestamp) -> Result<Target> {
        let asked = self.zone.text(time);
        let begun = |history: &&History| history.stretches.first().is_some_and(|stretch| stretch.first_time <= time);
        let Some(history) = self.histories.iter().rev().find(begun) else {
            return Err(self.before_everything(&asked));
        };
        let Some(index) = history.stretches.iter().rposition(|stretch| stretch.first_time <= time) else {
            return Err(self.before_everything(&asked));
        };
        let stretch = &history.stretches[index];
        if time > stretch.sealed {
            match history.stretches.get(index + 1) {
                None => return Err(self.after_everything(history, &asked, stretch.sealed)),
                Some(next) if next.first != stretch.last.next() => {
                    return Err(self.in_gap(&asked, stretch.last.next(), next.first.previous()));
                }
                Some(_) => {}
            }
        }
        if let Some(bracket) = history.brackets.iter().find(|bracket| bracket.holds_time(time)) {
            return Err(self.uncertain(history, &asked, bracket));
        }
        let Some(target) = self.before(history, Seq(u64::MAX), time)? else {
            return Err(self.before_everything(&asked));
        };
        let run = history.run(target.seq).filter(|run| run.first_time <= time);
        match run.map(|run| (run, run.from)) {
            Some((_, Some((from, _)))) if from <= target.seq => Ok(target),
            Some((_, Some((from, _)))) => {
                Err(self.outside(history, &asked, "is before the oldest point that can be restored", from.previous()))
            }
            Some((run, None)) => Err(self.unreachable_run(history, run, &asked)),
            None => Err(self.before_everything(&asked)),
        }
    }

    fn at_seq(&self, seq: Seq, asked: &str) -> Result<Target> {
        let holds = |history: &&History| history.stretches.first().is_some_and(|stretch| stretch.first <= seq);
        let Some(history) = self.histories.iter().rev().find(holds) else {
            return Err(self.before_everything(asked));
        };
        let Some(run) = history.run(seq) else {
            let gap = history.gaps().into_iter().find(|(from, to)| (*from..=*to).contains(&seq));
            return Err(match gap {
                Some((from, to)) => self.in_gap(asked, from, to),
                None => self.outside(history, asked, "is after the last record on the tapes", seq),
            });
        };
        match run.from {
            None => return Err(self.unreachable_run(history, run, asked)),
            Some((from, _)) if seq < from => {
                return Err(self.outside(history, asked, "is before the oldest point that can be restored", seq));
            }
            Some(_) => {}
        }
        if let Some(bracket) = history.bracket(seq) {
            return Err(self.uncertain(history, asked, bracket));
        }
        match self.before(history, seq, Timestamp(i64::MAX))? {
            Some(target) if target.seq == seq => Ok(target),
            _ => Err(self.outside(history, asked, "is in the middle of one operation", seq)),
        }
    }

    fn at_tape(&self, id: &str) -> Result<Target> {
        for history in self.histories.iter().rev() {
            if let Some(stretch) = history.stretches.iter().rev().find(|stretch| stretch.name.starts_with(id)) {
                return self.at_seq(stretch.last, &format!("the end of tape {}", stretch.name));
            }
            let of_base = |base: &&Base| base.tape.as_ref().is_some_and(|name| name.starts_with(id));
            if let Some(base) = history.bases.iter().rev().find(of_base) {
                return self.at_seq(base.ended, &format!("the end of base tape {id}"));
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("no tape of {} begins with `{id}`", self.group))
            .hint("`reelfs tape list DIR` shows the names"))
    }

    fn mark(&self, name: &str, back: u32) -> Result<&Mark> {
        let marks = || self.histories.iter().rev().flat_map(|history| history.marks.iter().rev());
        let wanted = usize::try_from(back).unwrap_or(usize::MAX);
        if let Some(mark) = marks().filter(|mark| mark.name == name).nth(wanted) {
            return Ok(mark);
        }
        let count = marks().filter(|mark| mark.name == name).count();
        let message = match count {
            0 => format!("{} has no marker {name}", self.group),
            _ => format!("{} has only {count} markers of the name {name}", self.group),
        };
        let mut known: Vec<&str> = marks().map(|mark| mark.name.as_str()).take(5).collect();
        known.dedup();
        let hint = match known.as_slice() {
            [] => "no marker was ever set".to_owned(),
            known => format!("the newest markers: {}", known.join(", ")),
        };
        Err(Error::new(ErrorKind::NotFound, message).hint(hint))
    }

    fn target(&self, history: &History, glance: Glance) -> Target {
        Target {
            epoch: history.epoch.unwrap_or(Epoch(0)),
            seq: glance.seq,
            time: glance.time,
            tape: history.stretch(glance.seq).map_or_else(String::new, |stretch| stretch.name.clone()),
        }
    }

    /// The last restorable record that is neither after `seq` nor later than `time`.
    fn before(&self, history: &History, seq: Seq, time: Timestamp) -> Result<Option<Target>> {
        let epoch = history.epoch.unwrap_or(Epoch(0));
        let candidates = |stretch: &&Stretch| stretch.first <= seq && stretch.first_time <= time;
        for stretch in history.stretches.iter().rev().filter(candidates) {
            let mut found = None;
            self.glances.glance(epoch, stretch, &mut |glance| {
                if glance.seq > seq || glance.time > time {
                    return false;
                }
                if !glance.more && history.bracket(glance.seq).is_none() {
                    found = Some(glance);
                }
                true
            })?;
            if let Some(glance) = found {
                return Ok(Some(self.target(history, glance)));
            }
        }
        Ok(None)
    }

    /// The first restorable record from `seq` on.
    fn after(&self, history: &History, seq: Seq) -> Result<Option<Target>> {
        let epoch = history.epoch.unwrap_or(Epoch(0));
        for stretch in history.stretches.iter().filter(|stretch| stretch.last >= seq) {
            let mut found = None;
            self.glances.glance(epoch, stretch, &mut |glance| {
                if glance.seq >= seq && !glance.more && history.bracket(glance.seq).is_none() {
                    found = Some(glance);
                }
                found.is_none()
            })?;
            if let Some(glance) = found {
                return Ok(Some(self.target(history, glance)));
            }
        }
        Ok(None)
    }

    fn reachable(&self, history: &History, target: &Target) -> bool {
        history.is_reached(target.seq)
    }

    /// Exit code 13 with the nearest points before and after.
    fn outside(&self, history: &History, asked: &str, why: &str, seq: Seq) -> Error {
        let nearest =
            |found: Result<Option<Target>>| found.ok().flatten().filter(|target| self.reachable(history, target));
        let before = nearest(self.before(history, seq, Timestamp(i64::MAX)));
        let from = history.windows().filter_map(|run| run.from).map(|(from, _)| from).find(|from| *from > seq);
        let after = nearest(self.after(history, seq.next()));
        let after = after.or_else(|| from.and_then(|from| nearest(self.after(history, from))));
        let error = Error::new(ErrorKind::OutsideWindow, format!("{asked} {why}, in the tapes of {}", self.group));
        let tell = |target: Target| format!("{} (--at seq:{})", self.zone.text(target.time), target.seq);
        match (before.map(tell), after.map(tell)) {
            (Some(before), Some(after)) => error.hint(format!("the nearest points are {before} and {after}")),
            (Some(nearest), None) | (None, Some(nearest)) => error.hint(format!("the nearest point is {nearest}")),
            (None, None) => error.hint("no point can be restored from these tapes"),
        }
    }

    fn uncertain(&self, history: &History, asked: &str, bracket: &Bracket) -> Error {
        let volume = match self.volumes.are_several() {
            true => format!("volume {}", self.volumes.name(bracket.volume)),
            false => "the volume".to_owned(),
        };
        let suspended = if self.volumes.are_several() { volume.as_str() } else { "the group" };
        let why = match bracket.why {
            Uncertain::Adopted => {
                format!("lies where {volume} was changed behind the mount: the order of those changes is not known")
            }
            Uncertain::Recovered => {
                format!("lies where {volume} was read back after an unclean stop: no such state ever existed")
            }
            Uncertain::Suspended => {
                format!("lies where {suspended} was suspended: the order of the changes made then is not known")
            }
            Uncertain::NoBase => format!("lies where no base copy of {volume} leads"),
            Uncertain::Left => format!("is after {volume} left the group"),
        };
        let error = self.outside(history, asked, &why, bracket.first);
        if bracket.why == Uncertain::NoBase { self.with_others(error, history, bracket.first) } else { error }
    }

    /// Adds to the hint which volumes can be had alone at a record that not all of them can be had at.
    fn with_others(&self, error: Error, history: &History, seq: Seq) -> Error {
        let run = history.run(seq);
        let has_base = |volume: &VolumeIndex| {
            run.is_some_and(|run| history.bases.iter().any(|base| base.volume == *volume && usable(base, run)))
        };
        let alone: Vec<String> = history
            .alive(seq)
            .filter(has_base)
            .map(|volume| format!("{}/{}", self.group, self.volumes.name(volume)))
            .collect();
        if alone.is_empty() || !self.volumes.are_several() {
            return error;
        }
        let before = error.hint_text().map_or_else(String::new, |hint| format!("{hint}; "));
        let hint = format!("{before}a volume alone may be reached there: {}", alone.join(", "));
        error.hint(hint)
    }

    /// A volume that lives in this run and has no base in it, when there are several.
    fn lacking(&self, history: &History, run: &Run) -> Option<VolumeIndex> {
        let lives = |volume: &VolumeIndex| {
            let holds = |life: &super::Life| life.holds(run.last) || life.from >= run.first && life.from <= run.last;
            history.lives.iter().any(|life| life.volume == *volume && holds(life))
        };
        let based = |volume: &VolumeIndex| history.bases.iter().any(|base| base.volume == *volume && usable(base, run));
        let volumes = history.lives.iter().map(|life| life.volume);
        volumes.into_iter().find(|volume| self.volumes.are_several() && lives(volume) && !based(volume))
    }

    fn before_everything(&self, asked: &str) -> Error {
        let first = self.histories.iter().find(|history| history.windows().next().is_some());
        match first {
            Some(history) => self.outside(history, asked, "is before the oldest point that can be restored", Seq::ZERO),
            None => self.no_base(),
        }
    }

    fn after_everything(&self, history: &History, asked: &str, sealed: Timestamp) -> Error {
        let why = format!("is after the time that the last tape vouches for ({})", self.zone.text(sealed));
        self.outside(history, asked, &why, Seq(u64::MAX - 1))
    }

    fn in_gap(&self, asked: &str, from: Seq, to: Seq) -> Error {
        let message = format!("a tape is missing: {asked} needs records {from} to {to} of {}", self.group);
        Error::new(ErrorKind::TapeNeeded, message)
            .hint("add the missing tape to the directory, or choose a point from `reelfs points --tapes DIR`")
    }

    /// Nothing leads to this run: because of a gap before it, or because there is no base at all.
    fn unreachable_run(&self, history: &History, run: &Run, asked: &str) -> Error {
        let lacking = self.lacking(history, run);
        let mut bases = history.bases.iter().filter(|base| lacking.is_none_or(|volume| base.volume == volume));
        let gap = history.gaps().into_iter().rev().find(|(_, to)| *to < run.first);
        let earlier_base = bases.clone().any(|base| base.ended < run.first && base.is_at_hand());
        if let Some((from, to)) = gap.filter(|_| earlier_base) {
            return self.in_gap(asked, from, to);
        }
        let Some(base) = bases.find(|base| run.first <= base.ended) else {
            return match (gap, lacking) {
                (Some((from, to)), _) => self.in_gap(asked, from, to),
                (None, None) => self.no_base(),
                (None, Some(volume)) => {
                    let name = self.volumes.name(volume);
                    let message = format!(
                        "{asked} of {group} cannot be restored: volume {name} has no base copy",
                        group = self.group
                    );
                    let hint = format!("reelfs base copy {}/{name} --to DIR", self.group);
                    let error = Error::new(ErrorKind::OutsideWindow, message).hint(hint);
                    self.with_others(error, history, run.last)
                }
            };
        };
        if base.is_at_hand() {
            return self.in_gap(asked, base.first(), run.first.previous());
        }
        let of = match lacking {
            Some(volume) => format!("{}/{}", self.group, self.volumes.name(volume)),
            None => self.group.to_owned(),
        };
        let message =
            format!("a tape is missing: {asked} needs the base tape of {of} that began at record {}", base.began);
        let error = Error::new(ErrorKind::TapeNeeded, message).hint("add the base tape to the directory");
        self.with_others(error, history, run.last)
    }

    fn no_base(&self) -> Error {
        Error::new(
            ErrorKind::OutsideWindow,
            format!("no point of {} can be restored: no base copy is complete", self.group),
        )
        .hint(format!("reelfs base copy {} --to DIR", self.group))
    }
}
