//! Requests that wait: for room in the journal, or a moment because it fills. They wait here and not in an event loop, so that
//! reads, stat, status, export and umount go on; and they go on in the order in which they are due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use reelfs_volume::Primary;

/// How long to wait for room before looking whether the mount ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A parked request: tries again, answers unless the journal is still full, and says whether it answered. With `give_up`
/// it always answers.
pub(crate) type Parked = Box<dyn FnMut(&Primary, bool) -> bool + Send>;

struct Waiting {
    payload: u64,
    request: Parked,
    /// Not before.
    due: Instant,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Waiting>>,
    arrived: Condvar,
    parked: AtomicU64,
    /// The first one finds no room, and so nobody does.
    full: AtomicBool,
    slowed: AtomicU64,
    slowed_ns: AtomicU64,
    give_up: AtomicBool,
    stop: AtomicBool,
}

/// How much writers were slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Requests that were held up since the mount began.
    pub requests: u64,
    /// How long, all of them together.
    pub total: Duration,
}

/// The parking place of one mount.
pub(crate) struct Parker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Parker {
    pub(crate) fn new(primary: Arc<Primary>) -> std::io::Result<Parker> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("parked".into()).spawn(move || serve(&theirs, &primary))?;
        Ok(Parker { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Somebody waits; who comes now waits behind.
    pub(crate) fn is_busy(&self) -> bool {
        self.shared.parked.load(Ordering::Relaxed) > 0
    }

    /// Requests that wait for room.
    pub(crate) fn waiting(&self) -> u64 {
        if self.shared.full.load(Ordering::Relaxed) { self.shared.parked.load(Ordering::Relaxed) } else { 0 }
    }

    pub(crate) fn throttled(&self) -> Throttled {
        let total = Duration::from_nanos(self.shared.slowed_ns.load(Ordering::Relaxed));
        Throttled { requests: self.shared.slowed.load(Ordering::Relaxed), total }
    }

    /// Waits for room, but not before a delay is over.
    pub(crate) fn park(&self, payload: u64, delay: Duration, request: Parked) {
        if delay > Duration::ZERO {
            self.shared.slowed.fetch_add(1, Ordering::Relaxed);
            self.shared.slowed_ns.fetch_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.shared.parked.fetch_add(1, Ordering::Relaxed);
        let due = now() + delay;
        insert(&mut self.shared.queue.lock(), Waiting { payload, request, due });
        self.shared.arrived.notify_one();
    }

    /// Answers everything that waits, with an error where there is no room, and what comes later likewise.
    pub(crate) fn give_up(&self) {
        self.shared.give_up.store(true, Ordering::SeqCst);
        let _queue = self.shared.queue.lock();
        self.shared.arrived.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.give_up();
        self.shared.stop.store(true, Ordering::SeqCst);
        let _queue = self.shared.queue.lock();
        self.shared.arrived.notify_all();
        drop(_queue);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of parked requests panicked");
        }
    }
}

/// Who is held up for less goes first: nobody was promised an order among what is not answered yet.
fn insert(queue: &mut VecDeque<Waiting>, waiting: Waiting) {
    let at = queue.partition_point(|other| other.due <= waiting.due);
    queue.insert(at, waiting);
}

fn serve(shared: &Shared, primary: &Primary) {
    while let Some(mut waiting) = next(shared) {
        loop {
            let give_up = shared.give_up.load(Ordering::SeqCst);
            let room = give_up || primary.wait_for_room(waiting.payload, Duration::ZERO);
            if room && (waiting.request)(primary, give_up) {
                break;
            }
            if !shared.full.swap(true, Ordering::Relaxed) {
                tracing::warn!("the journal is full: writers wait until `reelfs tape export` frees it");
            }
            let _ = primary.wait_for_room(waiting.payload, LOOK_INTERVAL);
        }
        shared.parked.fetch_sub(1, Ordering::Relaxed);
        if shared.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the journal has room again");
        }
    }
}

/// The first of the queue, when it is due; `None` at the end of the mount.
fn next(shared: &Shared) -> Option<Waiting> {
    let mut queue = shared.queue.lock();
    loop {
        let due = queue.front().map(|waiting| waiting.due);
        match due {
            Some(due) if due <= now() || shared.give_up.load(Ordering::SeqCst) => return queue.pop_front(),
            Some(due) => drop(shared.arrived.wait_until(&mut queue, due)),
            None if shared.stop.load(Ordering::SeqCst) => return None,
            None => shared.arrived.wait(&mut queue),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long somebody is held up, nothing else")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_request_passes_a_large_one_that_is_held_up_for_longer() {
        let (mut queue, begin) = (VecDeque::new(), now());
        for (payload, milliseconds) in [(1, 50), (2, 80), (3, 50), (4, 0), (5, 90)] {
            let due = begin + Duration::from_millis(milliseconds);
            insert(&mut queue, Waiting { payload, request: Box::new(|_, _| true), due });
        }
        let order: Vec<u64> = queue.iter().map(|waiting| waiting.payload).collect();
        assert_eq!(order, [4, 1, 3, 2, 5]);
    }
}
