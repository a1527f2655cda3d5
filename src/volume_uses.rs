//! Who works on the volumes of an open group: a volume that somebody works on is not mounted anew, and not closed under him.

use std::collections::BTreeMap;

use parking_lot::{Condvar, Mutex};
use reelfs_journal::VolumeIndex;

#[derive(Debug, Default)]
struct Use {
    workers: usize,
    /// It was closed, and is open only for those.
    is_temporary: bool,
    /// Somebody mounts it, or closes it.
    is_taken: bool,
}

/// The volumes of a group that somebody is at.
#[derive(Debug, Default)]
pub(crate) struct VolumeUses {
    uses: Mutex<BTreeMap<VolumeIndex, Use>>,
    freed: Condvar,
}

impl VolumeUses {
    /// Somebody works on a volume; waits for who mounts or closes it just now.
    pub(crate) fn work(&self, index: VolumeIndex) -> Working<'_> {
        let mut uses = self.uses.lock();
        self.freed.wait_while(&mut uses, |uses| uses.entry(index).or_default().is_taken);
        uses.entry(index).or_default().workers += 1;
        Working { uses: self, index, has_ended: false }
    }

    /// A volume was opened for those that work on it.
    pub(crate) fn note_temporary(&self, index: VolumeIndex) {
        self.uses.lock().entry(index).or_default().is_temporary = true;
    }

    /// Takes a volume to mount or to close it, unless somebody works on it.
    pub(crate) fn try_take(&self, index: VolumeIndex) -> Option<Taken<'_>> {
        let mut uses = self.uses.lock();
        self.freed.wait_while(&mut uses, |uses| uses.entry(index).or_default().is_taken);
        let of = uses.entry(index).or_default();
        if of.workers > 0 {
            return None;
        }
        (of.is_taken, of.is_temporary) = (true, false);
        Some(Taken { uses: self, index })
    }

    /// The same, when nobody works on it any more.
    pub(crate) fn take(&self, index: VolumeIndex) -> Taken<'_> {
        loop {
            if let Some(taken) = self.try_take(index) {
                return taken;
            }
            let mut uses = self.uses.lock();
            self.freed.wait_while(&mut uses, |uses| uses.entry(index).or_default().workers > 0);
        }
    }
}

/// Somebody at work, until this is dropped.
#[must_use = "it is over when this is dropped"]
pub(crate) struct Working<'u> {
    uses: &'u VolumeUses,
    index: VolumeIndex,
    has_ended: bool,
}

impl<'u> Working<'u> {
    /// The volume.
    pub(crate) fn index(&self) -> VolumeIndex {
        self.index
    }

    /// Ends it; gives the volume to who was the last, when it was open for those alone, to close it.
    pub(crate) fn end(mut self) -> Option<Taken<'u>> {
        self.has_ended = true;
        let mut uses = self.uses.uses.lock();
        let of = uses.entry(self.index).or_default();
        of.workers -= 1;
        let is_to_close = of.workers == 0 && std::mem::take(&mut of.is_temporary);
        of.is_taken = is_to_close;
        self.uses.freed.notify_all();
        // not made in vain: it would take the lock when it goes
        is_to_close.then(|| Taken { uses: self.uses, index: self.index })
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.uses.uses.lock().entry(self.index).or_default().workers -= 1;
            self.uses.freed.notify_all();
        }
    }
}

/// A volume that nobody else is at, until this is dropped.
#[must_use = "others are held off until this is dropped"]
pub(crate) struct Taken<'u> {
    uses: &'u VolumeUses,
    index: VolumeIndex,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.uses.uses.lock().entry(self.index).or_default().is_taken = false;
        self.uses.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: VolumeIndex = VolumeIndex(1);

    #[test]
    fn nobody_takes_what_somebody_works_on_and_the_last_closes_what_was_closed() {
        let uses = VolumeUses::default();
        let (first, second) = (uses.work(ONE), uses.work(ONE));
        uses.note_temporary(ONE);
        assert!(uses.try_take(ONE).is_none());
        assert!(uses.try_take(VolumeIndex(2)).is_some(), "another one");
        assert!(first.end().is_none(), "somebody is there");
        let taken = second.end().expect("the last");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| uses.work(ONE).end().is_none());
            assert!(!waiting.is_finished());
            drop(taken);
            assert!(waiting.join().expect("no panic"), "it is not open for those alone any more");
        });
        let working = uses.work(ONE);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| drop(uses.take(ONE)));
            assert!(!closing.is_finished());
            drop(working);
            closing.join().expect("no panic");
        });
    }
}
