//! Opening and closing a primary volume: recovery, adoption, identity.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{
    Change, Clock, Epoch, InFlight, InFlightState, JournalError, MarkerKind, Seq, Timestamp, VolumeIndex,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::adopt::{Adopted, Identity, KnownDirectories, Scan, ScanFor};
use super::base_log::BaseLog;
use super::dirty::DirtyMap;
use super::lull::{DueRedo, Lull};
use super::recovery::{Recovered, Unsettled};
use super::redo::Window;
use super::{Primary, committer, walk};
use crate::group::{Group, GroupOptions, OnFull, boot_of_machine, distance};
use crate::volume::Volume;

/// Kernel timestamps are coarse: a change may carry a change time this much before it was made, in nanoseconds (25 ms).
const TIME_GRAIN: i64 = 25_000_000;

/// What a group remembers of its volume between two openings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Which directory it was.
    pub identity: Identity,
    /// When it was opened.
    pub started: Timestamp,
    /// Boot of the machine, and mount of the volume's file system, in which it was opened: what was written in another one
    /// and not synced is lost.
    pub boot: String,
    /// The record from which on a power cut may have taken something from the volume.
    #[serde(default)]
    pub first: Option<Seq>,
    /// When it was closed cleanly, every change of ours before it; `None` while it is open and after a kill.
    pub clean: Option<Timestamp>,
}

/// What to open of a volume.
#[derive(Debug)]
pub struct VolumeOptions {
    /// The volume's root, opened before anything is mounted over it.
    pub root: OwnedFd,
    /// Which volume of the group it is.
    pub index: VolumeIndex,
    /// Where its in-flight table, its dirty map and the list of known directories live.
    pub state: PathBuf,
    /// What the last session left.
    pub session: Option<Session>,
    /// Refuse instead of adopting what changed behind the mount.
    pub strict: bool,
}

/// What to open: a group of one volume.
pub struct OpenOptions {
    /// The volume's root, opened before anything is mounted over it.
    pub root: OwnedFd,
    /// The journal volume.
    pub jvol: PathBuf,
    /// The group's UUID.
    pub group: Uuid,
    /// Where the in-flight table and the list of known directories live.
    pub state: PathBuf,
    /// The epoch of the last session.
    pub epoch: Epoch,
    /// What the last session left.
    pub session: Option<Session>,
    /// Refuse instead of adopting what changed behind the mount.
    pub strict: bool,
    /// What happens when the journal is full.
    pub on_full: OnFull,
    /// Times.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenOptions").field("jvol", &self.jvol).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Why the journal can no longer say how the volume came to its present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewEpoch {
    /// Another directory or file system stands in its place.
    OtherVolume,
    /// The machine stopped without closing it: what of the volume reached the disk, and what of the journal, the kernel
    /// decided for each page by itself.
    PowerCut,
    /// The disk of the volume refused what had been written to it: the kernel may have thrown that away.
    DiskRefused,
    /// The clock shows a time before the last session: change times say nothing.
    ClockWentBack,
    /// Telling what changed behind the mount would fill more than half of the journal.
    TooMuchChanged,
}

/// An open volume, and what happened while it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The volume.
    pub primary: Arc<Primary>,
    /// To be saved before the first change.
    pub session: Session,
    /// The epoch; a new one when the volume was replaced.
    pub epoch: Epoch,
    /// A new epoch began, and why: the next export writes a new base.
    pub replaced: Option<NewEpoch>,
    /// What changed behind the mount.
    pub adopted: Adopted,
    /// What an unclean stop left; `None` after a clean one.
    pub recovered: Option<Recovered>,
}

/// Why a volume cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal volume.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The directory, or the state beside it.
    #[error("{what}: {source}")]
    Volume {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Errno,
    },
    /// The file system cannot tell objects apart.
    #[error(
        "the file system of the volume gives no file handles, so a new file cannot be told from an old one of the same inode number"
    )]
    NoGenerations,
    /// Changed behind the mount, and `strict` refuses to adopt.
    #[error("{directories} directories and {files} files changed behind the mount, or it is another disk")]
    Changed {
        /// Directories whose entries changed.
        directories: u64,
        /// Objects that changed.
        files: u64,
    },
}

impl OpenError {
    pub(crate) fn volume(what: &'static str, error: &std::io::Error) -> OpenError {
        OpenError::Volume { what, source: Errno::from_io_error(error).unwrap_or(Errno::IO) }
    }
}

fn volume_error(what: &'static str) -> impl Fn(Errno) -> OpenError {
    move |source| match source {
        Errno::OPNOTSUPP => OpenError::NoGenerations,
        source => OpenError::Volume { what, source },
    }
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> OpenError {
    move |error| OpenError::volume(what, &error)
}

impl Primary {
    /// Opens a group of one volume: cuts a torn tail off the journal, and then as [`Primary::join`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn start(options: OpenOptions) -> Result<Opened, OpenError> {
        let OpenOptions { root, jvol, group, state, epoch, session, strict, on_full, clock } = options;
        let group = Group::open(GroupOptions { jvol, group, state: state.clone(), epoch, on_full, clock })?;
        Primary::join(&group, VolumeOptions { root, index: VolumeIndex(0), state, session, strict })
    }

    /// Opens a volume of a group: finishes what was in flight, journals what changed behind our back, and starts to journal.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn join(group: &Arc<Group>, options: VolumeOptions) -> Result<Opened, OpenError> {
        let identity = Identity::of(&options.root).map_err(volume_error("look at the volume"))?;
        let (in_flight, states) = InFlight::open(&options.state.join("inflight"))?;
        let known_path = options.state.join("directories");
        let known = KnownDirectories::load(&known_path).map_err(io_error("read the known directories"))?;
        let opened = distance(group.clock().read());
        let mut primary = Primary {
            volume: Volume::primary(options.root).map_err(volume_error("open the volume"))?,
            group: group.clone(),
            index: options.index,
            in_flight: Arc::new(in_flight),
            refusal: Arc::new(committer::Refusal::new(DueRedo::new(&options.state))),
            due: DueRedo::new(&options.state),
            gate: RwLock::new(()),
            names: RwLock::new(()),
            known: Mutex::default(),
            walk: walk::Announcements::default(),
            failed: AtomicBool::new(false),
            state: options.state.clone(),
            suspended: AtomicBool::new(false),
            suspensions: AtomicU64::new(0),
            dirty: Mutex::new(DirtyMap::load(&options.state).map_err(io_error("read the dirty map"))?),
            base: Mutex::new(BaseLog::load(&options.state).map_err(io_error("read the log of the base copy"))?),
            applied_at: AtomicI64::new(i64::MIN),
            open_files: AtomicU64::new(0),
        };
        let boot = boot_id(&primary.volume).map_err(volume_error("look at the volume"))?;
        let mut session = Session { identity, started: primary.clock().read().wall, boot, first: None, clean: None };
        let found = primary.catch_up(options.session.as_ref(), &session, states, &known, options.strict)?;
        let mut known = KnownDirectories::create(&known_path, found.directories)
            .map_err(io_error("write the known directories"))?;
        known.add(primary.volume.root_id());
        primary.known = Mutex::new(known);
        // what a power cut takes from now on, the journal has (redo.rs)
        primary.sync_or_note().map_err(volume_error("sync the volume"))?;
        primary.due.forget().map_err(io_error("note the redo"))?;
        let started = primary.marker(MarkerKind::AcquisitionStart, "", "", session.started);
        let started = started.map_err(volume_error("write the journal"))?;
        primary.jvol().sync(started)?;
        session.first = Some(started);
        primary.in_flight.clear();
        group.watch_clock(primary.index, opened).map_err(io_error("note the clock"))?;
        let (epoch, replaced) = (group.epoch(), found.replaced);
        let primary = Arc::new(primary);
        group.join(primary.index, primary.in_flight.clone(), &primary);
        Ok(Opened { primary, session, epoch, replaced, adopted: found.adopted, recovered: found.recovered })
    }

    fn catch_up(
        &mut self,
        last: Option<&Session>,
        session: &Session,
        states: Vec<InFlightState>,
        known: &HashSet<reelfs_journal::FileId>,
        strict: bool,
    ) -> Result<CaughtUp, OpenError> {
        // another boot may stand in the session alone
        let same_boot = last.is_some_and(|last| boot_of(&last.boot) == self.group.boot());
        let anchor = self.group.anchor(self.index);
        let same = last.is_none_or(|last| last.identity == session.identity);
        let unclean = last.is_some_and(|last| last.clean.is_none());
        let lost = if same && unclean { self.lost(last, session) } else { None };
        let unsettled = self.unsettled(states)?;
        // while it was suspended every sync was of the file itself, and the journal is behind
        let map = self.dirty.get_mut().take();
        if lost.is_none() && map.as_ref().is_some_and(|map| map.torn) {
            return Err(OpenError::Volume { what: "read the dirty map", source: Errno::BADMSG });
        }
        let window = match last.and_then(|last| last.first).filter(|_| lost.is_some() && map.is_none()) {
            Some(first) => self.window(first)?,
            None => None,
        };
        let mut wanted = window.as_ref().map_or_else(|| unsettled.wanted(), |window| window.wanted.clone());
        if let Some(map) = &map {
            wanted.extend(map.objects.keys().chain(&map.directories).map(|id| id.ino));
        }
        let since = match last {
            Some(last) if same => Some(self.news_since(last)?),
            _ => None,
        };
        let certain = since.map(|since| self.group.certain_until(anchor.as_ref(), since));
        // by the clock as it stands now
        let back =
            anchor.filter(|_| same_boot).map_or(0, |anchor| anchor.put_back(self.group.boot(), self.clock().read()));
        let since = since.map(|since| Timestamp(since.0.saturating_sub(back)));
        let clock = self.group.clock().clone();
        let look = ScanFor { since, known, wanted: &wanted, clock: &*clock };
        let scan = self.scan(&look).map_err(volume_error("look for changes behind the mount"))?;
        if strict && (!same || (!scan.is_empty() && last.is_some_and(|last| last.clean.is_some()))) {
            let (directories, files) = scan.counts();
            return Err(OpenError::Changed { directories, files });
        }
        let pointers = self.jvol().pointers();
        let reason = if !same {
            Some(NewEpoch::OtherVolume)
        } else if lost.is_some() {
            lost
        } else if since.is_some_and(|since| session.started < since) {
            Some(NewEpoch::ClockWentBack)
        } else if map.is_none() && scan.estimate() > (pointers.data_size - pointers.data_used) / 2 {
            Some(NewEpoch::TooMuchChanged)
        } else {
            None
        };
        if reason.is_some() {
            let recovered = self.bring_back(window.as_ref(), last, session)?;
            let caught_up = CaughtUp { recovered, ..self.new_epoch(session, scan.directories, reason)? };
            if let Some(map) = map {
                self.jvol().sync(self.jvol().pointers().next.previous())?;
                map.remove().and_then(|()| map.sync_removal()).map_err(io_error("remove the dirty map"))?;
            }
            return Ok(caught_up);
        }
        if let Some(map) = map {
            return self.stay_suspended(map, scan, &unsettled, !unclean || back > 0);
        }
        self.adopt(&look, scan, unclean.then_some(&unsettled), session, certain.unwrap_or_default())
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
        Ok(CaughtUp { directories: scan.directories, replaced: None, adopted, recovered })
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

    /// Why the volume may have lost something since the last session began, if so.
    fn lost(&self, last: Option<&Session>, session: &Session) -> Option<NewEpoch> {
        if last.is_some_and(|last| last.boot != session.boot) {
            return Some(NewEpoch::PowerCut);
        }
        // what the disk refused after the daemon was killed, the kernel tells now
        (self.due.is_noted() || self.volume.sync().is_err()).then_some(NewEpoch::DiskRefused)
    }

    /// Does again what a power cut may have taken.
    fn bring_back(
        &self,
        window: Option<&Window>,
        last: Option<&Session>,
        session: &Session,
    ) -> Result<Option<Recovered>, OpenError> {
        let mut recovered = None;
        if let Some(window) = window {
            let same_boot = last.is_some_and(|last| boot_of(&last.boot) == boot_of(&session.boot));
            let began = window.lull_began(self.clock().read(), same_boot);
            let ended = Timestamp(session.started.0.saturating_sub(TIME_GRAIN));
            let lulls = self.due.lulls(Lull { began, ended }, same_boot).map_err(io_error("note the redo"))?;
            let redone = self.redo_window(window, &lulls)?;
            recovered = Some(Recovered { redone: redone.changes, left: redone.left, ..Recovered::default() });
        }
        Ok(recovered)
    }

    /// The journal goes on without knowing how the volume came to its state.
    fn new_epoch(
        &mut self,
        session: &Session,
        directories: HashSet<reelfs_journal::FileId>,
        reason: Option<NewEpoch>,
    ) -> Result<CaughtUp, OpenError> {
        self.group.begin_epoch(session.started).map_err(volume_error("write the journal"))?;
        Ok(CaughtUp { directories, replaced: reason, ..CaughtUp::default() })
    }

    fn recover(&self, unsettled: &Unsettled) -> Result<Recovered, OpenError> {
        let write = volume_error("recover the volume");
        let since = unsettled.since().unwrap_or_else(|| self.jvol().pointers().last_time);
        let mut recovered = self.finish(unsettled).map_err(&write)?;
        self.marker(MarkerKind::RecoveryBegin, "", "", since).map_err(&write)?;
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

    /// Stops journaling cleanly: everything settled and durable, the volume on disk. Returns the session to be saved.
    ///
    /// # Errors
    /// When journal or volume cannot be made durable; the next opening then counts as after a kill.
    pub fn close(&self, session: &Session) -> Result<Session, OpenError> {
        let stop = self.marker(MarkerKind::AcquisitionStop, "", "", session.started);
        let stop = stop.map_err(volume_error("write the journal"))?;
        self.group.settle(stop).map_err(volume_error("settle what is in flight"))?;
        self.group.leave(self.index);
        self.sync_or_note().map_err(volume_error("sync the volume"))?;
        let durable: Seq = self.jvol().sync(stop)?;
        if let Some(map) = &*self.dirty.lock() {
            map.sync().map_err(io_error("sync the dirty map"))?;
        }
        tracing::debug!(%durable, "closed");
        if self.has_failed() {
            return Ok(session.clone());
        }
        // not the time of closing: the volume may have been edited since our last change, or since it was scanned
        let applied = self.applied_at.load(Ordering::Relaxed);
        wait_for_file_times(Timestamp(applied));
        let back = self.group.clock_put_back(self.index);
        let clean = Timestamp(applied.max(session.started.0.saturating_sub(TIME_GRAIN).saturating_sub(back)));
        self.group.keep_clock_closed(self.index).map_err(io_error("note the clock"))?;
        Ok(Session { clean: Some(clean), ..session.clone() })
    }
}

/// What catching up found.
#[derive(Default)]
struct CaughtUp {
    directories: HashSet<reelfs_journal::FileId>,
    replaced: Option<NewEpoch>,
    adopted: Adopted,
    recovered: Option<Recovered>,
}

/// Waits until new change times are later than this. The kernel takes them from a clock that only ticks (4 to 10 ms): an edit that
/// follows at once would look older than our own last change.
#[expect(clippy::disallowed_methods, reason = "the clock of file times ticks, and tells nobody")]
fn wait_for_file_times(after: Timestamp) {
    for _ in 0..=TIME_GRAIN / 1_000_000 {
        let tick = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        if tick.tv_sec.saturating_mul(Timestamp::SECOND).saturating_add(tick.tv_nsec) > after.0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The boot alone.
fn boot_of(boot: &str) -> &str {
    boot.split(' ').next().unwrap_or_default()
}

/// The boot of the machine and the mount of the file system, which a disk that went away and came back has anew.
fn boot_id(volume: &Volume) -> rustix::io::Result<String> {
    Ok(format!("{} {}", boot_of_machine(), volume.mount()?))
}
