//! Verified tapes put together: one run of records from many tapes, each as it really was.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use reelfs_archive::{BaseBytes, TapeError, VerifiedTape};
use reelfs_journal::{Change, Record, Seq, Timestamp, VolumeIndex};

use super::tape::tape_error;
use super::told::Told;
use crate::error::{Error, ErrorKind, Result};

/// A record as it really was.
#[derive(Debug)]
pub struct Step<'a> {
    /// Its number.
    pub seq: Seq,
    /// Its hybrid time.
    pub time: Timestamp,
    /// The change, amended.
    pub change: Change<'a>,
}

/// What one update tape gives.
pub struct Winding {
    tape: Rc<VerifiedTape>,
    told: Rc<Told>,
    path: PathBuf,
    from: Seq,
    to: Seq,
}

impl Winding {
    /// The records `from` to `to` of a tape.
    #[must_use]
    pub fn new(tape: Rc<VerifiedTape>, told: Rc<Told>, path: &Path, (from, to): (Seq, Seq)) -> Winding {
        let path = path.to_owned();
        Winding { tape, told, path, from, to }
    }

    /// This tape goes on where the other one ends: the digests of the histories agree there.
    ///
    /// # Errors
    /// They do not (21).
    pub fn check_follows(&self, before: &Winding) -> Result<()> {
        let Some(end) = before.tape.head().after() else {
            return Ok(());
        };
        let here = self.tape.head().label.before;
        let known = match here {
            Some(position) if position.seq == end.seq => position,
            _ if end.seq >= self.tape.head().first() && end.seq <= self.tape.head().last() => {
                self.tape.position_at(end.seq).map_err(|error| tape_error(&self.path, error))?
            }
            _ => return Ok(()),
        };
        if known.digest == end.digest {
            return Ok(());
        }
        let message = format!(
            "the history has diverged: tape {} does not go on from {} at record {}",
            self.path.display(),
            before.path.display(),
            end.seq
        );
        Err(Error::new(ErrorKind::Foreign, message)
            .hint("keep the tapes of one history in a directory of their own and restore from there"))
    }

    fn fail(&self) -> impl Fn(TapeError) -> Error {
        |error| tape_error(&self.path, error)
    }
}

/// Everything that a restore of one volume reads.
pub struct Reel {
    volume: VolumeIndex,
    base: Option<(Rc<VerifiedTape>, PathBuf)>,
    windings: Vec<Winding>,
}

impl Reel {
    /// A volume's base tape with its path, if the base is not in the records, and the update tapes that follow it.
    #[must_use]
    pub fn new(volume: VolumeIndex, base: Option<(Rc<VerifiedTape>, PathBuf)>, windings: Vec<Winding>) -> Reel {
        Reel { volume, base, windings }
    }

    /// Visits the records of the base tape: entries, and where the bytes are.
    ///
    /// # Errors
    /// The tape does not read back (19), or the visitor's.
    pub fn base_records(&self, visit: &mut dyn FnMut(Change<'_>) -> Result<()>) -> Result<()> {
        let Some((base, path)) = &self.base else { return Ok(()) };
        let fail = |error| tape_error(path, error);
        let mut records = base.records(base.head().first()).map_err(fail)?;
        while let Some(raw) = records.next().map_err(fail)? {
            visit(raw.decode().map_err(fail)?.change)?;
        }
        Ok(())
    }

    /// The bytes on the base tape, if there is one.
    ///
    /// # Errors
    /// The tape cannot be read.
    pub fn base_bytes(&self) -> Result<Option<BaseBytes>> {
        let bytes = self.base.as_ref().map(|(base, path)| base.base_bytes().map_err(|error| tape_error(path, error)));
        bytes.transpose()
    }

    /// An error of the base tape with its path.
    pub(super) fn base_error(&self, error: TapeError) -> Error {
        match &self.base {
            Some((_, path)) => tape_error(path, error),
            None => Error::failed(error.to_string()),
        }
    }

    /// Visits the records `from` to `to` that concern the volume in order, each as it really was; those that came to nothing
    /// are left out, and so are those of the group's other volumes: nobody who applies records sees them.
    ///
    /// # Errors
    /// A tape does not read back (19), or the visitor's.
    pub fn records(&self, from: Seq, to: Seq, visit: &mut dyn FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        let mut next = from;
        for winding in &self.windings {
            let last = winding.to.min(to);
            if last < next || winding.from > next {
                continue;
            }
            let fail = winding.fail();
            let mut records = winding.tape.records(next).map_err(&fail)?;
            while next <= last {
                let missing = || TapeError::NotHeld { asked: next, first: winding.from, last: winding.to };
                let raw = records.next().map_err(&fail)?.ok_or_else(|| fail(missing()))?;
                let record: Record<'_> = raw.decode().map_err(&fail)?;
                let (seq, time) = (record.seq, record.time);
                if seq != next {
                    return Err(fail(missing()));
                }
                let concerns = record.concerns(self.volume);
                if let Some(change) = winding.told.amends.real(record).filter(|_| concerns) {
                    visit(Step { seq, time, change })?;
                }
                next = seq.next();
            }
        }
        if next <= to {
            let message = format!("a tape is missing: record {next} is on none of the tapes");
            return Err(Error::new(ErrorKind::TapeNeeded, message));
        }
        Ok(())
    }
}
