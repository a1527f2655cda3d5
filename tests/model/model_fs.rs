//! A file system in a `BTreeMap`: what every step must do, said as simply as it can be.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Answer;
use super::step::{Seen, Step, split};
use crate::support::tree::{Node, Tree};

const ROOT: u64 = 1;
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;

#[derive(Debug, Clone)]
enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, u64>),
    Symlink(Vec<u8>),
    Special(char),
}

#[derive(Debug, Clone)]
struct Inode {
    body: Body,
    mode: u32,
    owner: (u32, u32),
    /// `None`: set by the clock, which a model does not know; learned from the real thing.
    mtime: Option<(i64, i64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    links: u64,
    handles: u64,
}

/// The model. The caller of every step is `owner`, without a umask.
#[derive(Debug, Clone)]
pub struct ModelFs {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    owner: (u32, u32),
    handles: Vec<u64>,
}

impl ModelFs {
    /// An empty root directory with these attributes.
    pub fn new(root: &Node, owner: (u32, u32)) -> ModelFs {
        let mut model = ModelFs { inodes: BTreeMap::new(), next: ROOT, owner, handles: Vec::new() };
        let id = model.make(Body::Directory(BTreeMap::new()), root.mode, root.owner);
        let inode = model.inode_mut(id);
        (inode.mtime, inode.xattrs) = (Some(root.mtime), root.xattrs.clone());
        model
    }

    fn make(&mut self, body: Body, mode: u32, owner: (u32, u32)) -> u64 {
        let id = self.next;
        self.next += 1;
        self.inodes.insert(id, Inode { body, mode, owner, mtime: None, xattrs: BTreeMap::new(), links: 1, handles: 0 });
        id
    }

    fn inode(&self, id: u64) -> &Inode {
        &self.inodes[&id]
    }

    fn inode_mut(&mut self, id: u64) -> &mut Inode {
        self.inodes.get_mut(&id).expect("the model holds together")
    }

    fn entries(&self, id: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match &self.inode(id).body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, id: u64) -> &mut BTreeMap<OsString, u64> {
        let inode = self.inode_mut(id);
        inode.mtime = None;
        match &mut inode.body {
            Body::Directory(entries) => entries,
            _ => panic!("{id} is not a directory"),
        }
    }

    fn is_directory(&self, id: u64) -> bool {
        matches!(self.inode(id).body, Body::Directory(_))
    }

    fn find(&self, path: &Path) -> Result<u64, Errno> {
        path.components()
            .try_fold(ROOT, |id, part| self.entries(id)?.get(part.as_os_str()).copied().ok_or(Errno::NOENT))
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(u64, &'p OsStr), Errno> {
        let (parent, name) = split(path);
        Ok((self.find(parent)?, name))
    }

    /// Plays a step.
    pub fn play(&mut self, step: &Step) -> Answer {
        match step {
            Step::Create { path, mode } => self.create(path, Body::File(Vec::new()), *mode),
            Step::Mkdir { path, mode } => self.create(path, Body::Directory(BTreeMap::new()), *mode),
            Step::Symlink { path, target } => self.create(path, Body::Symlink(target.clone()), 0o777),
            Step::Mknod { path, kind, mode } => self.create(path, Body::Special(*kind), *mode),
            Step::Link { from, to } => self.link(from, to),
            Step::Unlink { path } => self.remove(path, false),
            Step::Rmdir { path } => self.remove(path, true),
            Step::Rename { from, to, flags } => self.rename(from, to, *flags),
            Step::Write { path, offset, bytes } => self.find(path).map(|id| self.write(id, *offset, bytes)),
            Step::SetSize { path, size } => self.find(path).map(|id| self.set_size(id, *size)),
            Step::Allocate { path, mode, offset, length } => {
                self.find(path).map(|id| self.allocate(id, *mode, *offset, *length))
            }
            Step::Copy { from, from_offset, to, to_offset, length } => {
                let (source, target) = (self.find(from)?, self.find(to)?);
                let bytes = self.bytes(source);
                let begin = bytes.len().min(*from_offset as usize);
                let copied = bytes[begin..bytes.len().min(begin + *length as usize)].to_vec();
                Ok(if copied.is_empty() { 0 } else { self.write(target, *to_offset, &copied) })
            }
            Step::WriteOpen { handle, offset, bytes } => Ok(self.write(self.handles[*handle], *offset, bytes)),
            Step::SizeOpen { handle, size } => Ok(self.set_size(self.handles[*handle], *size)),
            Step::Open { path } => {
                let id = self.find(path)?;
                self.inode_mut(id).handles += 1;
                self.handles.push(id);
                Ok(0)
            }
            Step::Close { handle } => {
                let id = self.handles.remove(*handle);
                self.inode_mut(id).handles -= 1;
                self.drop_unused(id);
                Ok(0)
            }
            Step::Sync { path } => self.find(path).map(|_| 0),
            _ => self.set_attribute(step),
        }
    }

    fn create(&mut self, path: &Path, body: Body, mode: u32) -> Answer {
        let (parent, name) = self.parent(path)?;
        if self.entries(parent)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let (sgid, group) = (self.inode(parent).mode & 0o2000, self.inode(parent).owner.1);
        let is_directory = matches!(body, Body::Directory(_));
        let inherited = if is_directory { sgid } else { 0 };
        let gid = if sgid == 0 { self.owner.1 } else { group };
        // mkdir(2) takes no suid and no sgid
        let mode = if is_directory { mode & 0o1777 } else { mode };
        let id = self.make(body, mode | inherited, (self.owner.0, gid));
        self.entries_mut(parent).insert(name.to_owned(), id);
        Ok(0)
    }

    fn link(&mut self, from: &Path, to: &Path) -> Answer {
        let id = self.find(from)?;
        let (parent, name) = self.parent(to)?;
        if self.entries(parent)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if self.is_directory(id) {
            return Err(Errno::PERM);
        }
        self.inode_mut(id).links += 1;
        self.entries_mut(parent).insert(name.to_owned(), id);
        Ok(0)
    }

    fn remove(&mut self, path: &Path, is_rmdir: bool) -> Answer {
        let (parent, name) = self.parent(path)?;
        let id = *self.entries(parent)?.get(name).ok_or(Errno::NOENT)?;
        match (is_rmdir, self.entries(id)) {
            (false, Ok(_)) => return Err(Errno::ISDIR),
            (true, Err(error)) => return Err(error),
            (true, Ok(entries)) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.entries_mut(parent).remove(name);
        self.inode_mut(id).links -= 1;
        self.drop_unused(id);
        Ok(0)
    }

    fn drop_unused(&mut self, id: u64) {
        if self.inode(id).links == 0 && self.inode(id).handles == 0 {
            self.inodes.remove(&id);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path, flags: u32) -> Answer {
        let ((old, old_name), (new, new_name)) = (self.parent(from)?, self.parent(to)?);
        let id = *self.entries(old)?.get(old_name).ok_or(Errno::NOENT)?;
        let target = self.entries(new)?.get(new_name).copied();
        match target {
            Some(_) if flags == NOREPLACE => return Err(Errno::EXIST),
            None if flags == EXCHANGE => return Err(Errno::NOENT),
            _ if to.starts_with(from) && to != from => return Err(Errno::INVAL),
            _ if from.starts_with(to) && to != from => {
                return Err(if flags == EXCHANGE { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            Some(target) if target == id => return Ok(0),
            Some(target) if flags != EXCHANGE => {
                match (self.entries(id), self.entries(target)) {
                    (Ok(_), Err(_)) => return Err(Errno::NOTDIR),
                    (Err(_), Ok(_)) => return Err(Errno::ISDIR),
                    (Ok(_), Ok(entries)) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
                self.inode_mut(target).links -= 1;
                self.drop_unused(target);
            }
            _ => {}
        }
        self.entries_mut(old).remove(old_name);
        self.entries_mut(new).insert(new_name.to_owned(), id);
        if let (EXCHANGE, Some(target)) = (flags, target) {
            self.entries_mut(old).insert(old_name.to_owned(), target);
        }
        Ok(0)
    }

    fn bytes(&self, id: u64) -> &[u8] {
        match &self.inode(id).body {
            Body::File(bytes) => bytes,
            _ => &[],
        }
    }

    fn change_bytes(&mut self, id: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let inode = self.inode_mut(id);
        inode.mtime = None;
        match &mut inode.body {
            Body::File(bytes) => change(bytes),
            _ => panic!("{id} is not a file"),
        }
    }

    fn write(&mut self, id: u64, offset: u64, new: &[u8]) -> u64 {
        let (begin, end) = (offset as usize, offset as usize + new.len());
        self.change_bytes(id, |bytes| {
            bytes.resize(bytes.len().max(end), 0);
            bytes[begin..end].copy_from_slice(new);
        });
        new.len() as u64
    }

    fn set_size(&mut self, id: u64, size: u64) -> u64 {
        self.change_bytes(id, |bytes| bytes.resize(size as usize, 0));
        0
    }

    fn allocate(&mut self, id: u64, mode: i32, offset: u64, length: u64) -> u64 {
        let (begin, end) = (offset as usize, (offset + length) as usize);
        let (keeps_size, makes_zeros) = (mode & 1 != 0, mode & !1 != 0);
        self.change_bytes(id, |bytes| {
            if !keeps_size {
                bytes.resize(bytes.len().max(end), 0);
            }
            if makes_zeros && begin < bytes.len() {
                let end = end.min(bytes.len());
                bytes[begin..end].fill(0);
            }
        });
        0
    }

    fn set_attribute(&mut self, step: &Step) -> Answer {
        let (Step::Chmod { path, .. }
        | Step::Chown { path, .. }
        | Step::Touch { path, .. }
        | Step::SetXattr { path, .. }
        | Step::RemoveXattr { path, .. }) = step
        else {
            panic!("{step:?} sets no attribute")
        };
        let id = self.find(path)?;
        let is_directory = self.is_directory(id);
        let inode = self.inode_mut(id);
        match step {
            Step::Chmod { mode, .. } => inode.mode = *mode,
            Step::Chown { uid, gid, .. } => {
                inode.owner = (*uid, *gid);
                let sgid = if inode.mode & 0o10 == 0 { 0 } else { 0o2000 };
                inode.mode &= if is_directory { 0o7777 } else { !(0o4000 | sgid) };
            }
            Step::Touch { mtime, .. } => inode.mtime = Some(*mtime),
            Step::SetXattr { name, value, flags, .. } => match (inode.xattrs.contains_key(name.as_bytes()), flags) {
                (true, 1) => return Err(Errno::EXIST),
                (false, 2) => return Err(Errno::NODATA),
                _ => drop(inode.xattrs.insert(name.as_bytes().to_vec(), value.clone())),
            },
            Step::RemoveXattr { name, .. } => {
                inode.xattrs.remove(name.as_bytes()).ok_or(Errno::NODATA)?;
            }
            _ => {}
        }
        Ok(0)
    }

    /// Every path with its inode, the root first, in order.
    fn walk(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::from([(PathBuf::new(), ROOT)]);
        let mut queue = vec![(PathBuf::new(), ROOT)];
        while let Some((path, id)) = queue.pop() {
            for (name, &child) in self.entries(id).into_iter().flatten() {
                let path = path.join(name);
                found.insert(path.clone(), child);
                if self.is_directory(child) {
                    queue.push((path, child));
                }
            }
        }
        found
    }

    /// What a step can be about.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen { handles: self.handles.len(), ..Seen::default() };
        for (path, id) in self.walk() {
            match self.inode(id).body {
                Body::Directory(_) => seen.directories.push(path),
                Body::File(_) => seen.files.push(path),
                _ => seen.others.push(path),
            }
        }
        seen
    }

    /// The model's tree, to be compared with `real`; times that only the clock knows are taken from there, and kept.
    pub fn tree(&mut self, real: &Tree) -> Tree {
        let walk = self.walk();
        let mut first_of: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for (path, id) in walk {
            let same_as = first_of.entry(id).or_insert_with(|| path.clone()).clone();
            let inode = self.inode_mut(id);
            inode.mtime = inode.mtime.or_else(|| real.nodes().get(&path).map(|node| node.mtime));
            let (kind, size, content) = match &inode.body {
                Body::File(bytes) => ('f', bytes.len() as u64, blake3::hash(bytes).as_bytes().to_vec()),
                Body::Directory(_) => ('d', 0, Vec::new()),
                Body::Symlink(target) => ('l', 0, target.clone()),
                Body::Special(kind) => (*kind, 0, Vec::new()),
            };
            let node = Node {
                kind,
                mode: inode.mode,
                owner: inode.owner,
                mtime: inode.mtime.unwrap_or_default(),
                size,
                content,
                rdev: if kind == 'c' { DEVICE } else { 0 },
                xattrs: inode.xattrs.clone(),
                same_as,
                links: if kind == 'd' { 0 } else { inode.links },
            };
            nodes.insert(path, node);
        }
        Tree::from_nodes(Path::new("the model"), nodes)
    }
}

/// The device number of every character device that a step makes: `/dev/null`.
pub const DEVICE: u64 = 0x103;
