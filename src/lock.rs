//! The lock of a group: one process works on it at a time, and the next one is told who.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::state::GroupDir;

/// Who only looks at a group has it for as long as it takes to read the journal's places.
const LOOKING: [&str; 3] = ["(reelfs status)", "(reelfs points)", "(reelfs follow)"];
/// Such a one is waited for so many pauses.
const LOOKS: u32 = 500;

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
        let mut looks = 0;
        loop {
            let holder = match GroupLock::attempt(group, what)? {
                Ok(lock) => return Ok(lock),
                Err(holder) => holder,
            };
            looks += 1;
            if looks == LOOKS || !is_looking(&holder) {
                let by = if holder.is_empty() { String::new() } else { format!(" by process {holder}") };
                return Err(Error::new(ErrorKind::Busy, format!("group {} is in use{by}", group.name())));
            }
            pause();
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

/// Nobody has written yet who it is, or it is over in a moment.
fn is_looking(holder: &str) -> bool {
    holder.is_empty() || LOOKING.iter().any(|verb| holder.ends_with(verb))
}

#[expect(clippy::disallowed_methods, reason = "who lets go of a lock file tells nobody")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
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
        let looking = GroupLock::take(&group, "reelfs status").expect("free again");
        std::thread::scope(|scope| {
            let marking = scope.spawn(|| GroupLock::take(&group, "reelfs mark").map(drop));
            let waiting = std::time::Duration::from_millis(100);
            assert!(GroupLock::attempt(&group, "reelfs mark").expect("a look").is_err());
            #[expect(clippy::disallowed_methods, reason = "nothing tells that it waits")]
            std::thread::sleep(waiting);
            drop(looking);
            marking.join().expect("no panic").expect("whoever looks is waited for");
        });
    }
}
