//! A mounted group that writes its tapes by itself, to every directory that it knows, when one is due.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use crate::daemon::{Daemon, Worker};
use crate::error::{Error, Result};
use crate::request::Request;
use crate::triggers::{LOOK_INTERVAL, Triggers};

/// Serves the mount until somebody unmounts, and exports meanwhile.
///
/// # Errors
/// That the group cannot be closed cleanly.
pub fn serve(daemon: Daemon) -> Result<()> {
    let (end, ended) = mpsc::channel();
    let worker = daemon.worker();
    let thread = std::thread::Builder::new().name("exporter".to_owned()).spawn(move || look(&worker, &ended));
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            daemon.worker().unmount()?;
            daemon.wait(|_| Ok(()))?;
            return Err(Error::io("start the thread that exports", error));
        }
    };
    daemon.wait(|_| {
        drop(end);
        thread.join().map_err(|_| Error::failed("the thread that exports panicked"))
    })
}

fn look(worker: &Worker, ended: &Receiver<()>) {
    let (mut triggers, mut told) = (Triggers::new(worker.group()), HashSet::new());
    while matches!(ended.recv_timeout(LOOK_INTERVAL), Err(RecvTimeoutError::Timeout)) && !worker.has_ended() {
        for (dir, cause) in triggers.due(worker.group()) {
            let outcome = worker.perform(&Request::Export { to: dir.clone() }, &mut |_| {});
            triggers.tried(worker.group(), &dir, outcome.is_ok());
            match outcome {
                Ok(exported) => {
                    tracing::info!(dir = %dir.display(), ?cause, "exported");
                    let warnings = exported["warnings"].as_array().into_iter().flatten();
                    for warning in warnings.filter_map(|warning| warning.as_str()) {
                        if told.insert(warning.to_owned()) {
                            tracing::warn!(dir = %dir.display(), "{warning}");
                        }
                    }
                }
                Err(_) if worker.has_ended() => return,
                Err(error) => tracing::warn!(dir = %dir.display(), error = error.chain(), "no tape could be written"),
            }
        }
    }
}
