//! A mount in the background: this program again, in the foreground of a process of its own, which says when it is live.
//!
//! Until then the child shares stderr with its parent, so that whatever it has to say about the start is seen where the
//! command was typed; then it takes a session of its own and writes to the log in the group's directory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::state::GroupDir;

const READY: &[u8] = b"ready\n";

/// Starts this program with these arguments and waits until it is live. Gives its process id.
///
/// # Errors
/// It ended instead; it has said why on stderr, and its exit code becomes ours.
pub fn start(arguments: &[OsString]) -> Result<u32> {
    let fail = |error: io::Error| Error::io("start the mount process", error);
    let program = std::env::current_exe().map_err(fail)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(fail)?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
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
