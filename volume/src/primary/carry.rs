//! Carrying over: before records are freed, what is in use is named once more, so that nobody who writes on has to wait for the
//! disk in between.

use reelfs_journal::disk::{self, Mistake};
use reelfs_journal::{ACTIVE_MAX, Change, Reserve, Seq};
use rustix::io::{Errno, Result};

use super::activity::Cost;
use super::{Primary, Requester};

/// Of what may be named without being asked for, this part may be carried over: the rest is for what is asked for next.
const PART: u64 = 4;

impl Primary {
    /// To be called before records before `first_kept` are freed: what they said to be active no longer is, unless it was in use and a
    /// later record says so too; no change that trusted them is under way, and the volume is on its disk as a whole. Nothing is in use
    /// when there is no record from `since` on: whoever frees again and again would otherwise find what he has said himself.
    ///
    /// # Errors
    /// What the file system says. It says so once: nothing may be freed after it.
    pub fn prepare_to_free(&self, first_kept: Seq, since: Seq) -> Result<()> {
        if !self.carry_over(first_kept, since) {
            self.activity.raise_floor(first_kept);
        }
        if disk::makes(Mistake::MapDroppedBeforeSyncs) {
            return Ok(());
        }
        // whoever holds all changes off is waited for too, and nobody is held off
        drop(self.gate.read());
        self.grace.wait();
        // what was carried over, and what was created by a change that trusted a record that goes, must be in one that stays
        self.jvol().sync(self.jvol().pointers().next.previous()).map_err(|_| Errno::IO)?;
        self.known.lock().sync().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.sync_volume()
    }

    /// Names what is in use in a record that stays, and raises the floor. It need not be durable yet: until it is, the records whose
    /// entries it repeats are not freed. Nothing is done, and `false` given, when nobody writes or the journal does not take it: what
    /// is touched next is cold then.
    fn carry_over(&self, first_kept: Seq, since: Seq) -> bool {
        if self.is_suspended() || self.jvol().pointers().next <= since.max(first_kept) {
            return false;
        }
        let limit = self.limit_of_foresight();
        let limit = Cost { bytes: limit.bytes / PART, records: limit.records / PART };
        let (entries, cost) = self.activity.in_use(first_kept, limit, ACTIVE_MAX);
        if entries.is_empty() {
            return false;
        }
        let active = Change::Active { entries };
        let Ok(placed) = self.journal(None, &Requester::reelfs(), std::slice::from_ref(&active), Reserve::Keep) else {
            return false;
        };
        let Change::Active { entries } = &active else { return false };
        self.activity.carry(first_kept, (placed.last, entries, self.clock().read().wall), cost);
        true
    }
}
