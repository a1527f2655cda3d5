//! Answers syncs and closes files outside the event loops, and keeps the journal durable in the background.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_journal::disk::{self, Label};
use reelfs_journal::{JournalError, Jvol, Seq};
use rustix::io::{Errno, Result};

use super::lull::DueRedo;

/// The journal is synced at least this often while it grows: `sync(2)` does not reach a FUSE daemon.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// ... and as soon as this part of its size has come, which fills a quarter of the ring before it; or 1 MiB, if that is more, or
/// 16 MiB, if that is less.
const SYNC_PART: u64 = 32;
const SYNC_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 20;
/// Threads that wait for the backing file system; more of them only queue at the disk.
const FILE_SYNC_THREADS: usize = 4;

/// Those of them that close files, too: the others are there for whoever syncs.
const CLOSING_THREADS: usize = 2;
/// Files of a volume that may wait to be closed.
const CLOSINGS_MAX: usize = 64;

/// Called when a sync is done; `EAGAIN` when the journal has lost what it held, see `takeover.rs`.
pub(crate) type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// What the threads do that wait for the backing file system.
enum Task {
    Sync(Request),
    /// To close a file may begin to write all of it, for instance when it was cut off (ext4, XFS, btrfs).
    Close(Arc<OwnedFd>, Arc<Closings>),
}

/// What waits for the threads.
#[derive(Default)]
struct Tasks {
    syncs: VecDeque<Request>,
    closings: VecDeque<(Arc<OwnedFd>, Arc<Closings>)>,
}

impl Tasks {
    /// Whoever is asked to sync goes first.
    fn next(&mut self, closes: bool) -> Option<Task> {
        let sync = self.syncs.pop_front().map(Task::Sync);
        match sync {
            None if closes => self.closings.pop_front().map(|(file, of)| Task::Close(file, of)),
            sync => sync,
        }
    }
}

/// Files of a volume that are still to be closed.
#[derive(Debug, Default)]
pub(crate) struct Closings {
    count: Mutex<usize>,
    none: Condvar,
}

impl Closings {
    /// One more, unless there are many.
    fn begin(&self) -> bool {
        let mut count = self.count.lock();
        let is_one_more = *count < CLOSINGS_MAX;
        *count += usize::from(is_one_more);
        is_one_more
    }

    fn end(&self) {
        *self.count.lock() -= 1;
        self.none.notify_all();
    }
}

struct Request {
    file: Arc<OwnedFd>,
    upto: Seq,
    refusal: Arc<Refusal>,
    done: Done,
}

/// Whether the disk of a volume refused a sync: nothing more of it may be called durable.
pub(crate) struct Refusal {
    refused: AtomicBool,
    due: DueRedo,
}

impl Refusal {
    /// What the disk refuses is noted in `due`, for the next opening to do it again.
    pub(crate) fn new(due: DueRedo) -> Refusal {
        Refusal { refused: AtomicBool::new(false), due }
    }

    /// It did.
    pub(crate) fn is_there(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    fn note(&self) {
        self.refused.store(true, Ordering::SeqCst);
        if let Err(error) = self.due.note() {
            tracing::error!(%error, "that the volume has lost something could not be noted");
        }
    }
}

#[derive(Default)]
struct Shared {
    tasks: Mutex<Tasks>,
    wake_files: Condvar,
    wanted: AtomicU64,
    wake_journal: Condvar,
    /// Who waits for the journal alone: one flush answers all that wait when it begins.
    waiting: Mutex<Vec<(Seq, Done)>>,
    unsynced_bytes: AtomicU64,
    last: AtomicU64,
    stop: AtomicBool,
}

/// One thread that syncs the journal for everybody who waits, and a few that sync files.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    jvol: Arc<Jvol>,
    /// Payload after which the journal is synced.
    sync_bytes: u64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Committer {
    pub(crate) fn new(jvol: Arc<Jvol>) -> std::io::Result<Committer> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for index in 0..FILE_SYNC_THREADS {
            let (shared, jvol) = (shared.clone(), jvol.clone());
            let thread = std::thread::Builder::new().name(format!("sync-{index}"));
            let closes = index < CLOSING_THREADS;
            threads.push(thread.spawn(disk::with_same_watcher(move || sync_files(&shared, &jvol, closes)))?);
        }
        let (theirs, journal) = (shared.clone(), jvol.clone());
        let run = disk::with_same_watcher(move || sync_journal(&theirs, &journal));
        threads.push(std::thread::Builder::new().name("sync-jvol".into()).spawn(run)?);
        let sync_bytes = (jvol.geometry().size / SYNC_PART).clamp(*SYNC_BYTES.start(), *SYNC_BYTES.end());
        Ok(Committer { shared, jvol, sync_bytes, threads: Mutex::new(threads) })
    }

    /// Notes that records up to `last` are in the journal, `bytes` of payload with them.
    pub(crate) fn appended(&self, last: Seq, bytes: u64) {
        self.shared.last.fetch_max(last.0, Ordering::Relaxed);
        if self.shared.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.sync_bytes {
            self.want(last);
        }
    }

    /// Makes the journal durable up to `upto`, then calls `done`.
    pub(crate) fn sync_journal(&self, upto: Seq, done: Done) {
        self.shared.waiting.lock().push((upto, done));
        self.shared.wake_journal.notify_one();
    }

    /// Makes the journal durable up to `upto` and the file itself durable, both at once, then calls `done`.
    pub(crate) fn sync(&self, file: Arc<OwnedFd>, upto: Seq, refusal: &Arc<Refusal>, done: Done) {
        self.want(upto);
        let refusal = refusal.clone();
        self.shared.tasks.lock().syncs.push_back(Request { file, upto, refusal, done });
        self.shared.wake_files.notify_one();
    }

    /// Closes a file soon, if nobody else has it; when many of its volume wait for that, at once.
    pub(crate) fn close(&self, file: Arc<OwnedFd>, of: &Arc<Closings>) {
        if of.begin() {
            self.shared.tasks.lock().closings.push_back((file, of.clone()));
            // one alone may be one that closes nothing
            self.shared.wake_files.notify_all();
        }
    }

    /// Closes all of a volume that wait for that, and waits for those that somebody is at.
    pub(crate) fn close_all(&self, of: &Arc<Closings>) {
        let mut own = Vec::new();
        {
            let closings = &mut self.shared.tasks.lock().closings;
            for (file, owner) in std::mem::take(closings) {
                if Arc::ptr_eq(&owner, of) { own.push(file) } else { closings.push_back((file, owner)) }
            }
        }
        for file in own {
            drop(file);
            of.end();
        }
        of.none.wait_while(&mut of.count.lock(), |count| *count > 0);
    }

    fn want(&self, upto: Seq) {
        self.shared.wanted.fetch_max(upto.0, Ordering::SeqCst);
        let _waiting = self.shared.waiting.lock();
        self.shared.wake_journal.notify_one();
    }

    /// Ends the threads; what waits is answered first.
    pub(crate) fn stop(&self) {
        {
            let _tasks = self.shared.tasks.lock();
            self.shared.stop.store(true, Ordering::SeqCst);
            self.shared.wake_files.notify_all();
        }
        {
            let _waiting = self.shared.waiting.lock();
            self.shared.wake_journal.notify_all();
        }
        let this = std::thread::current().id();
        // whoever answers last may hold the last reference to us
        for thread in self.threads.lock().drain(..).filter(|thread| thread.thread().id() != this) {
            if thread.join().is_err() {
                tracing::error!("a sync thread panicked");
            }
        }
        if let Err(error) = self.jvol.sync(Seq(self.shared.last.load(Ordering::SeqCst))) {
            tracing::error!(%error, "the journal could not be synced at the end");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn sync_files(shared: &Shared, jvol: &Jvol, closes: bool) {
    loop {
        let task = {
            let mut tasks = shared.tasks.lock();
            loop {
                if let Some(task) = tasks.next(closes) {
                    break task;
                }
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                shared.wake_files.wait(&mut tasks);
            }
        };
        let request = match task {
            Task::Sync(request) => request,
            Task::Close(file, of) => {
                drop(file);
                of.end();
                continue;
            }
        };
        let file = disk::sync(Label::FileSync, &request.file);
        if let Err(error) = &file {
            // the kernel tells once, and a second sync of the same descriptor would succeed with the pages lost
            tracing::error!(%error, "a file of the volume could not be synced: the mount takes no more changes");
            request.refusal.note();
        }
        let journal = jvol.sync(request.upto).map(|_| ()).map_err(|error| match error {
            JournalError::Lost(_) => Errno::AGAIN,
            error => {
                tracing::error!(%error, "the journal could not be synced");
                Errno::IO
            }
        });
        (request.done)(file.and(journal));
    }
}

fn sync_journal(shared: &Shared, jvol: &Jvol) {
    let mut synced = 0;
    // what could not be flushed once is never said to be durable, but for what a spare lost: the volumes are then brought to
    // their disks before it takes anything
    let mut outcome = Ok(());
    let mut lost = false;
    loop {
        let (waiting, upto, stop) = {
            let mut waiting = shared.waiting.lock();
            // under the lock that whoever stops us takes before it wakes us
            let stop = shared.stop.load(Ordering::SeqCst);
            let mut upto = shared.wanted.load(Ordering::SeqCst);
            if waiting.is_empty() && (upto <= synced || outcome.is_err() || lost) && !stop {
                let timed_out = shared.wake_journal.wait_for(&mut waiting, SYNC_INTERVAL).timed_out();
                let newest = if timed_out { &shared.last } else { &shared.wanted };
                upto = newest.load(Ordering::SeqCst);
            }
            (std::mem::take(&mut *waiting), upto, stop)
        };
        let upto = waiting.iter().map(|(seq, _)| seq.0).fold(upto, u64::max);
        // also where that is settled before it is asked for again
        let mut has_told = false;
        if upto > synced && outcome.is_ok() {
            shared.unsynced_bytes.store(0, Ordering::Relaxed);
            match jvol.sync(Seq(upto)) {
                Ok(_) => synced = upto,
                Err(JournalError::Lost(_)) => has_told = true,
                Err(error) => {
                    tracing::error!(%error, "the journal could not be synced");
                    outcome = Err(Errno::IO);
                }
            }
        }
        lost = has_told || jvol.has_lost();
        for (_, done) in waiting {
            done(if lost { Err(Errno::AGAIN) } else { outcome });
        }
        if stop {
            return;
        }
    }
}
