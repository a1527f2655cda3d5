//! How changes of names, sizes and attributes are taken back, on the file system itself.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::disk::Object;
use crate::support::tree;

/// One change of names.
pub(super) enum Undo {
    /// A name was made.
    Unname { directory: u64, name: Vec<u8> },
    /// A further name of a file went.
    Link { ino: u64, directory: u64, name: Vec<u8> },
    /// The last name of an object went.
    Unstash { stashed: PathBuf, directory: u64, name: Vec<u8> },
    /// A name changed.
    Rename { from: u64, name: Vec<u8>, to: u64, new_name: Vec<u8>, exchange: bool },
}

/// Size and attributes before a change.
pub(super) struct Standing {
    ino: u64,
    stat: rustix::fs::Stat,
    xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// One call that changed metadata.
pub(super) struct Meta {
    pub(super) stamp: u64,
    /// The objects whose sync makes it durable; the first one tells the file system.
    pub(super) touches: Vec<u64>,
    /// In the order in which it was done.
    pub(super) undo: Vec<Undo>,
    pub(super) before: Vec<Standing>,
}

impl Meta {
    /// Notes how an object stands.
    pub(super) fn attributes(&mut self, objects: &HashMap<u64, Object>, ino: u64) {
        let object = &objects[&ino];
        let stat = rustix::fs::fstat(&object.path).expect("an open object");
        let link = proc_path(&object.path);
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let xattrs = (!is_link).then(|| follow(&link));
        self.touches.push(ino);
        self.before.push(Standing { ino, stat, xattrs });
    }

    /// As if it had never been.
    pub(super) fn take_back(self, objects: &HashMap<u64, Object>) {
        for undo in self.undo.into_iter().rev() {
            undo.take_back(objects);
        }
        for standing in self.before.into_iter().rev() {
            standing.bring_back(objects);
        }
    }
}

impl Undo {
    fn take_back(self, objects: &HashMap<u64, Object>) {
        let place = |ino: &u64| &objects[ino].path;
        match self {
            Undo::Unname { directory, name } => {
                let stat = rustix::fs::statat(place(&directory), name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
                let mode = stat.expect("it was made").st_mode;
                let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
                let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                rustix::fs::unlinkat(place(&directory), name.as_slice(), flags).expect("it was made");
            }
            Undo::Link { ino, directory, name } => {
                let path = proc_path(place(&ino));
                rustix::fs::linkat(CWD, path, place(&directory), name.as_slice(), AtFlags::SYMLINK_FOLLOW)
                    .expect("it has another name");
            }
            Undo::Unstash { stashed, directory, name } => {
                rustix::fs::renameat(CWD, &stashed, place(&directory), name.as_slice()).expect("its name is free");
            }
            Undo::Rename { from, name, to, new_name, exchange } => {
                let flags = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
                rustix::fs::renameat_with(place(&to), new_name.as_slice(), place(&from), name.as_slice(), flags)
                    .expect("it was renamed");
            }
        }
    }
}

impl Standing {
    fn bring_back(self, objects: &HashMap<u64, Object>) {
        let object = &objects[&self.ino];
        let path = proc_path(&object.path);
        if let Some(data) = &object.data
            && object.size() != self.stat.st_size.unsigned_abs()
        {
            rustix::fs::ftruncate(data, self.stat.st_size.unsigned_abs()).expect("memory has room");
        }
        let owner = (Some(Uid::from_raw(self.stat.st_uid)), Some(Gid::from_raw(self.stat.st_gid)));
        rustix::fs::chownat(&object.path, c"", owner.0, owner.1, AtFlags::EMPTY_PATH)
            .or_else(|_| rustix::fs::chownat(CWD, &path, owner.0, owner.1, AtFlags::empty()))
            .expect("root may");
        if let Some(wanted) = &self.xattrs {
            rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(self.stat.st_mode & 0o7777), AtFlags::empty())
                .expect("root may");
            let present = follow(&path);
            for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
                rustix::fs::removexattr(&path, name.as_slice()).expect("it has it");
            }
            for (name, value) in wanted.iter().filter(|(name, value)| present.get(*name) != Some(value)) {
                rustix::fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty()).expect("it can have it");
            }
        }
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let tv_nsec = self.stat.st_mtime_nsec.try_into().expect("below a second");
        let times =
            Timestamps { last_access: omit, last_modification: Timespec { tv_sec: self.stat.st_mtime, tv_nsec } };
        rustix::fs::utimensat(&object.path, c"", &times, AtFlags::EMPTY_PATH).expect("root may");
    }
}

fn proc_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Extended attributes of what a descriptor's path leads to.
fn follow(link: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(link, &mut names).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 4096];
        if let Ok(length) = rustix::fs::getxattr(link, name, &mut value) {
            value.truncate(length);
            found.insert(name.to_vec(), value);
        }
    }
    found
}
