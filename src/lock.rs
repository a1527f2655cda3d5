//! The lock of a group: one process works on it at a time, and the next one is told who.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::state::GroupDir;

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct GroupLock {
    file: File,
}

impl GroupLock {
    /// Takes the lock; `what` is what the next one is told, like "reelfs mount".
    ///
    /// # Errors
    /// Somebody else has it (exit code 11), or the file cannot be opened.
    pub fn take(group: &GroupDir, what: &str) -> Result<GroupLock> {
        match GroupLock::attempt(group, what)? {
            Ok(lock) => Ok(lock),
            Err(holder) => {
                let by = if holder.is_empty() { String::new() } else { format!(" by process {holder}") };
                Err(Error::new(ErrorKind::Busy, format!("group {} is in use{by}", group.name())))
            }
        }
    }

    /// Takes the lock, or says who has it ("4711 (reelfs mount)"; empty while that is not written yet).
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn attempt(group: &GroupDir, what: &str) -> Result<std::result::Result<GroupLock, String>> {
        let path = group.lock();
        let fail = |error: io::Error| Error::io(format!("lock {}", path.display()), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = (&mut file).take(256).read_to_string(&mut holder);
                return Ok(Err(holder.trim().to_owned()));
            }
            Err(errno) => return Err(fail(errno.into())),
        }
        let holder = format!("{} ({what})\n", std::process::id());
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(fail)?;
        file.write_all(holder.as_bytes()).map_err(fail)?;
        Ok(Ok(GroupLock { file }))
    }
}

impl Drop for GroupLock {
    fn drop(&mut self) {
        // a stale name of a holder must not be told to the next one who waits
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    #[test]
    fn the_second_is_told_who_has_it() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let group = StateDir::resolve(Some(temporary.path())).expect("state").group(&"docs".parse().expect("name"));
        group.make().expect("make");
        let first = GroupLock::take(&group, "reelfs mount").expect("first");
        let refused = GroupLock::take(&group, "reelfs mark").expect_err("second");
        assert_eq!(refused.code(), 11);
        let expected = format!("group docs is in use by process {} (reelfs mount)", std::process::id());
        assert_eq!(refused.to_string(), expected);
        drop(first);
        GroupLock::take(&group, "reelfs mark").expect("free again");
    }
}
