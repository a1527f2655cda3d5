//! What a second inode costs: a thread that makes it and tells it what was changed through the first, and one that brings what was
//! stored into its mappings to the readers of the backing file. Nothing of it is done in an event loop, for the kernel may ask
//! back; and while there is no room in the journal it waits for that, which is why there are two.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::kernel::{INodeNo, Notifier};
use crate::locks;
use crate::open_mode::Handled;
use crate::opens::Opens;

/// How old what a reader of the backing file sees of somebody's mapping may be.
const REFRESH: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce(&Opens) + Send>;

#[derive(Default)]
pub(crate) struct Second {
    queue: Mutex<Option<Sender<Job>>>,
    /// What may wait for room in the journal, and nobody is to wait behind it who asks for something else.
    slow: Mutex<Option<Sender<Job>>>,
    /// Wakes the thread that looks after mappings.
    watched: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    notifier: OnceLock<Notifier>,
    /// Where it is mounted.
    place: OnceLock<PathBuf>,
}

impl Second {
    pub(crate) fn start(&self, opens: &Arc<Opens>) -> std::io::Result<()> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let (watched, watch) = mpsc::channel::<()>();
        let (slow, slow_jobs) = mpsc::channel::<Job>();
        let [theirs, others, slowly] = [(); 3].map(|()| Arc::downgrade(opens));
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let serving = named("second").spawn(move || serve(&jobs, &theirs))?;
        *self.queue.lock() = Some(sender);
        self.threads.lock().push(serving);
        let waiting = named("slow").spawn(move || serve(&slow_jobs, &slowly))?;
        *self.slow.lock() = Some(slow);
        self.threads.lock().push(waiting);
        let refreshing = named("refresh").spawn(move || refresh(&watch, &others))?;
        *self.watched.lock() = Some(watched);
        self.threads.lock().push(refreshing);
        Ok(())
    }

    /// The mount is made: how to talk to the kernel, and where it is.
    pub(crate) fn mounted(&self, notifier: Notifier, place: PathBuf) {
        let _ = self.notifier.set(notifier);
        let _ = self.place.set(place);
    }

    /// Has something done outside the event loops.
    pub(crate) fn later(&self, job: impl FnOnce(&Opens) + Send + 'static) {
        if let Some(queue) = &*self.queue.lock() {
            let _ = queue.send(Box::new(job)); // the mount ends: the kernel answers what is left itself
        }
    }

    /// The same of what waits until the kernel has written back what mappings hold.
    pub(crate) fn slowly(&self, job: impl FnOnce(&Opens) + Send + 'static) {
        if let Some(queue) = &*self.slow.lock() {
            let _ = queue.send(Box::new(job)); // as above
        }
    }

    /// Looks after the mappings of a file from now on, if it must.
    pub(crate) fn watch(&self, handled: &Handled) {
        if handled.may_hide_stores()
            && let Some(watched) = &*self.watched.lock()
        {
            let _ = watched.send(()); // as above
        }
    }

    /// Has the kernel drop what it has cached of an inode, after what is dirty of it was written. 0 bytes are all.
    pub(crate) fn invalidate(&self, node: u64, offset: u64, length: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        let (offset, length) = (i64::try_from(offset).unwrap_or(0), i64::try_from(length).unwrap_or(0));
        if let Err(error) = notifier.inval_inode(INodeNo(node), offset, length) {
            tracing::debug!(%error, node, "the kernel keeps what it has cached");
        }
    }

    /// Has the kernel ask for the attributes of an inode again. It touches no page for that, and asks nothing back, so an event loop
    /// may do it.
    pub(crate) fn forget_attributes(&self, node: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        // before the first byte: none of them
        if let Err(error) = notifier.inval_inode(INodeNo(node), -1, 0) {
            tracing::debug!(%error, node, "the kernel keeps the attributes that it has cached");
        }
    }

    /// Whether somebody holds a lock by the first inode of a file.
    pub(crate) fn sees_locks(&self, ino: u64) -> bool {
        let device = self.place.get().and_then(|place| locks::device_of(place));
        device.is_some_and(|device| locks::are_held(device, ino))
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().take());
        drop(self.slow.lock().take());
        drop(self.watched.lock().take());
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.into_iter().any(|thread| thread.join().is_err()) {
            tracing::error!("a thread of second inodes panicked");
        }
    }
}

fn serve(jobs: &Receiver<Job>, opens: &Weak<Opens>) {
    while let Ok(job) = jobs.recv() {
        let Some(opens) = opens.upgrade() else { return };
        job(&opens);
    }
}

fn refresh(watched: &Receiver<()>, opens: &Weak<Opens>) {
    let mut idle = true;
    loop {
        let next = match idle {
            true => watched.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => watched.recv_timeout(REFRESH),
        };
        let Some(opens) = opens.upgrade() else { return };
        match next {
            Ok(()) if idle => idle = false,
            // one after the other must not put it off for ever
            Ok(()) | Err(RecvTimeoutError::Timeout) => {
                let hiding = opens.hiding();
                hiding.iter().for_each(|&node| opens.second.invalidate(node, 0, 0));
                idle = hiding.is_empty();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
