//! The service manager: told when a mount is live, and asked for patience while a journal is opened or closed. Where nobody
//! set `NOTIFY_SOCKET` nothing happens.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;

/// How often more time is asked for, and for how long each time: a journal may be long, and a disk slow.
const EVERY: Duration = Duration::from_secs(10);
const PATIENCE_US: u32 = 60_000_000;

/// Asks for patience until dropped.
#[derive(Debug)]
pub struct Patience(Option<(Sender<()>, JoinHandle<()>)>);

impl Patience {
    /// From now on, with a line that says what takes so long.
    #[must_use]
    pub fn with(status: &'static str) -> Patience {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Patience(None);
        }
        let (until, is_over) = mpsc::channel::<()>();
        let ask = move || loop {
            tell(&[NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(PATIENCE_US)]);
            if !matches!(is_over.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        };
        match std::thread::Builder::new().name("patience".to_owned()).spawn(ask) {
            Ok(thread) => Patience(Some((until, thread))),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be asked for patience");
                Patience(None)
            }
        }
    }
}

impl Drop for Patience {
    /// Nothing of it is said after what comes next.
    fn drop(&mut self) {
        if let Some((until, thread)) = self.0.take() {
            drop(until);
            // it does nothing that could panic
            let _ = thread.join();
        }
    }
}

/// The mount is live.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
