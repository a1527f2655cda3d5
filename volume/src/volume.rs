//! A directory tree on disk whose objects are addressed by file id, never by path.
//!
//! Objects are opened one component at a time from descriptors that are themselves inside the root, each time without
//! following links: there is no way out.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reelfs_journal::disk::{self, Label, Operation};
use reelfs_journal::{FileId, Name};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};

use crate::links::Link;
use crate::node::{DescriptorCache, Node, Nodes};
use crate::stat::Stat;
use crate::xattr::{self, proc_path};

thread_local! {
    /// A modification time was refused to this thread.
    static TIMES_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Which end of the replication a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Behind the mount: file ids are its own inode numbers and generations, objects become known as they are looked up.
    Primary,
    /// Written by a restorer: file ids are the primary's, every object is known.
    Replica,
}

/// A directory tree that changes are applied to.
#[derive(Debug)]
pub struct Volume {
    pub(crate) side: Side,
    pub(crate) root: Arc<Node>,
    pub(crate) nodes: Nodes,
    pub(crate) cache: DescriptorCache,
    pub(crate) converging: AtomicBool,
    /// Reads leave access times alone.
    unnoticed: AtomicBool,
    /// The file system of the root: another one mounted inside is not part of the volume.
    pub(crate) file_system: u64,
}

/// The way from an object up to the root, by first names.
struct Ascent {
    at: Arc<Node>,
    /// One that was passed, and how many were.
    passed: Arc<Node>,
    steps: usize,
}

impl Ascent {
    fn from(node: &Arc<Node>) -> Ascent {
        Ascent { at: node.clone(), passed: node.clone(), steps: 0 }
    }

    /// One up: what it left, and its name. `ESTALE` where nothing is above, and where it comes round again: two directories that
    /// somebody exchanged behind the mount may be known as being in each other. Noticed as by Brent's algorithm.
    fn step(&mut self) -> Result<(Arc<Node>, Name)> {
        let Link { parent, name } = self.at.state.lock().links.first().cloned().ok_or(Errno::STALE)?;
        if Arc::ptr_eq(&parent, &self.passed) {
            return Err(Errno::STALE);
        }
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.passed = parent.clone();
        }
        Ok((std::mem::replace(&mut self.at, parent), name))
    }
}

impl Volume {
    /// A volume that a restorer writes: `root` is an open directory, `root_id` the primary's id of its own root.
    ///
    /// # Errors
    /// `ENOTDIR`, or what the system says of the directory.
    pub fn replica(root: OwnedFd, root_id: FileId) -> Result<Volume> {
        Volume::new(Side::Replica, root, Some(root_id))
    }

    /// The volume behind a mount; the descriptor was opened before anything was mounted over the directory.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the file system gives no file handles (no generations), otherwise what the system says.
    pub fn primary(root: OwnedFd) -> Result<Volume> {
        Volume::new(Side::Primary, root, None)
    }

    fn new(side: Side, root: OwnedFd, id: Option<FileId>) -> Result<Volume> {
        let stat = match id {
            None => Stat::identified(root.as_fd(), b"")?,
            Some(_) => Stat::at(root.as_fd(), b"")?,
        };
        if !stat.is_directory() {
            return Err(Errno::NOTDIR);
        }
        let nodes = Nodes::default();
        let node = nodes.intern(id.unwrap_or(stat.id), FileType::Directory, 1);
        {
            let mut state = node.state.lock();
            let in_use = state.begin_use();
            in_use.path = Some(Arc::new(root));
            in_use.pinned = true;
        }
        let budget = descriptor_budget();
        Ok(Volume {
            side,
            root: node,
            nodes,
            cache: DescriptorCache::new(budget),
            converging: AtomicBool::new(false),
            unnoticed: AtomicBool::new(false),
            file_system: stat.file_system,
        })
    }

    /// The id of the root directory.
    #[must_use]
    pub fn root_id(&self) -> FileId {
        self.root.id
    }

    /// Whether the object is known (on a replica: exists).
    #[must_use]
    pub fn knows(&self, file: FileId) -> bool {
        self.nodes.get(file).is_some()
    }

    /// How many objects are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.nodes.len()
    }

    /// While on, data changes make sizes exactly what the record says, whatever the file was: for bytes that were read
    /// while they changed (a base copy), and for redo.
    pub fn set_converging(&self, on: bool) {
        self.converging.store(on, Ordering::Relaxed);
    }

    /// From now on what is opened to be read leaves access times alone, where the file is ours or we are root.
    pub(crate) fn set_unnoticed(&self) {
        self.unnoticed.store(true, Ordering::Relaxed);
    }

    /// A descriptor that was just opened, such that reads through it move the access time only if they shall.
    pub(crate) fn noticed_as_wished(&self, file: OwnedFd) -> OwnedFd {
        if self.unnoticed.load(Ordering::Relaxed)
            && let Err(error) = rustix::fs::fcntl_setfl(&file, OFlags::NOATIME)
        {
            tracing::debug!(%error, "reads of a file move its access time");
        }
        file
    }

    /// Whether, since this thread last asked, a modification time was refused that it wanted to set: the daemon is neither root nor
    /// the owner, or the disk does not take it. Such a change is made all the same, and its times must be read back.
    pub(crate) fn refused_times(&self) -> bool {
        TIMES_REFUSED.take()
    }

    /// Passes the result of setting a time on; on a primary a refusal is noted instead, and so is any other failure where the
    /// content has changed already: the change is not void because its time is not what it should be.
    pub(crate) fn or_refused(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error)
                if self.side == Side::Primary && (error == Errno::PERM || !self.converging.load(Ordering::Relaxed)) =>
            {
                TIMES_REFUSED.set(true);
                Ok(())
            }
            result => result,
        }
    }

    /// Writes everything of the file system to disk (`syncfs`), and out of the disk's own cache.
    ///
    /// # Errors
    /// What the system says; the error is reported once.
    pub fn sync(&self) -> Result<()> {
        let root = self.path(&self.root)?;
        // a descriptor hears only of what failed since it was opened
        let sync = || match rustix::fs::syncfs(&*root) {
            Err(Errno::BADF) => rustix::fs::syncfs(open_directory(&root)?),
            result => result,
        };
        disk::call(Label::VolumeSync, || Operation::SyncAll { file: root.as_fd() }, sync)?;
        // XFS tells the disk to empty its cache only if its own log had something to write; an fsync always does. Where no
        // file without a name can be made there is nothing better than what was done.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&*root, c".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => disk::sync(Label::VolumeFlush, file),
            Err(error) => {
                tracing::debug!(%error, "the cache of the volume's disk is left to the file system");
                Ok(())
            }
        }
    }

    /// The number of the mount that the root was opened through; since Linux 6.8 none is given twice in one boot, before
    /// that it is not told.
    pub(crate) fn mount(&self) -> Result<u64> {
        mount_of(&*self.path(&self.root)?, Path::new(""))
    }

    /// The node of an id; on a replica an id without a name is none.
    pub(crate) fn node(&self, id: FileId) -> Result<Arc<Node>> {
        self.nodes.get(id).ok_or(Errno::STALE)
    }

    /// An `O_PATH` descriptor of the object.
    pub(crate) fn path(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        node.used.store(true, Ordering::Relaxed);
        if let Some(path) = cached_path(node) {
            return Ok(path);
        }
        // the chain of names from the first ancestor that has a descriptor down to the object
        let mut chain: Vec<(Arc<Node>, Name)> = Vec::new();
        let mut ascent = Ascent::from(node);
        let mut directory = loop {
            if let Some(path) = cached_path(&ascent.at) {
                break path;
            }
            chain.push(ascent.step()?);
        };
        while let Some((child, name)) = chain.pop() {
            directory = self.open_path(&child, &directory, &name)?;
        }
        Ok(directory)
    }

    fn open_path(&self, node: &Arc<Node>, directory: &OwnedFd, name: &Name) -> Result<Arc<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = Arc::new(rustix::fs::openat(directory, name.as_bytes(), flags, Mode::empty())?);
        if self.side == Side::Primary && Stat::at(&path, b"")?.id.ino != node.id.ino {
            return Err(Errno::STALE);
        }
        node.state.lock().begin_use().path = Some(path.clone());
        self.cache.noted(node);
        Ok(path)
    }

    /// Where an object is found by its first name, from the root of the machine. Names must not change meanwhile; `ESTALE` when what
    /// is known of them leads nowhere.
    pub(crate) fn place(&self, node: &Arc<Node>) -> Result<OsString> {
        let (mut names, mut ascent) = (Vec::new(), Ascent::from(node));
        while !Arc::ptr_eq(&ascent.at, &self.root) {
            names.push(ascent.step()?.1);
        }
        let root = self.path(&self.root)?;
        let root = rustix::fs::readlink(xattr::proc_path(root.as_fd()), Vec::new())?;
        let mut place = PathBuf::from(OsString::from_vec(root.into_bytes()));
        place.extend(names.iter().rev().map(|name| OsStr::from_bytes(name.as_bytes())));
        Ok(place.into_os_string())
    }

    /// Whatever descriptor there is of an object, else its `O_PATH` one.
    pub(crate) fn descriptor(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        let data = node.state.lock().in_use().data.clone();
        data.map_or_else(|| self.path(node), Ok)
    }

    /// The descriptor for data that the node keeps.
    pub(crate) fn kept_data(&self, node: &Node) -> Option<Arc<OwnedFd>> {
        node.used.store(true, Ordering::Relaxed);
        node.state.lock().in_use().data.clone()
    }

    /// A descriptor of a regular file open for data, found by its names if none is kept: no rename may be under way then. The one
    /// for reading and writing is kept in the node; where the daemon may do only one of the two, it is opened for this call.
    pub(crate) fn data(&self, node: &Arc<Node>, write: bool) -> Result<Arc<OwnedFd>> {
        if let Some(file) = self.kept_data(node) {
            return Ok(file);
        }
        if node.file_type != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let path = self.path(node)?;
        match reopen(&path, OFlags::RDWR) {
            Ok(file) => {
                let file = Arc::new(self.noticed_as_wished(file));
                node.state.lock().begin_use().data = Some(file.clone());
                self.cache.noted(node);
                Ok(file)
            }
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
                let file = reopen(&path, if write { OFlags::WRONLY } else { OFlags::RDONLY })?;
                Ok(Arc::new(self.noticed_as_wished(file)))
            }
            Err(error) => Err(error),
        }
    }

    /// Stats an object by descriptor if it has one, else by name in its directory.
    pub(crate) fn stat(&self, node: &Arc<Node>) -> Result<Stat> {
        let (descriptor, link, ghost) = {
            let state = node.state.lock();
            let in_use = state.in_use();
            let descriptor = in_use.path.clone().or_else(|| in_use.data.clone());
            (descriptor, state.links.first().cloned(), in_use.ghost.as_deref().copied())
        };
        let mut stat = match (descriptor, link) {
            (Some(descriptor), _) => Stat::at(descriptor, b"")?,
            (None, Some(Link { parent, name })) => Stat::at(self.path(&parent)?, name.as_bytes())?,
            (None, None) => return ghost.ok_or(Errno::STALE),
        };
        if self.side == Side::Primary && stat.id.ino != node.id.ino {
            return Err(Errno::STALE);
        }
        stat.id = node.id;
        Ok(stat)
    }

    /// An extended attribute of an object: by descriptor if it has one, else by name in its directory. Who lists a tree with
    /// attributes asks for one of each object, and opening all of them would cost more than the answers.
    pub(crate) fn xattr(&self, node: &Arc<Node>, name: &[u8]) -> Result<Vec<u8>> {
        let (descriptor, link) = {
            let state = node.state.lock();
            let in_use = state.in_use();
            (in_use.path.clone().or_else(|| in_use.data.clone()), state.links.first().cloned())
        };
        match (descriptor, link) {
            (None, Some(link)) => xattr::get_in(self.path(&link.parent)?, link.name.as_bytes(), name),
            (Some(descriptor), _) => xattr::get(descriptor, name),
            (None, None) => Err(Errno::STALE),
        }
    }

    /// The target of a symbolic link.
    pub(crate) fn link_target(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        let path = self.path(node)?;
        Ok(rustix::fs::readlinkat(path, c"", Vec::new())?.into_bytes())
    }
}

/// The number of the mount that a file, or with no path the descriptor, is reached through.
pub(crate) fn mount_of(directory: impl AsFd, path: &Path) -> Result<u64> {
    /// `STATX_MNT_ID_UNIQUE`
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let stat = rustix::fs::statx(directory, path, AtFlags::EMPTY_PATH, UNIQUE)?;
    Ok(if stat.stx_mask & UNIQUE.bits() == 0 { 0 } else { stat.stx_mnt_id })
}

fn cached_path(node: &Node) -> Option<Arc<OwnedFd>> {
    node.state.lock().in_use().path.clone()
}

/// Opens what an `O_PATH` descriptor stands for.
pub(crate) fn reopen(path: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, proc_path(path.as_fd()), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// Opens the directory that an `O_PATH` descriptor stands for, for reading.
pub(crate) fn open_directory(path: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(path, c".", flags, Mode::empty()) {
        // one that may be read and not searched, or that has been removed
        Err(Errno::ACCESS | Errno::NOENT) => reopen(path, OFlags::RDONLY | OFlags::DIRECTORY),
        opened => opened,
    }
}

/// How many descriptors may be cached: two fifths of the limit, for open files of the applications need the rest.
fn descriptor_budget() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit).unwrap_or(1 << 20).clamp(64, 1 << 16) * 2 / 5
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn who_is_known_as_being_in_itself_has_no_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = File::open(directory.path()).expect("opened");
        let volume = Volume::primary(root.into()).expect("a volume");
        let node = |ino| volume.nodes.intern(FileId { ino, generation: 1 }, FileType::Directory, 1);
        let name = Name::new(b"name").expect("a name");
        let within = node(1_000);
        // a tail of 100, and a ring of 7
        for ino in 1_000..1_107_u64 {
            let parent = if ino < 1_106 { ino + 1 } else { 1_100 };
            node(ino).add_link(&node(parent), &name);
        }
        assert_eq!(volume.place(&within).err(), Some(Errno::STALE));
        assert_eq!(volume.path(&within).err(), Some(Errno::STALE));
        let deep = node(2_000);
        deep.add_link(&volume.root, &name);
        assert!(volume.place(&deep).is_ok_and(|place| place == directory.path().join("name")));
    }
}
