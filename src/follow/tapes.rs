//! Following directories of tapes: each new tape is read whole, and then its records.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use reelfs_archive::{Catalog, CatalogTape, Depth, VerifiedTape};
use reelfs_journal::{GroupName, Position, Seq, VolumeIndex};
use uuid::Uuid;

use super::Source;
use super::replica::ReplicaFile;
use super::stretch::{Held, Stretch};
use crate::consumer::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::output::Output;
use crate::restore::{Tape, broken_tapes, tape_error};

/// How often it is looked without a hint: a disk that is mounted there gives none.
const EVERY: Duration = Duration::from_secs(1);

/// A file, by what every change of it changes: its number, its length and the time of the change.
type State = (u64, u64, i64, i64);

/// A tape whose bytes are not whole.
struct Unfit {
    state: State,
    records: RangeInclusive<Seq>,
    sentence: String,
}

/// Directories of tapes of one group.
pub struct TapeSource {
    dirs: Vec<PathBuf>,
    group: GroupName,
    uuid: Uuid,
    volume: VolumeIndex,
    once: bool,
    output: Output,
    /// What was said of a tape that does not read.
    told: Option<String>,
    /// Tapes whose bytes are not whole, as their files were then: they are not read again before they change.
    unfit: HashMap<PathBuf, Unfit>,
    hints: Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl TapeSource {
    /// Of these directories, for a replica; `once` means that nobody waits for a tape to become whole.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>, replica: &ReplicaFile, once: bool, output: &Output) -> TapeSource {
        let (group, uuid, volume) = (replica.group.clone(), replica.uuid, replica.volume);
        let (hint, hints) = mpsc::channel();
        let watcher = if once { None } else { watch(&dirs, move || hint.send(()).is_ok()) };
        let (output, unfit) = (output.clone(), HashMap::new());
        TapeSource { dirs, group, uuid, volume, once, output, told: None, unfit, hints, _watcher: watcher }
    }

    fn scan(&self) -> Result<Option<Catalog>> {
        let present: Vec<&PathBuf> = self.dirs.iter().filter(|dir| dir.exists()).collect();
        if present.len() < self.dirs.len() && self.once {
            let absent = self.dirs.iter().find(|dir| !dir.exists());
            let shown = absent.map(|dir| dir.display().to_string()).unwrap_or_default();
            return Err(Error::new(ErrorKind::NotFound, format!("the directory of tapes {shown} is not there")));
        }
        if present.is_empty() {
            return Ok(None); // the disk may come back
        }
        let first = present[0].clone();
        Catalog::scan(&present).map(Some).map_err(|error| tape_error(&first, error))
    }

    /// There are tapes, and none of this group.
    fn check_group(&self, catalog: &Catalog) -> Result<()> {
        let groups = catalog.groups();
        if groups.is_empty() || groups.iter().any(|group| group.uuid == self.uuid) {
            return Ok(());
        }
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        let message =
            format!("the replica is one of group {} ({}), and the tapes are of another", self.group, self.uuid);
        Err(Error::new(ErrorKind::Foreign, message).hint(format!("the tapes there are of: {}", names.join(", "))))
    }

    /// Nothing follows what the replica has: because nothing is there, or because it cannot be used.
    fn nothing(&mut self, catalog: &Catalog, at: &Position) -> Result<Option<Stretch>> {
        let groups = catalog.groups();
        let ours = groups.iter().filter(|group| group.uuid == self.uuid);
        // the tapes of the very next one may have been pruned
        if let Some(later) = ours.flat_map(|group| &group.epochs).filter(|epoch| **epoch > at.epoch).min() {
            return Err(super::new_epoch(&self.group, *later));
        }
        let broken = broken_tapes(catalog);
        let broken = broken
            .iter()
            .find(|broken| broken.may_belong_to(Some(self.group.as_str())) && broken.may_hold_after(at.seq));
        let unfit = self.unfit_for(at).map(|unfit| unfit.sentence.clone());
        if let Some(sentence) = broken.map(|broken| broken.error.to_string()).or(unfit) {
            if self.once {
                return Err(Error::new(ErrorKind::Damaged, sentence));
            }
            if self.told.as_ref() != Some(&sentence) {
                self.output.note(format!("{sentence}; waiting for a whole one"));
                self.told = Some(sentence);
            }
        }
        Ok(None)
    }

    /// The tape that goes on behind what the replica has.
    fn choose<'c>(&self, catalog: &'c Catalog, at: &Position) -> Result<Option<&'c CatalogTape>> {
        let chain = catalog.chain(self.uuid, at.epoch);
        if let Some(clash) = chain.diverged.iter().find(|clash| clash.seq > at.seq) {
            let message =
                format!("two histories of {} are on the tapes: they differ at record {}", self.group, clash.seq);
            return Err(Error::new(ErrorKind::Foreign, message)
                .hint("keep the tapes of one history in a directory of their own and follow that"));
        }
        let later: Vec<&CatalogTape> = chain.updates.iter().filter(|tape| tape.head.last() > at.seq).copied().collect();
        // the longest: a batch that was begun from it must be had as a whole
        let fitting = later.iter().filter(|tape| tape.head.first() <= at.seq.next());
        if let Some(tape) = fitting.max_by_key(|tape| tape.head.last()) {
            return Ok(Some(tape));
        }
        let Some(first) = later.iter().map(|tape| tape.head.first()).min() else { return Ok(None) };
        // it is there, and may be whole in a moment
        if self.unfit_for(at).is_some() {
            return Ok(None);
        }
        let (from, to) = (at.seq.next(), first.previous());
        let message = format!("a tape is missing: records {from} to {to} of {} are on none", self.group);
        Err(Error::new(ErrorKind::TapeNeeded, message)
            .hint("bring the missing tape and run this again; the replica goes on where it stands"))
    }

    /// Leaves out what was not whole and has not changed since.
    fn leave_out_unfit(&mut self, catalog: &mut Catalog) {
        self.unfit.retain(|path, unfit| state(path) == Some(unfit.state));
        self.unfit.keys().for_each(|path| catalog.leave_out_file(path));
    }

    /// One that would hold what comes next.
    fn unfit_for(&self, at: &Position) -> Option<&Unfit> {
        self.unfit.values().find(|unfit| unfit.records.contains(&at.seq.next()))
    }

    fn verify(&self, tape: &CatalogTape) -> Result<(PathBuf, VerifiedTape)> {
        let tape = Tape::new(tape);
        Ok((tape.path.clone(), tape.verify(Depth::Bytes, &mut |_| {})?))
    }
}

impl Source for TapeSource {
    fn next(&mut self, at: &Position) -> Result<Option<Stretch>> {
        let Some(mut catalog) = self.scan()? else { return Ok(None) };
        self.check_group(&catalog)?;
        self.leave_out_unfit(&mut catalog);
        loop {
            let Some(tape) = self.choose(&catalog, at)? else { return self.nothing(&catalog, at) };
            let records = tape.head.first()..=tape.head.last();
            // as they are before they are read
            let files: Vec<_> =
                [&tape.path].into_iter().chain(&tape.copies).map(|path| (path.clone(), state(path))).collect();
            match self.verify(tape) {
                Ok((path, tape)) => {
                    check_follows(&path, &tape, at)?;
                    let last = tape.head().last();
                    let held = Held::Tape(path, Box::new(tape));
                    return Ok(Some(Stretch { held, last, volume: self.volume, now: None }));
                }
                // others may have the records; or it is being copied, its end first
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    for (path, state) in files {
                        catalog.leave_out_file(&path);
                        let (records, sentence) = (records.clone(), error.chain());
                        self.unfit.extend(state.map(|state| (path, Unfit { state, records, sentence })));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn report(&mut self, _consumer: &Consumer, _is_done: bool) -> Result<()> {
        Ok(()) // the far site hears of it by `tape ack`
    }

    fn wait(&mut self) {
        // the watcher may have gone with its directory
        match self.hints.recv_timeout(EVERY) {
            Err(mpsc::RecvTimeoutError::Disconnected) => pause(),
            _ => while self.hints.try_recv().is_ok() {},
        }
    }
}

fn state(path: &Path) -> Option<State> {
    let found = path.metadata().ok()?;
    Some((found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// The tape goes on where the replica stands: the digests agree there.
fn check_follows(path: &Path, tape: &VerifiedTape, at: &Position) -> Result<()> {
    let before = tape.head().label.before.filter(|before| before.seq == at.seq);
    let known = match before {
        Some(before) => before,
        None if at.seq == Seq::ZERO => return Ok(()),
        None => tape.position_at(at.seq).map_err(|error| tape_error(path, error))?,
    };
    if known.digest == at.digest {
        return Ok(());
    }
    let message = format!(
        "the history has diverged: tape {} does not go on from the replica at record {}",
        path.display(),
        at.seq
    );
    Err(Error::new(ErrorKind::Foreign, message).hint("it stays as it is; follow into a new directory"))
}

fn watch(dirs: &[PathBuf], hint: impl Fn() -> bool + Send + 'static) -> Option<RecommendedWatcher> {
    let noticed = move |event: notify::Result<notify::Event>| {
        // that they are opened and read is our own doing
        let is_ours = matches!(&event, Ok(event) if event.kind.is_access() && !is_written(event.kind));
        if !is_ours {
            hint();
        }
    };
    let mut watcher = notify::recommended_watcher(noticed)
        .inspect_err(|error| tracing::debug!(%error, "nothing to watch with"))
        .ok()?;
    for dir in dirs {
        let watched = watcher.watch(dir, RecursiveMode::NonRecursive);
        // it is looked at once a second all the same
        let _ = watched.inspect_err(|error| tracing::debug!(%error, "cannot watch"));
    }
    Some(watcher)
}

/// Somebody who wrote into it has closed a file.
fn is_written(kind: EventKind) -> bool {
    kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

#[expect(clippy::disallowed_methods, reason = "nothing watches the directory")]
fn pause() {
    std::thread::sleep(EVERY);
}
