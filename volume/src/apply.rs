//! The one apply: how a change is made true, on the primary under the mount and on a replica under the restorer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{Attributes, Change, FileId, FileTime, Name, NodeKind, RENAME_EXCHANGE, Xattr};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use crate::node::Node;
use crate::stat::{Stat, file_type};
use crate::volume::{Side, Volume};
use crate::xattr::{self, proc_path};

impl Volume {
    /// Makes a change true. Returns the bytes written, for a [`Change::Write`]; less than asked for means that the next
    /// byte met an error. On a replica changes of an object that has no name any more are skipped, and so is control
    /// information on both sides.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` for an object that is not known.
    pub fn apply(&self, change: &Change<'_>) -> Result<u64> {
        if self.side == Side::Replica && is_about_content(change) && !self.knows(change.file()) {
            return Ok(match change {
                Change::Write { data, .. } => data.len() as u64,
                _ => 0,
            });
        }
        match change {
            Change::Write { file, offset, data, size, mtime } => {
                return self.apply_write(*file, *offset, data, *size, *mtime);
            }
            Change::SetSize { file, size, mtime } => {
                let data = self.data(&self.node(*file)?, true)?;
                disk::set_size(Label::ApplySetSize, &data, *size)?;
                self.or_refused(set_mtime(&data, *mtime))?;
            }
            Change::Zero { file, offset, length, size, mtime } => {
                let keep = if self.grows(*file, *size)? { FallocateFlags::empty() } else { FallocateFlags::KEEP_SIZE };
                self.apply_range(*file, FallocateFlags::ZERO_RANGE | keep, (*offset, *length), Some(*size), *mtime)?;
            }
            Change::Punch { file, offset, length, mtime } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                self.apply_range(*file, flags, (*offset, *length), None, *mtime)?;
            }
            Change::Allocate { file, offset, length, size, mtime } => {
                let keep = if self.grows(*file, *size)? { FallocateFlags::empty() } else { FallocateFlags::KEEP_SIZE };
                self.apply_range(*file, keep, (*offset, *length), Some(*size), *mtime)?;
            }
            Change::Create { parent, name, file, kind, attributes, xattrs, parent_mtime } => {
                // on a primary the object was made first, for its id exists only then, and the times read back from it
                if !(self.side == Side::Primary && self.knows(*file)) {
                    self.make(*parent, name, *file, kind, attributes, xattrs)?;
                    self.set_mtime_of(*parent, *parent_mtime)?;
                }
            }
            Change::Link { file, parent, name, parent_mtime } => {
                self.link(*file, *parent, name)?;
                self.set_mtime_of(*parent, *parent_mtime)?;
            }
            Change::Unlink { parent, name, file, parent_mtime } => {
                self.apply_unlink(*parent, name, *file)?;
                self.set_mtime_of(*parent, *parent_mtime)?;
            }
            Change::Rename { .. } => self.apply_rename(change)?,
            Change::SetAttr { file, attributes } => self.set_attributes(*file, attributes)?,
            Change::SetXattr { file, xattr } => {
                let node = self.node(*file)?;
                node.state.lock().harmless = false;
                xattr::set(&*self.path(&node)?, xattr, XattrFlags::empty())?;
            }
            Change::RemoveXattr { file, name } => match xattr::remove(&*self.path(&self.node(*file)?)?, name) {
                Err(Errno::NODATA) if self.side == Side::Replica => {}
                result => result?,
            },
            Change::Entry { .. }
            | Change::Drop { .. }
            | Change::Sync { .. }
            | Change::Active { .. }
            | Change::Amend { .. }
            | Change::BaseBegin { .. }
            | Change::BaseData { .. }
            | Change::BaseEnd { .. }
            | Change::ListBegin { .. }
            | Change::ListEnd { .. }
            | Change::Marker { .. } => {}
        }
        Ok(0)
    }

    fn grows(&self, file: FileId, size: u64) -> Result<bool> {
        Ok(self.stat(&self.node(file)?)?.size < size)
    }

    fn apply_write(&self, file: FileId, offset: u64, bytes: &[u8], size: u64, mtime: FileTime) -> Result<u64> {
        let data = self.data(&self.node(file)?, true)?;
        let written = write_all(Label::ApplyWrite, &data, offset, bytes);
        if !matches!(written, Ok(0)) {
            if self.converging.load(Ordering::Relaxed) {
                enforce_size(&data, size)?;
            }
            self.or_refused(set_mtime(&data, mtime))?;
        }
        written
    }

    /// `fallocate`; a replica whose file system lacks a mode gets the same bytes without it.
    fn apply_range(
        &self,
        file: FileId,
        flags: FallocateFlags,
        (offset, length): (u64, u64),
        size: Option<u64>,
        mtime: FileTime,
    ) -> Result<()> {
        let data = self.data(&self.node(file)?, true)?;
        let may_grow = !flags.contains(FallocateFlags::KEEP_SIZE);
        let operation = || Operation::Allocate { file: data.as_fd(), offset, length, may_grow };
        match disk::call(Label::ApplyAllocate, operation, || rustix::fs::fallocate(&data, flags, offset, length)) {
            Err(Errno::OPNOTSUPP) if self.side == Side::Replica => {
                let present = rustix::fs::fstat(&data)?.st_size.unsigned_abs();
                if flags.intersects(FallocateFlags::ZERO_RANGE | FallocateFlags::PUNCH_HOLE) {
                    let end = offset.saturating_add(length).min(present);
                    write_zeros(&data, offset, end.saturating_sub(offset))?;
                }
            }
            result => result?,
        }
        if let Some(size) = size
            && (self.side == Side::Replica || self.converging.load(Ordering::Relaxed))
        {
            enforce_size(&data, size)?;
        }
        self.or_refused(set_mtime(&data, mtime))
    }

    fn apply_unlink(&self, parent: FileId, name: &Name, file: FileId) -> Result<()> {
        let (directory, node) = (self.node(parent)?, self.node(file)?);
        let flags = if node.is_directory() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.pin_if_last(&node)?;
        let result = remove_at(Label::ApplyUnlink, &*self.path(&directory)?, name, flags);
        if result.is_err() {
            unpin(&node);
            return result;
        }
        self.name_is_gone(&node, &directory, name);
        Ok(())
    }

    fn apply_rename(&self, change: &Change<'_>) -> Result<()> {
        let Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, parent_mtime } = change else {
            return Err(Errno::INVAL);
        };
        let (from, to) = (self.node(*parent)?, self.node(*new_parent)?);
        let node = self.node(*file)?;
        let other = if *replaced == FileId::NONE { None } else { Some(self.node(*replaced)?) };
        let exchange = *flags & RENAME_EXCHANGE != 0;
        if let Some(other) = other.as_ref().filter(|_| !exchange) {
            self.pin_if_last(other)?;
        }
        let (old, new) = (self.path(&from)?, self.path(&to)?);
        let operation = || Operation::Rename {
            from: old.as_fd(),
            name: name.as_bytes().into(),
            to: new.as_fd(),
            new_name: new_name.as_bytes().into(),
            exchange,
        };
        let flags = RenameFlags::from_bits_retain(*flags);
        let result = disk::call(Label::ApplyRename, operation, || {
            rustix::fs::renameat_with(&old, name.as_bytes(), &new, new_name.as_bytes(), flags)
        });
        if let Err(error) = result {
            other.iter().for_each(|other| unpin(other));
            return Err(error);
        }
        let same = other.as_ref().is_some_and(|other| Arc::ptr_eq(other, &node));
        match &other {
            Some(_) if same => {} // two names of one file: nothing happened
            Some(other) if exchange => {
                node.remove_link(&from, name);
                other.remove_link(&to, new_name);
                node.add_link(&to, new_name);
                other.add_link(&from, name);
            }
            _ => {
                if let Some(other) = &other {
                    self.name_is_gone(other, &to, new_name);
                }
                node.remove_link(&from, name);
                node.add_link(&to, new_name);
            }
        }
        self.set_mtime_of(*parent, *parent_mtime)?;
        if parent != new_parent { self.set_mtime_of(*new_parent, *parent_mtime) } else { Ok(()) }
    }

    /// On a primary an object about to lose its last name keeps a descriptor when somebody may still use it; so does one that
    /// loses its last known name. A file that nobody has open keeps none: its room is free as soon as it is removed.
    fn pin_if_last(&self, node: &Arc<Node>) -> Result<()> {
        if self.side == Side::Replica {
            return Ok(());
        }
        let stat = self.stat(node)?;
        let nameless = node.is_directory() || stat.links <= 1;
        let mut state = node.state.lock();
        if nameless && node.file_type == FileType::RegularFile && state.in_use().opens == 0 {
            state.nameless = true;
            let in_use = state.begin_use();
            in_use.ghost = Some(Box::new(Stat { links: 0, ..stat }));
            (in_use.path, in_use.data) = (None, None);
        } else if nameless || state.links.len() <= 1 {
            drop(state);
            let path = self.path(node)?;
            let mut state = node.state.lock();
            state.nameless = nameless;
            let in_use = state.begin_use();
            (in_use.path, in_use.pinned) = (Some(path), true);
        }
        Ok(())
    }

    fn name_is_gone(&self, node: &Arc<Node>, directory: &Arc<Node>, name: &Name) {
        let last_known = node.remove_link(directory, name);
        if self.side == Side::Replica && last_known {
            self.nodes.remove(node.id);
        }
    }

    /// Sets an object's modification time alone.
    pub(crate) fn set_mtime_of(&self, file: FileId, mtime: FileTime) -> Result<()> {
        let path = self.path(&self.node(file)?)?;
        self.or_refused(set_times(Label::ApplyParentTimes, &path, &only_mtime(mtime)))
    }

    /// Makes mode, owner and modification time be exactly these.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` for an object that is not known.
    pub fn set_attributes(&self, file: FileId, wanted: &Attributes) -> Result<()> {
        let node = self.node(file)?;
        let object = self.descriptor(&node)?;
        let found = node.state.lock().end_use(|in_use| in_use.found.take());
        let present = match found {
            Some(found) => *found,
            None => Stat::at(&*object, b"")?,
        };
        let owner_differs = (present.uid, present.gid) != (wanted.uid, wanted.gid);
        if owner_differs {
            let owner = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
            set_owner(Label::ApplyOwner, &object, owner)?;
        }
        if (owner_differs || present.mode != wanted.mode) && node.file_type != FileType::Symlink {
            node.state.lock().harmless = false;
            self.set_mode(&node, wanted.mode)?;
        }
        set_times(Label::ApplyAttributeTimes, &object, &only_mtime(wanted.mtime))
    }

    /// Sets the permission bits of anything but a symbolic link.
    pub(crate) fn set_mode(&self, node: &Arc<Node>, mode: u32) -> Result<()> {
        let object = self.descriptor(node)?;
        set_mode_of(Label::ApplyMode, &object, mode)
    }

    /// Makes the extended attributes and ACLs be exactly these.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` for an object that is not known.
    pub fn set_xattrs_exact(&self, file: FileId, xattrs: &[Xattr]) -> Result<()> {
        xattr::set_exact(&*self.path(&self.node(file)?)?, xattrs)
    }

    /// A further name for a known file; the directory's modification time is left to the caller.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` for an object that is not known.
    pub fn link(&self, file: FileId, parent: FileId, name: &Name) -> Result<()> {
        let (node, directory) = (self.node(file)?, self.node(parent)?);
        let path = self.path(&node)?;
        let flags = AtFlags::SYMLINK_FOLLOW; // follows /proc, not the object
        let place = self.path(&directory)?;
        let operation =
            || Operation::Link { file: path.as_fd(), directory: place.as_fd(), name: name.as_bytes().into() };
        disk::call(Label::ApplyLink, operation, || {
            rustix::fs::linkat(CWD, proc_path(path.as_fd()), &place, name.as_bytes(), flags)
        })?;
        node.add_link(&directory, name);
        Ok(())
    }

    /// Makes an object with everything that it has but bytes; the directory's modification time is left to the caller.
    ///
    /// # Errors
    /// What the file system says; `EEXIST` for an id that is known already.
    pub fn make(
        &self,
        parent: FileId,
        name: &Name,
        file: FileId,
        kind: &NodeKind,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<()> {
        if self.knows(file) {
            return Err(Errno::EXIST);
        }
        let parent = self.node(parent)?;
        let directory = self.path(&parent)?;
        let data = make_object(&directory, name, kind)?;
        let node = self.nodes.intern(file, file_type(kind), 0);
        node.add_link(&parent, name);
        if let Some(data) = data {
            node.state.lock().begin_use().data = Some(Arc::new(data));
            self.cache.noted(&node);
        }
        let owner = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
        rustix::fs::chownat(&*directory, name.as_bytes(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.side == Side::Replica {
            let inherits = xattr::list(&*directory).is_ok_and(|names| !names.is_empty());
            if inherits || !xattrs.is_empty() {
                xattr::set_exact(&*self.path(&node)?, xattrs)?;
            }
        }
        if !matches!(kind, NodeKind::Symlink(_)) {
            rustix::fs::chmodat(&*directory, name.as_bytes(), Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(&*directory, name.as_bytes(), &only_mtime(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Writes bytes of a base copy, without its time.
    ///
    /// # Errors
    /// What the file system says; `ENOSPC` when it is full.
    pub fn put(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let data = self.data(&self.node(file)?, true)?;
        match write_all(Label::ApplyWrite, &data, offset, bytes)? {
            written if written == bytes.len() as u64 => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }

    /// Cuts or extends a file of a base copy, without its time.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_size(&self, file: FileId, size: u64) -> Result<()> {
        disk::set_size(Label::ApplySetSize, &*self.data(&self.node(file)?, true)?, size)
    }
}

/// Content and attributes of one object: what an object that nobody can reach any more no longer needs.
pub(crate) fn is_about_content(change: &Change<'_>) -> bool {
    matches!(
        change,
        Change::Write { .. }
            | Change::SetSize { .. }
            | Change::Zero { .. }
            | Change::Punch { .. }
            | Change::Allocate { .. }
            | Change::SetAttr { .. }
            | Change::SetXattr { .. }
            | Change::RemoveXattr { .. }
    )
}

/// Takes back what was done for the removal of a last name, which stays.
fn unpin(node: &Node) {
    let mut state = node.state.lock();
    state.nameless = false;
    let has_names = !state.links.is_empty();
    state.end_use(|in_use| {
        in_use.ghost = None;
        if has_names && std::mem::take(&mut in_use.pinned) {
            in_use.path = None;
        }
    });
}

fn make_object(directory: &OwnedFd, name: &Name, kind: &NodeKind) -> Result<Option<OwnedFd>> {
    let private = Mode::from_raw_mode(0o600);
    let (special, device) = match kind {
        NodeKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            return rustix::fs::openat(directory, name.as_bytes(), flags, private).map(Some);
        }
        NodeKind::Directory => {
            return rustix::fs::mkdirat(directory, name.as_bytes(), Mode::from_raw_mode(0o700)).map(|()| None);
        }
        NodeKind::Symlink(target) => {
            return rustix::fs::symlinkat(target.as_slice(), directory, name.as_bytes()).map(|()| None);
        }
        NodeKind::Fifo => (FileType::Fifo, 0),
        NodeKind::Socket => (FileType::Socket, 0),
        NodeKind::CharDevice(device) => (FileType::CharacterDevice, *device),
        NodeKind::BlockDevice(device) => (FileType::BlockDevice, *device),
    };
    rustix::fs::mknodat(directory, name.as_bytes(), special, private, device_number(device)).map(|()| None)
}

/// The kernel's device number of `(major << 32) | minor`.
pub(crate) fn device_number(device: u64) -> rustix::fs::Dev {
    let (major, minor) = ((device >> 32) as u32, (device & 0xFFFF_FFFF) as u32);
    rustix::fs::makedev(major, minor)
}

/// Writes until all is written or an error comes; an error after the first byte is a short count.
fn write_all(label: Label, file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<u64> {
    let mut written = 0;
    while !bytes.is_empty() {
        match disk::write_at(label, file, bytes, offset) {
            Ok(0) => break,
            Ok(count) => {
                (written, offset, bytes) = (written + count as u64, offset + count as u64, &bytes[count..]);
            }
            Err(Errno::INTR) => {}
            Err(error) if written == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(written)
}

pub(crate) fn write_zeros(file: &OwnedFd, mut offset: u64, mut length: u64) -> Result<()> {
    let zeros = [0; 65_536];
    while length > 0 {
        let count = length.min(zeros.len() as u64);
        if write_all(Label::ApplyZeros, file, offset, &zeros[..usize::try_from(count).map_err(|_| Errno::INVAL)?])?
            < count
        {
            return Err(Errno::NOSPC);
        }
        (offset, length) = (offset + count, length - count);
    }
    Ok(())
}

fn enforce_size(file: &OwnedFd, size: u64) -> Result<()> {
    if rustix::fs::fstat(file)?.st_size.unsigned_abs() == size {
        Ok(())
    } else {
        disk::set_size(Label::ApplySetSize, file, size)
    }
}

fn set_mtime(file: &OwnedFd, mtime: FileTime) -> Result<()> {
    let operation = || Operation::SetAttributes { file: file.as_fd() };
    disk::call(Label::ApplyTimes, operation, || rustix::fs::futimens(file, &only_mtime(mtime)))
}

/// Sets times of any object; the descriptor may be `O_PATH`.
pub(crate) fn set_times(label: Label, object: &OwnedFd, times: &Timestamps) -> Result<()> {
    let operation = || Operation::SetAttributes { file: object.as_fd() };
    disk::call(label, operation, || rustix::fs::utimensat(object, c"", times, AtFlags::EMPTY_PATH))
}

/// Sets the owner of any object.
pub(crate) fn set_owner(label: Label, object: &OwnedFd, (uid, gid): (Option<Uid>, Option<Gid>)) -> Result<()> {
    let operation = || Operation::SetAttributes { file: object.as_fd() };
    disk::call(label, operation, || rustix::fs::chownat(object, c"", uid, gid, AtFlags::EMPTY_PATH))
}

/// Sets the permission bits of anything but a symbolic link.
pub(crate) fn set_mode_of(label: Label, object: &OwnedFd, mode: u32) -> Result<()> {
    let operation = || Operation::SetAttributes { file: object.as_fd() };
    disk::call(label, operation, || {
        rustix::fs::chmodat(CWD, proc_path(object.as_fd()), Mode::from_raw_mode(mode), AtFlags::empty())
    })
}

/// Removes a name from a directory.
pub(crate) fn remove_at(label: Label, directory: &OwnedFd, name: &Name, flags: AtFlags) -> Result<()> {
    let operation = || Operation::Remove { directory: directory.as_fd(), name: name.as_bytes().into() };
    disk::call(label, operation, || rustix::fs::unlinkat(directory, name.as_bytes(), flags))
}

pub(crate) fn only_mtime(mtime: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}
