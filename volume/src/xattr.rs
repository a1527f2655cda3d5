//! Extended attributes and ACLs of any object, links included.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use reelfs_journal::Xattr;
use reelfs_journal::disk::{self, Label, Operation};
use rustix::fs::{Mode, XattrFlags};
use rustix::io::{Errno, Result};

/// Largest list of names and largest value that Linux allows, in bytes.
const XATTR_MAX: usize = 65_536;

/// An object's path through its descriptor, which may be `O_PATH`: the f-calls refuse those. It is good as long as the
/// descriptor is open, so it is borrowed and never moved in here.
pub(crate) fn proc_path(object: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", object.as_raw_fd())
}

/// Attributes that belong to the machine and not to the data: the label of its security module.
fn stays_here(name: &[u8]) -> bool {
    name == b"security.selinux" || name == b"security.ima" || name == b"security.evm"
}

pub(crate) fn get(object: impl AsFd, name: &[u8]) -> Result<Vec<u8>> {
    let path = proc_path(object.as_fd());
    value(|buffer| rustix::fs::getxattr(&path, name, buffer))
}

/// The same of what has a name in a directory, a link included, without opening it.
pub(crate) fn get_in(directory: impl AsFd, entry: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let mut path = proc_path(directory.as_fd()).into_bytes();
    path.push(b'/');
    path.extend_from_slice(entry);
    value(|buffer| rustix::fs::lgetxattr(path.as_slice(), name, buffer))
}

fn value(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut value = vec![0; 256];
    loop {
        match read(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The names, each with a NUL behind it, as `listxattr(2)` gives them.
pub(crate) fn list(object: impl AsFd) -> Result<Vec<u8>> {
    let path = proc_path(object.as_fd());
    let mut names = vec![0; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut names) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            Err(Errno::RANGE) if names.len() < XATTR_MAX => names.resize(XATTR_MAX, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The same of an object whose owner, who we are, may not read it by its present mode.
pub(crate) fn all_by_owner(object: impl AsFd, mode: u32) -> Result<Vec<Xattr>> {
    let file = object.as_fd();
    let set = |mode| {
        let set = || rustix::fs::chmod(proc_path(file), Mode::from_raw_mode(mode));
        disk::call(Label::ApplyMode, || Operation::SetAttributes { file }, set)
    };
    match all(object.as_fd()) {
        Err(Errno::ACCESS) => {
            set(mode | 0o400)?;
            let xattrs = all(object.as_fd());
            set(mode)?;
            xattrs
        }
        result => result,
    }
}

/// All attributes that travel, sorted by name. A file system without attributes has none.
pub(crate) fn all(object: impl AsFd) -> Result<Vec<Xattr>> {
    let names = match list(object.as_fd()) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty() && !stays_here(name)) {
        match get(object.as_fd(), name) {
            Ok(value) => xattrs.push(Xattr { name: name.to_vec(), value }),
            // gone since, or a name space that is listed and not read
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

pub(crate) fn set(object: impl AsFd, xattr: &Xattr, flags: XattrFlags) -> Result<()> {
    let object = object.as_fd();
    let set = || rustix::fs::setxattr(proc_path(object), xattr.name.as_slice(), &xattr.value, flags);
    disk::call(Label::ApplyXattr, || Operation::SetAttributes { file: object }, set)
}

pub(crate) fn remove(object: impl AsFd, name: &[u8]) -> Result<()> {
    let object = object.as_fd();
    let remove = || rustix::fs::removexattr(proc_path(object), name);
    disk::call(Label::ApplyRemoveXattr, || Operation::SetAttributes { file: object }, remove)
}

/// Makes the attributes be exactly these.
pub(crate) fn set_exact(object: impl AsFd, wanted: &[Xattr]) -> Result<()> {
    let present = all(object.as_fd())?;
    for old in present.iter().filter(|old| wanted.iter().all(|new| new.name != old.name)) {
        match remove(object.as_fd(), &old.name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    wanted.iter().filter(|new| !present.contains(new)).try_for_each(|new| set(object.as_fd(), new, XattrFlags::empty()))
}
