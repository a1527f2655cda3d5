//! Steps played on a directory of a real file system, by system calls.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::step::{Seen, Step};
use super::{Answer, model_fs};

/// A directory, and the handles that steps have opened in it.
pub struct Directory {
    root: PathBuf,
    handles: Vec<OwnedFd>,
}

impl Directory {
    /// Steps are played below this directory.
    pub fn new(root: &Path) -> Directory {
        Directory { root: root.to_owned(), handles: Vec::new() }
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::open(self.root.join(path), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Plays a step.
    pub fn play(&mut self, step: &Step) -> Answer {
        match step {
            Step::Create { path, mode } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::open(self.at(path), flags, Mode::from_raw_mode(*mode)).map(|_| 0)
            }
            Step::Mkdir { path, mode } => rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(*mode)).map(|()| 0),
            Step::Symlink { path, target } => rustix::fs::symlink(&target[..], self.at(path)).map(|()| 0),
            Step::Mknod { path, kind, mode } => {
                let (kind, device) = match kind {
                    'p' => (FileType::Fifo, 0),
                    's' => (FileType::Socket, 0),
                    _ => (FileType::CharacterDevice, model_fs::DEVICE),
                };
                rustix::fs::mknodat(CWD, self.at(path), kind, Mode::from_raw_mode(*mode), device).map(|()| 0)
            }
            Step::Link { from, to } => rustix::fs::link(self.at(from), self.at(to)).map(|()| 0),
            Step::Unlink { path } => rustix::fs::unlink(self.at(path)).map(|()| 0),
            Step::Rmdir { path } => rustix::fs::rmdir(self.at(path)).map(|()| 0),
            Step::Rename { from, to, flags } => {
                let flags = RenameFlags::from_bits_retain(*flags);
                rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags).map(|()| 0)
            }
            Step::Open { path } => {
                let handle = self.open(path, OFlags::RDWR)?;
                self.handles.push(handle);
                Ok(0)
            }
            Step::Close { handle } => {
                drop(self.handles.remove(*handle));
                Ok(0)
            }
            Step::WriteOpen { handle, offset, bytes } => write(&self.handles[*handle], *offset, bytes),
            Step::SizeOpen { handle, size } => rustix::fs::ftruncate(&self.handles[*handle], *size).map(|()| 0),
            Step::Write { .. }
            | Step::SetSize { .. }
            | Step::Allocate { .. }
            | Step::Copy { .. }
            | Step::Sync { .. } => self.play_on_bytes(step),
            _ => self.play_on_attributes(step),
        }
    }

    fn play_on_bytes(&self, step: &Step) -> Answer {
        match step {
            Step::Write { path, offset, bytes } => write(&self.open(path, OFlags::WRONLY)?, *offset, bytes),
            Step::SetSize { path, size } => rustix::fs::ftruncate(self.open(path, OFlags::WRONLY)?, *size).map(|()| 0),
            Step::Allocate { path, mode, offset, length } => {
                let flags = FallocateFlags::from_bits_retain(mode.unsigned_abs());
                rustix::fs::fallocate(self.open(path, OFlags::WRONLY)?, flags, *offset, *length).map(|()| 0)
            }
            Step::Copy { from, from_offset, to, to_offset, length } => {
                let (source, target) = (self.open(from, OFlags::RDONLY)?, self.open(to, OFlags::WRONLY)?);
                let (mut begin, mut end) = (*from_offset, *to_offset);
                let length = usize::try_from(*length).unwrap_or(usize::MAX);
                rustix::fs::copy_file_range(source, Some(&mut begin), target, Some(&mut end), length).map(|n| n as u64)
            }
            Step::Sync { path } => rustix::fs::fsync(self.open(path, OFlags::RDONLY)?).map(|()| 0),
            _ => panic!("{step:?} is not about bytes"),
        }
    }

    fn play_on_attributes(&self, step: &Step) -> Answer {
        match step {
            Step::Chmod { path, mode } => rustix::fs::chmod(self.at(path), Mode::from_raw_mode(*mode)).map(|()| 0),
            Step::Chown { path, uid, gid } => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                rustix::fs::chownat(CWD, self.at(path), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map(|()| 0)
            }
            Step::Touch { path, mtime } => {
                let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW).map(|()| 0)
            }
            Step::SetXattr { path, name, value, flags } => {
                let flags = XattrFlags::from_bits_retain(flags.unsigned_abs());
                rustix::fs::lsetxattr(self.at(path), *name, value, flags).map(|()| 0)
            }
            Step::RemoveXattr { path, name } => rustix::fs::lremovexattr(self.at(path), *name).map(|()| 0),
            _ => panic!("{step:?} is not about attributes"),
        }
    }

    /// What a step can be about.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen { handles: self.handles.len(), ..Seen::default() };
        for entry in walkdir::WalkDir::new(&self.root).sort_by_file_name() {
            let entry = entry.expect("the directory can be walked");
            let path = entry.path().strip_prefix(&self.root).expect("is below the root").to_owned();
            match entry.file_type() {
                kind if kind.is_dir() => seen.directories.push(path),
                kind if kind.is_file() => seen.files.push(path),
                _ => seen.others.push(path),
            }
        }
        seen
    }
}

fn write(file: impl AsFd, offset: u64, bytes: &[u8]) -> Answer {
    rustix::io::pwrite(file, bytes, offset).map(|length| length as u64)
}
