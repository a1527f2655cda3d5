//! A replica that follows, to its end or in the background.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Outcome, Sandbox, program};

/// Runs `reelfs follow` to its end.
pub fn follow(sandbox: &Sandbox, arguments: &[&str], to: &Path) -> Outcome {
    sandbox.reelfs(["follow"].iter().chain(arguments).map(AsRef::as_ref).chain(["--to".as_ref(), to.as_os_str()]))
}

/// A follower in the background.
pub fn follower(sandbox: &Sandbox, arguments: &[&str], to: &Path) -> Child {
    let mut command = std::process::Command::new(program::BINARY);
    program::with_environment(&mut command, &sandbox.state());
    let log = File::create(sandbox.path("follower.log")).expect("a process");
    command.arg("follow").args(arguments).arg("--to").arg(to);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("a process")
}

/// Ends one; gives its exit code, if it had one.
pub fn kill(mut child: Child, signal: Signal) -> Option<i32> {
    // it may have ended by itself
    _ = kill_process(Pid::from_child(&child), signal);
    child.wait().expect("a process").code()
}
