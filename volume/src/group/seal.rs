//! Seals: how far the journal may be put onto tapes.

use std::sync::atomic::Ordering;

use reelfs_journal::{JournalError, Record, Seal, Seq, Timestamp};
use rustix::io::{Errno, Result};

use super::{Group, Members};

/// The last record of a volume that is not open, while all that are open are suspended: it follows what speaks of those.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// So far the journal was looked at.
    seen: Seq,
    last: Option<(Seq, Timestamp)>,
}

impl Group {
    /// A settled, durable end of the journal, and the time until which it speaks.
    ///
    /// # Errors
    /// `EIO` when the journal cannot be made durable.
    pub fn seal(&self) -> Result<Seal> {
        loop {
            if let Some(sealed) = self.all_sealed() {
                let (last, time) = self.with_others(sealed)?;
                return Ok(Seal { last, time });
            }
            let (last, time) = self.jvol.tick(&*self.clock);
            if self.tell_clock() {
                continue;
            }
            self.settle(last)?;
            if self.last_amend.load(Ordering::SeqCst) <= last.0 {
                self.jvol.sync(last).map_err(|_| Errno::IO)?;
                return Ok(Seal { last, time });
            }
        }
    }

    /// What speaks of open volumes ends here, durably, while every one of them is suspended.
    pub(super) fn all_sealed(&self) -> Option<(Seq, Timestamp)> {
        let members = self.members.lock();
        let all = members.in_flight.keys().all(|index| members.sealed.contains_key(index));
        members.sealed.values().copied().max().filter(|_| all)
    }

    /// Where the journal ends for good, given that.
    fn with_others(&self, sealed: (Seq, Timestamp)) -> Result<(Seq, Timestamp)> {
        let mut members = self.members.lock();
        if let Err(error) = self.look_for_others(&mut members, sealed.0) {
            tracing::warn!(%error, "what volumes that are not mounted have in the journal is not exported");
        }
        let Some(others) = members.others.last.filter(|others| *others > sealed) else { return Ok(sealed) };
        drop(members);
        self.jvol.sync(others.0).map_err(|_| Errno::IO)?;
        Ok(others)
    }

    fn look_for_others(&self, members: &mut Members, sealed: Seq) -> std::result::Result<(), JournalError> {
        let pointers = self.jvol.pointers();
        let last = pointers.next.previous();
        let mut controls = self.jvol.controls(sealed.max(members.others.seen).next().max(pointers.out), last)?;
        while let Some(control) = controls.next().transpose()? {
            let (seq, time) = Record::peek(control);
            members.others.seen = seq;
            if !members.in_flight.contains_key(&Record::peek_volume(control)) {
                members.others.last = Some((seq, time));
            }
        }
        Ok(())
    }
}
