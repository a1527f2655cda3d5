//! What is mounted where, as the kernel tells it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use reelfs_journal::GroupName;

use crate::error::{Error, Result};
use crate::scope::Scope;

/// The file system type of our mounts.
pub const KIND: &str = "fuse.reelfs";

/// How long somebody who asks whether a process is dead waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Its number; one that is gone may leave it to another.
    pub id: u64,
    /// The mount that it lies in.
    pub parent: u64,
    /// Major and minor number of its file system.
    pub device: (u32, u32),
    /// Where.
    pub point: PathBuf,
    /// Its type, `fuse.reelfs` for ours.
    pub kind: String,
    /// Its source; for ours the group, or the group and the volume.
    pub source: String,
}

impl MountEntry {
    /// One of ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kind == KIND
    }

    /// One of ours, of a volume of this group.
    #[must_use]
    pub fn is_of(&self, group: &GroupName) -> bool {
        self.is_ours() && self.source.parse::<Scope>().is_ok_and(|pair| pair.group == *group)
    }

    /// The process behind it is dead: every access answers "not connected". One that does not answer within a second may be of
    /// another group of that name, and is not dead.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let (tell, told) = mpsc::channel();
        let point = self.point.clone();
        // stat(2) and even a listing may be answered from the kernel's cache; statfs(2) always asks the process
        let ask = move || _ = tell.send(matches!(rustix::fs::statfs(&point), Err(rustix::io::Errno::NOTCONN)));
        let asked = std::thread::Builder::new().name("look".into()).spawn(ask);
        asked.is_ok() && told.recv_timeout(PATIENCE).unwrap_or(false)
    }
}

/// Everything that is mounted in this namespace, in the order in which it was.
///
/// # Errors
/// `/proc` is not there.
pub fn table() -> Result<Vec<MountEntry>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read(path).map_err(|error| Error::io(format!("read {path}"), error))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// What is mounted at exactly this place (the topmost, if several are).
///
/// # Errors
/// As [`table`].
pub fn at(point: &Path) -> Result<Option<MountEntry>> {
    Ok(table()?.into_iter().rfind(|entry| entry.point == point))
}

/// A volume of this group is mounted at exactly this place, whatever is mounted over it.
///
/// # Errors
/// As [`table`].
pub fn is_at(point: &Path, group: &GroupName) -> Result<bool> {
    Ok(table()?.into_iter().any(|entry| entry.point == point && entry.is_of(group)))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let (id, parent) = (word()?.parse().ok()?, word()?.parse().ok()?);
    let (major, minor) = word()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let point = unescape(fields.nth(1)?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (rest.next()?, rest.next()?);
    Some(MountEntry {
        id,
        parent,
        device,
        point: PathBuf::from(point),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: unescape(source).to_string_lossy().into_owned(),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value =
            octal.and_then(|digits| digits.iter().try_fold(0_u8, |sum, d| sum.checked_mul(8)?.checked_add(d - b'0')));
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The place as the kernel would write it in the table, even when what is mounted there no longer answers.
///
/// # Errors
/// The directory above cannot be looked at.
pub fn place(point: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(point).map_err(|error| Error::io("find the current directory", error))?;
    if point.as_os_str().as_bytes().is_empty() {
        return Err(Error::usage("the mountpoint is empty"));
    }
    crate::overlap::real(&absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_with_escapes_and_optional_fields() {
        let line = br"36 35 98:0 / /mnt/a\040b\134 rw,noatime master:1 shared:2 - fuse.reelfs docs rw,user_id=0";
        let entry = parse(line).expect("an entry");
        assert_eq!(entry.point, Path::new("/mnt/a b\\"));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), (KIND, "docs"));
        assert!(entry.is_ours());
        assert_eq!((entry.id, entry.parent, entry.device), (36, 35, (98, 0)));
        let bare = parse(b"36 35 98:0 / /mnt rw - ext4 /dev/sda rw").expect("an entry");
        assert!(!bare.is_ours());
        for broken in ["", "36 35", "36 35 98:0 / /mnt rw master:1", "36 35 98:0 / /mnt rw - ext4"] {
            assert_eq!(parse(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(unescape(br"a\04"), OsString::from("a\\04"));
        assert_eq!(unescape(br"a\777b"), OsString::from("a\\777b"));
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).expect("table").is_some_and(|entry| !entry.is_ours()));
        assert_eq!(at(Path::new("/no/such/mount")).expect("table"), None);
    }
}
