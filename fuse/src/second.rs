//! What a second inode costs: a thread that makes it, tells it what was changed through the first, and brings what was stored into
//! its mappings to the readers of the backing file. Nothing of it is done in an event loop, for the kernel may ask back.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
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
    thread: Mutex<Option<JoinHandle<()>>>,
    notifier: OnceLock<Notifier>,
    /// Where it is mounted.
    place: OnceLock<PathBuf>,
}

impl Second {
    pub(crate) fn start(&self, opens: &Arc<Opens>) -> std::io::Result<()> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let theirs = Arc::downgrade(opens);
        let serve = move || serve(&receiver, &theirs);
        *self.thread.lock() = Some(std::thread::Builder::new().name("second".into()).spawn(serve)?);
        *self.queue.lock() = Some(sender);
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

    /// Looks after the mappings of a file from now on, if it must.
    pub(crate) fn watch(&self, handled: &Handled) {
        if handled.may_hide_stores() {
            self.later(|_| {});
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

    /// Whether somebody holds a lock by the first inode of a file.
    pub(crate) fn sees_locks(&self, ino: u64) -> bool {
        let device = self.place.get().and_then(|place| locks::device_of(place));
        device.is_some_and(|device| locks::are_held(device, ino))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of second inodes panicked");
        }
    }
}

fn serve(jobs: &mpsc::Receiver<Job>, opens: &Weak<Opens>) {
    let mut idle = true;
    loop {
        let next = match idle {
            true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => jobs.recv_timeout(REFRESH),
        };
        let Some(opens) = opens.upgrade() else { return };
        match next {
            Ok(job) => {
                job(&opens);
                idle = false;
            }
            Err(RecvTimeoutError::Timeout) => {
                let hiding = opens.hiding();
                hiding.iter().for_each(|&node| opens.second.invalidate(node, 0, 0));
                idle = hiding.is_empty();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
