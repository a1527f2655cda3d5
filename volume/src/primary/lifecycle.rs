//! Opening and closing a primary volume: sessions and identity.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{Clock, Epoch, InFlight, JournalError, MarkerKind, Seq, Timestamp, VolumeIndex};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::activity::Activity;
use super::adopt::{Adopted, Identity, KnownDirectories};
use super::base_log::BaseLog;
use super::dirty::DirtyMap;
use super::grace::Grace;
use super::lull::DueRedo;
use super::recovery::Recovered;
use super::verdict::{Lost, NewEpoch};
use super::{Primary, committer, walk};
use crate::group::{Group, GroupOptions, OnFull, Writers, boot_of_machine, distance};
use crate::volume::{Volume, mount_of};

/// Kernel timestamps are coarse: a change may carry a change time this much before it was made, in nanoseconds (25 ms).
pub(super) const TIME_GRAIN: i64 = 25_000_000;

/// What a group remembers of its volume between two openings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Which directory it was.
    pub identity: Identity,
    /// When it was opened.
    pub started: Timestamp,
    /// Boot of the machine, and mounts of the file systems of volume and journal, in which it was opened: what was written in
    /// another one and not synced is lost.
    pub boot: String,
    /// The journal says what may change before it changes; versions before that did not.
    #[serde(default)]
    pub active: bool,
    /// The record from which on a power cut may have taken something from the volume; after a clean stop the first behind it.
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
    /// Something may have been lost with the power or the disk, and was brought back or told.
    pub lost: Option<Lost>,
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

pub(super) fn volume_error(what: &'static str) -> impl Fn(Errno) -> OpenError {
    move |source| match source {
        Errno::OPNOTSUPP => OpenError::NoGenerations,
        source => OpenError::Volume { what, source },
    }
}

pub(super) fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> OpenError {
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
            activity: Activity::default(),
            index: options.index,
            in_flight: Arc::new(in_flight),
            refusal: Arc::new(committer::Refusal::new(DueRedo::new(&options.state))),
            closings: Arc::default(),
            due: DueRedo::new(&options.state),
            gate: RwLock::new(()),
            grace: Grace::default(),
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
            writers: Writers::default(),
        };
        let boot = boot_id(&primary.volume, &group.jvol().path()).map_err(volume_error("look at the volume"))?;
        let mut session =
            Session { identity, started: primary.clock().read().wall, boot, active: true, first: None, clean: None };
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
        primary.activity.begin(started, primary.clock().read().wall);
        session.first = Some(started);
        primary.in_flight.clear();
        group.watch_clock(primary.index, opened).map_err(io_error("note the clock"))?;
        let (epoch, replaced) = (group.epoch(), found.replaced);
        let (adopted, recovered, lost) = (found.adopted, found.recovered, found.lost);
        // the scan made every directory known, and nobody asked for it
        primary.volume.nodes.all().into_iter().for_each(|node| primary.volume.nodes.drop_unused(node));
        let primary = Arc::new(primary);
        group.join(primary.index, primary.in_flight.clone(), &primary);
        Ok(Opened { primary, session, epoch, replaced, lost, adopted, recovered })
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
        self.group.committer().close_all(&self.closings);
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
        // what comes behind it in the journal is others', or an opening's
        Ok(Session { clean: Some(clean), first: Some(stop.next()), ..session.clone() })
    }
}

/// Waits until new change times are later than this. The kernel takes them from a clock that only ticks (4 to 10 ms, and later on a
/// machine whose processors are taken away): an edit that follows at once would look older than our own last change.
#[expect(clippy::disallowed_methods, reason = "the clock of file times ticks, and tells nobody")]
fn wait_for_file_times(after: Timestamp) {
    let read = |clock| {
        let time = rustix::time::clock_gettime(clock);
        time.tv_sec.saturating_mul(Timestamp::SECOND).saturating_add(time.tv_nsec)
    };
    for waited in 0..1_000 {
        // where the clock was put back the tick that is waited for does not come
        let is_to_come = waited <= TIME_GRAIN / 1_000_000 || read(rustix::time::ClockId::Realtime) > after.0;
        if read(rustix::time::ClockId::RealtimeCoarse) > after.0 || !is_to_come {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The boot of the machine and the mounts of the file systems, which disks that went away and came back have anew.
fn boot_id(volume: &Volume, jvol: &Path) -> rustix::io::Result<String> {
    Ok(format!("{} {}+{}", boot_of_machine(), volume.mount()?, mount_of(rustix::fs::CWD, jvol)?))
}
