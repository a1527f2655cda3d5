//! What the file system says of an object.

use std::os::fd::AsFd;

use reelfs_journal::{Attributes, FileId, FileTime, NodeKind};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::{Errno, Result};

use crate::sys;

/// An object's state, with the inode number and generation that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number and generation.
    pub id: FileId,
    /// Type.
    pub file_type: FileType,
    /// `mode & 0o7777`.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device of a device node, `(major << 32) | minor`.
    pub device: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred request size in bytes.
    pub block_size: u32,
    /// Access time.
    pub atime: FileTime,
    /// Modification time.
    pub mtime: FileTime,
    /// Change time.
    pub ctime: FileTime,
    /// When it was made; `None` where the file system does not know.
    pub born: Option<FileTime>,
    /// The file system it lives on, `(major << 32) | minor`.
    pub file_system: u64,
}

impl Stat {
    /// Stats `name` in `directory`, or `directory` itself when the name is empty; never follows a link.
    ///
    /// # Errors
    /// What `statx(2)` says. The generation is left 0: see [`Stat::identified`].
    pub fn at(directory: impl AsFd, name: &[u8]) -> Result<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
        let raw = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        Ok(Stat::from_statx(&raw))
    }

    /// The same with the generation in the id.
    ///
    /// # Errors
    /// `ESTALE` when the name changed hands in between, otherwise what the system says.
    pub fn identified(directory: impl AsFd, name: &[u8]) -> Result<Stat> {
        let mut stat = Stat::at(directory.as_fd(), name)?;
        stat.id.generation = sys::generation(directory, name)?;
        Ok(stat)
    }

    fn from_statx(raw: &Statx) -> Stat {
        let time = |at: rustix::fs::StatxTimestamp| FileTime { seconds: at.tv_sec, nanos: at.tv_nsec };
        let pair = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
        Stat {
            id: FileId { ino: raw.stx_ino, generation: 0 },
            file_type: FileType::from_raw_mode(raw.stx_mode.into()),
            mode: u32::from(raw.stx_mode) & 0o7777,
            links: raw.stx_nlink,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            device: pair(raw.stx_rdev_major, raw.stx_rdev_minor),
            size: raw.stx_size,
            blocks: raw.stx_blocks,
            block_size: raw.stx_blksize,
            atime: time(raw.stx_atime),
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
            born: StatxFlags::from_bits_retain(raw.stx_mask).contains(StatxFlags::BTIME).then(|| time(raw.stx_btime)),
            file_system: pair(raw.stx_dev_major, raw.stx_dev_minor),
        }
    }

    /// Mode, owner and modification time.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        Attributes { mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime }
    }

    /// It is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// What it is, with the target of a symbolic link read through `target`.
    ///
    /// # Errors
    /// What `target` says, `EINVAL` for a type that no file system has.
    pub fn node_kind(&self, target: impl FnOnce() -> Result<Vec<u8>>) -> Result<NodeKind> {
        Ok(match self.file_type {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Directory,
            FileType::Symlink => NodeKind::Symlink(target()?),
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            FileType::CharacterDevice => NodeKind::CharDevice(self.device),
            FileType::BlockDevice => NodeKind::BlockDevice(self.device),
            FileType::Unknown => return Err(Errno::INVAL),
        })
    }
}

/// The type of a node kind.
#[must_use]
pub fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice(_) => FileType::CharacterDevice,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
    }
}
