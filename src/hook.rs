//! The hook of a marker: a command that brings an application to rest, says so, and lets it go on at the end of its input.
//!
//! It runs in a process group of its own, so that all of it can be ended. That it has ended is seen without reaping it:
//! as long as it is not reaped, its number belongs to nobody else.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_journal::GroupName;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::error::{Error, ErrorKind, Result};

/// What a hook says when the application is at rest.
pub const READY: &str = "READY";

/// The longest first line that is read; a longer one is not [`READY`].
const LINE_MAX: u64 = 4096;
/// How long a hook may take to end after SIGTERM, and to be seen ended after it closed its output.
const GRACE: Duration = Duration::from_secs(2);
/// How long placing the marker may hold the application up at least; longer when the hook may take longer.
const PLACING: Duration = Duration::from_secs(30);

/// A hook that runs, and is ended when this is dropped.
pub struct Hook {
    child: Child,
    is_reaped: bool,
    watched: Arc<Watched>,
    patience: Duration,
    signals: Handle,
}

/// What its threads have seen.
#[derive(Default)]
struct Watched {
    seen: Mutex<Seen>,
    has_changed: Condvar,
}

#[derive(Default)]
struct Seen {
    line: Option<String>,
    has_closed: bool,
    has_ended: bool,
    /// We were told to end.
    signal: Option<i32>,
    /// The marker was placed, or was not.
    is_placed: bool,
}

impl Watched {
    fn tell(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock());
        self.has_changed.notify_all();
    }

    /// Waits until it is so; false when it is not in time.
    fn wait(&self, patience: Duration, is_so: impl Fn(&Seen) -> bool) -> bool {
        let mut seen = self.seen.lock();
        !self.has_changed.wait_while_for(&mut seen, |seen| !is_so(seen), patience).timed_out() || is_so(&seen)
    }
}

impl Hook {
    /// Starts a command and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, ended, said something else, or said nothing in time (17). It does not run any more then.
    pub fn start(command: &str, group: &GroupName, marker: &str, patience: Duration) -> Result<Hook> {
        let fail = |error| Error::io("start the hook", error);
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(fail)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("REELFS_GROUP", group.as_str()).env("REELFS_MARKER", marker);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().map_err(fail)?;
        let (stdout, pid) = (child.stdout.take(), Pid::from_child(&child));
        let watched = Arc::new(Watched::default());
        // from here on dropping it ends the command
        let mut hook = Hook { child, is_reaped: false, watched: watched.clone(), patience, signals: signals.handle() };
        let [listener, waiter, signalled] = [watched.clone(), watched.clone(), watched];
        spawn(move || listen(stdout, &listener)).map_err(fail)?;
        spawn(move || wait_for_end(pid, &waiter)).map_err(fail)?;
        spawn(move || watch(signals, &signalled)).map_err(fail)?;
        hook.wait_ready()?;
        Ok(hook)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let is_decided = |seen: &Seen| seen.line.is_some() || seen.has_closed || seen.signal.is_some();
        let in_time = self.watched.wait(self.patience, is_decided);
        self.check_signal()?;
        let said = self.watched.seen.lock().line.clone();
        match said.as_deref().map(str::trim_end) {
            Some(READY) => Ok(()),
            Some(other) => Err(no_marker(
                ErrorKind::Failed,
                &format!("the hook said `{}` instead of {READY}", other.escape_debug()),
            )),
            None if !in_time => {
                let waited = humantime::format_duration(self.patience);
                Err(no_marker(ErrorKind::TimedOut, &format!("the hook did not say {READY} within {waited}")))
            }
            None if self.watched.wait(GRACE, |seen| seen.has_ended) => {
                // what it left in its group; not reaped yet, so the number is still its own
                self.signal(Signal::KILL);
                let how = how_ended(self.reap()?);
                Err(no_marker(ErrorKind::Failed, &format!("the hook {how} before it said {READY}")))
            }
            None => Err(no_marker(ErrorKind::Failed, &format!("the hook closed its output before it said {READY}"))),
        }
    }

    /// A last look before the marker: it still runs, or ended well, and nobody wants us to stop.
    ///
    /// # Errors
    /// Why there must be no marker.
    pub fn check(&mut self) -> Result<()> {
        self.check_signal()?;
        if !self.has_ended() {
            return Ok(());
        }
        let status = self.reap()?;
        let how = how_ended(status);
        let failed = || no_marker(ErrorKind::Failed, &format!("the hook {how} after it said {READY}"));
        if status.success() { Ok(()) } else { Err(failed()) }
    }

    /// Places the marker, and gives what came of it; `is_asked`: by asking a mount process. One that
    /// does not answer must not hold the application up for ever.
    ///
    /// # Errors
    /// 17 when it takes too long, or a signal came: whether there is a marker is not known. The hook is ended when this is dropped.
    pub fn place<T: Send + 'static>(
        &mut self,
        is_asked: bool,
        place: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let came = Arc::new(Mutex::new(None));
        let (watched, outcome) = (self.watched.clone(), came.clone());
        let placing = move || {
            *outcome.lock() = Some(place());
            watched.tell(|seen| seen.is_placed = true);
        };
        spawn(placing).map_err(|error| Error::io("start a thread", error))?;
        // who opens the group by himself may have to bring back what a power cut took, and would begin anew each time
        let patience = if is_asked { self.patience.max(PLACING) } else { Duration::from_secs(u64::from(u32::MAX)) };
        self.watched.wait(patience, |seen| seen.is_placed || seen.signal.is_some());
        if let Some(outcome) = came.lock().take() {
            return Ok(outcome);
        }
        // it is told in the way it knows, before it is ended
        drop(self.child.stdin.take());
        self.watched.wait(GRACE, |seen| seen.has_ended);
        let unknown = |kind, what: &str| {
            let told =
                Error::new(kind, format!("{what}; the application was let go, and there may be a marker or none"));
            told.hint("`reelfs points --kind marker` shows it if it stands")
        };
        Err(match self.signal_kind() {
            Some(kind) => unknown(kind, "told to stop while the marker was placed"),
            None => {
                let waited = humantime::format_duration(patience);
                unknown(ErrorKind::TimedOut, &format!("the marker was not placed within {waited}"))
            }
        })
    }

    /// Closes its input and waits for its end. False when it had ended already: then it held nothing for the marker.
    ///
    /// # Errors
    /// It failed, or did not end in time and was ended; half a sentence that begins with "the hook".
    pub fn let_go(mut self) -> Result<bool> {
        let has_held = !self.has_ended();
        drop(self.child.stdin.take());
        let in_time = self.watched.wait(self.patience, |seen| seen.has_ended || seen.signal.is_some());
        if !self.has_ended() {
            let waited = humantime::format_duration(self.patience);
            let why = if in_time { "we were told to stop".to_owned() } else { format!("it took longer than {waited}") };
            return Err(Error::failed(format!("the hook was ended, for {why}")));
        }
        let status = self.reap()?;
        if status.success() { Ok(has_held) } else { Err(Error::failed(format!("the hook {}", how_ended(status)))) }
    }

    fn has_ended(&self) -> bool {
        self.watched.seen.lock().has_ended
    }

    fn check_signal(&self) -> Result<()> {
        self.signal_kind().map_or(Ok(()), |kind| Err(no_marker(kind, "told to stop while the hook ran")))
    }

    fn signal_kind(&self) -> Option<ErrorKind> {
        self.watched.seen.lock().signal.map(|signal| match signal {
            SIGINT => ErrorKind::Interrupted,
            _ => ErrorKind::Terminated,
        })
    }

    /// How it ended, once it has.
    fn reap(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().map_err(|error| Error::io("wait for the hook", error))?;
        self.is_reaped = true;
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        // a group of which only the unreaped leader is left cannot be told, nor need it be
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.signals.close();
        if !self.is_reaped {
            drop(self.child.stdin.take());
            self.signal(Signal::TERM);
            self.watched.wait(GRACE, |seen| seen.has_ended);
            self.signal(Signal::KILL);
            // it cannot outlive that, and nobody is left to be told how it ended
            let _ = self.child.wait();
        }
        // without that nobody would hear them any more
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)));
        }
    }
}

fn no_marker(kind: ErrorKind, what: &str) -> Error {
    Error::new(kind, format!("{what}: no marker was placed"))
}

fn how_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // not waited for: what a hook leaves behind may hold its output open for ever
    std::thread::Builder::new().name("hook".to_owned()).spawn(body).map(drop)
}

/// Tells the first line, then reads on, so that the hook never waits for a reader.
fn listen(stdout: Option<ChildStdout>, watched: &Watched) {
    if let Some(stdout) = stdout {
        let (mut reader, mut line) = (BufReader::new(stdout), Vec::new());
        // what cannot be read is not ready, and its end is told below
        let _ = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line);
        if !line.is_empty() {
            watched.tell(|seen| seen.line = Some(String::from_utf8_lossy(&line).into_owned()));
        }
        let _ = io::copy(&mut reader, &mut io::sink());
    }
    watched.tell(|seen| seen.has_closed = true);
}

fn wait_for_end(pid: Pid, watched: &Watched) {
    let ended = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    while matches!(ended(), Err(Errno::INTR)) {}
    watched.tell(|seen| seen.has_ended = true);
}

fn watch(mut signals: Signals, watched: &Watched) {
    for signal in &mut signals {
        watched.tell(|seen| seen.signal = Some(signal));
    }
}
