//! Taking a mount away: who uses it is named, who only looks at it in passing is waited for.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::mounts::{self, MountEntry};

/// For umount(2) a path that is being looked up is a user like any other: `df`, a monitor or `reelfs status` beside it are enough
/// for `EBUSY`. Longer than any of these looks takes.
const PASSING: Duration = Duration::from_secs(2);

/// Who is seen with something open may be gone as soon: `ls`, or a child of somebody who just closed it, that has yet to run its
/// program.
const LEAVING: Duration = Duration::from_millis(250);

/// Between two attempts; without root each of them is a program that runs.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_OF_USER: Duration = Duration::from_millis(50);

/// Between two looks at all processes.
const LOOK: Duration = Duration::from_millis(100);

/// Of those who use a mount, that many are named.
const NAMED: usize = 3;

/// Unmounts what nobody uses. What another takes away meanwhile is gone, and what lies below it stays.
///
/// # Errors
/// 11 when it is in use, and by whom, as far as this user may know it; what the kernel or `fusermount3` says.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when a mount is no longer used")]
pub(crate) fn unmount(point: &Path) -> Result<()> {
    let Some(wanted) = mounts::at(point)? else {
        return Err(failed(point, io::ErrorKind::NotFound.into()));
    };
    let (begin, mut looked): (_, Option<Instant>) = (Instant::now(), None);
    let (mut users, mut since): (Vec<String>, _) = (Vec::new(), begin);
    while !is_gone(&wanted)? {
        let is_over = begin.elapsed() >= PASSING;
        if is_over || looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            let now = users_of(&wanted);
            users.retain(|user| now.contains(user));
            if users.is_empty() {
                (users, since) = (now, Instant::now());
            }
        }
        if is_over || (!users.is_empty() && since.elapsed() >= LEAVING) {
            return Err(busy(point, &users));
        }
        std::thread::sleep(pause());
    }
    Ok(())
}

/// The same for who would rather detach than wait: whether it is gone within 250 ms.
///
/// # Errors
/// What the kernel or `fusermount3` says.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when a mount is no longer used")]
pub(crate) fn unmount_briefly(point: &Path) -> Result<bool> {
    let Some(wanted) = mounts::at(point)? else { return Ok(true) };
    let begin = Instant::now();
    while !is_gone(&wanted)? {
        if begin.elapsed() >= LEAVING {
            return Ok(false);
        }
        std::thread::sleep(pause());
    }
    Ok(true)
}

/// One attempt; gone it is also when another took it away.
fn is_gone(wanted: &MountEntry) -> Result<bool> {
    let is_there = || mounts::at(&wanted.point).map(|now| now.is_some_and(|now| now.id == wanted.id));
    if !is_there()? {
        return Ok(true);
    }
    match reelfs_fuse::unmount(&wanted.point, false) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        // between the look and the attempt, too
        Err(error) => {
            if is_there()? {
                Err(failed(&wanted.point, error))
            } else {
                Ok(true)
            }
        }
    }
}

fn pause() -> Duration {
    if rustix::process::geteuid().is_root() { PAUSE } else { PAUSE_OF_USER }
}

/// Takes away a mount even while it is in use: its users keep what they have open.
///
/// # Errors
/// What the kernel or `fusermount3` says.
pub(crate) fn detach(point: &Path) -> Result<()> {
    reelfs_fuse::unmount(point, true).map_err(|error| failed(point, error))
}

fn failed(point: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::ResourceBusy {
        return busy(point, &[]);
    }
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

/// Who is known to use a mount: mounts below it, processes with something of it open, mapped, or as their directory, and if there are
/// none, loop devices. The mount itself is asked nothing. What has the same path and lies below the mount does not use it.
fn users_of(mount: &MountEntry) -> Vec<String> {
    let table = mounts::table().unwrap_or_default();
    let below = table.iter().filter(|entry| entry.parent == mount.id);
    let mut users: Vec<String> = below.map(|entry| format!("the mount at {}", entry.point.display())).collect();
    for process in names("/proc").into_iter().filter(|path| number(path).is_some()) {
        if uses(&process, mount) {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            users.push(format!("{} ({})", name.trim_end(), number(&process).unwrap_or_default()));
        }
    }
    if users.is_empty() {
        let loops = names("/sys/block").into_iter().filter(|device| {
            let file = fs::read(device.join("loop/backing_file")).unwrap_or_default();
            Path::new(OsStr::from_bytes(&file)).starts_with(&mount.point)
        });
        users.extend(loops.map(|device| format!("/dev/{}", device.file_name().unwrap_or_default().display())));
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

fn uses(process: &Path, mount: &MountEntry) -> bool {
    let is_at = |link: &str| mount_of(&process.join(link)) == Some(mount.id);
    is_at("cwd")
        || is_at("root")
        || names(process.join("fdinfo")).iter().any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("mnt_id:").is_some_and(|id| id.trim().parse() == Ok(mount.id)))
        })
        || fs::read(process.join("maps")).is_ok_and(|table| maps(&table, mount.device))
}

/// The mount that a link of the kernel's leads to.
fn mount_of(link: &Path) -> Option<u64> {
    let found = rustix::fs::statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

/// `7f0c-7f0d r--s 00000000 00:2b 12          /srv/docs/file`
fn maps(table: &[u8], (major, minor): (u32, u32)) -> bool {
    let device = format!("{major:02x}:{minor:02x}");
    let field = |line: &[u8]| line.split(|&byte| byte == b' ').nth(3) == Some(device.as_bytes());
    table.split(|&byte| byte == b'\n').any(field)
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
    fn a_mapping_counts_by_its_device() {
        let table = b"55d0-55d1 r--p 00000000 fe:01 12    /usr/bin/cat\n7ffc-7ffd rw-p 00000000 00:00 0    [stack]\n\
                      7f0c-7f0d r--s 00000000 00:2b 12    /srv/docs/a file\n7f0d-7f0e r--s 00000000 103:01 1 /nvme\n";
        assert!(maps(table, (0, 0x2b)) && maps(table, (0x103, 1)));
        assert!(!maps(table, (0, 0x2c)) && !maps(b"", (0, 0)));
    }

    #[test]
    fn this_process_uses_the_mount_of_its_own_directory() {
        let here = mount_of(Path::new("/proc/self/cwd")).unwrap();
        let mut entry = mounts::table().unwrap().into_iter().find(|entry| entry.id == here).unwrap();
        assert!(uses(Path::new("/proc/self"), &entry));
        (entry.id, entry.device) = (u64::MAX, (u32::MAX, 0));
        assert!(!uses(Path::new("/proc/self"), &entry));
    }
}
