//! Readers: which threads of a mount wait for requests. The kernel wakes a sleeping reader for each request, also where another thread
//! that lingers takes it, and whoever is woken in vain takes the processor of somebody who works. While requests come one by one
//! one reader is enough, and the others rest: nobody waits for more than a moment because of it.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// So many requests, each of which followed at once on an answer, and one reader is enough.
const ROW: i32 = 64;
/// So many more, once it was not.
const MORE: i32 = 1024;
/// Whoever rests looks so often whether requests still come,
const MOMENT: Duration = Duration::from_millis(1);
/// at least so many in this time: otherwise the one reader sleeps, or something holds it up.
const DENSE: u64 = 4;
/// While somebody rests it is looked once for so many requests whether another one waits,
const LOOK: u64 = 8;
/// and when that was so this often in a row, one reader is not enough.
const QUEUED: u32 = 4;
/// One thread that rests, in the number that has those at work in its lower half.
const RESTING: u32 = 1 << 16;

/// The threads of one mount.
#[derive(Default)]
pub(crate) struct Readers {
    threads: AtomicU32,
    /// Those that work on a request, and those that rest; all others read.
    busy: AtomicU32,
    /// How long the row is; below zero, so many requests belong to none.
    row: AtomicI32,
    queued: AtomicU32,
    answered: AtomicU64,
    rung: Mutex<()>,
    bell: Condvar,
}

impl Readers {
    /// Nobody rests, and all read.
    pub(crate) fn new(threads: usize) -> Readers {
        Readers { threads: u32::try_from(threads).unwrap_or(1).into(), ..Readers::default() }
    }

    /// A thread works on a request from now on. `is_queued` says whether another one waits, which is then not that of who waits
    /// for our answer.
    pub(crate) fn begin(&self, is_queued: impl FnOnce() -> bool) {
        let somebody_rests = self.busy.fetch_add(1, Ordering::Relaxed) >= RESTING;
        if !somebody_rests || !self.answered.load(Ordering::Relaxed).is_multiple_of(LOOK) {
            return;
        }
        let queued = if is_queued() { self.queued.load(Ordering::Relaxed) + 1 } else { 0 };
        self.queued.store(queued % QUEUED, Ordering::Relaxed);
        if queued >= QUEUED {
            let _rung = self.rung.lock();
            self.bell.notify_all();
        }
    }

    /// It has answered. True when it is to rest now, for another one reads.
    pub(crate) fn end(&self) -> bool {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let may_rest = self.row.load(Ordering::Relaxed) >= ROW;
        let threads = self.threads.load(Ordering::Relaxed);
        let without = |busy: u32| {
            let left = busy - 1;
            let reading = threads.saturating_sub(1 + left % RESTING + left / RESTING);
            if may_rest && reading > 0 { left + RESTING } else { left }
        };
        let before = self.busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, |busy| Some(without(busy)));
        before.is_ok_and(|before| without(before) >= before)
    }

    /// The same of a thread that reads in any case.
    pub(crate) fn end_quietly(&self) {
        self.busy.fetch_sub(1, Ordering::AcqRel);
    }

    /// The same of one that reads no more.
    pub(crate) fn end_of_thread(&self) {
        self.threads.fetch_sub(1, Ordering::Relaxed);
        self.end_quietly();
    }

    /// Returns when one reader is not enough.
    pub(crate) fn rest(&self) {
        let mut rung = self.rung.lock();
        loop {
            let before = self.answered.load(Ordering::Relaxed);
            let was_called = !self.bell.wait_for(&mut rung, MOMENT).timed_out();
            let is_sparse = self.answered.load(Ordering::Relaxed).wrapping_sub(before) < DENSE;
            if was_called {
                self.row.store(ROW - MORE, Ordering::Relaxed);
                break;
            }
            if is_sparse {
                self.row.store(0, Ordering::Relaxed);
                break;
            }
        }
        self.busy.fetch_sub(RESTING, Ordering::AcqRel);
    }

    /// Whether the next request came within a moment after an answer.
    pub(crate) fn found(&self, it_came: bool) {
        let row = self.row.load(Ordering::Relaxed);
        self.row.store(if it_came { (row + 1).min(ROW) } else { row.min(0) }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn in_a_row(threads: usize) -> Readers {
        let readers = Readers::new(threads);
        (0..ROW).for_each(|_| readers.found(true));
        readers
    }

    #[test]
    fn one_goes_on_reading() {
        let readers = in_a_row(3);
        (0..3).for_each(|_| readers.begin(|| false));
        // the first to answer reads, and the others need not
        assert_eq!([readers.end(), readers.end(), readers.end()], [false, true, true]);
        // it has gone to work, and nobody reads
        readers.begin(|| false);
        assert!(!readers.end());
    }

    #[test]
    fn nobody_rests_whose_requests_come_now_and_then_or_who_is_alone() {
        let readers = Readers::new(2);
        readers.begin(|| false);
        assert!(!readers.end());
        let readers = in_a_row(2);
        readers.found(false);
        readers.begin(|| false);
        assert!(!readers.end());
        let readers = in_a_row(1);
        readers.begin(|| false);
        assert!(!readers.end());
    }

    #[test]
    fn who_rests_is_back_when_nothing_is_answered_and_when_requests_queue() {
        let readers = Arc::new(in_a_row(2));
        readers.begin(|| false);
        assert!(readers.end());
        readers.rest();
        assert_eq!(readers.busy.load(Ordering::Relaxed), 0);
        // and then only another row makes it rest
        readers.begin(|| false);
        assert!(!readers.end());
        (0..ROW).for_each(|_| readers.found(true));
        readers.begin(|| false);
        assert!(readers.end());
        let theirs = readers.clone();
        let resting = std::thread::spawn(move || theirs.rest());
        while !resting.is_finished() {
            // answers keep it at rest, and only the queue calls it
            let answered = readers.answered.load(Ordering::Relaxed).next_multiple_of(LOOK);
            readers.answered.store(answered + LOOK, Ordering::Relaxed);
            readers.begin(|| true);
            readers.busy.fetch_sub(1, Ordering::Relaxed);
        }
        assert!(resting.join().is_ok());
        // those who were called have a long time without rest before them
        (0..MORE - 1).for_each(|_| readers.found(true));
        readers.found(false);
        readers.begin(|| false);
        assert!(!readers.end());
        (0..ROW + 1).for_each(|_| readers.found(true));
        readers.begin(|| false);
        assert!(readers.end());
    }

    #[test]
    fn who_works_behind_the_row_or_has_ended_does_not_read() {
        let readers = in_a_row(2);
        // a copy of one client, while another's requests come one by one
        readers.begin(|| false);
        readers.begin(|| false);
        assert!(!readers.end());
        readers.begin(|| false);
        readers.end_quietly();
        assert!(readers.end());
        let readers = in_a_row(2);
        readers.begin(|| false);
        readers.end_of_thread();
        readers.begin(|| false);
        assert!(!readers.end(), "it is alone now");
    }
}
