//! Grace: whoever takes back what changes trust waits for those that began before, and holds up none that begin after.
//!
//! Two counters, of which one is in use; the idea is that of sleepable read-copy-update (`Documentation/RCU/whatisRCU.rst`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A word that everything has ended may be missed; so often is looked.
const LOOK: Duration = Duration::from_millis(1);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// Which counter takes what begins now.
    phase: AtomicUsize,
    under_way: [AtomicU64; 2],
    /// One waits at a time, to the end.
    turn: Mutex<()>,
    look: Mutex<()>,
    ended: Condvar,
}

/// Something is under way as long as this is held.
#[derive(Debug)]
pub(super) struct Entered<'g> {
    grace: &'g Grace,
    phase: usize,
}

impl Grace {
    pub(super) fn enter(&self) -> Entered<'_> {
        loop {
            let phase = self.phase.load(Ordering::SeqCst);
            self.under_way[phase].fetch_add(1, Ordering::SeqCst);
            let entered = Entered { grace: self, phase };
            // counted where nobody waits for it any more: again
            if self.phase.load(Ordering::SeqCst) == phase {
                return entered;
            }
        }
    }

    /// Returns when all that had entered before has ended.
    pub(super) fn wait(&self) {
        let _turn = self.turn.lock();
        let mut look = self.look.lock();
        let before = self.phase.fetch_xor(1, Ordering::SeqCst);
        while self.under_way[before].load(Ordering::SeqCst) > 0 {
            self.ended.wait_for(&mut look, LOOK);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.grace.under_way[self.phase].fetch_sub(1, Ordering::SeqCst) == 1 {
            self.grace.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn who_waits_waits_for_what_began_before_and_for_nothing_that_began_after() {
        let (grace, has_waited, has_begun) = (Grace::default(), AtomicBool::new(false), AtomicBool::new(false));
        let before = grace.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                has_begun.store(true, Ordering::SeqCst);
                grace.wait();
                has_waited.store(true, Ordering::SeqCst);
            });
            while grace.phase.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(has_begun.load(Ordering::SeqCst) && !has_waited.load(Ordering::SeqCst), "it did not wait");
            let after = grace.enter();
            drop(before);
            while !has_waited.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(after);
        });
        grace.wait();
    }

    #[test]
    fn who_waits_second_waits_for_what_the_first_waits_for() {
        let (grace, waited) = (Grace::default(), AtomicU64::new(0));
        let before = grace.enter();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    grace.wait();
                    waited.fetch_add(1, Ordering::SeqCst);
                });
            }
            // long enough for both to be there
            for _ in 0..20_000 {
                std::thread::yield_now();
            }
            assert_eq!(waited.load(Ordering::SeqCst), 0, "one did not wait");
            drop(before);
        });
        assert_eq!(waited.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_is_taken_back_is_never_seen_after_the_wait() {
        let (grace, trusted, is_over) = (Grace::default(), AtomicU64::new(0), AtomicBool::new(false));
        // everybody reads a number, looks at it again later, and finds it gone by one at most: nobody waited for two
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        let entered = grace.enter();
                        let (first, second) = (trusted.load(Ordering::SeqCst), trusted.load(Ordering::SeqCst));
                        drop(entered);
                        assert!(second - first <= 1, "{first} {second}");
                    }
                });
            }
            for _ in 0..20_000 {
                trusted.fetch_add(1, Ordering::SeqCst);
                grace.wait();
            }
            is_over.store(true, Ordering::SeqCst);
        });
    }
}
