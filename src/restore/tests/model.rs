//! A volume in memory, and what a tree on disk looks like beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use reelfs_journal::{Attributes, Change, FileId, FileTime, Name, NodeKind, RENAME_EXCHANGE, Xattr};

/// What stands at a path, in a form that compares well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub data: Vec<u8>,
    pub mode: u32,
    pub mtime: (i64, i64),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same object.
    pub same_as: Vec<u8>,
}

pub type Tree = BTreeMap<Vec<u8>, Seen>;

#[derive(Debug, Clone)]
pub struct Object {
    pub kind: NodeKind,
    pub attributes: Attributes,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub data: Vec<u8>,
    pub names: BTreeMap<Name, FileId>,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub root: FileId,
    pub objects: BTreeMap<FileId, Object>,
}

impl Model {
    pub fn new(root: FileId, attributes: Attributes) -> Model {
        let object = Object::new(NodeKind::Directory, attributes);
        Model { root, objects: BTreeMap::from([(root, object)]) }
    }

    pub fn directories(&self) -> Vec<FileId> {
        self.places().into_iter().map(|(_, _, file)| file).filter(|file| self.is_directory(*file)).collect()
    }

    pub fn is_directory(&self, file: FileId) -> bool {
        self.objects[&file].kind == NodeKind::Directory
    }

    /// Every name beneath the root, in order.
    pub fn places(&self) -> Vec<(FileId, Name, FileId)> {
        let (mut places, mut pending) = (Vec::new(), vec![self.root]);
        while let Some(parent) = pending.pop() {
            for (name, file) in &self.objects[&parent].names {
                places.push((parent, name.clone(), *file));
                if self.is_directory(*file) {
                    pending.push(*file);
                }
            }
        }
        places
    }

    pub fn is_below(&self, file: FileId, top: FileId) -> bool {
        let mut pending = vec![top];
        while let Some(at) = pending.pop() {
            if at == file {
                return true;
            }
            pending.extend(self.objects[&at].names.values().filter(|child| self.is_directory(**child)));
        }
        false
    }

    pub fn path(&self, file: FileId) -> Vec<Name> {
        let (mut path, mut at) = (Vec::new(), file);
        while at != self.root {
            let places = self.places();
            let (parent, name, _) = places.iter().find(|(_, _, child)| *child == at).expect("a path");
            path.push(name.clone());
            at = *parent;
        }
        path.reverse();
        path
    }

    fn object(&mut self, file: FileId) -> &mut Object {
        self.objects.get_mut(&file).expect("a known object")
    }

    fn touch(&mut self, file: FileId, mtime: FileTime) {
        self.object(file).attributes.mtime = mtime;
    }

    pub fn apply(&mut self, change: &Change<'_>) {
        match change.clone().into_owned() {
            Change::Write { file, offset, data, size, mtime } => {
                let (from, end) = (offset as usize, offset as usize + data.len());
                let bytes = &mut self.object(file).data;
                bytes.resize(bytes.len().max(end), 0);
                bytes[from..end].copy_from_slice(&data);
                assert_eq!(bytes.len() as u64, size, "the test's own size");
                self.touch(file, mtime);
            }
            Change::SetSize { file, size, mtime } => {
                self.object(file).data.resize(size as usize, 0);
                self.touch(file, mtime);
            }
            Change::Zero { file, offset, length, size, mtime } => {
                let bytes = &mut self.object(file).data;
                bytes.resize(size as usize, 0);
                let end = ((offset + length) as usize).min(bytes.len());
                bytes[(offset as usize).min(end)..end].fill(0);
                self.touch(file, mtime);
            }
            Change::Punch { file, offset, length, mtime } => {
                let bytes = &mut self.object(file).data;
                let end = ((offset + length) as usize).min(bytes.len());
                bytes[(offset as usize).min(end)..end].fill(0);
                self.touch(file, mtime);
            }
            Change::Create { parent, name, file, kind, attributes, parent_mtime, .. } => {
                self.objects.insert(file, Object::new(kind, attributes));
                self.object(parent).names.insert(name, file);
                self.touch(parent, parent_mtime);
            }
            Change::Link { file, parent, name, parent_mtime } => {
                self.object(parent).names.insert(name, file);
                self.touch(parent, parent_mtime);
            }
            Change::Unlink { parent, name, parent_mtime, .. } => {
                self.object(parent).names.remove(&name);
                self.touch(parent, parent_mtime);
            }
            Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, parent_mtime } => {
                self.object(parent).names.remove(&name);
                if flags & RENAME_EXCHANGE != 0 {
                    self.object(parent).names.insert(name, replaced);
                }
                self.object(new_parent).names.insert(new_name, file);
                self.touch(parent, parent_mtime);
                self.touch(new_parent, parent_mtime);
            }
            Change::SetAttr { file, attributes } => self.object(file).attributes = attributes,
            Change::SetXattr { file, xattr } => {
                self.object(file).xattrs.insert(xattr.name, xattr.value);
            }
            Change::RemoveXattr { file, name } => {
                self.object(file).xattrs.remove(&name);
            }
            _ => {}
        }
    }

    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut first: BTreeMap<FileId, Vec<u8>> = BTreeMap::new();
        let mut all: Vec<(Vec<u8>, FileId)> = vec![(Vec::new(), self.root)];
        let mut pending = vec![(Vec::new(), self.root)];
        while let Some((path, at)) = pending.pop() {
            for (name, file) in &self.objects[&at].names {
                let mut child = path.clone();
                child.push(b'/');
                child.extend_from_slice(name.as_bytes());
                if self.is_directory(*file) {
                    pending.push((child.clone(), *file));
                }
                all.push((child, *file));
            }
        }
        all.sort();
        for (path, file) in all {
            let same_as = first.entry(file).or_insert_with(|| path.clone()).clone();
            tree.insert(path, self.objects[&file].seen(same_as));
        }
        tree
    }
}

impl Object {
    fn new(kind: NodeKind, attributes: Attributes) -> Object {
        Object { kind, attributes, xattrs: BTreeMap::new(), data: Vec::new(), names: BTreeMap::new() }
    }

    pub fn xattr_list(&self) -> Vec<Xattr> {
        let pair = |(name, value): (&Vec<u8>, &Vec<u8>)| Xattr { name: name.clone(), value: value.clone() };
        self.xattrs.iter().map(pair).collect()
    }

    fn seen(&self, same_as: Vec<u8>) -> Seen {
        let (kind, data) = match &self.kind {
            NodeKind::File => ("file", self.data.clone()),
            NodeKind::Directory => ("directory", Vec::new()),
            NodeKind::Symlink(target) => ("symlink", target.clone()),
            _ => ("special", Vec::new()),
        };
        let mtime = self.attributes.mtime;
        let mode = if kind == "symlink" { 0o777 } else { self.attributes.mode };
        let xattrs = self.xattrs.clone();
        Seen { kind, data, mode, mtime: (mtime.seconds, mtime.nanos.into()), xattrs, same_as }
    }
}

/// The tree that stands in a directory.
pub fn tree_of(root: &Path) -> Tree {
    let mut paths: BTreeSet<Vec<u8>> = BTreeSet::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("walk");
        let relative = entry.path().strip_prefix(root).expect("beneath").as_os_str().as_bytes().to_vec();
        paths.insert(if relative.is_empty() { relative } else { [b"/", relative.as_slice()].concat() });
    }
    let (mut tree, mut first) = (Tree::new(), BTreeMap::new());
    for path in paths {
        let at = root.join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let metadata = at.symlink_metadata().expect("stat");
        let (kind, data) = match metadata.file_type() {
            kind if kind.is_file() => ("file", std::fs::read(&at).expect("read")),
            kind if kind.is_dir() => ("directory", Vec::new()),
            kind if kind.is_symlink() => {
                ("symlink", std::fs::read_link(&at).expect("link").as_os_str().as_bytes().to_vec())
            }
            _ => ("special", Vec::new()),
        };
        let same_as = first.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        let seen = Seen { kind, data, mode: metadata.mode() & 0o7777, mtime, xattrs: xattrs_of(&at), same_as };
        tree.insert(path, seen);
    }
    tree
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap_or(0);
    let mut xattrs = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value).expect("value");
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    xattrs
}

/// Where two trees differ, readable.
pub fn differences(wanted: &Tree, found: &Tree) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = wanted.keys().chain(found.keys()).collect();
    let differs = paths.into_iter().filter(|path| wanted.get(*path) != found.get(*path));
    differs
        .map(|path| {
            format!("{}: wanted {:?}, found {:?}", String::from_utf8_lossy(path), wanted.get(path), found.get(path))
        })
        .collect()
}
