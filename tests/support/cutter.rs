//! Power that goes after so many calls that change or sync a disk; what was done until then stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reelfs_journal::disk::{self, Call, Operation, Verdict, Watcher};
use rustix::io::Errno;

struct Cutter(AtomicU64);

impl Watcher for Cutter {
    fn before(&self, call: &Call<'_>) -> Verdict {
        let is_off = !matches!(call.operation, Operation::Store)
            && self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if is_off { Verdict::Fail(Errno::IO) } else { Verdict::Proceed }
    }

    fn after(&self, _call: &Call<'_>, _is_done: bool) {}
}

/// Runs something that makes so many calls, and then fails.
pub fn cut_after<T>(calls: u64, run: impl FnOnce() -> T) -> T {
    let before = disk::watch_thread(Some(Arc::new(Cutter(AtomicU64::new(calls)))));
    let outcome = run();
    disk::watch_thread(before);
    outcome
}
