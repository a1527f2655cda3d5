//! The process behind a mount: serves the kernel, answers on the control socket, ends on a signal, closes the journal.

mod quiet;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_fuse::MountOptions;
use reelfs_journal::{Timestamp, VolumeIndex, VolumeName};
use reelfs_transport::control::{Answer, Connection, Listener};
use reelfs_volume::{ClockState, DirtyCounts, Suspension};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, ErrorKind, Result};
use crate::journal_state::JournalState;
use crate::open_group::OpenGroup;
use crate::reads::Reads;
use crate::request::{self, Request, Step};
use crate::served::{Gone, Mounts};
use crate::systemd::{self, Patience, Watchdog};

pub(crate) use quiet::note as note_quiet;

/// Conversations at the same time; one more is refused.
const CONNECTIONS_MAX: usize = 32;

/// A signal so soon after the first is the same wish: `timeout` and shells signal a process and its group.
const SAME_WISH: std::time::Duration = std::time::Duration::from_millis(500);

/// How a group is, told by the process that has it mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The process.
    pub pid: u32,
    /// Its mounts, the first mounted first.
    pub mounts: Vec<LiveMount>,
    /// Volumes of which nothing is journaled: since when, why, and what changed since.
    pub suspended: Vec<(VolumeIndex, Suspension, DirtyCounts)>,
    /// The journal.
    pub journal: JournalState,
    /// What it is busy with besides.
    pub activity: Option<Activity>,
    /// The wall clock, and what is believed of it.
    pub clock: ClockState,
}

impl Live {
    /// Requests that wait for room in the journal.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.mounts.iter().map(|mount| mount.waiting).sum()
    }

    /// Requests that were held up because the journal filled, since the mounts began.
    #[must_use]
    pub fn slowed(&self) -> u64 {
        self.mounts.iter().map(|mount| mount.slowed).sum()
    }

    /// How long one is held up at present where it is longest, in milliseconds.
    #[must_use]
    pub fn delay_ms(&self) -> f64 {
        self.mounts.iter().map(|mount| mount.delay_ms).fold(0.0, f64::max)
    }

    /// Files that are open.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        self.mounts.iter().map(|mount| mount.open_files).sum()
    }

    /// The mount of a volume.
    #[must_use]
    pub fn mount_of(&self, volume: &VolumeName) -> Option<&LiveMount> {
        self.mounts.iter().find(|mount| mount.volume == *volume)
    }
}

/// One of its mounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveMount {
    /// Of which volume.
    pub volume: VolumeName,
    /// Where.
    pub mountpoint: PathBuf,
    /// Since when.
    pub since: Timestamp,
    /// Requests that wait for room in the journal.
    pub waiting: u64,
    /// Requests that were held up because the journal filled, since the mount began.
    pub slowed: u64,
    /// How long a write of 1 MiB is held up at present, in milliseconds; smaller ones less.
    pub delay_ms: f64,
    /// Files that are open.
    pub open_files: u64,
    /// How read-only handles are read.
    #[serde(default)]
    pub reads: Reads,
    /// It is on its way out, and may be mounted again when it has gone.
    #[serde(default)]
    pub ending: bool,
}

/// Something long that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The verb: "reelfs base copy", "reelfs tape export" or "reelfs pair resync".
    pub verb: String,
    /// How far it is.
    pub step: Step,
}

/// A mounted group and everything that serves it.
pub struct Daemon {
    shared: Arc<Shared>,
    signals: signal_hook::iterator::Handle,
    listener: Arc<Listener>,
    threads: Vec<JoinHandle<()>>,
    quiet: quiet::Noting,
}

/// A mounted group, seen by a thread that works for it.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

struct Shared {
    group: Arc<OpenGroup>,
    mounts: Arc<Mounts>,
    activity: Mutex<Option<Activity>>,
    connections: AtomicUsize,
    /// How closing went, once it has; those who asked for the unmount wait for it.
    closed: Mutex<Option<std::result::Result<(), (u8, String)>>>,
    has_closed: Condvar,
    /// Conversations that end with the process, so that whoever asked for the unmount sees that it has gone.
    last: Mutex<Vec<Connection>>,
}

impl Daemon {
    /// Mounts a volume of an open group and begins to answer. When this returns, mount and control socket are live. The other
    /// volumes are closed until somebody asks for them.
    ///
    /// # Errors
    /// The mount cannot be made, or somebody else answers for this group.
    pub fn start(group: OpenGroup, index: VolumeIndex, options: &MountOptions) -> Result<Daemon> {
        let group = Arc::new(group);
        group.begin_ring();
        let begun = begin(&group, index, options);
        let (listener, signals, mounts) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // nothing was changed, so this is a clean stop
                group.close()?;
                return Err(error);
            }
        };
        let shared = Arc::new(Shared {
            group,
            mounts,
            activity: Mutex::new(None),
            connections: AtomicUsize::new(0),
            closed: Mutex::new(None),
            has_closed: Condvar::new(),
            last: Mutex::new(Vec::new()),
        });
        let handle = signals.handle();
        let (theirs, ours) = (shared.clone(), shared.clone());
        let listener = Arc::new(listener);
        let listening = listener.clone();
        let threads = vec![
            spawn("control", move || listen(&theirs, &listening))?,
            spawn("signals", move || watch_signals(&ours, signals))?,
        ];
        let quiet = quiet::Noting::start(shared.group.journal().clone())?;
        Ok(Daemon { shared, signals: handle, listener, threads, quiet })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Arc<OpenGroup> {
        &self.shared.group
    }

    /// For another thread, to ask while this one waits for the end.
    #[must_use]
    pub fn worker(&self) -> Worker {
        Worker { shared: self.shared.clone() }
    }

    /// Serves until somebody unmounts, does the last thing (an export, say), and closes the group.
    ///
    /// # Errors
    /// What the last thing says, or that the group cannot be closed cleanly; the next mount recovers then.
    pub fn wait(self, last: impl FnOnce(&OpenGroup) -> Result<()>) -> Result<()> {
        let answering = self.shared.clone();
        let watchdog = Watchdog::after(move || {
            // what it answers is nobody's here, and an error is an answer, too
            let _ = answering.live();
        });
        let served = self.shared.mounts.wait_last().map_err(|error| Error::io("serve the mount", error));
        drop(watchdog);
        systemd::stopping();
        let _patience = Patience::with("closing the journal");
        self.quiet.end();
        let last = last(&self.shared.group);
        let closed = {
            // a tape that is being written is finished first
            let _alone = self.shared.group.alone();
            self.shared.group.close()
        };
        let outcome = closed.as_ref().copied().map_err(|error| (error.code(), error.chain()));
        *self.shared.closed.lock() = Some(outcome);
        self.shared.has_closed.notify_all();
        self.signals.close();
        self.listener.stop();
        for thread in self.threads {
            // a panicked helper is in the log already
            let _ = thread.join();
        }
        drop(self.listener);
        self.shared.settle_connections();
        closed.and(last).and(served)
    }
}

impl Worker {
    /// Does what the control socket would; `status` tells what it is busy with.
    ///
    /// # Errors
    /// What the request says; 16 when the mount has ended.
    pub fn perform(&self, request: &Request, progress: &mut dyn FnMut(Step)) -> Result<serde_json::Value> {
        self.shared.perform(request, progress)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Arc<OpenGroup> {
        &self.shared.group
    }

    /// Whether the mount has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.mounts.has_ended()
    }

    /// Ends all mounts, even while files are open.
    ///
    /// # Errors
    /// The kernel does not let go of one.
    pub fn unmount(&self) -> Result<()> {
        self.shared.mounts.detach_all()
    }
}

fn begin(
    group: &Arc<OpenGroup>,
    index: VolumeIndex,
    options: &MountOptions,
) -> Result<(Listener, Signals, Arc<Mounts>)> {
    let listener = Listener::bind(group.dir().path());
    let listener = listener.map_err(|error| Error::failed("open the control socket").because(error))?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| Error::io("watch signals", error))?;
    for other in group.volumes().iter().filter(|volume| volume.index != index) {
        group.close_volume(other.index)?;
    }
    let mounts = Mounts::new(group.clone());
    mounts.first(index, options)?;
    Ok((listener, signals, mounts))
}

impl Shared {
    fn perform(&self, request: &Request, progress: &mut dyn FnMut(Step)) -> Result<serde_json::Value> {
        if self.mounts.has_ended() {
            return Err(Error::new(ErrorKind::State, format!("{} is being unmounted", self.group.dir().name())));
        }
        let long = matches!(
            request,
            Request::BaseCopy { .. }
                | Request::BaseThrough { .. }
                | Request::Export { .. }
                | Request::Resync { .. }
                | Request::Grow { .. }
        );
        let mut step = |step| {
            if long {
                *self.activity.lock() = Some(Activity { verb: request.verb().to_owned(), step });
            }
            progress(step);
        };
        step(Step { done: 0, total: 0 });
        let outcome = request::perform(&self.group, &self.mounts.points(), request, &mut step);
        if long {
            *self.activity.lock() = None;
        }
        outcome
    }

    fn delay_ms(&self, index: VolumeIndex) -> f64 {
        self.group.volume(index).map_or(0.0, |volume| volume.primary.delay(1 << 20).as_secs_f64() * 1000.0)
    }

    fn live(&self) -> Result<Live> {
        self.group.journal().settle_loss();
        // whoever asks may look at the file next
        if let Err(error) = self.group.journal().jvol().show() {
            tracing::info!(%error, "what was journaled last cannot be looked at");
        }
        let file = self.group.file();
        let suspended = file.volumes.iter().filter_map(|entry| {
            self.group.suspension(entry.index).map(|(suspension, counts)| (entry.index, suspension, counts))
        });
        let mounts = self.mounts.list().into_iter().map(|served| LiveMount {
            volume: served.name.clone(),
            mountpoint: served.mountpoint.clone(),
            since: served.since,
            waiting: served.mounted.waiting(),
            slowed: served.mounted.throttled().requests,
            delay_ms: self.delay_ms(served.index),
            open_files: self.group.volume(served.index).map_or(0, |volume| volume.primary.open_files()),
            reads: served.mounted.passthrough().into(),
            ending: served.is_ending(self.group.dir().name()),
        });
        Ok(Live {
            pid: std::process::id(),
            mounts: mounts.collect(),
            suspended: suspended.collect(),
            journal: JournalState::of(self.group.journal().jvol(), &file, self.group.reading().as_ref())?,
            activity: self.activity.lock().clone(),
            clock: self.group.journal().clock_state(),
        })
    }

    /// Mounts a further volume.
    fn mount(&self, wanted: &request::FurtherMount) -> Result<()> {
        let file = self.group.file();
        let entry = file.volume(Some(&wanted.volume))?;
        self.mounts.add(entry.index, wanted.strict, &wanted.options(&file.title(entry)))
    }

    fn wait_closed(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        self.has_closed.wait_while(&mut closed, |closed| closed.is_none());
        match closed.as_ref() {
            Some(Err((code, message))) => Err(Error::new(ErrorKind::from_code(*code), message.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until the conversations have their last answer; the end of the process closes those of `last`.
    fn settle_connections(&self) {
        let mut closed = self.closed.lock();
        let limit = std::time::Duration::from_secs(5);
        let busy = |_: &mut _| self.connections.load(Ordering::SeqCst) > 0;
        let _ = self.has_closed.wait_while_for(&mut closed, busy, limit);
        drop(closed);
        // nothing of this process may drop them earlier: their end is how an umount sees that the process has gone
        self.last.lock().drain(..).for_each(std::mem::forget);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|error| Error::io(format!("start the {name} thread"), error))
}

fn listen(shared: &Arc<Shared>, listener: &Listener) {
    let mut has_told = false;
    loop {
        let connection = listener.accept();
        if shared.closed.lock().is_some() {
            return;
        }
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                // without a descriptor to spare the next one is refused at once as well
                if !std::mem::replace(&mut has_told, true) {
                    tracing::warn!(%error, "a conversation could not begin");
                }
                pause();
                continue;
            }
        };
        has_told = false;
        if shared.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            let busy = Error::new(ErrorKind::Busy, "too many conversations with the mount process");
            let _ = connection.send(&answer(Err(busy)));
            leave(shared);
            continue;
        }
        let theirs = shared.clone();
        if let Err(error) = spawn("conversation", move || converse(&theirs, connection)) {
            tracing::warn!(%error, "a conversation could not begin");
            leave(shared);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody tells that a descriptor is free")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

fn leave(shared: &Shared) {
    shared.connections.fetch_sub(1, Ordering::SeqCst);
    let _closed = shared.closed.lock();
    shared.has_closed.notify_all();
}

/// One conversation: requests until the other side has no more.
fn converse(shared: &Shared, mut connection: Connection) {
    loop {
        let request = match connection.receive::<Request>() {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                let _ = connection.send(&answer(Err(Error::usage("not a request").because(error))));
                break;
            }
        };
        tracing::info!(verb = request.verb(), "asked");
        let outcome = match &request {
            Request::Status => shared.live().and_then(|live| {
                serde_json::to_value(live).map_err(|error| Error::failed("write the answer").because(error))
            }),
            Request::Mount(wanted) => shared.mount(wanted).map(|()| serde_json::Value::Null),
            Request::Umount { mountpoint } => match shared.mounts.unmount(mountpoint.as_deref()) {
                Ok(Gone::Volume) => Ok(serde_json::Value::Null),
                Ok(Gone::Last) => {
                    let ended = shared.wait_closed();
                    let gone = ended.is_ok();
                    let _ = connection.send(&answer(ended.map(|()| serde_json::Value::Null)));
                    if gone {
                        shared.last.lock().push(connection);
                        break;
                    }
                    continue;
                }
                Err(error) => Err(error),
            },
            request => shared.perform(request, &mut |step| {
                // whoever asked may have gone; the work goes on
                let _ = connection.send(&Answer::<Step, ()>::Progress(step));
            }),
        };
        if let Err(error) = &outcome {
            tracing::warn!(verb = request.verb(), %error, "failed");
        }
        if connection.send(&answer(outcome)).is_err() {
            break;
        }
    }
    leave(shared);
}

fn answer(outcome: Result<serde_json::Value>) -> Answer<Step, serde_json::Value> {
    match outcome {
        Ok(value) => Answer::Done(value),
        Err(error) => {
            Answer::Failed { code: error.code(), message: error.chain(), hint: error.hint_text().map(str::to_owned) }
        }
    }
}

/// The first signal unmounts, even while files are open (their users keep them, the name is gone, and the end comes with
/// the last one); the second ends the process, and the next mount recovers.
fn watch_signals(shared: &Shared, mut signals: Signals) {
    let mut asked: Option<std::time::Duration> = None;
    for signal in &mut signals {
        let now = || shared.group.journal().clock().read().boot;
        if asked.is_some_and(|first| now().saturating_sub(first) < SAME_WISH) {
            continue;
        }
        if asked.is_some() {
            tracing::warn!("asked twice to end: the next mount recovers what is open now");
            std::process::exit(128 + signal);
        }
        tracing::info!(signal, "asked to end");
        // what came meanwhile is the same wish
        asked = shared.mounts.end_all().then(now);
    }
}
