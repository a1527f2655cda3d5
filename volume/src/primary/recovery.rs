//! After an unclean stop: what was in flight is finished or amended, so that volume and journal agree again.
//!
//! Every change is absolute, and changes of one file or directory were numbered as they were applied. So doing again what
//! a killed daemon may or may not have done leads to the same place, whichever it was.

use std::collections::HashSet;

use reelfs_journal::{AmendOutcome, Change, FileId, InFlightState, Name, Record, Reserve, Seq, Timestamp};
use rustix::io::{Errno, Result};
use serde::Serialize;

use super::data::Noticed;
use super::{Primary, Requester};
use crate::apply::is_about_content;
use crate::stat::Stat;

/// What recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Changes that were in flight and are done now.
    pub finished: u64,
    /// Changes that were in flight and could not be done: the journal says so.
    pub amended: u64,
    /// Objects that were made and not yet journaled.
    pub announced: u64,
    /// Changes of the journal that a power cut may have taken from the volume, done again.
    pub redone: u64,
    /// Objects that somebody has changed since the power came back: left as they are.
    pub left: u64,
    /// Directories and other objects that may have differed from what the journal said: told as they are.
    pub told: u64,
    /// Their bytes.
    pub told_bytes: u64,
    /// There was no room to tell them, and the pair is suspended: a resync tells them.
    pub suspended: bool,
}

/// What the daemon had begun and not settled.
pub(super) struct Unsettled {
    pub(super) records: Vec<Record<'static>>,
    pub(super) creating: Vec<(FileId, Name)>,
}

impl Unsettled {
    /// Objects that doing it again must find.
    pub(super) fn wanted(&self) -> HashSet<u64> {
        let replaced = self.records.iter().filter_map(|record| match &record.change {
            Change::Rename { replaced, .. } => Some(replaced.ino),
            _ => None,
        });
        self.records.iter().map(|record| record.change.file().ino).chain(replaced).collect()
    }

    /// The create of this name has its record.
    fn has_journaled(&self, directory: FileId, made: &Name) -> bool {
        self.records.iter().any(|record| match &record.change {
            Change::Create { parent, name, .. } => *parent == directory && name == made,
            _ => false,
        })
    }

    /// When it began.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.records.first().map(|record| record.time)
    }
}

impl Primary {
    /// Reads what the in-flight table points to; records that were amended already are settled.
    pub(super) fn unsettled(
        &self,
        states: Vec<InFlightState>,
    ) -> std::result::Result<Unsettled, reelfs_journal::JournalError> {
        let pointers = self.jvol().pointers();
        let mut unsettled = Unsettled { records: Vec::new(), creating: Vec::new() };
        let (mut ranges, mut amended) = (Vec::new(), HashSet::new());
        for state in states {
            match state {
                InFlightState::Creating { parent, name } => unsettled.creating.push((parent, name)),
                InFlightState::Appended { first, last } => ranges.push(first..=last),
            }
        }
        // an amendment may stand far behind the record that it amends, with others' records between
        let Some(first) = ranges.iter().map(|range| *range.start()).min() else { return Ok(unsettled) };
        let (first, last) = (first.max(pointers.out), pointers.next.previous());
        if first > last {
            return Ok(unsettled); // numbered and never written, or long settled and freed
        }
        let mut reader = self.jvol().read(first, last)?;
        while let Some(record) = reader.next() {
            let (control, data) = record?;
            let Ok(record) = Record::decode(control, data) else { continue };
            match record.change {
                Change::Amend { amended: seq, .. } => {
                    amended.insert(seq);
                }
                _ if record.volume == self.index && ranges.iter().any(|range| range.contains(&record.seq)) => {
                    unsettled.records.push(record.into_owned());
                }
                _ => {}
            }
        }
        unsettled.records.retain(|record| !amended.contains(&record.seq));
        unsettled.records.sort_by_key(|record| record.seq);
        unsettled.records.dedup_by_key(|record| record.seq);
        Ok(unsettled)
    }

    /// Does again what was in flight, in order. The objects were made known by a scan before.
    pub(super) fn finish(&self, unsettled: &Unsettled) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        self.volume.set_converging(true);
        for record in &unsettled.records {
            match self.redo(&record.change) {
                Ok(()) => recovered.finished += 1,
                Err(error) => {
                    tracing::warn!(seq = %record.seq, what = record.change.verb(), %error, "a change in flight is amended");
                    recovered.amended += 1;
                    let outcome = self.outcome(&record.change);
                    self.tell_zeroed(&Requester::reelfs(), &record.change, error)?;
                    // told first: an amended change is settled
                    let mut touched = super::touched(&record.change).into_iter();
                    touched.try_for_each(|id| self.read_back(&Requester::reelfs(), id))?;
                    self.amend_recovered(record.seq, outcome)?;
                }
            }
        }
        self.volume.set_converging(false);
        self.note_applied();
        Ok(recovered)
    }

    fn amend_recovered(&self, amended: Seq, outcome: AmendOutcome) -> Result<()> {
        let change = Change::Amend { amended, outcome };
        let last = self.journal(None, &Requester::reelfs(), &[change], Reserve::Use)?.last;
        self.group.amended(last);
        Ok(())
    }

    fn redo(&self, change: &Change<'_>) -> Result<()> {
        let done = match change {
            // a nameless file that only the killed daemon held is gone
            _ if is_about_content(change) => !self.volume.knows(change.file()),
            Change::Create { parent, name, file, .. } => match self.stands(*parent, name)? {
                Some(id) if id == *file => true,
                _ => return Err(Errno::NOENT),
            },
            Change::Link { parent, name, .. } => self.stands(*parent, name)?.is_some(),
            Change::Unlink { parent, name, file, .. } | Change::Rename { parent, name, file, .. } => {
                self.stands(*parent, name)? != Some(*file)
            }
            _ => true,
        };
        if done {
            return self.redo_times(change);
        }
        let written = match self.volume.apply(change) {
            // removed before the daemon was killed
            Err(Errno::NODATA) if matches!(change, Change::RemoveXattr { .. }) => 0,
            result => result?,
        };
        match change {
            Change::Write { data, .. } if written < data.len() as u64 => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }

    /// A name that changed before the daemon was killed may have left its directory with the time of that moment instead of
    /// the journaled one.
    pub(super) fn redo_times(&self, change: &Change<'_>) -> Result<()> {
        let (parent, new_parent, mtime) = match change {
            Change::Link { parent, parent_mtime, .. }
            | Change::Unlink { parent, parent_mtime, .. }
            | Change::Create { parent, parent_mtime, .. } => (parent, parent, parent_mtime),
            Change::Rename { parent, new_parent, parent_mtime, .. } => (parent, new_parent, parent_mtime),
            _ => return Ok(()),
        };
        for directory in [parent, new_parent] {
            if self.volume.knows(*directory) {
                self.volume.set_mtime_of(*directory, *mtime)?;
            }
        }
        Ok(())
    }

    /// What a name stands for on disk.
    fn stands(&self, parent: FileId, name: &Name) -> Result<Option<FileId>> {
        let Ok(directory) = self.volume.node(parent) else {
            return Ok(None);
        };
        match Stat::identified(&*self.volume.path(&directory)?, name.as_bytes()) {
            Ok(stat) => Ok(Some(stat.id)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a change that cannot be done did before the daemon was killed: of a write, the part that stands.
    fn outcome(&self, change: &Change<'_>) -> AmendOutcome {
        let Change::Write { file, offset, data, .. } = change else {
            return AmendOutcome::Void;
        };
        let stands = || -> Result<AmendOutcome> {
            let node = self.volume.node(*file)?;
            let present = self.read(file.ino, *offset, data.len(), Noticed::Yes)?;
            let length = present.iter().zip(data.iter()).take_while(|(a, b)| a == b).count() as u64;
            Ok(AmendOutcome::Short { length, size: self.volume.stat(&node)?.size })
        };
        stands().unwrap_or(AmendOutcome::Void)
    }

    /// Announces what creates made and nobody journaled, and the time that making it left on the directory.
    pub(super) fn announce_created(&self, unsettled: &Unsettled) -> Result<u64> {
        let mut announced = 0;
        for (parent, name) in unsettled.creating.iter().filter(|(parent, name)| !unsettled.has_journaled(*parent, name))
        {
            let Ok(directory) = self.volume.node(*parent) else { continue };
            if let Some(scan) = self.unannounced(*parent, name)? {
                self.tell_scan(&scan)?;
                announced += 1;
            }
            let attributes = self.volume.stat(&directory)?.attributes();
            self.tell(&Requester::reelfs(), Change::SetAttr { file: *parent, attributes })?;
        }
        Ok(announced)
    }
}
