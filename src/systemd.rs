//! The service manager: told when a mount is live and that it still answers, and asked for patience while a journal is opened
//! or closed. Where nobody set `NOTIFY_SOCKET` nothing happens.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;

/// How often more time is asked for, and for how long each time: a journal may be long, and a disk slow.
const EVERY: Duration = Duration::from_secs(10);
const PATIENCE_US: u32 = 60_000_000;

/// Does something now and then until dropped.
#[derive(Debug)]
struct Repeated(Option<(Sender<()>, JoinHandle<()>)>);

impl Repeated {
    fn every(interval: Duration, name: &str, deed: impl Fn() + Send + 'static) -> Repeated {
        let (until, is_over) = mpsc::channel::<()>();
        let repeat = move || loop {
            deed();
            if !matches!(is_over.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        };
        match std::thread::Builder::new().name(name.to_owned()).spawn(repeat) {
            Ok(thread) => Repeated(Some((until, thread))),
            Err(error) => {
                tracing::warn!(%error, name, "the service manager will not hear from us");
                Repeated(None)
            }
        }
    }
}

impl Drop for Repeated {
    /// Nothing of it is said after what comes next.
    fn drop(&mut self) {
        if let Some((until, thread)) = self.0.take() {
            drop(until);
            // it does nothing that could panic
            let _ = thread.join();
        }
    }
}

/// Says that the process answers, as often as the service manager asks for it (`WatchdogSec=`), until dropped.
#[derive(Debug)]
pub struct Watchdog(#[expect(dead_code, reason = "held until it is dropped")] Option<Repeated>);

impl Watchdog {
    /// From now on, each time when `answer` has come back: who hangs says nothing.
    #[must_use]
    pub fn after(answer: impl Fn() + Send + 'static) -> Watchdog {
        let asked = sd_notify::watchdog_enabled().filter(|_| std::env::var_os("NOTIFY_SOCKET").is_some());
        Watchdog(asked.map(|limit| {
            Repeated::every(limit / 2, "watchdog", move || {
                answer();
                tell(&[NotifyState::Watchdog]);
            })
        }))
    }
}

/// Asks for patience until dropped.
#[derive(Debug)]
pub struct Patience(#[expect(dead_code, reason = "held until it is dropped")] Option<Repeated>);

impl Patience {
    /// From now on, with a line that says what takes so long.
    #[must_use]
    pub fn with(status: &'static str) -> Patience {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Patience(None);
        }
        let ask = move || tell(&[NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(PATIENCE_US)]);
        Patience(Some(Repeated::every(EVERY, "patience", ask)))
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
