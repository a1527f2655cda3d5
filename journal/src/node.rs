//! What a file system object is and what it carries besides its bytes.

use crate::FileTime;

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target, which is never followed by us.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device, `(major << 32) | minor`.
    CharDevice(u64),
    /// A block device, `(major << 32) | minor`.
    BlockDevice(u64),
}

/// Mode, owner and modification time, as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with suid, sgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: FileTime,
}

/// One extended attribute, POSIX ACLs (`system.posix_acl_*`) included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its name space, `user.mime_type` say.
    pub name: Vec<u8>,
    /// Value, at most 64 KiB.
    pub value: Vec<u8>,
}
