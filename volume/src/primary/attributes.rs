//! Attributes: stat, mode, owner, times, size, extended attributes and ACLs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use reelfs_journal::disk::Label;
use reelfs_journal::{Change, FileTime, Xattr};
use rustix::fs::{FileType, StatVfs, Timespec, Timestamps};
use rustix::io::{Errno, Result};

use super::{Primary, Requester};
use crate::apply::set_times;
use crate::node::Node;
use crate::stat::Stat;
use crate::xattr;

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const CAPABILITY: &[u8] = b"security.capability";

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSet {
    /// The present one.
    Now,
    /// This one.
    To(FileTime),
}

/// What a setattr asks for; `None` leaves things as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time: set on the primary, never journaled.
    pub atime: Option<TimeSet>,
    /// Modification time.
    pub mtime: Option<TimeSet>,
}

impl Primary {
    /// What the file system says of an object.
    ///
    /// # Errors
    /// `ESTALE` when it is no longer there.
    pub fn stat(&self, ino: u64) -> Result<Stat> {
        let _names = self.names.read();
        self.volume.stat(&self.node(ino)?)
    }

    /// How many objects are known: the root, what was looked up and is not forgotten, and the directories of all of them.
    #[must_use]
    pub fn known(&self) -> usize {
        self.volume.known()
    }

    /// The file system's room.
    ///
    /// # Errors
    /// What the file system says.
    pub fn statfs(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(self.volume.path(&self.volume.root)?)
    }

    /// Sets attributes and size.
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn set_attr(&self, who: &Requester, ino: u64, asked: SetAttr) -> Result<Stat> {
        let _admitted = self.admit(0)?;
        let _names = self.names.read();
        let node = self.node(ino)?;
        let _order = node.order.lock();
        let before = self.volume.stat(&node)?;
        let now = self.now();
        let time = |set: TimeSet| match set {
            TimeSet::Now => now,
            TimeSet::To(time) => time,
        };
        let mut changes = Vec::new();
        let mut left = before;
        if let Some(size) = asked.size {
            i64::try_from(size).map_err(|_| Errno::FBIG)?;
            changes.extend(self.take_privileges(who, &node, &before, who.uid != 0)?);
            for change in &changes {
                left.mode = if let Change::SetAttr { attributes, .. } = change { attributes.mode } else { left.mode };
            }
            left.mtime = now;
            node.state.lock().end_use(|in_use| (in_use.size, in_use.cut) = (None, true));
            changes.push(Change::SetSize { file: node.id, size, mtime: now });
        }
        let size_only = left;
        // A setattr of nothing is chown(2) of nobody to nobody, which takes privileges all the same; but behind the end of a file
        // capability it is the second half of that, at a write of somebody who may leave them.
        let of_nothing = asked == SetAttr::default()
            && !node.state.lock().end_use(|in_use| std::mem::take(&mut in_use.capability_taken));
        if asked.uid.is_some() || asked.gid.is_some() || of_nothing {
            left.uid = asked.uid.unwrap_or(left.uid);
            left.gid = asked.gid.unwrap_or(left.gid);
            if !before.is_directory() {
                left.mode &= !dropped(who, &before);
                if !node.state.lock().harmless {
                    changes.extend(self.remove_capability(&node)?);
                }
            }
        }
        left.mode = asked.mode.unwrap_or(left.mode) & 0o7777;
        left.mtime = asked.mtime.map_or(left.mtime, time);
        let own = asked.mode.is_some() || asked.uid.is_some() || asked.gid.is_some() || asked.mtime.is_some();
        if left.attributes() != size_only.attributes() {
            changes.push(Change::SetAttr { file: node.id, attributes: left.attributes() });
        }
        if changes.is_empty() && own {
            // nothing to journal (tar sets owner and mode that are there already), but the change time moves
            self.volume.set_mtime_of(node.id, left.mtime)?;
            self.note_applied();
        }
        if !changes.is_empty() {
            node.state.lock().begin_use().found = Some(Box::new(before));
            let slot = self.in_flight.begin();
            let committed = self.commit(&slot, who, &changes);
            node.state.lock().end_use(|in_use| {
                in_use.found = None;
                let cut = asked.size.filter(|_| committed.is_ok()); // the kernel drops these pages by itself
                cut.into_iter().for_each(|size| in_use.overtaken.forget(size, u64::MAX));
            });
            committed?;
        }
        if let Some(atime) = asked.atime.map(time) {
            self.set_atime(&node, atime)?;
            self.note_applied();
        }
        let after = self.volume.stat(&node)?;
        if !changes.is_empty() && after.attributes() != left.attributes() {
            self.read_back(who, node.id)?; // a time beyond what the file system can keep
        }
        Ok(after)
    }

    fn set_atime(&self, node: &Arc<Node>, atime: FileTime) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: atime.seconds, tv_nsec: atime.nanos.into() },
            last_modification: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        };
        set_times(Label::SetAccessTime, &*self.volume.descriptor(node)?, &times)
    }

    /// What a change of content takes away: suid and sgid when `kill` says so, file capabilities always. Remembers a
    /// file that has none of them.
    pub(super) fn take_privileges(
        &self,
        who: &Requester,
        node: &Arc<Node>,
        before: &Stat,
        kill: bool,
    ) -> Result<Vec<Change<'static>>> {
        let mut changes = Vec::new();
        if node.file_type != FileType::RegularFile || node.state.lock().harmless {
            return Ok(changes);
        }
        changes.extend(self.remove_capability(node)?);
        let dropped = if kill { dropped(who, before) } else { 0 };
        if dropped != 0 {
            let attributes = Stat { mode: before.mode & !dropped, ..*before }.attributes();
            changes.push(Change::SetAttr { file: node.id, attributes });
        }
        node.state.lock().harmless = changes.is_empty() && before.mode & 0o6000 == 0;
        Ok(changes)
    }

    fn remove_capability(&self, node: &Arc<Node>) -> Result<Option<Change<'static>>> {
        match xattr::get(self.volume.descriptor(node)?, CAPABILITY) {
            Ok(_) => Ok(Some(Change::RemoveXattr { file: node.id, name: CAPABILITY.to_vec() })),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One extended attribute.
    ///
    /// # Errors
    /// `ENODATA` when there is none of that name.
    pub fn getxattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>> {
        let _names = self.names.read();
        let node = self.node(ino)?;
        if name.as_bytes() == CAPABILITY && node.state.lock().harmless {
            return Err(Errno::NODATA); // asked for each new file that is written to
        }
        self.volume.xattr(&node, name.as_bytes())
    }

    /// Where the object is in the volume's own directory: one of its names.
    ///
    /// # Errors
    /// `ESTALE` when it has no name any more; what the file system says.
    pub fn backend(&self, ino: u64) -> Result<OsString> {
        let _names = self.names.read();
        self.volume.place(&self.node(ino)?)
    }

    /// The names of all extended attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>> {
        let _names = self.names.read();
        xattr::list(self.volume.path(&self.node(ino)?)?)
    }

    /// Sets an extended attribute or ACL; `flags`: `XATTR_CREATE` 1, `XATTR_REPLACE` 2.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`; what the file system says; `EAGAIN` when the journal has no room now.
    pub fn setxattr(&self, who: &Requester, ino: u64, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let _admitted = self.admit(value.len() as u64)?;
        let _names = self.names.read();
        let node = self.node(ino)?;
        let _order = node.order.lock();
        let present = xattr::get(self.volume.path(&node)?, name.as_bytes());
        match &present {
            Ok(_) if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EXIST),
            Err(error) if *error != Errno::NODATA || flags & libc::XATTR_REPLACE != 0 => return Err(*error),
            _ => {}
        }
        let xattr = Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() };
        let mut changes = vec![Change::SetXattr { file: node.id, xattr }];
        // an access ACL is the mode too: said, so that nobody has to work it out
        if let Some(mode) = (name.as_bytes() == ACCESS_ACL).then(|| acl_mode(value)).flatten() {
            let before = self.volume.stat(&node)?;
            let sgid = if is_member(who, before.gid) { 0o2000 } else { 0 };
            let attributes = Stat { mode: before.mode & (0o5000 | sgid) | mode, ..before }.attributes();
            changes.push(Change::SetAttr { file: node.id, attributes });
        }
        let slot = self.in_flight.begin();
        self.commit(&slot, who, &changes).map(|_| ())
    }

    /// Removes an extended attribute or ACL.
    ///
    /// # Errors
    /// `ENODATA`; what the file system says; `EAGAIN` when the journal has no room now.
    pub fn removexattr(&self, who: &Requester, ino: u64, name: &OsStr) -> Result<()> {
        let _admitted = self.admit(0)?;
        let _names = self.names.read();
        let node = self.node(ino)?;
        let _order = node.order.lock();
        let is_acl = name.as_bytes().starts_with(b"system.posix_acl_");
        match xattr::get(self.volume.path(&node)?, name.as_bytes()) {
            Err(Errno::NODATA) if is_acl => return Ok(()), // as ext4: an ACL that is not there is removed already
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let slot = self.in_flight.begin();
        let change = Change::RemoveXattr { file: node.id, name: name.as_bytes().to_vec() };
        self.commit(&slot, who, &[change])?;
        if name.as_bytes() == CAPABILITY {
            node.state.lock().begin_use().capability_taken = true;
        }
        Ok(())
    }
}

/// The bits that a change of owner, and a write by somebody without `CAP_FSETID`, take from a file: suid, and sgid, unless it
/// does not mean "run as" and the requester is of the group.
fn dropped(who: &Requester, file: &Stat) -> u32 {
    let runs_as = file.mode & 0o010 != 0;
    let sgid = if file.mode & 0o2000 != 0 && (runs_as || !is_member(who, file.gid)) { 0o2000 } else { 0 };
    (file.mode & 0o4000) | sgid
}

/// Whether a requester is root or of this group. The groups besides its own are asked of its process, which waits for the
/// answer; one that cannot be seen has none.
fn is_member(who: &Requester, gid: u32) -> bool {
    let listed = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", who.pid)).unwrap_or_default();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
        groups.is_some_and(|groups| groups.split_whitespace().any(|group| group.parse() == Ok(gid)))
    };
    who.uid == 0 || who.gid == gid || listed()
}

/// The permission bits that an access ACL leaves: its owner's, its mask's (without one its group's) and the others' entry.
/// Version 2 of the kernel's form: 4 bytes of version, then entries of tag (16 bits), permissions (16) and id (32).
fn acl_mode(value: &[u8]) -> Option<u32> {
    const USER_OBJ: u16 = 0x01;
    const GROUP_OBJ: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let entries = value.strip_prefix(&2u32.to_le_bytes())?.chunks_exact(8);
    let permissions = |wanted: u16| {
        let mut found = entries.clone().filter(|entry| u16::from_le_bytes([entry[0], entry[1]]) == wanted);
        found.next().map(|entry| u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 7)
    };
    let group = permissions(MASK).or_else(|| permissions(GROUP_OBJ))?;
    Some(permissions(USER_OBJ)? << 6 | group << 3 | permissions(OTHER)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_an_acl_is_the_group_of_the_mode() {
        let entry =
            |tag: u16, permissions: u16| [tag.to_le_bytes(), permissions.to_le_bytes(), [0; 2], [0; 2]].concat();
        let minimal = [vec![2, 0, 0, 0], entry(1, 6), entry(4, 4), entry(0x20, 0)].concat();
        assert_eq!(acl_mode(&minimal), Some(0o640));
        let masked = [minimal, entry(2, 7), entry(0x10, 7)].concat();
        assert_eq!(acl_mode(&masked), Some(0o670));
        assert_eq!(acl_mode(&masked[..8]), None);
    }
}
