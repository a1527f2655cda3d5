//! Steps played on a primary volume without a kernel: path by path, as the kernel's lookups would do.

use std::path::Path;

use reelfs_journal::{FileTime, NodeKind};
use reelfs_volume::{Primary, Requester, SetAttr, TimeSet};
use rustix::io::Errno;

use super::Answer;
use super::step::{Step, split};

/// A primary volume, and the handles that steps have opened in it.
pub struct Door<'p> {
    primary: &'p Primary,
    who: Requester,
    handles: Vec<u64>,
}

impl<'p> Door<'p> {
    /// Steps are played as this requester.
    pub fn new(primary: &'p Primary, (uid, gid): (u32, u32)) -> Door<'p> {
        Door { primary, who: Requester { uid, gid, pid: 1 }, handles: Vec::new() }
    }

    /// Finds a path, calls with its inode number, and forgets the lookups again.
    fn with<T>(&self, path: &Path, call: impl FnOnce(u64) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut found = vec![self.primary.root()];
        let mut result = Ok(());
        for part in path {
            match self.primary.lookup(*found.last().expect("begins with the root"), part) {
                Ok(stat) => found.push(stat.id.ino),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let answer = result.and_then(|()| call(*found.last().expect("begins with the root")));
        found[1..].iter().for_each(|&ino| self.primary.forget(ino, 1));
        answer
    }

    fn make(&self, path: &Path, kind: NodeKind, mode: u32) -> Answer {
        let (parent, name) = split(path);
        let stat = self.with(parent, |parent| {
            // the kernel looks first
            match self.primary.lookup(parent, name) {
                Ok(stat) => {
                    self.primary.forget(stat.id.ino, 1);
                    Err(Errno::EXIST)
                }
                Err(Errno::NOENT) if kind == NodeKind::File => self.primary.create(&self.who, parent, name, mode, 0),
                Err(Errno::NOENT) => self.primary.make(&self.who, parent, name, kind.clone(), mode, 0),
                Err(error) => Err(error),
            }
        })?;
        if kind == NodeKind::File {
            self.primary.release(stat.id.ino);
        }
        self.primary.forget(stat.id.ino, 1);
        Ok(0)
    }

    fn set(&self, path: &Path, asked: SetAttr) -> Answer {
        self.with(path, |ino| self.primary.set_attr(&self.who, ino, asked).map(|_| 0))
    }

    /// Plays a step.
    pub fn play(&mut self, step: &Step) -> Answer {
        let (primary, who) = (self.primary, self.who);
        match step {
            Step::Create { path, mode } => self.make(path, NodeKind::File, *mode),
            Step::Mkdir { path, mode } => self.make(path, NodeKind::Directory, *mode & 0o1777),
            Step::Symlink { path, target } => self.make(path, NodeKind::Symlink(target.clone()), 0o777),
            Step::Mknod { path, kind: 'p', mode } => self.make(path, NodeKind::Fifo, *mode),
            Step::Mknod { path, kind: 's', mode } => self.make(path, NodeKind::Socket, *mode),
            Step::Mknod { path, mode, .. } => self.make(path, NodeKind::CharDevice((1 << 32) | 3), *mode),
            Step::Link { from, to } => self.with(from, |ino| {
                let (parent, name) = split(to);
                let stat = self.with(parent, |parent| primary.link(&who, ino, parent, name))?;
                primary.forget(stat.id.ino, 1);
                Ok(0)
            }),
            Step::Unlink { path } => self.named(path, |parent, name| primary.unlink(&who, parent, name)),
            Step::Rmdir { path } => self.named(path, |parent, name| primary.rmdir(&who, parent, name)),
            Step::Rename { from, to, flags } => self.rename(from, to, *flags),
            Step::Open { path } => {
                let ino = self.with(path, |ino| primary.open(ino, true).map(|()| ino))?;
                self.handles.push(ino);
                Ok(0)
            }
            Step::Close { handle } => {
                primary.release(self.handles.remove(*handle));
                Ok(0)
            }
            Step::WriteOpen { handle, offset, bytes } => {
                primary.write(&who, self.handles[*handle], *offset, bytes, false).map(u64::from)
            }
            Step::SizeOpen { handle, size } => {
                let asked = SetAttr { size: Some(*size), ..SetAttr::default() };
                primary.set_attr(&who, self.handles[*handle], asked).map(|_| 0)
            }
            _ => self.play_on_one(step),
        }
    }

    fn named(&self, path: &Path, call: impl FnOnce(u64, &std::ffi::OsStr) -> Result<(), Errno>) -> Answer {
        let (parent, name) = split(path);
        self.with(parent, |parent| call(parent, name)).map(|()| 0)
    }

    /// What the kernel decides by itself before it asks a file system to rename.
    fn rename(&self, from: &Path, to: &Path, flags: u32) -> Answer {
        let ((old, old_name), (new, new_name)) = (split(from), split(to));
        let id = self.with(from, Ok)?;
        let target = self.with(to, Ok);
        if to.starts_with(from) && to != from && !(flags == 1 && target.is_ok()) {
            return Err(Errno::INVAL);
        }
        if target == Ok(id) && flags != 1 {
            return Ok(0);
        }
        self.with(old, |old| {
            self.with(new, |new| self.primary.rename(&self.who, (old, old_name), (new, new_name), flags))
        })
        .map(|()| 0)
    }

    fn play_on_one(&self, step: &Step) -> Answer {
        let (primary, who) = (self.primary, self.who);
        match step {
            Step::Write { path, offset, bytes } => {
                self.with(path, |ino| primary.write(&who, ino, *offset, bytes, false).map(u64::from))
            }
            Step::SetSize { path, size } => self.set(path, SetAttr { size: Some(*size), ..SetAttr::default() }),
            Step::Allocate { path, mode, offset, length } => {
                self.with(path, |ino| primary.allocate(&who, ino, *mode, *offset, *length)).map(|()| 0)
            }
            Step::Copy { from, from_offset, to, to_offset, length } => self.with(from, |from| {
                self.with(to, |to| primary.copy_range(&who, (from, *from_offset), (to, *to_offset), *length))
            }),
            Step::Chmod { path, mode } => self.set(path, SetAttr { mode: Some(*mode), ..SetAttr::default() }),
            Step::Chown { path, uid, gid } => {
                self.set(path, SetAttr { uid: Some(*uid), gid: Some(*gid), ..SetAttr::default() })
            }
            Step::Touch { path, mtime } => {
                let nanos = u32::try_from(mtime.1).expect("below a second");
                let mtime = TimeSet::To(FileTime { seconds: mtime.0, nanos });
                self.set(path, SetAttr { mtime: Some(mtime), ..SetAttr::default() })
            }
            Step::SetXattr { path, name, value, flags } => {
                self.with(path, |ino| primary.setxattr(&who, ino, name.as_ref(), value, *flags)).map(|()| 0)
            }
            Step::RemoveXattr { path, name } => {
                self.with(path, |ino| primary.removexattr(&who, ino, name.as_ref())).map(|()| 0)
            }
            Step::Sync { path } => self.with(path, |ino| {
                let (answer, wait) = std::sync::mpsc::channel();
                let done = move |result| answer.send(result).expect("the test waits");
                primary.sync_file(&who, ino, Box::new(done));
                wait.recv().expect("the committer answers").map(|()| 0)
            }),
            _ => panic!("{step:?} is not about one object"),
        }
    }
}
