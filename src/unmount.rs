//! Taking a mount away: who uses it is named, who only looks at it in passing is waited for.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::mounts;

/// For umount(2) a path that is being looked up is a user like any other: `df`, a monitor or `reelfs status` beside it are enough
/// for `EBUSY`. Longer than any of these looks takes.
const PASSING: Duration = Duration::from_secs(2);

/// Who is seen with something open may be gone as soon: `ls`, or a child of somebody who just closed it, that has yet to run its
/// program.
const LEAVING: Duration = Duration::from_millis(250);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Of those who use a mount, that many are named.
const NAMED: usize = 3;

/// Unmounts what nobody uses.
///
/// # Errors
/// 11 when it is in use, and by whom, as far as this user may know it; what the kernel or `fusermount3` says.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when a mount is no longer used")]
pub(crate) fn unmount(point: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        match reelfs_fuse::unmount(point, false) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(failed(point, error)),
            Err(_) => {}
        }
        let users = users(point);
        let patience = if users.is_empty() { PASSING } else { LEAVING };
        if begin.elapsed() >= patience {
            return Err(busy(point, &users));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Takes away a mount even while it is in use: its users keep what they have open.
///
/// # Errors
/// What the kernel or `fusermount3` says.
pub(crate) fn detach(point: &Path) -> Result<()> {
    reelfs_fuse::unmount(point, true).map_err(|error| failed(point, error))
}

fn failed(point: &Path, error: io::Error) -> Error {
    Error::io(format!("unmount {}", point.display()), error)
}

fn busy(point: &Path, users: &[String]) -> Error {
    let shown = point.display();
    let more = users.len().saturating_sub(NAMED);
    let mut who = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        who = format!("{who} and {more} more");
    }
    let by = if who.is_empty() { String::new() } else { format!(" by {who}") };
    Error::new(ErrorKind::Busy, format!("{shown} is in use{by}")).hint(format!("see who: fuser -vm {shown}"))
}

/// Who is known to use it: mounts below it, loop devices on its files, and processes with something of it open, mapped, or as their
/// directory. Only names are read: nothing here asks the mount itself.
fn users(point: &Path) -> Vec<String> {
    let table = mounts::table().unwrap_or_default();
    let below = table.iter().filter(|entry| entry.point != point && entry.point.starts_with(point));
    let mut users: Vec<String> = below.map(|entry| format!("the mount at {}", entry.point.display())).collect();
    for device in names("/sys/block") {
        let file = fs::read(device.join("loop/backing_file")).unwrap_or_default();
        if Path::new(OsStr::from_bytes(&file)).starts_with(point) {
            users.push(format!("/dev/{}", device.file_name().unwrap_or_default().display()));
        }
    }
    for process in names("/proc").into_iter().filter(|path| number(path).is_some()) {
        if uses(&process, point) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            users.push(format!("{} ({})", name.trim_end(), number(&process).unwrap_or_default()));
        }
    }
    users
}

/// What lies in a directory of the kernel's; nothing when it cannot be read.
fn names(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn number(process: &Path) -> Option<u32> {
    process.file_name()?.to_str()?.parse().ok()
}

fn uses(process: &Path, point: &Path) -> bool {
    let leads = |link: PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(point));
    ["cwd", "root"].into_iter().any(|link| leads(process.join(link)))
        || names(process.join("fd")).into_iter().any(leads)
        || maps(&fs::read(process.join("maps")).unwrap_or_default(), point)
}

/// `7f0c-7f0d r--s 00000000 00:2b 12          /srv/docs/file`: newlines in names are `\012`, all else is as it is.
fn maps(table: &[u8], point: &Path) -> bool {
    let path = |line: &[u8]| line.iter().position(|&byte| byte == b'/').map(|at| line[at..].to_vec());
    let mut paths = table.split(|&byte| byte == b'\n').filter_map(path);
    paths.any(|path| Path::new(OsStr::from_bytes(&path)).starts_with(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_named_and_the_others_counted() {
        let said =
            |users: &[&str]| busy(Path::new("/srv/docs"), &users.iter().map(|&user| user.into()).collect::<Vec<_>>());
        assert_eq!(said(&[]).to_string(), "/srv/docs is in use");
        assert_eq!(said(&["bash (7)"]).to_string(), "/srv/docs is in use by bash (7)");
        let four = said(&["a (1)", "b (2)", "c (3)", "d (4)"]);
        assert_eq!(four.to_string(), "/srv/docs is in use by a (1), b (2), c (3) and 1 more");
    }

    #[test]
    fn a_mapping_counts_by_its_file() {
        let table = b"55d0-55d1 r--p 00000000 fe:01 12    /usr/bin/cat\n7ffc-7ffd rw-p 00000000 00:00 0    [stack]\n\
                      7f0c-7f0d r--s 00000000 00:2b 12    /srv/docs/a file\n";
        assert!(maps(table, Path::new("/srv/docs")));
        assert!(!maps(table, Path::new("/srv/doc")));
        assert!(!maps(b"", Path::new("/")));
    }

    #[test]
    fn this_process_uses_its_own_directory_and_not_another() {
        let here = std::env::current_dir().unwrap();
        assert!(uses(Path::new("/proc/self"), &here));
        assert!(!uses(Path::new("/proc/self"), Path::new("/no/such/mount")));
    }
}
