//! Who holds locks on a file of the mount: the kernel keeps them, by its own inodes, and says so in `/proc/locks`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether somebody holds a `flock` or `fcntl` lock on an inode of a file system; yes when it cannot be told.
pub(crate) fn are_held(device: (u32, u32), ino: u64) -> bool {
    fs::read_to_string("/proc/locks").map_or(true, |table| is_in(&table, device, ino))
}

/// Major and minor number of what was mounted last at a directory. To ask the mount itself would be to wait for ourselves.
pub(crate) fn device_of(place: &Path) -> Option<(u32, u32)> {
    device_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, place)
}

fn device_in(table: &str, place: &Path) -> Option<(u32, u32)> {
    let mut wanted = Vec::new();
    for &byte in place.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => wanted.extend(format!("\\{byte:03o}").into_bytes()),
            other => wanted.push(other),
        }
    }
    let of_it = |line: &&str| line.split(' ').nth(4).is_some_and(|place| place.as_bytes() == wanted);
    let (major, minor) = table.lines().rev().find(of_it)?.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `1: POSIX  ADVISORY  WRITE 2402 00:2f:1311 0 EOF`, and with `->` behind the number those that wait.
fn is_in(table: &str, (major, minor): (u32, u32), ino: u64) -> bool {
    let wanted = format!("{major:02x}:{minor:02x}:{ino}");
    table.lines().any(|line| {
        let is_lock = ["FLOCK", "POSIX", "OFDLCK"].iter().any(|kind| line.contains(kind));
        is_lock && line.split_whitespace().any(|word| word == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
1: POSIX  ADVISORY  WRITE 2402 00:2f:1311 0 EOF
2: FLOCK  ADVISORY  WRITE 2403 fe:01:77 0 EOF
3: LEASE  ACTIVE    READ  2404 00:2f:99 0 EOF
4: OFDLCK ADVISORY  READ  -1 00:2f:13 5 6
4: -> OFDLCK ADVISORY  READ  -1 00:2f:13 5 6
";

    #[test]
    fn the_mount_on_top_is_the_one_that_is_meant() {
        let table = "36 1 254:1 / /srv/my\\040docs rw - ext4 /dev/vda rw\n47 36 0:47 / /srv/my\\040docs rw - fuse.reelfs docs rw\n";
        assert_eq!(device_in(table, Path::new("/srv/my docs")), Some((0, 47)));
        assert_eq!(device_in(table, Path::new("/srv/my")), None);
    }

    #[test]
    fn locks_are_found_by_device_and_number_and_leases_are_none() {
        for (device, ino, held) in [
            ((0, 0x2f), 1311, true),
            ((0, 0x2f), 131, false),
            ((0, 0x30), 1311, false),
            ((0xfe, 1), 77, true),
            ((0, 0x2f), 99, false),
            ((0, 0x2f), 13, true),
        ] {
            assert_eq!(is_in(TABLE, device, ino), held, "{device:?} {ino}");
        }
    }
}
