//! After a power cut: what the journal holds of the last session is done again.
//!
//! `fsync` of a file whose names are on disk flushes the journal alone, so the journal may be ahead of the file. The whole
//! volume was on disk when the session began, and again before any record was freed; so doing again, in order, all that the
//! journal still holds of a file's content and attributes leads to the state at the journal's end, whichever pages had
//! reached the disk (redo by repeating history, as ARIES does; every change is absolute). Names are not done again: a
//! file that never was synced whole may be gone, and its records with it.

use std::collections::{HashMap, HashSet};

use reelfs_journal::{
    Active, Amends, Change, ClockReading, FileId, MarkerKind, NodeKind, RENAME_EXCHANGE, Record, Seq, Timestamp,
};
use rustix::io::{Errno, Result};

use super::half_told::HalfTold;
use super::lifecycle::TIME_GRAIN;
use super::lull::Lull;
use super::superseded::Superseded;
use super::{OpenError, Primary, Session};
use crate::apply::is_about_content;

/// How long after the last record the daemon may still have written, in nanoseconds (60 s): records and pages are flushed every
/// second, if the disk keeps up.
const LAST_WORDS: i64 = 60_000_000_000;

/// What is to be done again.
pub(super) struct Window {
    first: Seq,
    last: Seq,
    /// Wall time of the last change.
    end: Timestamp,
    amends: Amends,
    superseded: Superseded,
    half_told: HalfTold,
    /// Inode numbers of all objects in it.
    pub(super) wanted: HashSet<u64>,
    /// What the volume may have beyond the journal.
    pub(super) active: ActiveIn,
    /// Nothing else may differ. False when a new epoch began that came to nothing, or behind a suspension: its map may be gone.
    pub(super) says_all: bool,
}

/// What of a volume a window names, by inode number.
#[derive(Debug)]
pub(super) struct ActiveIn {
    /// Lowest wall time of a record of a change; what an opening told changed nothing.
    low: Timestamp,
    /// Directories whose names might change. If any did, the directory's change time tells.
    pub(super) names: HashSet<u64>,
    /// Directories of whose names a record says something: the change itself may not have reached the disk.
    pub(super) renamed: HashSet<u64>,
    /// Objects whose attributes may differ.
    pub(super) objects: HashSet<u64>,
    /// Units of files, from the first to before the end.
    pub(super) units: HashSet<(u64, u64, u64)>,
    /// Files that were made. Their birth time need not tell: a making may take longer than a grain of the clock.
    pub(super) made: HashSet<FileId>,
    /// How many names of an object were removed.
    pub(super) removed: HashMap<FileId, u32>,
    /// In a bracket. What a base copy tells outside of one was not changed by it.
    is_telling: bool,
    /// Files that it has cut off there, for whoever reads the journal; the bytes may not have followed.
    telling: HashMap<FileId, u64>,
    /// The same of those which did not end, or which another one cut short: nothing of them is done again.
    pub(super) half_told: HashMap<FileId, u64>,
}

fn note_cut(cuts: &mut HashMap<FileId, u64>, file: FileId, size: u64) {
    let cut = cuts.entry(file).or_insert(size);
    *cut = (*cut).min(size);
}

impl ActiveIn {
    fn new() -> ActiveIn {
        ActiveIn {
            low: Timestamp(i64::MAX),
            names: HashSet::new(),
            renamed: HashSet::new(),
            objects: HashSet::new(),
            units: HashSet::new(),
            made: HashSet::new(),
            removed: HashMap::new(),
            is_telling: false,
            telling: HashMap::new(),
            half_told: HashMap::new(),
        }
    }

    /// What was made or changed in the window carries a time after this.
    pub(super) fn since(&self) -> Timestamp {
        Timestamp(self.low.0.saturating_sub(TIME_GRAIN))
    }

    /// The telling has no end: what it has cut off stays so, as [`HalfTold`] leaves it out whatever comes behind it.
    fn end_early(&mut self) {
        self.telling.drain().for_each(|(file, size)| note_cut(&mut self.half_told, file, size));
    }

    fn note(&mut self, record: &Record<'_>) {
        if !self.is_telling && !matches!(&record.change, Change::Marker { kind, .. } if kind.begins_bracket()) {
            self.low = self.low.min(record.wall);
        }
        let file = match &record.change {
            Change::BaseBegin { .. } => FileId::NONE,
            Change::Entry { .. } if !self.is_telling => FileId::NONE,
            change => change.file(),
        };
        match &record.change {
            Change::Marker { kind, .. } => {
                self.is_telling = kind.begins_bracket() || (self.is_telling && !kind.ends_bracket());
                if kind.begins_bracket() {
                    self.end_early();
                } else if kind.ends_bracket() {
                    self.telling.clear();
                }
            }
            Change::SetSize { file, size, .. } if self.is_telling => note_cut(&mut self.telling, *file, *size),
            Change::Active { entries } => entries.iter().for_each(|entry| match *entry {
                Active::Names { directory } => _ = self.names.insert(directory),
                Active::Attributes { object } => _ = self.objects.insert(object),
                Active::Bytes { file, first, units } => _ = self.units.insert((file, first, first + units)),
            }),
            Change::Create { parent, kind, .. } => {
                self.renamed.insert(parent.ino);
                if *kind == NodeKind::Directory {
                    self.renamed.insert(file.ino);
                } else if !self.is_telling {
                    self.made.insert(file);
                }
            }
            Change::Link { parent, .. } => _ = self.renamed.insert(parent.ino),
            Change::Unlink { parent, .. } => {
                self.renamed.insert(parent.ino);
                *self.removed.entry(file).or_default() += 1;
            }
            Change::Rename { parent, new_parent, replaced, flags, .. } => {
                self.renamed.extend([parent.ino, new_parent.ino]);
                if *flags & RENAME_EXCHANGE == 0 {
                    *self.removed.entry(*replaced).or_default() += 1;
                }
            }
            Change::ListBegin { directory } => _ = self.renamed.insert(directory.ino),
            _ => {}
        }
        if file != FileId::NONE {
            self.objects.insert(file.ino);
        }
    }

    /// Inode numbers of all of it.
    fn inodes(&self) -> impl Iterator<Item = u64> {
        let removed = self.removed.keys().map(|id| id.ino);
        self.names
            .iter()
            .chain(&self.renamed)
            .chain(&self.objects)
            .copied()
            .chain(self.units.iter().map(|(ino, ..)| *ino))
            .chain(removed)
    }
}

/// What the journal has behind a session of openings that were cut off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CutOff {
    /// An epoch that was never noted in the group.
    pub(super) has_begun_epoch: bool,
    /// A telling without an end: whoever replays it needs one, even if nothing is left to be told.
    pub(super) is_telling: bool,
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
    /// more to say; then too when the clock says that the machine was booted before that. It was ahead, and all that was
    /// written would look like edits.
    pub(super) fn lull_began(&self, now: ClockReading, same_boot: bool) -> Timestamp {
        let boot = now.wall.0.saturating_sub(i64::try_from(now.boot.as_nanos()).unwrap_or(i64::MAX));
        Timestamp(if same_boot || boot <= self.end.0 { self.end.0.saturating_add(LAST_WORDS) } else { boot })
    }
}

impl Primary {
    /// What the journal holds since a session began; `None` when that is nothing.
    pub(super) fn window(&self, since: Seq) -> std::result::Result<Option<Window>, OpenError> {
        let pointers = self.jvol().pointers();
        let (first, last) = (since.max(pointers.out), pointers.next.previous());
        if first > last {
            return Ok(None);
        }
        let empty = |first| Window {
            first,
            last,
            end: Timestamp(i64::MIN),
            amends: Amends::default(),
            superseded: Superseded::default(),
            half_told: HalfTold::default(),
            wanted: HashSet::new(),
            active: ActiveIn::new(),
            says_all: true,
        };
        let (mut window, mut is_suspended) = (empty(first), false);
        self.records((first, last), |record| {
            match record.change {
                // the volume was on disk as a whole, and what was told before is not all that changed since
                Change::Marker { kind: MarkerKind::ResyncEnd, .. } => {
                    (window, is_suspended) = (empty(record.seq.next()), false);
                }
                // the same. The map that says what changed since may not have begun, or be gone when an opening was cut off
                // behind it
                Change::Marker { kind: MarkerKind::Suspended, .. } => {
                    let behind = empty(record.seq.next());
                    let before = std::mem::replace(&mut window, behind);
                    (window.active, window.says_all, is_suspended) = (before.active, before.says_all, true);
                }
                Change::Marker { kind: MarkerKind::EpochStart, epoch, .. } => {
                    window.says_all &= !is_suspended && epoch <= self.group.epoch();
                }
                _ => {}
            }
            window.amends.note(&record.change);
            window.superseded.note(&record);
            window.active.note(&record);
            window.half_told.note(&record);
            // a marker may be an opening's that came to nothing
            if !matches!(record.change, Change::Marker { .. }) {
                window.end = window.end.max(record.wall);
            }
        })?;
        window.superseded.finish(|seq| window.amends.has(seq) || window.half_told.has(seq));
        window.active.end_early();
        window.wanted = window.active.inodes().collect();
        Ok((window.first <= last || is_suspended).then_some(window))
    }

    /// What openings after this session did that were cut off.
    pub(super) fn cut_off_after(&self, session: &Session) -> std::result::Result<CutOff, OpenError> {
        let pointers = self.jvol().pointers();
        let first = session.first.unwrap_or(pointers.out).max(pointers.out);
        let mut cut_off = CutOff::default();
        self.records((first, pointers.next.previous()), |record| {
            if let Change::Marker { kind, epoch, .. } = record.change {
                cut_off.has_begun_epoch |= kind == MarkerKind::EpochStart && epoch > self.group.epoch();
                cut_off.is_telling = match kind {
                    MarkerKind::RecoveryBegin | MarkerKind::AdoptBegin => true,
                    _ if kind.ends_bracket() => false,
                    _ => cut_off.is_telling,
                };
            }
        })?;
        Ok(cut_off)
    }

    /// Wall time of the last record of a session that was not closed: what an opening after it told, which was cut off, does not
    /// count.
    pub(super) fn last_words(&self, session: &Session) -> std::result::Result<Timestamp, OpenError> {
        let pointers = self.jvol().pointers();
        let (first, last) = (session.first.unwrap_or(pointers.next).max(pointers.out), pointers.next.previous());
        let (mut wall, mut is_over) = (session.started, first > last);
        if is_over {
            return Ok(wall);
        }
        self.records((first, last), |record| {
            is_over |= matches!(
                record.change,
                Change::Marker { kind: MarkerKind::RecoveryBegin | MarkerKind::AdoptBegin, .. }
            );
            if !is_over && record.volume == self.index {
                wall = record.wall;
            }
        })?;
        Ok(wall.max(session.started))
    }

    /// Does a window again. Its objects were made known by a scan before. What somebody has changed since the power came back
    /// stays as it is.
    ///
    /// # Errors
    /// What the file system says, `ENOSPC` when it is full; it can be tried again.
    pub(super) fn redo_window(&self, window: &Window, lulls: &[Lull]) -> std::result::Result<Redone, OpenError> {
        let failed = |source| OpenError::Volume { what: "do again what the journal holds", source };
        let mut redone = Redone::default();
        // what an opening told that was killed may be in memory alone, and a telling cuts off what it then fills: the power may
        // go before that, and take the telling with it
        self.jvol().sync(window.last)?;
        let edited = self.edited(lulls).map_err(failed)?;
        let mut left = HashSet::new();
        self.volume.set_converging(true);
        let mut outcome = Ok(());
        self.records((window.first, window.last), |record| {
            let seq = record.seq;
            if window.half_told.has(seq) {
                return;
            }
            let real = window.amends.real(record).and_then(|change| window.superseded.lasting(seq, change));
            let Some(change) = real else { return };
            if edited.contains(&change.file()) {
                if left.insert(change.file()) {
                    tracing::warn!(file = %change.file(), "changed since the power came back: left as it is");
                }
            } else if outcome.is_ok() {
                match self.repeat(&change, &edited) {
                    Ok(done) => redone.changes += u64::from(done),
                    // as when it was asked for: what that left was to be amended, and is told by what comes after the redo
                    Err(error @ (Errno::OPNOTSUPP | Errno::INVAL | Errno::FBIG)) => {
                        tracing::warn!(%error, what = change.verb(), file = %change.file(), "was not done and is not again");
                    }
                    Err(error) => {
                        tracing::error!(%error, what = change.verb(), file = %change.file(), "cannot be done again");
                        outcome = Err(failed(error));
                    }
                }
            }
        })?;
        self.volume.set_converging(false);
        self.volume.refused_times(); // of others' files: what stands is what the journal said
        outcome?;
        self.sync_or_note().map_err(failed)?;
        redone.left = left.len() as u64;
        Ok(redone)
    }

    /// Objects that were changed in a lull.
    fn edited(&self, lulls: &[Lull]) -> Result<HashSet<FileId>> {
        let mut edited = HashSet::new();
        for node in self.volume.nodes.all() {
            let changed = self.volume.stat(&node)?.ctime;
            if lulls.iter().any(|lull| lull.contains(changed)) {
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
        match self.repeat_on(change) {
            // a daemon without privileges, and a file that had its last mode early
            Err(Errno::ACCESS) => self.with_access(change, || self.repeat_on(change)),
            result => result,
        }
    }

    fn repeat_on(&self, change: &Change<'_>) -> Result<bool> {
        match change {
            Change::Create { file, kind, attributes, xattrs, .. } => {
                if *kind == NodeKind::File {
                    self.volume.put_size(*file, 0)?; // made empty: what stands there comes again
                }
                self.volume.set_xattrs_exact(*file, xattrs)?;
                self.volume.or_refused(self.volume.set_attributes(*file, attributes))?;
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
            Change::SetAttr { file, attributes } => {
                self.volume.or_refused(self.volume.set_attributes(*file, attributes))?;
            }
            change if is_about_content(change) => {
                self.volume.apply(change)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Does something with an object that its owner, who we are, may not do by its present mode.
    fn with_access(&self, change: &Change<'_>, act: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let node = self.volume.node(change.file())?;
        let before = self.volume.stat(&node)?;
        self.volume.set_mode(&node, before.mode | 0o600).map_err(|_| Errno::ACCESS)?;
        let done = act();
        if done.is_err() || !matches!(change, Change::Create { .. } | Change::SetAttr { .. }) {
            self.volume.set_mode(&node, before.mode)?;
        }
        done
    }

    /// Every record of the volume, and the beginnings of epochs.
    fn records(
        &self,
        (first, last): (Seq, Seq),
        mut each: impl FnMut(Record<'_>),
    ) -> std::result::Result<(), OpenError> {
        if first > last {
            return Ok(());
        }
        let mut reader = self.jvol().read(first, last)?;
        while let Some(record) = reader.next() {
            let (control, data) = record?;
            let record = Record::decode(control, data).map_err(|error| {
                let (seq, _) = Record::peek(control);
                tracing::error!(%seq, %error, "a record of the journal cannot be read");
                OpenError::Volume { what: "read what the journal holds", source: Errno::BADMSG }
            })?;
            let is_epoch = matches!(record.change, Change::Marker { kind: MarkerKind::EpochStart, .. });
            if record.volume == self.index || is_epoch {
                each(record);
            }
        }
        Ok(())
    }
}
