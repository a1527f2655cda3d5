//! The process of a former mount that is still on its way out: who mounts again at once waits for it.

use std::time::Duration;

use reelfs_journal::VolumeName;

use crate::cli::Context;
use crate::daemon::Live;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::GroupLock;
use crate::request::{self, Request};
use crate::state::GroupDir;

/// How long it is waited for. It closes the journal, and may have a tape to finish.
const LIMIT: Duration = Duration::from_secs(60);
/// After so long a person wants to know what is waited for.
const QUIET: Duration = Duration::from_secs(1);
/// How often is looked.
const EVERY: Duration = Duration::from_millis(20);

/// Verbs that hold a group as long as it is mounted.
const MOUNTING: [&str; 2] = ["(reelfs mount)", "(reelfs protect)"];

/// Waits until nothing of a former mount of a volume is left, or `patience` is over. Returns at once when there is none, or one
/// that stays. Says after a second what it waits for, unless it shall be `silent`.
///
/// # Errors
/// 11 when it is detached, and its last users do not leave it; 17 when that was to be waited for no longer.
pub(super) fn wait(
    group: &GroupDir,
    volume: &VolumeName,
    context: &Context,
    (silent, patience): (bool, Option<Duration>),
) -> Result<()> {
    let begin = context.clock.read().boot;
    let mut is_told = silent;
    while let Some(ending) = look(group, volume)? {
        let waited = context.clock.read().boot.saturating_sub(begin);
        if waited >= patience.unwrap_or(LIMIT) {
            return match patience {
                Some(patience) => Err(gone_on_too_long(group, patience)),
                None => ending.give_up(group),
            };
        }
        if waited >= QUIET && !is_told {
            context.output.note(format!("waiting for the process of the former mount of {}", group.name()));
            is_told = true;
        }
        pause();
    }
    Ok(())
}

fn gone_on_too_long(group: &GroupDir, patience: Duration) -> Error {
    let patience = humantime::format_duration(patience);
    let message = format!("the former mount of {} has not ended within {patience}", group.name());
    Error::new(ErrorKind::TimedOut, message).hint(format!("who serves it: reelfs status {}", group.name()))
}

/// How a former mount is on its way out.
enum Ending {
    /// Its process still answers.
    Detached { mountpoint: String, pid: u32 },
    /// It no longer does, or a new one does not yet.
    Silent,
}

impl Ending {
    fn give_up(self, group: &GroupDir) -> Result<()> {
        match self {
            Ending::Detached { mountpoint, pid } => {
                let message = format!("{mountpoint} is detached, but process {pid} still serves those who use it");
                let hint =
                    "it ends with the last open file; see who: ls -l /proc/*/fd /proc/*/cwd 2>/dev/null | grep deleted";
                Err(Error::new(ErrorKind::Busy, format!("group {}: {message}", group.name())).hint(hint))
            }
            // whoever holds the group is named by the attempt to open it
            Ending::Silent => Ok(()),
        }
    }
}

fn look(group: &GroupDir, volume: &VolumeName) -> Result<Option<Ending>> {
    let Some(mut connection) = request::connect(group)? else {
        return Ok(match GroupLock::attempt(group, "reelfs status")? {
            // one that is about to let go, or has just got it, is not named
            Err(holder) if holder.is_empty() || MOUNTING.iter().any(|verb| holder.ends_with(verb)) => {
                Some(Ending::Silent)
            }
            _ => None,
        });
    };
    match request::converse::<Live>(group, &mut connection, &Request::Status, &mut |_| {}) {
        Ok(live) => Ok(live
            .mount_of(volume)
            .filter(|mount| mount.ending)
            .map(|mount| Ending::Detached { mountpoint: mount.mountpoint.display().to_string(), pid: live.pid })),
        // it went in the middle of its answer
        Err(error) if error.kind() == ErrorKind::Unreachable => Ok(Some(Ending::Silent)),
        Err(error) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "a process that ends tells nobody")]
fn pause() {
    std::thread::sleep(EVERY);
}
