//! Requests that wait for room in the journal. They wait here and not in an event loop, so that reads, stat, status, export
//! and umount go on; and they go on in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_volume::Primary;

/// How long to wait for room before looking whether the mount ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A parked request: tries again, answers unless the journal is still full, and says whether it answered. With `give_up`
/// it always answers.
pub(crate) type Parked = Box<dyn FnMut(&Primary, bool) -> bool + Send>;

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<(u64, Parked)>>,
    arrived: Condvar,
    waiting: AtomicU64,
    give_up: AtomicBool,
    stop: AtomicBool,
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
        self.shared.waiting.load(Ordering::Relaxed) > 0
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn park(&self, payload: u64, request: Parked) {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the journal is full: writers wait until `reelfs tape export` frees it");
        }
        self.shared.queue.lock().push_back((payload, request));
        self.shared.arrived.notify_one();
    }

    /// Answers everything that waits, with an error where there is no room, and what comes later likewise.
    pub(crate) fn give_up(&self) {
        self.shared.give_up.store(true, Ordering::SeqCst);
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

fn serve(shared: &Shared, primary: &Primary) {
    loop {
        let (payload, mut request) = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(next) = queue.pop_front() {
                    break next;
                }
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                shared.arrived.wait(&mut queue);
            }
        };
        loop {
            let give_up = shared.give_up.load(Ordering::SeqCst);
            let room = give_up || primary.wait_for_room(payload, LOOK_INTERVAL);
            if room && request(primary, give_up) {
                break;
            }
        }
        if shared.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("the journal has room again: nobody waits any more");
        }
    }
}
