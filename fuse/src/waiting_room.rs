//! Where changes wait that cannot be made yet: for room in the journal or a moment because it fills (`parker.rs`), or for a flush
//! that makes what they touch hot. Nothing is waited for in an event loop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_volume::Primary;
use rustix::io::{Errno, Result};

use crate::parker::Parker;

/// A change that touches something cold: tries again, given what warming said.
type Cold = Box<dyn FnOnce(&Arc<WaitingRoom>, Result<()>) + Send>;

#[derive(Default)]
struct Queue {
    cold: VecDeque<Cold>,
    stop: bool,
}

/// The waiting room of one mount.
pub(crate) struct WaitingRoom {
    primary: Arc<Primary>,
    pub(crate) parker: Parker,
    queue: Mutex<Queue>,
    arrived: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WaitingRoom {
    pub(crate) fn new(primary: Arc<Primary>) -> std::io::Result<Arc<WaitingRoom>> {
        let room = Arc::new(WaitingRoom {
            parker: Parker::new(primary.clone())?,
            primary,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            thread: Mutex::default(),
        });
        let theirs = room.clone();
        *room.thread.lock() = Some(std::thread::Builder::new().name("cold".into()).spawn(move || serve(&theirs))?);
        room.primary.let_cold_changes_park();
        Ok(room)
    }

    /// Runs a change and answers it, at once or when it no longer needs to wait.
    pub(crate) fn change<T: 'static, R: Send + 'static>(
        self: &Arc<Self>,
        payload: u64,
        reply: R,
        mut run: impl FnMut(&Primary) -> Result<T> + Send + 'static,
        answer: fn(R, Result<T>),
    ) {
        let delay = self.primary.delay(payload);
        let tried = self.try_now(delay, || run(&self.primary));
        self.answer(tried, (payload, delay), reply, run, answer);
    }

    /// What a change says, unless it is to be held up, or others wait for room before it.
    pub(crate) fn try_now<T>(&self, delay: Duration, run: impl FnOnce() -> Result<T>) -> Result<T> {
        if delay.is_zero() && !self.parker.is_busy() { run() } else { Err(Errno::AGAIN) }
    }

    /// Answers what was tried, or lets it wait: for room for a payload, but not before a delay is over.
    pub(crate) fn answer<T: 'static, R: Send + 'static>(
        self: &Arc<Self>,
        tried: Result<T>,
        (payload, delay): (u64, Duration),
        reply: R,
        mut run: impl FnMut(&Primary) -> Result<T> + Send + 'static,
        answer: fn(R, Result<T>),
    ) {
        match tried {
            Err(Errno::AGAIN) => self.park((payload, delay), reply, run, answer),
            Err(Errno::INPROGRESS) => {
                let cold: Cold = Box::new(move |room, warmed| {
                    let tried = match warmed {
                        // no room: the change itself finds out what is to be done about that
                        Ok(()) | Err(Errno::AGAIN) => run(&room.primary),
                        Err(error) => Err(error),
                    };
                    room.answer(tried, (payload, Duration::ZERO), reply, run, answer);
                });
                let mut queue = self.queue.lock();
                if queue.stop {
                    drop(queue);
                    return cold(self, Err(Errno::ROFS));
                }
                queue.cold.push_back(cold);
                self.arrived.notify_one();
            }
            result => {
                // what it holds is nobody's business any more once it is answered
                drop(run);
                answer(reply, result);
            }
        }
    }

    fn park<T: 'static, R: Send + 'static>(
        self: &Arc<Self>,
        (payload, delay): (u64, Duration),
        reply: R,
        run: impl FnMut(&Primary) -> Result<T> + Send + 'static,
        answer: fn(R, Result<T>),
    ) {
        let (room, mut waiting) = (self.clone(), Some((reply, run)));
        let request = move |primary: &Primary, give_up: bool| {
            let Some((_, run)) = &mut waiting else { return true };
            let tried = match run(primary) {
                Err(Errno::AGAIN) if !give_up => return false,
                Err(Errno::AGAIN) => Err(Errno::NOSPC),
                result => result,
            };
            if let Some((reply, run)) = waiting.take() {
                room.answer(tried, (payload, Duration::ZERO), reply, run, answer);
            }
            true
        };
        self.parker.park(payload, delay, Box::new(request));
    }

    /// Answers what waits, and ends the threads.
    pub(crate) fn stop(&self) {
        self.parker.stop();
        self.queue.lock().stop = true;
        self.arrived.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of cold changes panicked");
        }
    }
}

/// One flush for all changes that wait when it begins.
fn serve(room: &Arc<WaitingRoom>) {
    loop {
        let waiting = {
            let mut queue = room.queue.lock();
            while queue.cold.is_empty() && !queue.stop {
                room.arrived.wait(&mut queue);
            }
            if queue.cold.is_empty() {
                return;
            }
            std::mem::take(&mut queue.cold)
        };
        let warmed = room.primary.warm();
        waiting.into_iter().for_each(|cold| cold(room, warmed));
    }
}
