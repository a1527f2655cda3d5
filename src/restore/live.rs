//! The journal of a group on this machine: what is not on a tape yet.

use reelfs_journal::{Amends, Epoch, Jvol, Record, Seq, Timestamp};

use super::deck::{Visit, Who};
use super::told;
use crate::error::{Error, Result};
use crate::group_file::GroupFile;
use crate::lock::GroupLock;
use crate::points::{Glance, Happening, Stretch};
use crate::request;
use crate::state::GroupDir;

/// What the journal is called where tapes have names.
pub const JOURNAL: &str = "(journal)";

/// A journal volume that is only looked at; the mount process may be writing it meanwhile.
pub struct Live {
    /// The epoch that is being written.
    pub epoch: Epoch,
    jvol: Jvol,
}

impl Live {
    /// Opens the journal of a group to read it.
    ///
    /// # Errors
    /// It is not there (10) or damaged (19).
    pub fn open(group: &GroupDir, file: &GroupFile) -> Result<Live> {
        // a mount that answers has shown all that it journaled
        let answer = request::ask_status::<serde_json::Value>(group);
        let is_silent = !matches!(answer, Ok(Some(_)));
        // nobody else may bring in what a killed one left
        let lock = match answer {
            Ok(None) => GroupLock::attempt(group, "reelfs points")?.ok(),
            Ok(Some(_)) | Err(_) => None,
        };
        if lock.is_none() && is_silent {
            tracing::warn!(
                "who is at {} does not answer: what was journaled in the last second may not be shown",
                file.name
            );
        }
        let open = if lock.is_some() { Jvol::open } else { Jvol::glance };
        let jvol = open(&file.journal, file.uuid).map_err(Error::from)?;
        Ok(Live { epoch: file.epoch, jvol })
    }

    /// First and last record from `from` on.
    fn range(&self, from: Seq) -> (Seq, Seq) {
        let pointers = self.jvol.pointers();
        (pointers.out.max(from), pointers.next.previous())
    }

    /// Its records from `from` on as a stretch, and what they tell. It vouches for the time until its last record only.
    ///
    /// # Errors
    /// It does not read back (19).
    pub fn told(&self, from: Seq) -> Result<(Stretch, Vec<Happening>)> {
        let (first, last) = self.range(from);
        let mut stretch = Stretch {
            first,
            last,
            first_time: Timestamp(i64::MAX),
            sealed: Timestamp(i64::MIN),
            name: JOURNAL.to_owned(),
        };
        let mut happenings: Vec<Happening> = Vec::new();
        self.records(first, last, &mut |record| {
            if !record.is_of_group() {
                told::note_life(&mut happenings, record.encode().control());
            }
            stretch.first_time = stretch.first_time.min(record.time);
            stretch.sealed = record.time;
            happenings.extend(Happening::of(record));
            Ok(())
        })?;
        Ok((stretch, happenings))
    }

    /// Visits records in order.
    ///
    /// # Errors
    /// It does not read back (19), or the visitor's.
    pub fn records(&self, from: Seq, to: Seq, visit: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let (first, last) = self.range(from);
        if first > last.min(to) {
            return Ok(());
        }
        let mut reader = self.jvol.read(first, last.min(to)).map_err(Error::from)?;
        while let Some(bytes) = reader.next() {
            let (control, data) = bytes.map_err(Error::from)?;
            let damaged =
                |error| Error::new(crate::error::ErrorKind::Damaged, format!("the journal is damaged: {error}"));
            visit(&Record::decode(control, data).map_err(damaged)?)?;
        }
        Ok(())
    }

    /// Visits records in order, each with what it really did, until the visitor says no; gives whether it never did.
    pub(super) fn visit(&self, (from, to): (Seq, Seq), visit: &mut Visit<'_>) -> Result<bool> {
        let mut amends = Amends::default();
        self.records(from, to, &mut |record| {
            amends.note(&record.change);
            Ok(())
        })?;
        let mut goes_on = true;
        self.records(from, to, &mut |record| {
            if goes_on {
                goes_on = visit(Who::of(record), amends.real(record.clone()))?;
            }
            Ok(())
        })?;
        Ok(goes_on)
    }

    /// Visits control data of a stretch in order.
    ///
    /// # Errors
    /// It does not read back (19).
    pub fn glance(&self, stretch: &Stretch, visit: &mut dyn FnMut(Glance) -> bool) -> Result<()> {
        if stretch.first > stretch.last {
            return Ok(());
        }
        let mut controls = self.jvol.controls(stretch.first, stretch.last).map_err(Error::from)?;
        while let Some(control) = controls.next() {
            if !visit(told::glance(control.map_err(Error::from)?)) {
                break;
            }
        }
        Ok(())
    }
}
