//! After a power cut: what the journal holds of the last session is done again.
//!
//! `fsync` of a file whose names are on disk flushes the journal alone, so the journal may be ahead of the file. The whole
//! volume was on disk when the session began, and again before any record was freed; so doing again, in order, all that the
//! journal still holds of a file's content and attributes leads to the state at the journal's end, whichever pages had
//! reached the disk (redo by repeating history, as ARIES does; every change is absolute). Names are not done again: a
//! file that never was synced whole may be gone, and its records with it.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use reelfs_journal::{Amends, Change, ClockReading, FileId, FileTime, MarkerKind, NodeKind, Record, Seq, Timestamp};
use rustix::io::{Errno, Result};

use super::{OpenError, Primary};
use crate::apply::is_about_content;

/// How long after the last record the daemon may still have written, in nanoseconds (60 s): records and pages are flushed every
/// second, if the disk keeps up.
const LAST_WORDS: i64 = 60_000_000_000;

/// What is to be done again.
pub(super) struct Window {
    first: Seq,
    last: Seq,
    /// Wall time of the last record.
    end: Timestamp,
    amends: Amends,
    /// Inode numbers of all objects in it.
    pub(super) wanted: HashSet<u64>,
}

/// The time in which nobody of ours could change the volume: from the end of the machine, or of its disk, to the first attempt to
/// bring things back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lull {
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
}

/// What was done again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Redone {
    /// Changes.
    pub(super) changes: u64,
    /// Objects left as they are.
    pub(super) left: u64,
}

impl Window {
    /// When the lull after this window began: with the boot of the machine, or, in the same boot, when the daemon had nothing
    /// more to say.
    pub(super) fn lull_began(&self, now: ClockReading, same_boot: bool) -> Timestamp {
        if same_boot {
            return Timestamp(self.end.0.saturating_add(LAST_WORDS));
        }
        Timestamp(now.wall.0.saturating_sub(i64::try_from(now.boot.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// When a redo was begun, kept until it is done: what changed after that was changed by the redo itself, which may have been
/// cut off half-way.
pub(super) struct FirstAttempt {
    path: PathBuf,
}

impl FirstAttempt {
    pub(super) fn new(state: &Path) -> FirstAttempt {
        FirstAttempt { path: state.join("redo") }
    }

    /// When it was; `now` if this is the first.
    pub(super) fn at(&self, now: Timestamp) -> io::Result<Timestamp> {
        let noted = fs::read_to_string(&self.path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(noted) = noted {
            return Ok(Timestamp(noted));
        }
        let mut file = fs::File::create(&self.path)?;
        file.write_all(format!("{}\n", now.0).as_bytes())?;
        file.sync_all()?;
        Ok(now)
    }

    /// Done, or not needed.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

impl Primary {
    /// What the journal holds since a session began; `None` when that is nothing.
    pub(super) fn window(&self, since: Seq) -> std::result::Result<Option<Window>, OpenError> {
        let pointers = self.jvol.pointers();
        let (first, last) = (since.max(pointers.out), pointers.next.previous());
        if first > last {
            return Ok(None);
        }
        let (mut amends, mut wanted, mut end) = (Amends::default(), HashSet::new(), Timestamp(i64::MIN));
        let mut begin = first;
        let window = Window { first, last, end, amends: Amends::default(), wanted: HashSet::new() };
        self.records(&window, |record| {
            if matches!(record.change, Change::Marker { kind: MarkerKind::ResyncEnd, .. }) {
                // the volume was on disk as a whole, and what was told before is not all that had changed
                (amends, wanted, begin) = (Amends::default(), HashSet::new(), record.seq.next());
            }
            amends.note(&record.change);
            wanted.insert(record.change.file().ino);
            end = end.max(record.wall);
        })?;
        Ok((begin <= last).then_some(Window { first: begin, end, amends, wanted, ..window }))
    }

    /// Does a window again. Its objects were made known by a scan before. What somebody has changed since the power came back
    /// stays as it is.
    ///
    /// # Errors
    /// What the file system says, `ENOSPC` when it is full; it can be tried again.
    pub(super) fn redo_window(&self, window: &Window, lull: Lull) -> std::result::Result<Redone, OpenError> {
        let failed = |source| OpenError::Volume { what: "do again what the journal holds", source };
        let mut redone = Redone::default();
        let edited = self.edited(lull).map_err(failed)?;
        let mut left = HashSet::new();
        self.volume.set_converging(true);
        let mut outcome = Ok(());
        self.records(window, |record| {
            let Some(change) = window.amends.real(record) else { return };
            if edited.contains(&change.file()) {
                if left.insert(change.file()) {
                    tracing::warn!(file = %change.file(), "changed since the power came back: left as it is");
                }
            } else if outcome.is_ok() {
                match self.repeat(&change, &edited) {
                    Ok(done) => redone.changes += u64::from(done),
                    Err(error) => {
                        tracing::error!(%error, what = change.verb(), file = %change.file(), "cannot be done again");
                        outcome = Err(failed(error));
                    }
                }
            }
        })?;
        self.volume.set_converging(false);
        outcome?;
        self.volume.sync().map_err(failed)?;
        redone.left = left.len() as u64;
        Ok(redone)
    }

    /// Objects that were changed in the lull.
    fn edited(&self, lull: Lull) -> Result<HashSet<FileId>> {
        let mut edited = HashSet::new();
        for node in self.volume.nodes.all() {
            let changed = self.volume.stat(&node)?.ctime;
            if FileTime::from(lull.began) <= changed && changed < FileTime::from(lull.ended) {
                edited.insert(node.id);
            }
        }
        Ok(edited)
    }

    /// Does what one change left of content, attributes and times again; false when that is nothing, or of an object that is
    /// gone.
    fn repeat(&self, change: &Change<'_>, edited: &HashSet<FileId>) -> Result<bool> {
        if super::touched(change).iter().all(|object| !edited.contains(object)) {
            self.redo_times(change)?;
        }
        if !self.volume.knows(change.file()) {
            return Ok(false);
        }
        match change {
            Change::Create { file, kind, attributes, xattrs, .. } => {
                if *kind == NodeKind::File {
                    self.volume.put_size(*file, 0)?; // made empty: what stands there comes again
                }
                self.volume.set_attributes(*file, attributes)?;
                self.volume.set_xattrs_exact(*file, xattrs)?;
            }
            Change::RemoveXattr { .. } => match self.volume.apply(change) {
                Ok(_) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            },
            Change::Write { data, .. } => {
                if self.volume.apply(change)? < data.len() as u64 {
                    return Err(Errno::NOSPC);
                }
            }
            change if is_about_content(change) => {
                self.volume.apply(change)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn records(&self, window: &Window, mut each: impl FnMut(Record<'_>)) -> std::result::Result<(), OpenError> {
        let mut reader = self.jvol.read(window.first, window.last)?;
        while let Some(record) = reader.next() {
            let (control, data) = record?;
            let record = Record::decode(control, data).map_err(|error| {
                let (seq, _) = Record::peek(control);
                tracing::error!(%seq, %error, "a record of the journal cannot be read");
                OpenError::Volume { what: "read what the journal holds", source: Errno::BADMSG }
            })?;
            each(record);
        }
        Ok(())
    }
}
