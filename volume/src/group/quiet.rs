//! Quiet moments: no file of any open volume is open for writing, and that is noted where the journal changed since the last one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{Change, JournalError, MarkerKind, Record, Reserve, Seq, Tags, Timestamp, VolumeIndex};
use rustix::io::{Errno, Result};

use super::Group;
use crate::primary::{Primary, Requester};

/// What a group knows of its quiet moments.
#[derive(Debug)]
pub(super) struct Quiet {
    /// Openings for writing read; whoever notes that nobody writes writes.
    openings: RwLock<()>,
    /// Up to here there is no change that no quiet moment followed. One looks at a time.
    seen: Mutex<Seq>,
    /// Wall time at which the last file was closed that was open for writing; the least while none was.
    closed: AtomicI64,
}

impl Quiet {
    /// What the journal holds up to `last` is of earlier sessions.
    pub(super) fn after(last: Seq) -> Quiet {
        Quiet { openings: RwLock::default(), seen: Mutex::new(last), closed: AtomicI64::new(i64::MIN) }
    }
}

/// Handles of one volume that may write.
#[derive(Debug, Default)]
pub(crate) struct Writers(AtomicU64);

impl Primary {
    /// A handle that may write was opened, and has not written yet. A mapping that may write keeps its handle open.
    pub fn begin_writing(&self) {
        let _opening = self.group().quiet.openings.read();
        self.writers.0.fetch_add(1, Ordering::SeqCst);
    }

    /// It was closed.
    pub fn end_writing(&self) {
        if self.writers.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.group().quiet.closed.store(self.group().clock().read().wall.0, Ordering::Relaxed);
        }
    }
}

impl Group {
    /// Notes in the journal that no file is open for writing, if that is so, nothing is suspended, and something changed since the
    /// last time. Whoever calls this says how often it may be: the path of a write knows nothing of it.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be read or written; a full one is none.
    pub fn note_quiet(&self) -> Result<Option<Seq>> {
        let mut seen = self.quiet.seen.lock();
        let volumes = self.open_volumes();
        let is_busy = |volume: &Primary| volume.writers.0.load(Ordering::SeqCst) > 0 || volume.is_suspended();
        if volumes.is_empty() || self.has_failed() || volumes.iter().any(|volume| is_busy(volume)) {
            return Ok(None);
        }
        let last = self.jvol.pointers().next.previous();
        if !self.has_changed(*seen, last)? {
            *seen = last;
            return Ok(None);
        }
        // nobody begins to write between the look and the record
        let _openings = self.quiet.openings.write();
        if volumes.iter().any(|volume| is_busy(volume)) {
            return Ok(None);
        }
        let (name, note, tags) = (String::new(), String::new(), Tags::default());
        let since = match self.quiet.closed.load(Ordering::Relaxed) {
            i64::MIN => self.clock.read().wall,
            closed => Timestamp(closed),
        };
        let marker = Change::Marker { kind: MarkerKind::Quiet, epoch: self.epoch(), name, note, tags, since };
        match self.journal(VolumeIndex(0), None, &Requester::reelfs(), &[marker], Reserve::Keep) {
            Ok(placed) => {
                *seen = placed.last;
                Ok(Some(placed.last))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether one of the records after `seen` is a change of a volume.
    fn has_changed(&self, seen: Seq, last: Seq) -> Result<bool> {
        let from = seen.next();
        if from > last {
            return Ok(false);
        }
        let mut controls = match self.jvol.controls(from, last) {
            Ok(controls) => controls,
            // freed since: nobody knows any more
            Err(JournalError::NotHeld { .. }) => return Ok(true),
            Err(_) => return Err(Errno::IO),
        };
        while let Some(control) = controls.next() {
            match control {
                Ok(control) if Record::is_change(control) => return Ok(true),
                Ok(_) => {}
                Err(JournalError::NotHeld { .. }) => return Ok(true),
                Err(_) => return Err(Errno::IO),
            }
        }
        Ok(false)
    }
}
