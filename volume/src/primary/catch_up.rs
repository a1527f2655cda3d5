//! Catching up with what happened to a volume since the last session: facts are gathered, the verdict is looked up, and done.

use std::collections::HashSet;

use reelfs_journal::{Change, FileId, InFlightState, MarkerKind, Timestamp};
use rustix::io::Errno;

use super::Primary;
use super::adopt::Adopted;
use super::dirty::DirtyMap;
use super::lifecycle::{OpenError, Session, TIME_GRAIN, io_error, volume_error};
use super::lull::Lull;
use super::recovery::{Recovered, Unsettled};
use super::redo::{CutOff, Window};
use super::scan::{Scan, ScanFor};
use super::verdict::{Facts, Lost, NewEpoch, Verdict};

/// What catching up found.
#[derive(Default)]
pub(super) struct CaughtUp {
    pub(super) directories: HashSet<FileId>,
    pub(super) replaced: Option<NewEpoch>,
    pub(super) lost: Option<Lost>,
    pub(super) adopted: Adopted,
    pub(super) recovered: Option<Recovered>,
}

/// What the last session left, looked at.
struct Found {
    facts: Facts,
    map: Option<DirtyMap>,
    unsettled: Unsettled,
    window: Option<Window>,
    lulls: Vec<Lull>,
    /// What may differ after something was lost.
    active: Option<DirtyMap>,
    /// By what the wall clock showed then: what changed later is not ours.
    news: Option<Timestamp>,
    /// How far it was put back since, in nanoseconds.
    back: i64,
    /// The last moment at which the volume was what the journal says, as records have it.
    certain: Timestamp,
}

impl Primary {
    /// Does what the last session left to be done.
    pub(super) fn catch_up(
        &mut self,
        last: Option<&Session>,
        session: &Session,
        states: Vec<InFlightState>,
        known: &HashSet<FileId>,
        strict: bool,
    ) -> Result<CaughtUp, OpenError> {
        let mut found = self.look_back(last, session, states)?;
        let mut wanted = found.window.as_ref().map_or_else(|| found.unsettled.wanted(), |window| window.wanted.clone());
        if let Some(map) = &found.map {
            wanted.extend(map.objects.keys().chain(&map.directories).map(|id| id.ino));
        }
        let since = match (last, &found.window) {
            // what was edited before an opening that was cut off is older than what that told
            (Some(_), Some(window)) => found.news.map(|news| news.min(window.active.since())),
            _ => found.news,
        };
        // by the clock as it stands now
        let since = since.map(|since| Timestamp(since.0.saturating_sub(found.back)));
        let clock = self.group.clock().clone();
        let look = ScanFor { since, known, wanted: &wanted, clock: &*clock };
        let scan = self.scan(&look).map_err(volume_error("look for changes behind the mount"))?;
        let facts = &mut found.facts;
        if strict && (!facts.same_volume || (!scan.is_empty() && last.is_some_and(|last| last.clean.is_some()))) {
            let (directories, files) = scan.counts();
            return Err(OpenError::Changed { directories, files });
        }
        if facts.lost().is_some() && found.map.is_none() {
            let active = self.map_of(found.window.as_ref(), &scan, &found.lulls);
            let active = active.map_err(volume_error("look at what may differ"))?;
            facts.room = self.can_tell(&active).map_err(volume_error("look at what may differ"))?;
            found.active = Some(active);
        } else {
            let pointers = self.jvol().pointers();
            facts.room = scan.estimate() <= (pointers.data_size - pointers.data_used) / 2;
        }
        self.carry_out(found, &look, scan, session)
    }

    /// The facts that are known before the volume is looked at.
    fn look_back(
        &mut self,
        last: Option<&Session>,
        session: &Session,
        states: Vec<InFlightState>,
    ) -> Result<Found, OpenError> {
        let (boot, mount) = parts(&session.boot);
        let news =
            last.filter(|last| last.identity == session.identity).map(|last| self.news_since(last)).transpose()?;
        let anchor = self.group.anchor(self.index);
        let certain = news.map(|news| self.group.certain_until(anchor.as_ref(), news)).unwrap_or_default();
        // another boot may stand in the session alone
        let anchor = anchor.filter(|_| last.is_some_and(|last| parts(&last.boot).0 == self.group.boot()));
        let back = anchor.map_or(0, |anchor| anchor.put_back(self.group.boot(), self.clock().read()));
        let clock_back = news.is_some_and(|news| session.started.0 < news.0.saturating_sub(back));
        let cut_off = last.map_or_else(|| Ok(CutOff::default()), |last| self.cut_off_after(last))?;
        let mut facts = Facts {
            same_volume: last.is_none_or(|last| last.identity == session.identity),
            closed: last.is_none_or(|last| last.clean.is_some()) && !cut_off.is_telling,
            same_boot: last.is_none_or(|last| parts(&last.boot).0 == boot),
            same_mount: last.is_none_or(|last| is_same_mount(parts(&last.boot).1, mount)),
            ring: !self.jvol().has_lost_ring(),
            disk_refused: false,
            clock_back,
            begun: cut_off.has_begun_epoch,
            map: false,
            active: last.is_none_or(|last| last.active),
            room: true,
        };
        if facts.same_volume && !facts.closed && facts.lost().is_none() {
            // what the disk refused after the daemon was killed, the kernel tells now
            facts.disk_refused = self.due.is_noted() || self.volume.sync().is_err();
        }
        let unsettled = self.unsettled(states)?;
        let map = self.dirty.get_mut().take();
        facts.map = map.is_some();
        if facts.lost().is_none() && map.as_ref().is_some_and(|map| map.torn) {
            return Err(OpenError::Volume { what: "read the dirty map", source: Errno::BADMSG });
        }
        // while it was suspended every sync was of the file itself, and the journal is behind
        let window = match last.and_then(|last| last.first).filter(|_| facts.lost().is_some() && map.is_none()) {
            Some(first) => self.window(first)?,
            None => None,
        };
        facts.active &= window.as_ref().is_none_or(|window| window.says_all);
        // records of the session went with the disk of another journal volume
        let pointers = self.jvol().pointers();
        facts.active &= !self.jvol().breaks_off() || last.and_then(|last| last.first) >= Some(pointers.out);
        let lulls = match &window {
            Some(window) => {
                let began = window.lull_began(self.clock().read(), facts.same_boot);
                let ended = Timestamp(session.started.0.saturating_sub(TIME_GRAIN));
                let lulls = self.due.lulls(Lull { began, ended }, facts.same_boot);
                lulls.map_err(io_error("note the redo"))?
            }
            None => Vec::new(),
        };
        Ok(Found { facts, map, unsettled, window, lulls, active: None, news, back, certain })
    }

    fn carry_out(
        &mut self,
        found: Found,
        look: &ScanFor<'_>,
        scan: Scan,
        session: &Session,
    ) -> Result<CaughtUp, OpenError> {
        let Found { facts, map, unsettled, window, lulls, active, back, certain, .. } = found;
        let (verdict, lost) = (facts.verdict(), facts.lost());
        tracing::debug!(?facts, ?verdict, "what the last session left");
        match (verdict, map, active) {
            (Verdict::StaySuspended, Some(map), _) => {
                self.stay_suspended(map, scan, &unsettled, facts.closed || back > 0)
            }
            (Verdict::Restate | Verdict::Suspend, _, Some(active)) => {
                let mut recovered = self.bring_back(window.as_ref(), &lulls)?;
                self.restate(active, certain, verdict == Verdict::Restate, &mut recovered)?;
                let (directories, recovered) = (scan.directories, Some(recovered));
                Ok(CaughtUp { directories, lost, recovered, ..CaughtUp::default() })
            }
            (Verdict::NewEpoch(reason), map, _) => {
                let recovered = window.map(|window| self.bring_back(Some(&window), &lulls)).transpose()?;
                let caught_up = self.new_epoch(session, scan.directories, Some(reason))?;
                if let Some(map) = map {
                    self.jvol().sync(self.jvol().pointers().next.previous())?;
                    map.remove().and_then(|()| map.sync_removal()).map_err(io_error("remove the dirty map"))?;
                }
                Ok(CaughtUp { recovered, lost, ..caught_up })
            }
            // a verdict without what it speaks of is none
            (Verdict::Adopt | Verdict::StaySuspended | Verdict::Restate | Verdict::Suspend, _, _) => {
                self.adopt(look, scan, (!facts.closed).then_some(&unsettled), session, certain)
            }
        }
    }

    /// Settles what was in flight, if something was, and journals what changed behind the mount.
    fn adopt(
        &mut self,
        look: &ScanFor<'_>,
        scan: Scan,
        unsettled: Option<&Unsettled>,
        session: &Session,
        since: Timestamp,
    ) -> Result<CaughtUp, OpenError> {
        let recovered = unsettled.map(|unsettled| self.recover(unsettled)).transpose()?;
        // what recovery did again stands otherwise than it did when it was looked at
        let scan = match &recovered {
            Some(done) if *done != Recovered::default() => {
                self.scan(look).map_err(volume_error("look for changes behind the mount"))?
            }
            _ => scan,
        };
        let mut adopted = Adopted::default();
        if !scan.is_empty() {
            let write = volume_error("journal what changed behind the mount");
            self.marker(MarkerKind::AdoptBegin, "", "", since).map_err(&write)?;
            adopted = match self.tell_scan(&scan) {
                // more than was estimated
                Err(Errno::AGAIN) => return self.new_epoch(session, scan.directories, Some(NewEpoch::TooMuchChanged)),
                told => told.map_err(&write)?,
            };
            self.marker(MarkerKind::AdoptEnd, "", "", since).map_err(&write)?;
        }
        Ok(CaughtUp { directories: scan.directories, adopted, recovered, ..CaughtUp::default() })
    }

    /// Goes on without journaling, as it was left.
    fn stay_suspended(
        &self,
        mut map: DirtyMap,
        scan: Scan,
        unsettled: &Unsettled,
        was_clean: bool,
    ) -> Result<CaughtUp, OpenError> {
        let noted = io_error("write the dirty map");
        map.begin_copy().map_err(&noted)?;
        // in the journal, while it was brought back, and perhaps not applied
        for record in &unsettled.records {
            map.note(&record.change).map_err(&noted)?;
            let gone = match &record.change {
                Change::Unlink { file, .. } => self.volume.nodes.get(*file),
                Change::Rename { replaced, .. } => self.volume.nodes.get(*replaced),
                _ => None,
            };
            // the journal has let it go with all its bytes, and here it stands
            if let Some(node) = gone {
                map.note_whole(node.id, node.is_directory()).map_err(&noted)?;
            }
        }
        for (parent, name) in &unsettled.creating {
            map.note_whole(*parent, true).map_err(&noted)?;
            if let Some(found) = self.unannounced(*parent, name).map_err(volume_error("look at what was made"))? {
                for made in &found.changed {
                    map.note_whole(made.stat.id, made.stat.is_directory()).map_err(&noted)?;
                }
            }
        }
        let reason = map.suspension.reason;
        self.go_on_suspended(map, &scan, was_clean).map_err(&noted)?;
        self.begin_suspension(reason).map_err(volume_error("write the journal"))?;
        Ok(CaughtUp { directories: scan.directories, ..CaughtUp::default() })
    }

    /// Does again what a power cut may have taken.
    fn bring_back(&self, window: Option<&Window>, lulls: &[Lull]) -> Result<Recovered, OpenError> {
        let mut recovered = Recovered::default();
        if let Some(window) = window {
            let redone = self.redo_window(window, lulls)?;
            recovered = Recovered { redone: redone.changes, left: redone.left, ..recovered };
        }
        Ok(recovered)
    }

    /// The journal goes on without knowing how the volume came to its state.
    fn new_epoch(
        &mut self,
        session: &Session,
        directories: HashSet<FileId>,
        reason: Option<NewEpoch>,
    ) -> Result<CaughtUp, OpenError> {
        self.group.begin_epoch(session.started).map_err(volume_error("write the journal"))?;
        Ok(CaughtUp { directories, replaced: reason, ..CaughtUp::default() })
    }

    fn recover(&self, unsettled: &Unsettled) -> Result<Recovered, OpenError> {
        let write = volume_error("recover the volume");
        let since = unsettled.since().unwrap_or_else(|| self.jvol().pointers().last_time);
        // first: what an opening tells is not the last word of the session before it, should this one be cut off
        self.marker(MarkerKind::RecoveryBegin, "", "", since).map_err(&write)?;
        let mut recovered = self.finish(unsettled).map_err(&write)?;
        recovered.announced = self.announce_created(unsettled).map_err(&write)?;
        self.marker(MarkerKind::RecoveryEnd, "", "", since).map_err(&write)?;
        Ok(recovered)
    }

    /// Since when changes are not ours: since the clean stop, or, after a kill of the daemon alone, since its last record,
    /// for the kernel kept all that it did.
    fn news_since(&self, last: &Session) -> Result<Timestamp, OpenError> {
        if let Some(clean) = last.clean {
            return Ok(clean);
        }
        self.last_words(last)
    }
}

/// A session of a version that knew only of the volume's mount is compared by that.
fn is_same_mount(then: &str, now: &str) -> bool {
    then == now || (!then.contains('+') && now.split('+').next() == Some(then))
}

/// The boot of the machine, and the mount of the file system.
fn parts(boot: &str) -> (&str, &str) {
    boot.split_once(' ').unwrap_or((boot, ""))
}
