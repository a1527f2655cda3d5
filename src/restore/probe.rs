//! What the target can hold, tried out before the first byte goes there.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use reelfs_journal::{FileId, FileTime, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::builder::Restraint;
use super::survey::{Selection, Survey};
use super::target::Destination;
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::Node;
use crate::size::Size;

/// Space that an object takes besides its bytes, in bytes: inode and name, rounded up.
const OBJECT_OVERHEAD: u64 = 512;

/// What the trees of a restore ask of a file system.
#[derive(Debug, Default)]
pub struct Needs {
    bytes: u64,
    objects: u64,
    caller: (u32, u32),
    foreign_owners: u64,
    hard_links: bool,
    longest_name: Vec<u8>,
    odd_name: Option<Vec<u8>>,
    symlinks: bool,
    devices: bool,
    special: bool,
    xattr_spaces: BTreeSet<String>,
    times: BTreeSet<(i64, u32)>,
}

impl Needs {
    /// Looks through everything that is to be made of one volume.
    pub fn add(&mut self, survey: &Survey, selection: &Selection<'_>, restraint: Restraint) {
        let needs = self;
        needs.caller = caller();
        for file in &selection.objects {
            if let Some(node) = survey.names.node(*file) {
                needs.object(*file, node, survey, restraint);
            }
        }
        for place in &selection.places {
            needs.hard_links |= place.again;
            let name = place.name.as_bytes();
            if name.len() > needs.longest_name.len() {
                needs.longest_name = name.to_vec();
            }
            if std::str::from_utf8(name).is_err() || name.iter().any(|byte| b"\\:*?\"<>|".contains(byte)) {
                needs.odd_name.get_or_insert_with(|| name.to_vec());
            }
        }
    }

    /// Objects whose owner is not the caller.
    #[must_use]
    pub fn foreign_owners(&self) -> u64 {
        self.foreign_owners
    }

    /// Bytes that the files will take, at most.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn object(&mut self, file: FileId, node: &Node, survey: &Survey, restraint: Restraint) {
        let told = survey.told.get(&file).copied().unwrap_or(0);
        self.bytes = self.bytes.saturating_add(node.size.min(told));
        self.objects += 1;
        if (node.attributes.uid, node.attributes.gid) != self.caller {
            self.foreign_owners += 1;
        }
        match node.kind {
            NodeKind::Symlink(_) => self.symlinks = true,
            NodeKind::Fifo | NodeKind::Socket => self.special = true,
            NodeKind::CharDevice(_) | NodeKind::BlockDevice(_) => self.devices = true,
            NodeKind::File | NodeKind::Directory => {}
        }
        for xattr in &node.xattrs {
            if restraint.safe && xattr.name == b"security.capability" {
                continue;
            }
            let name = String::from_utf8_lossy(&xattr.name);
            let space = match name.as_ref() {
                "system.posix_acl_access" | "system.posix_acl_default" => "ACLs".to_owned(),
                name => format!("{}.*", name.split('.').next().unwrap_or(name)),
            };
            self.xattr_spaces.insert(space);
        }
        let FileTime { seconds, nanos } = node.attributes.mtime;
        // a handful of times is enough to find the grain and the range
        if self.times.len() < 64 {
            self.times.insert((seconds, nanos));
        } else {
            let ends = (self.times.first().copied(), self.times.last().copied());
            if ends.0.is_some_and(|first| (seconds, nanos) < first) {
                self.times.pop_first();
                self.times.insert((seconds, nanos));
            } else if ends.1.is_some_and(|last| (seconds, nanos) > last) {
                self.times.pop_last();
                self.times.insert((seconds, nanos));
            }
        }
    }
}

fn caller() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Tries everything that the tree asks for, in a directory that is removed again.
///
/// # Errors
/// Not enough space (22); something that the target cannot hold (14), all of it named.
pub fn probe(destination: &Destination, needs: &Needs, restraint: Restraint) -> Result<()> {
    let root = destination.root()?;
    space(destination, &root, needs)?;
    let fail = |errno: Errno| Error::io(format!("write to {}", destination.path().display()), errno.into());
    let place = destination.probe();
    let place = place.map_err(|error| Error::io(format!("write to {}", destination.path().display()), error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&place, flags, Mode::empty()).map_err(fail)?;
    let lacks = try_all(&directory, needs, restraint);
    let removed = rustix::fs::rmdir(&place);
    let lacks = lacks.map_err(fail)?;
    removed.map_err(fail)?;
    if lacks.is_empty() {
        return Ok(());
    }
    let message = format!("{} cannot hold what is on the tapes: {}", destination.path().display(), lacks.join("; "));
    Err(Error::new(ErrorKind::WouldOverwrite, message).hint(hint(&lacks)))
}

fn hint(lacks: &[String]) -> &'static str {
    if lacks.iter().any(|lack| lack.starts_with("foreign owners")) {
        "restore as root, or give all files to yourself with --no-owner"
    } else if lacks.iter().any(|lack| lack.starts_with("device nodes") || lack.starts_with("attributes security")) {
        "restore as root, or leave devices and capabilities out with --safe"
    } else {
        "restore to a file system like the one that the directory was on, ext4 or XFS say"
    }
}

fn space(destination: &Destination, root: &OwnedFd, needs: &Needs) -> Result<()> {
    let stat = rustix::fs::fstatvfs(root)
        .map_err(|errno| Error::io(format!("look at {}", destination.path().display()), errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = needs.bytes.saturating_add(needs.objects.saturating_mul(OBJECT_OVERHEAD));
    let place = destination.path().display();
    // one that tells no size at all (ramfs, some network file systems) is found full when it is
    if stat.f_blocks > 0 && needed > free {
        let message = format!("{place} has {} free, and the files need {}", Size(free), Size(needed));
        return Err(Error::new(ErrorKind::NoSpace, message).hint("restore to a larger disk, or a part with --path"));
    }
    if stat.f_files > 0 && needs.objects > stat.f_favail {
        let message = format!("{place} has {} inodes free, and {} are needed", stat.f_favail, needs.objects);
        return Err(Error::new(ErrorKind::NoSpace, message).hint("restore to a larger disk, or a part with --path"));
    }
    Ok(())
}

/// Everything that the target cannot hold. Whatever is made is removed again.
fn try_all(directory: &OwnedFd, needs: &Needs, restraint: Restraint) -> std::result::Result<Vec<String>, Errno> {
    let mut lacks = Vec::new();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, "file", flags, Mode::from_raw_mode(0o600))?;
    try_attributes(&file, needs, restraint, &mut lacks);
    if needs.hard_links {
        if rustix::fs::linkat(directory, "file", directory, "link", AtFlags::empty()).is_err() {
            lacks.push("hard links".to_owned());
        }
        remove(directory, b"link");
    }
    if needs.symlinks {
        if rustix::fs::symlinkat("nowhere", directory, "symlink").is_err() {
            lacks.push("symbolic links".to_owned());
        }
        remove(directory, b"symlink");
    }
    let nodes = [
        (needs.special, FileType::Fifo, 0, "named pipes"),
        (needs.devices, FileType::CharacterDevice, rustix::fs::makedev(1, 3), "device nodes"),
    ];
    for (needed, kind, device, what) in nodes {
        if needed {
            if rustix::fs::mknodat(directory, "node", kind, Mode::from_raw_mode(0o600), device).is_err() {
                lacks.push(what.to_owned());
            }
            remove(directory, b"node");
        }
    }
    let names = [Some(&needs.longest_name), needs.odd_name.as_ref()];
    for name in names.into_iter().flatten().filter(|name| !name.is_empty() && *name != b"file") {
        if rustix::fs::openat(directory, name.as_slice(), flags, Mode::from_raw_mode(0o600)).is_err() {
            lacks.push(format!("names like {}", String::from_utf8_lossy(name)));
        }
        remove(directory, name);
    }
    remove(directory, b"file");
    Ok(lacks)
}

fn try_attributes(file: &OwnedFd, needs: &Needs, restraint: Restraint, lacks: &mut Vec<String>) {
    if restraint.owner.is_none() && needs.foreign_owners > 0 && !rustix::process::geteuid().is_root() {
        lacks.push(format!("foreign owners of {} objects (only root can give files away)", needs.foreign_owners));
    }
    for space in &needs.xattr_spaces {
        let set = match space.as_str() {
            "ACLs" => rustix::fs::fsetxattr(file, "system.posix_acl_access", &SAMPLE_ACL, XattrFlags::empty()),
            "security.*" => rustix::fs::fsetxattr(file, "security.reelfs_probe", b"1", XattrFlags::empty()),
            "system.*" => Ok(()),
            space => {
                let name = format!("{}reelfs_probe", space.trim_end_matches('*'));
                rustix::fs::fsetxattr(file, name.as_str(), b"1", XattrFlags::empty())
            }
        };
        if set.is_err() {
            lacks.push(if space == "ACLs" { space.clone() } else { format!("attributes {space}") });
        }
    }
    let wrong: Vec<_> = needs.times.iter().filter(|(seconds, nanos)| !keeps_time(file, *seconds, *nanos)).collect();
    if let Some((seconds, nanos)) = wrong.first() {
        lacks.push(format!("modification times like {seconds}.{nanos:09}"));
    }
}

fn keeps_time(file: impl AsFd, seconds: i64, nanos: u32) -> bool {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    let set = rustix::fs::futimens(&file, &times).and_then(|()| rustix::fs::fstat(&file));
    set.is_ok_and(|stat| (stat.st_mtime, stat.st_mtime_nsec) == (seconds, u64::from(nanos)))
}

fn remove(directory: &OwnedFd, name: &[u8]) {
    // not there when it could not be made; a left over one makes the removal of the directory fail, and that is told
    let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
}

/// `user::rw-,user:0:r--,group::---,mask::r--,other::---` as the kernel stores it.
const SAMPLE_ACL: [u8; 44] = {
    let mut acl = [0_u8; 44];
    acl[0] = 2;
    let entries: [(u8, u8, u32); 5] =
        [(0x01, 6, u32::MAX), (0x02, 4, 0), (0x04, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let mut index = 0;
    while index < 5 {
        let (tag, permissions, id) = entries[index];
        let at = 4 + index * 8;
        acl[at] = tag;
        acl[at + 2] = permissions;
        let bytes = id.to_le_bytes();
        acl[at + 4] = bytes[0];
        acl[at + 5] = bytes[1];
        acl[at + 6] = bytes[2];
        acl[at + 7] = bytes[3];
        index += 1;
    }
    acl
};
