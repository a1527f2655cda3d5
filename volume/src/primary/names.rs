//! Names: lookup, create, link, unlink, rename.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{Change, FileId, Name, NodeKind, RENAME_EXCHANGE, RENAME_NOREPLACE};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Uid};
use rustix::io::{Errno, Result};

use super::{Primary, Requester};
use crate::apply::{device_number, remove_at, set_mode_of, set_owner};
use crate::node::{Lookups, Node};
use crate::stat::Stat;
use crate::sys;
use crate::volume::open_directory;
use crate::xattr;

thread_local! {
    /// Whether this thread has a umask of its own.
    static HAS_OWN_UMASK: Cell<bool> = const { Cell::new(false) };
}

impl Primary {
    /// Finds a name and counts one lookup of its object.
    ///
    /// # Errors
    /// `ENOENT`; `EXDEV` for a mount point of another file system; what the file system says.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Stat> {
        let name = Name::try_from(name).map_err(name_errno)?;
        let _names = self.names.read();
        let (node, stat) = self.find(&self.node(parent)?, &name, 1)?;
        Ok(Stat { id: node.id, ..stat })
    }

    /// Takes back lookups.
    pub fn forget(&self, ino: u64, count: u64) {
        if ino == self.root() {
            return;
        }
        if let Some(node) = self.volume.nodes.by_ino(ino) {
            let mut state = node.state.lock();
            state.lookups.forget(count);
            let gone = state.lookups == Lookups::NONE && state.in_use().opens == 0;
            drop(state);
            if gone {
                self.volume.nodes.drop_unused(node);
            }
        }
    }

    /// The object of a name, made known; under the names lock.
    pub(super) fn find(&self, parent: &Arc<Node>, name: &Name, count: u64) -> Result<(Arc<Node>, Stat)> {
        let directory = self.volume.path(parent)?;
        let stat = Stat::at(&*directory, name.as_bytes())?;
        if stat.file_system != self.volume.file_system {
            return Err(Errno::XDEV);
        }
        let known = self.volume.nodes.by_ino(stat.id.ino).filter(|node| {
            let state = node.state.lock();
            !state.nameless && state.links.iter().any(|link| Arc::ptr_eq(&link.parent, parent) && link.name == *name)
        });
        let generation = match known {
            Some(node) => node.id.generation,
            None => sys::generation(&*directory, name.as_bytes())?,
        };
        let id = FileId { ino: stat.id.ino, generation };
        let node = self.volume.nodes.intern(id, stat.file_type, count);
        node.add_link(parent, name);
        Ok((node, stat))
    }

    /// A directory that is to get a name.
    fn place_for(&self, directory: u64, name: &Name) -> Result<Arc<Node>> {
        if directory == self.root() && name.as_bytes() == self.group.restore_mark().as_bytes() {
            return Err(Errno::PERM);
        }
        self.live_directory(directory)
    }

    /// A directory that still has a name, or is the root.
    fn live_directory(&self, ino: u64) -> Result<Arc<Node>> {
        let node = self.node(ino)?;
        if ino != self.root() && node.state.lock().nameless {
            return Err(Errno::NOENT);
        }
        Ok(node)
    }

    /// Makes a directory, symbolic link, device, fifo, socket or regular file.
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn make(
        &self,
        who: &Requester,
        parent: u64,
        name: &OsStr,
        kind: NodeKind,
        mode: u32,
        umask: u32,
    ) -> Result<Stat> {
        let (stat, node) = self.make_object(who, parent, name, kind, mode, umask)?;
        node.state.lock().end_use(|in_use| in_use.data = None); // made, not opened
        Ok(stat)
    }

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn create(&self, who: &Requester, parent: u64, name: &OsStr, mode: u32, umask: u32) -> Result<Stat> {
        let (stat, node) = self.make_object(who, parent, name, NodeKind::File, mode, umask)?;
        node.state.lock().begin_use().opens += 1;
        self.open_files.fetch_add(1, Ordering::Relaxed);
        Ok(stat)
    }

    fn make_object(
        &self,
        who: &Requester,
        parent: u64,
        name: &OsStr,
        kind: NodeKind,
        mode: u32,
        umask: u32,
    ) -> Result<(Stat, Arc<Node>)> {
        let _admitted = self.admit(0)?;
        let name = Name::try_from(name).map_err(name_errno)?;
        let _names = self.names.write();
        let parent = self.place_for(parent, &name)?;
        let directory = self.volume.path(&parent)?;
        let before = Stat::at(&*directory, b"")?;
        self.need_names(parent.id)?;
        let slot = self.in_flight.begin_create(parent.id, &name);
        let operation = || Operation::Create { directory: directory.as_fd(), name: name.as_bytes().into() };
        let make = || make_raw(&directory, &name, &kind, mode, umask);
        let made = disk::call(Label::MakeObject, operation, make)?;
        let result = self.announce(&slot, who, &parent, (&directory, before), &name, kind, made);
        if let Err(error) = &result {
            // nobody has seen it: take it away again, and the time that it left
            if !matches!(*error, Errno::AGAIN | Errno::INPROGRESS) {
                tracing::warn!(%error, "a new object could not be journaled"); // else it only waits, and comes again
            }
            let is_gone = remove_at(Label::UnmakeObject, &directory, &name, AtFlags::empty())
                .or_else(|_| remove_at(Label::UnmakeObject, &directory, &name, AtFlags::REMOVEDIR));
            let is_as_before = self.volume.set_mtime_of(parent.id, before.mtime);
            let is_told = !self.volume.refused_times() || self.tells_undone(who, parent.id);
            if is_gone.is_err() || is_as_before.is_err() || !is_told {
                self.leave(&slot); // the next opening announces what stands there, and the time of the directory
            }
        }
        result
    }

    /// Journals what stands, or notes it while suspended.
    fn tells_undone(&self, who: &Requester, directory: FileId) -> bool {
        if self.is_suspended() {
            let noted = self.dirty.lock().as_mut().map_or(Ok(()), |map| map.note_attributes(directory));
            return match noted {
                Ok(()) => {
                    self.keep_noted(directory);
                    true
                }
                Err(error) => {
                    tracing::error!(%error, "the dirty map cannot be written: the mount takes no more changes");
                    self.failed.store(true, Ordering::Relaxed);
                    false
                }
            };
        }
        self.read_back(who, directory).is_ok()
    }

    #[expect(clippy::too_many_arguments, reason = "the second half of make_object, parted so that a failure is undone")]
    fn announce(
        &self,
        slot: &reelfs_journal::Slot<'_>,
        who: &Requester,
        parent: &Arc<Node>,
        (directory, before): (&OwnedFd, Stat),
        name: &Name,
        kind: NodeKind,
        made: Option<OwnedFd>,
    ) -> Result<(Stat, Arc<Node>)> {
        let path = match &made {
            Some(_) => None,
            None => Some(rustix::fs::openat(
                directory,
                name.as_bytes(),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?),
        };
        let object = made.as_ref().or(path.as_ref()).ok_or(Errno::IO)?;
        let born = Stat::identified(object.as_fd(), b"")?;
        let stat = give_to(who, &before, object, born)?;
        let xattrs = match (&made, &kind) {
            (_, NodeKind::Symlink(_)) => Vec::new(),
            (Some(file), _) if rustix::fs::flistxattr(file, &mut [0u8; 1]) == Ok(0) => Vec::new(),
            _ => xattr::all(object.as_fd())?,
        };
        let id = stat.id;
        let change = Change::Create {
            parent: parent.id,
            name: name.clone(),
            file: id,
            kind,
            attributes: stat.attributes(),
            xattrs,
            parent_mtime: Stat::at(directory, b"")?.mtime,
        };
        let node = self.volume.nodes.intern(id, stat.file_type, 1);
        node.add_link(parent, name);
        if let Some(file) = made {
            let mut state = node.state.lock();
            state.harmless = stat.mode & 0o6000 == 0;
            let in_use = state.begin_use();
            (in_use.data, in_use.size) = (Some(Arc::new(self.volume.noticed_as_wished(file))), Some(stat.size));
        }
        if let Err(error) = self.commit(slot, who, &[change]) {
            node.remove_link(parent, name);
            self.take_back(&node);
            return Err(error);
        }
        if stat.is_directory() {
            self.known.lock().add(id);
        } else {
            self.born(id);
        }
        Ok((stat, node))
    }

    /// Gives a file a further name.
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn link(&self, who: &Requester, ino: u64, parent: u64, name: &OsStr) -> Result<Stat> {
        let _admitted = self.admit(0)?;
        let name = Name::try_from(name).map_err(name_errno)?;
        let _names = self.names.write();
        let (node, parent) = (self.node(ino)?, self.place_for(parent, &name)?);
        if node.state.lock().nameless {
            return Err(Errno::NOENT);
        }
        match Stat::at(&*self.volume.path(&parent)?, name.as_bytes()) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(Errno::EXIST),
            Err(error) => return Err(error),
        }
        self.walk.moved(&node);
        // what a failed link leaves is read back and journaled with the file's size
        let _order = node.order.lock();
        let slot = self.in_flight.begin();
        let parent_mtime = self.now();
        self.commit(&slot, who, &[Change::Link { file: node.id, parent: parent.id, name, parent_mtime }])?;
        node.state.lock().lookups.add(1);
        self.volume.stat(&node)
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// `EISDIR`; what the file system says; `EAGAIN` when the journal has no room now.
    pub fn unlink(&self, who: &Requester, parent: u64, name: &OsStr) -> Result<()> {
        self.remove(who, parent, name, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOTEMPTY`; what the file system says; `EAGAIN` when the journal has no room now.
    pub fn rmdir(&self, who: &Requester, parent: u64, name: &OsStr) -> Result<()> {
        self.remove(who, parent, name, true)
    }

    fn remove(&self, who: &Requester, parent: u64, name: &OsStr, directory: bool) -> Result<()> {
        let _admitted = self.admit(0)?;
        let name = Name::try_from(name).map_err(name_errno)?;
        let _names = self.names.write();
        let parent = self.node(parent)?;
        let (node, _) = self.find(&parent, &name, 0)?;
        match (directory, node.is_directory()) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) => self.check_empty(&node)?,
            (false, false) => {}
        }
        let _order = node.order.lock();
        let slot = self.in_flight.begin();
        let change = Change::Unlink { parent: parent.id, name, file: node.id, parent_mtime: self.now() };
        self.commit(&slot, who, &[change])?;
        drop(slot);
        self.drop_if_forgotten(&node);
        Ok(())
    }

    /// Moves a name; `flags` as `renameat2(2)`: [`RENAME_NOREPLACE`], [`RENAME_EXCHANGE`].
    ///
    /// # Errors
    /// What the file system says; `EINVAL` for other flags; `EAGAIN` when the journal has no room now.
    pub fn rename(
        &self,
        who: &Requester,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        flags: u32,
    ) -> Result<()> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0 || flags == RENAME_NOREPLACE | RENAME_EXCHANGE {
            return Err(Errno::INVAL);
        }
        let _admitted = self.admit(0)?;
        let name = Name::try_from(name).map_err(name_errno)?;
        let new_name = Name::try_from(new_name).map_err(name_errno)?;
        let _names = self.names.write();
        let (from, to) = (self.node(parent)?, self.place_for(new_parent, &new_name)?);
        let (node, _) = self.find(&from, &name, 0)?;
        let other = match self.find(&to, &new_name, 0) {
            Ok((other, _)) => Some(other),
            Err(Errno::NOENT) if flags & RENAME_EXCHANGE == 0 => None,
            Err(error) => return Err(error),
        };
        if let Some(other) = &other {
            if flags & RENAME_NOREPLACE != 0 {
                return Err(Errno::EXIST);
            }
            if flags & RENAME_EXCHANGE == 0 {
                match (node.is_directory(), other.is_directory()) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) => self.check_empty(other)?,
                    (false, false) => {}
                }
            }
            if Arc::ptr_eq(&node, other) {
                return Ok(());
            }
        }
        let trades = other.as_ref().filter(|_| flags & RENAME_EXCHANGE != 0);
        if self.is_within(&to, &node) || trades.is_some_and(|other| self.is_within(&from, other)) {
            return Err(Errno::INVAL);
        }
        other.iter().chain([&node]).for_each(|moved| self.walk.moved(moved));
        // a replaced file takes no write between its last name and its end that would be numbered before it
        let _order = other.as_ref().map(|other| other.order.lock());
        let slot = self.in_flight.begin();
        let change = Change::Rename {
            file: node.id,
            parent: from.id,
            name,
            new_parent: to.id,
            new_name,
            replaced: other.as_ref().map_or(FileId::NONE, |other| other.id),
            flags,
            parent_mtime: self.now(),
        };
        self.commit(&slot, who, &[change])?;
        drop(slot);
        if let Some(other) = &other {
            self.drop_if_forgotten(other);
        }
        Ok(())
    }

    /// Whether a directory is this object or lies below it: what would then be moved into itself must not reach the journal.
    fn is_within(&self, directory: &Arc<Node>, object: &Node) -> bool {
        let mut at = Some(directory.clone());
        while let Some(node) = at.filter(|_| object.is_directory()) {
            if node.id == object.id {
                return true;
            }
            at = node.state.lock().links.first().map(|link| link.parent.clone());
        }
        false
    }

    fn check_empty(&self, node: &Arc<Node>) -> Result<()> {
        let directory = match open_directory(&*self.volume.path(node)?) {
            // one that its owner may not read: the file system itself says whether it is empty
            Err(Errno::ACCESS) => return Ok(()),
            directory => directory?,
        };
        let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); 1024];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Err(Errno::NOTEMPTY);
            }
        }
        Ok(())
    }

    /// An object without a name that neither the kernel nor a handle knows ends here.
    /// An object that was made and is gone again before anybody heard of it. What the kernel has not forgotten yet of
    /// another one with this number stays owed.
    fn take_back(&self, node: &Arc<Node>) {
        let mut state = node.state.lock();
        state.nameless = true;
        state.lookups.forget(1);
        state.end_use(|in_use| in_use.data = None);
        drop(state);
        self.drop_if_forgotten(node);
    }

    fn drop_if_forgotten(&self, node: &Arc<Node>) {
        let state = node.state.lock();
        if state.nameless && state.in_use().opens == 0 && state.lookups == Lookups::NONE {
            drop(state);
            self.volume.nodes.remove(node.id);
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// What the file system says.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        let _names = self.names.read();
        self.volume.link_target(&self.node(ino)?)
    }
}

fn name_errno(error: reelfs_journal::NameError) -> Errno {
    match error {
        reelfs_journal::NameError::TooLong(_) => Errno::NAMETOOLONG,
        reelfs_journal::NameError::Empty => Errno::NOENT,
        reelfs_journal::NameError::Separator | reelfs_journal::NameError::Dots => Errno::INVAL,
    }
}

/// Makes the object with the requester's umask, so that the file system applies it, or the directory's default ACL in
/// its place.
fn make_raw(directory: &OwnedFd, name: &Name, kind: &NodeKind, mode: u32, umask: u32) -> Result<Option<OwnedFd>> {
    if !HAS_OWN_UMASK.get() {
        sys::own_umask()?;
        HAS_OWN_UMASK.set(true);
    }
    let ours = rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
    let made = make_unmasked(directory, name, kind, mode);
    // this thread makes files of its own, too
    rustix::process::umask(ours);
    made
}

fn make_unmasked(directory: &OwnedFd, name: &Name, kind: &NodeKind, mode: u32) -> Result<Option<OwnedFd>> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    let (special, device) = match kind {
        NodeKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            return rustix::fs::openat(directory, name.as_bytes(), flags, mode).map(Some);
        }
        NodeKind::Directory => return rustix::fs::mkdirat(directory, name.as_bytes(), mode).map(|()| None),
        NodeKind::Symlink(target) => {
            return rustix::fs::symlinkat(target.as_slice(), directory, name.as_bytes()).map(|()| None);
        }
        NodeKind::Fifo => (FileType::Fifo, 0),
        NodeKind::Socket => (FileType::Socket, 0),
        NodeKind::CharDevice(device) => (FileType::CharacterDevice, *device),
        NodeKind::BlockDevice(device) => (FileType::BlockDevice, *device),
    };
    rustix::fs::mknodat(directory, name.as_bytes(), special, mode, device_number(device)).map(|()| None)
}

/// Gives a new object to its requester. In a set-group-id directory the group stays the directory's. Returns what stands
/// afterwards.
fn give_to(who: &Requester, directory: &Stat, object: &OwnedFd, born: Stat) -> Result<Stat> {
    let inherits_group = directory.mode & 0o2000 != 0;
    let gid = if inherits_group { born.gid } else { who.gid };
    if (born.uid, born.gid) == (who.uid, gid) {
        return Ok(born);
    }
    let (uid, gid) = (Some(Uid::from_raw(who.uid)), Some(Gid::from_raw(gid)));
    set_owner(Label::MakeOwner, object, (uid, gid))?;
    if born.mode & 0o6000 != 0 && born.file_type != FileType::Symlink {
        set_mode_of(Label::MakeMode, object, born.mode)?;
    }
    let stat = Stat::at(object, b"")?;
    Ok(Stat { id: born.id, ..stat })
}
