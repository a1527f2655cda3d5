//! Who keeps a mounted group on tapes: at the start, on a schedule, when a missing directory comes back, and at the end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use reelfs_archive::Catalog;
use reelfs_volume::Reason;
use serde_json::Value;

use super::{Protection, absence};
use crate::daemon::{Daemon, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::export::{Exported, Made, SAME_DISK, is_of, tape_error};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::journal_state::JournalState;
use crate::open_group::OpenGroup;
use crate::output::Output;
use crate::progress::Progress;
use crate::request::{self, Request, Step};
use crate::triggers::{LOOK_INTERVAL, Triggers};

/// Does a request, here or in the mount's own thread, telling its steps.
type Perform<'p> = dyn FnMut(&Request, &mut dyn FnMut(Step)) -> Result<Value> + 'p;

/// What there is to tell.
#[derive(Debug)]
pub enum News<'a> {
    /// A tape was made.
    Tape(&'a Made),
    /// Something a person should know; told once.
    Warning(&'a str),
    /// No tape could be made. Told when it begins and when the reason changes.
    Failed {
        /// Why.
        error: &'a Error,
        /// The same, with what to do and what happens next.
        sentence: String,
    },
    /// Tapes are made again.
    Resumed,
}

/// What was done altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Tapes made.
    pub tapes: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes the tapes of one group in one directory.
pub struct Keeper<T> {
    to: PathBuf,
    /// The device of the directory when it began.
    device: u64,
    every: Duration,
    output: Output,
    tell: T,
    told: BTreeSet<String>,
    /// Why the last attempt failed.
    failing: Option<String>,
    /// Whether the last attempt found no directory.
    is_absent: bool,
    /// What no later attempt can mend.
    hopeless: Option<Error>,
    kept: Kept,
}

enum Wake {
    /// The mount has ended.
    End,
    /// Something appeared where the directory was missing.
    Hint,
}

/// Serves the mount and keeps the tapes until somebody unmounts; then writes the last tape.
///
/// # Errors
/// What the last tape says, or that the group cannot be closed cleanly.
pub fn keep<T>(daemon: Daemon, mut keeper: Keeper<T>) -> Result<Kept>
where
    T: FnMut(&News<'_>) + Send + 'static,
{
    let (wake, woken) = mpsc::channel();
    let (worker, hints) = (daemon.worker(), wake.clone());
    let thread = std::thread::Builder::new().name("tapes".to_owned()).spawn(move || {
        keeper.serve(&worker, &hints, &woken);
        keeper
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            daemon.worker().unmount()?;
            daemon.wait(|_| Ok(()))?;
            return Err(Error::io("start the thread that makes the tapes", error));
        }
    };
    let mut kept = Kept::default();
    daemon.wait(|group| {
        // it may have given up already
        let _ = wake.send(Wake::End);
        let mut keeper = thread.join().map_err(|_| Error::failed("the thread that makes the tapes panicked"))?;
        let outcome = keeper.finish(group);
        kept = keeper.kept;
        outcome
    })?;
    Ok(kept)
}

impl<T: FnMut(&News<'_>)> Keeper<T> {
    /// For a checked directory; `tell` gets the news.
    pub fn new(protection: &Protection, every: Duration, output: &Output, tell: T) -> Keeper<T> {
        let mut keeper = Keeper {
            to: protection.tapes.dir.clone(),
            device: protection.tapes_device,
            every,
            output: output.clone(),
            tell,
            told: BTreeSet::new(),
            failing: None,
            is_absent: false,
            hopeless: None,
            kept: Kept::default(),
        };
        if protection.tapes.same_disk {
            keeper.warn(SAME_DISK);
        }
        keeper
    }

    fn serve(&mut self, worker: &Worker, hints: &Sender<Wake>, woken: &Receiver<Wake>) {
        let (mut is_first, mut triggers) = (true, Triggers::new(worker.group()));
        loop {
            let outcome = self.attempt(worker.group(), &mut |request, step| worker.perform(request, step));
            match outcome {
                Ok(()) => {}
                Err(_) if worker.has_ended() => return, // the last attempt tells
                Err(error) if is_first && is_hopeless(&error) && worker.unmount().is_ok() => {
                    self.hopeless = Some(error);
                    return;
                }
                Err(error) => self.failed(worker.group(), &error),
            }
            is_first = false;
            triggers.tried(worker.group(), &self.to, self.failing.is_none());
            self.bring_back(worker);
            if !self.rest(worker, &triggers, hints, woken) {
                return;
            }
        }
    }

    /// A journal that filled while no tape could be written: now there is room, and what changed meanwhile is told.
    fn bring_back(&mut self, worker: &Worker) {
        let (group, file) = (worker.group(), worker.group().file());
        let is_full = |entry: &&VolumeEntry| {
            group.suspension(entry.index).is_some_and(|(suspension, _)| suspension.reason != Reason::User)
        };
        if self.failing.is_some() {
            return;
        }
        // each by its name: what a user has split stays so
        for entry in file.volumes.iter().filter(is_full) {
            if worker.has_ended() {
                return;
            }
            let resync = Request::Resync { volume: Some(entry.name.clone()), full: false };
            match worker.perform(&resync, &mut |_| {}) {
                Ok(_) => self.warn(
                    "the journal was full: what changed meanwhile has been told again, and every change is journaled",
                ),
                Err(_) if worker.has_ended() => return,
                Err(error) => {
                    self.warn(&format!("{} stays suspended: {}", file.title(entry), error.chain()));
                    return;
                }
            }
        }
    }

    /// Until the next attempt; false when it was the last.
    fn rest(&self, worker: &Worker, triggers: &Triggers, hints: &Sender<Wake>, woken: &Receiver<Wake>) -> bool {
        let begin = now();
        let mut watch = None;
        loop {
            // it may have come back between the attempt and here: then nothing else would tell
            if self.failing.is_some() && (self.is_absent || !self.to.is_dir()) {
                // anew every time: what was above it may be gone as well
                let hints = hints.clone();
                watch = absence::watch(&self.to, move || {
                    let _ = hints.send(Wake::Hint);
                });
                if self.to.is_dir() {
                    return true;
                }
            }
            match woken.recv_timeout(self.every.saturating_sub(begin.elapsed()).min(LOOK_INTERVAL)) {
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Wake::Hint) if watch.is_some() && self.to.is_dir() => return true,
                Ok(Wake::Hint) => {}
                Err(RecvTimeoutError::Timeout) if begin.elapsed() >= self.every => return true,
                Err(RecvTimeoutError::Timeout) if triggers.due_one(worker.group(), &self.to).is_some() => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The last tape, when nobody changes anything any more.
    fn finish(&mut self, group: &OpenGroup) -> Result<()> {
        if let Some(error) = self.hopeless.take() {
            return Err(error);
        }
        self.attempt(group, &mut |request, step| request::perform(group, &[], request, step)).map_err(|error| {
            let advice = self.advice(&error);
            let after = "nothing is lost: the changes wait in the journal for the next run";
            error.hint(if advice.is_empty() { after.to_owned() } else { format!("{advice}; {after}") })
        })
    }

    /// Writes what is new, after a base when the directory has none that leads to now.
    fn attempt(&mut self, group: &OpenGroup, perform: &mut Perform<'_>) -> Result<()> {
        let file = group.file();
        let request = self.choose(&file)?;
        let mut progress = match request {
            Request::BaseCopy { .. } => Progress::new(&self.output, "base copy"),
            _ => Progress::records(&self.output, "export"),
        };
        let value = perform(&request, &mut |step| progress.set(step.done, step.total, ""));
        drop(progress);
        let exported: Exported =
            serde_json::from_value(value?).map_err(|error| Error::failed("read the answer").because(error))?;
        for made in &exported.tapes {
            self.kept.tapes += 1;
            self.kept.bytes += made.bytes;
            (self.tell)(&News::Tape(made));
        }
        for warning in &exported.warnings {
            self.warn(warning);
        }
        if self.failing.take().is_some() {
            (self.tell)(&News::Resumed);
        }
        Ok(())
    }

    fn choose(&mut self, file: &GroupFile) -> Result<Request> {
        let to = self.to.clone();
        // that it is gone, or is no directory, is told by the export
        let metadata = fs::metadata(&to).ok().filter(fs::Metadata::is_dir);
        self.is_absent = metadata.is_none();
        let Some(metadata) = metadata else {
            return Ok(Request::Export { to });
        };
        let catalog = Catalog::scan(std::slice::from_ref(&to)).map_err(|error| tape_error("read the tapes", error))?;
        let (name, shown) = (&file.name, to.display());
        let is_bare = catalog.groups().iter().all(|known| known.uuid != file.uuid);
        if is_bare && metadata.dev() != self.device {
            let message = format!("the tape disk is not at {shown}: what is there now has no tape of group {name}");
            return Err(Error::new(ErrorKind::NotFound, message)
                .hint("mount the disk there; to go on with what is there now, end this and run it again"));
        }
        if stands(&catalog, file, &to) {
            return Ok(Request::Export { to });
        }
        if let Some(target) = file.target(&to) {
            self.warn(&format!(
                "{shown} had tapes of group {name} up to record {} and no longer has all of them: a new base tape is written",
                target.seq
            ));
        }
        Ok(Request::BaseCopy { to, volume: None })
    }

    fn warn(&mut self, warning: &str) {
        if self.told.insert(warning.to_owned()) {
            (self.tell)(&News::Warning(warning));
        }
    }

    fn failed(&mut self, group: &OpenGroup, error: &Error) {
        let reason = error.chain();
        if self.failing.as_ref() == Some(&reason) {
            tracing::info!(%reason, "still no tape");
            return;
        }
        let advice = self.advice(error);
        let advice = if advice.is_empty() { advice } else { format!("{advice}; ") };
        let used = JournalState::of(group.journal().jvol(), &group.file(), None)
            .map_or_else(|_| String::new(), |state| format!(" ({:.0} % full)", state.used * 100.0));
        let sentence = format!(
            "no tape was made: {reason}; {advice}until then the changes wait in the journal{used}, tried again every {}",
            humantime::format_duration(self.every)
        );
        (self.tell)(&News::Failed { error, sentence });
        self.failing = Some(reason);
    }

    /// What the user can do about it.
    fn advice(&self, error: &Error) -> String {
        match (error.kind(), error.hint_text()) {
            (_, Some(hint)) => hint.trim_end_matches(['.', ';']).to_owned(),
            (ErrorKind::NoSpace, None) => format!("the disk of {} is full: make room on it", self.to.display()),
            (_, None) => String::new(),
        }
    }
}

/// Whether the tapes of a directory lead from a finished base to the last record that was ever put there.
pub(super) fn stands(catalog: &Catalog, file: &GroupFile, dir: &Path) -> bool {
    !file.volumes.is_empty() && file.volumes.iter().all(|entry| leads(catalog, file, entry, dir))
}

/// The same of one volume.
fn leads(catalog: &Catalog, file: &GroupFile, entry: &VolumeEntry, dir: &Path) -> bool {
    let Some(newest) = &entry.base else { return false };
    let chain = catalog.chain(file.uuid, file.epoch);
    let exported = file.target(dir).filter(|target| target.epoch == file.epoch).map(|target| target.seq);
    let own = chain.bases.iter().filter(|base| is_of(base, entry.index));
    let finished = own.filter(|base| base.head.first() <= newest.seq);
    finished.map(|base| base.head.first()).any(|began| {
        let reached = chain.updates.iter().fold(began, |reached, tape| {
            let goes_on = tape.head.first() <= reached.next();
            if goes_on { reached.max(tape.head.last()) } else { reached }
        });
        exported.is_none_or(|exported| exported <= reached)
    })
}

/// A later attempt would fail in the same way, whatever is done to the disk.
fn is_hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Foreign | ErrorKind::Usage | ErrorKind::Damaged)
}

#[expect(clippy::disallowed_methods, reason = "a schedule of real time")]
fn now() -> Instant {
    Instant::now()
}
