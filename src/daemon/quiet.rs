//! Quiet moments are noted about once a second, while a group is mounted and once more when its last mount has gone.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use reelfs_volume::Group;

use crate::error::Result;

/// How often it is looked whether a quiet moment is to be noted.
const INTERVAL: Duration = Duration::from_secs(1);

/// The thread that looks.
#[derive(Debug)]
pub(super) struct Noting {
    group: Arc<Group>,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Noting {
    /// Begins to look.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(group: Arc<Group>) -> Result<Noting> {
        let (end, ended) = mpsc::channel();
        let theirs = group.clone();
        let thread = super::spawn("quiet", move || {
            while matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
                note(&theirs);
            }
        })?;
        Ok(Noting { group, end, thread })
    }

    /// Ends, with a last look. Nothing may be closed before.
    pub(super) fn end(self) {
        drop(self.end);
        // a panicked helper is in the log already
        let _ = self.thread.join();
        note(&self.group);
    }
}

/// Nothing depends on it: what fails is in the log, and the next change finds the journal as it is.
pub(crate) fn note(group: &Group) {
    if let Err(error) = group.note_quiet() {
        tracing::warn!(%error, "a quiet moment could not be noted");
    }
}
