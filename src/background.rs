//! A mount in the background: this program again, in the foreground of a process of its own, which says when it is live.
//!
//! Until then the child shares stderr with its parent, so that whatever it has to say about the start is seen where the
//! command was typed; then it takes a session of its own and writes to the log in the group's directory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::error::{Error, ErrorKind, Result};
use crate::state::GroupDir;

const READY: &[u8] = b"ready\n";
/// How long a process that is not wanted any more may take to end by itself: it may have a journal to close.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often is looked whether it has ended.
const EVERY: Duration = Duration::from_millis(20);

/// Starts this program with these arguments and waits until it is live, no longer than `patience` if there is one. Gives its
/// process id.
///
/// # Errors
/// It ended instead; it has said why on stderr, and its exit code becomes ours. 17: it was not live in time, and was ended.
pub fn start(arguments: &[OsString], patience: Option<Duration>) -> Result<u32> {
    let fail = |error: io::Error| Error::io("start the mount process", error);
    let program = std::env::current_exe().map_err(fail)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        if let Some(patience) = patience
            && !is_heard(&stdout, patience).map_err(fail)?
        {
            drop(stdout);
            return Err(give_up(child, patience));
        }
        stdout.take(READY.len() as u64).read_to_end(&mut said).map_err(fail)?;
    }
    if said == READY {
        return Ok(child.id());
    }
    let status = child.wait().map_err(fail)?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Err(Error::failed("the mount process ended without a word")),
        (Some(code), _) => Err(Error::told(u8::try_from(code).unwrap_or(1))),
        (None, signal) => Err(Error::failed(format!("the mount process was killed by signal {}", signal.unwrap_or(0)))),
    }
}

/// Waits for a word, or for the end.
fn is_heard(stdout: &impl std::os::fd::AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).ok(); // one that cannot be written is for ever
    loop {
        match rustix::event::poll(&mut [PollFd::new(stdout, PollFlags::IN)], timeout.as_ref()) {
            Ok(heard) => return Ok(heard > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ends a process that took too long: what it was recovering is recovered by the next one.
fn give_up(mut child: Child, patience: Duration) -> Error {
    let pid = child.id();
    let ended = [Signal::TERM, Signal::KILL].into_iter().any(|signal| {
        if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // it is our child and not waited for: nobody else has its number
            let _ = rustix::process::kill_process(process, signal);
        }
        status_within(&mut child, LAST_WORDS).is_some()
    });
    let patience = humantime::format_duration(patience);
    let message = if ended {
        format!("not mounted within {patience}, so it was ended")
    } else {
        format!("not mounted within {patience}, and process {pid} does not end: it waits for a disk")
    };
    Error::new(ErrorKind::TimedOut, message)
        .hint("what it did: reelfs -v mount ... -f; without --wait it has as long as it needs")
}

#[expect(clippy::disallowed_methods, reason = "the standard library waits for a child without a limit, or not at all")]
fn status_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    for _ in 0..patience.as_millis() / EVERY.as_millis() {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(EVERY);
    }
    None
}

/// The child's side: live. From here on it belongs to no terminal, and stdout and stderr are its log.
///
/// # Errors
/// The log cannot be opened, or the parent has gone, who then must not leave a mount behind.
pub fn announce(group: &GroupDir) -> Result<()> {
    let path = group.log();
    let fail = |error: io::Error| Error::io(format!("open {}", path.display()), error);
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(fail)?;
    let null = File::open("/dev/null").map_err(fail)?;
    // already the leader of a session when started by hand; no harm
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").map_err(fail)?;
    rustix::stdio::dup2_stderr(&log).map_err(|errno| fail(errno.into()))?;
    let mut stdout = io::stdout().lock();
    let told = stdout.write_all(READY).and_then(|()| stdout.flush());
    told.map_err(|error| Error::failed("nobody waits for the mount any more").because(error))?;
    rustix::stdio::dup2_stdout(&log).map_err(|errno| fail(errno.into()))?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| fail(errno.into()))
}
