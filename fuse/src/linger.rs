//! Lingering: a thread that has answered looks for the next request for a moment before it sleeps. On a virtual machine waking a
//! thread on a processor that has halted takes longer than most requests do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::awake::Awake;
use crate::readers::Readers;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

/// How long: about as long as a program takes between two calls in a row, and less than it takes to fall asleep and be woken.
const MOMENT: Duration = Duration::from_micros(30);
/// After so many requests, at most, it is tried again, however often in vain.
const SKIPPED_MAX: u32 = 256;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lingered {
    /// The next request is there.
    Came,
    /// Nobody came.
    InVain,
    /// Not tried: another thread does, or it was in vain lately, or there is nothing to wait for.
    Skipped,
}

/// The threads of one mount, of which one at a time lingers.
pub(crate) struct Linger {
    device: OnceLock<OwnedFd>,
    is_taken: AtomicBool,
    /// Requests to let pass, and how many it was the last time.
    left: AtomicU32,
    backoff: AtomicU32,
    awake: Arc<Awake>,
    readers: Readers,
}

impl Linger {
    /// Waits for nothing yet; tells of each request that one of so many threads gets.
    pub(crate) fn new(awake: Arc<Awake>, threads: usize) -> Linger {
        Linger {
            device: OnceLock::new(),
            is_taken: AtomicBool::new(false),
            left: AtomicU32::new(0),
            backoff: AtomicU32::new(0),
            awake,
            readers: Readers::new(threads),
        }
    }

    /// Requests come from here. Where there is one processor nobody can come while a thread of ours looks.
    pub(crate) fn watch(&self, device: BorrowedFd<'_>) {
        if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1)
            && let Ok(device) = device.try_clone_to_owned()
        {
            let _ = self.device.set(device);
        }
    }

    /// At the beginning of a request; it ends when what this gives goes out of scope.
    pub(crate) fn after(&self) -> After<'_> {
        self.readers.begin(|| self.device.get().is_some_and(is_readable));
        After(self)
    }

    /// The same of a request behind which nobody is waited for.
    pub(crate) fn at_work(&self) -> AtWork<'_> {
        self.readers.begin(|| false);
        AtWork(&self.readers)
    }

    fn linger(&self) -> Lingered {
        let Some(device) = self.device.get() else { return Lingered::Skipped };
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            return Lingered::Skipped;
        }
        if self.is_taken.swap(true, Ordering::Acquire) {
            return Lingered::Skipped;
        }
        let lingered = look(device);
        self.readers.found(lingered == Lingered::Came);
        let backoff = match lingered {
            Lingered::InVain => (self.backoff.load(Ordering::Relaxed) * 2 + 1).min(SKIPPED_MAX),
            Lingered::Came | Lingered::Skipped => 0,
        };
        self.backoff.store(backoff, Ordering::Relaxed);
        self.left.store(backoff, Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Release);
        lingered
    }
}

/// Lingers at its end, or rests where another thread reads.
pub(crate) struct After<'a>(&'a Linger);

impl Drop for After<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.0.readers.end_of_thread();
        }
        self.0.awake.request();
        if self.0.readers.end() {
            self.0.readers.rest();
        } else {
            self.0.linger();
        }
    }
}

/// A thread that reads again at once when this goes.
pub(crate) struct AtWork<'a>(&'a Readers);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() { self.0.end_of_thread() } else { self.0.end_quietly() }
    }
}

#[expect(clippy::disallowed_methods, reason = "a bound on what it may cost, in processor time")]
fn look(device: &OwnedFd) -> Lingered {
    let begin = Instant::now();
    loop {
        if is_readable(device) {
            return Lingered::Came;
        }
        if begin.elapsed() > MOMENT {
            return Lingered::InVain;
        }
    }
}

/// A request is there, or an error, which is for who reads.
fn is_readable(device: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wanted = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)];
    poll(&mut wanted, Some(&at_once)) != Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn watching(device: impl AsFd) -> Linger {
        let linger = Linger::new(Awake::new(), 1);
        linger.device.set(device.as_fd().try_clone_to_owned().expect("a descriptor")).expect("set once");
        linger
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less() {
        let (requests, mut kernel) = std::io::pipe().expect("a pipe");
        let linger = watching(requests);
        let tried: Vec<u32> = (0..1_000).filter(|_| linger.linger() == Lingered::InVain).collect();
        let mut expected = vec![0, 2, 6, 14, 30, 62, 126, 254];
        expected.extend([510, 767]);
        assert_eq!(tried, expected);
        // whoever comes is waited for again
        kernel.write_all(b"request").expect("room");
        let mut after =
            std::iter::repeat_with(|| linger.linger()).skip_while(|lingered| *lingered == Lingered::Skipped);
        assert_eq!(after.next(), Some(Lingered::Came));
        assert_eq!(after.next(), Some(Lingered::Came));
    }

    #[test]
    fn one_thread_at_a_time_and_none_without_a_device() {
        assert_eq!(Linger::new(Awake::new(), 1).linger(), Lingered::Skipped);
        let (requests, _kernel) = std::io::pipe().expect("a pipe");
        let linger = watching(requests);
        linger.is_taken.store(true, Ordering::Relaxed);
        assert_eq!(linger.linger(), Lingered::Skipped);
        linger.is_taken.store(false, Ordering::Relaxed);
        assert_eq!(linger.linger(), Lingered::InVain);
    }

    #[test]
    fn an_end_ends_it() {
        let (requests, kernel) = std::io::pipe().expect("a pipe");
        drop(kernel);
        assert_eq!(watching(requests).linger(), Lingered::Came);
    }
}
