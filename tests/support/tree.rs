//! A directory tree as it stands, for comparison: all that a restore must bring back, and nothing that it need not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Lines of a difference that are printed; the rest is counted.
const LINES_MAX: usize = 40;

/// An object of a tree. Not in it: atime, ctime, inode number, allocation, size of directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `f`, `d`, `l`, `p`, `s`, `c` or `b`.
    pub kind: char,
    /// Permission bits, suid, sgid, sticky.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Size in bytes, of files.
    pub size: u64,
    /// BLAKE3 of a file's bytes (holes are zeros), or a link's target.
    pub content: Vec<u8>,
    /// Of devices.
    pub rdev: u64,
    /// POSIX ACLs included.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Which object this is: the first path of it, in order. Equal for hard links only.
    pub same_as: PathBuf,
    /// How many names it has, of all but directories.
    pub links: u64,
}

/// A tree: every path below its root, and the root itself as "".
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Tree) -> bool {
        self.nodes == other.nodes
    }
}

impl Tree {
    /// Reads a tree as it stands.
    pub fn of(root: &Path) -> Tree {
        let mut tree = Tree { root: root.to_owned(), nodes: BTreeMap::new() };
        let mut first_of = BTreeMap::new();
        for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
            let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", root.display()));
            let path = entry.path().strip_prefix(root).expect("is below the root").to_owned();
            let node = Node::of(entry.path(), &path, &mut first_of);
            tree.nodes.insert(path, node);
        }
        tree
    }

    /// A tree that was never on a disk.
    pub fn from_nodes(name: &Path, nodes: BTreeMap<PathBuf, Node>) -> Tree {
        Tree { root: name.to_owned(), nodes }
    }

    /// The same tree without its times, for what was made twice.
    pub fn without_times(mut self) -> Tree {
        self.nodes.values_mut().for_each(|node| node.mtime = (0, 0));
        self
    }

    /// Its objects.
    pub fn nodes(&self) -> &BTreeMap<PathBuf, Node> {
        &self.nodes
    }

    /// The tree with the attributes that the root of another has.
    pub fn with_root_of(mut self, other: &Tree) -> Tree {
        self.nodes.extend(other.nodes.get(Path::new("")).map(|root| (PathBuf::new(), root.clone())));
        self
    }

    /// The tree without a path and all below it.
    pub fn without(mut self, path: &str) -> Tree {
        self.nodes.retain(|candidate, _| !candidate.starts_with(path));
        self
    }

    /// Differences in words, one a line; none when they are equal.
    pub fn differences(&self, other: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, node) in &self.nodes {
            match other.nodes.get(path) {
                None => lines.push(format!("- {} {}", node.kind, show(path))),
                Some(counterpart) if node != counterpart => {
                    lines.push(format!(
                        "M {} {}:{}",
                        node.kind,
                        show(path),
                        self.detail(path, node, other, counterpart)
                    ));
                }
                Some(_) => {}
            }
        }
        let added = other.nodes.iter().filter(|(path, _)| !self.nodes.contains_key(*path));
        lines.extend(added.map(|(path, node)| format!("+ {} {}", node.kind, show(path))));
        lines
    }

    fn detail(&self, path: &Path, one: &Node, other: &Tree, two: &Node) -> String {
        let mut text = String::new();
        let mut say = |what: &str, left: String, right: String| {
            if left != right {
                write!(text, " {what} {left} / {right},").expect("a string takes it");
            }
        };
        say("type", one.kind.to_string(), two.kind.to_string());
        say("mode", format!("{:o}", one.mode), format!("{:o}", two.mode));
        say("owner", format!("{:?}", one.owner), format!("{:?}", two.owner));
        say("mtime", format!("{}.{:09}", one.mtime.0, one.mtime.1), format!("{}.{:09}", two.mtime.0, two.mtime.1));
        say("size", one.size.to_string(), two.size.to_string());
        say("rdev", format!("{:x}", one.rdev), format!("{:x}", two.rdev));
        say("links", one.links.to_string(), two.links.to_string());
        say("same as", show(&one.same_as), show(&two.same_as));
        say("xattrs", show_xattrs(&one.xattrs), show_xattrs(&two.xattrs));
        if one.content != two.content {
            if one.kind == 'l' {
                say(
                    "target",
                    show(Path::new(OsStr::from_bytes(&one.content))),
                    show(Path::new(OsStr::from_bytes(&two.content))),
                );
            } else if (one.kind, two.kind) == ('f', 'f') {
                let place = first_difference(&self.root.join(path), &other.root.join(path));
                say("bytes", place, "other".to_owned());
            }
        }
        text.trim_end_matches(',').to_owned()
    }

    /// `Err` with the differences in words unless both trees are equal.
    pub fn same(&self, other: &Tree, what: &str) -> Result<(), String> {
        let lines = self.differences(other);
        if lines.is_empty() {
            return Ok(());
        }
        let shown = lines.iter().take(LINES_MAX).cloned().collect::<Vec<_>>().join("\n  ");
        let (one, two) = (self.root.display(), other.root.display());
        Err(format!("{what}: {} differences (- + M, first {one} / then {two}):\n  {shown}", lines.len()))
    }

    /// Fails unless both trees are equal, and says how they differ.
    #[track_caller]
    pub fn assert_same(&self, other: &Tree, what: &str) {
        if let Err(differences) = self.same(other, what) {
            panic!("{differences}");
        }
    }
}

impl Node {
    fn of(path: &Path, name: &Path, first_of: &mut BTreeMap<(u64, u64), PathBuf>) -> Node {
        let complain = |error: std::io::Error| -> ! { panic!("{}: {error}", path.display()) };
        let meta = fs::symlink_metadata(path).unwrap_or_else(|error| complain(error));
        let file_type = meta.file_type();
        let kind = match () {
            () if file_type.is_file() => 'f',
            () if file_type.is_dir() => 'd',
            () if file_type.is_symlink() => 'l',
            () if file_type.is_fifo() => 'p',
            () if file_type.is_socket() => 's',
            () if file_type.is_char_device() => 'c',
            () => 'b',
        };
        let content = match kind {
            'f' => digest(path).unwrap_or_else(|error| complain(error)),
            'l' => fs::read_link(path).unwrap_or_else(|error| complain(error)).as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        Node {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            size: if kind == 'f' { meta.size() } else { 0 },
            content,
            rdev: if matches!(kind, 'c' | 'b') { meta.rdev() } else { 0 },
            xattrs: xattrs(path),
            same_as: first_of.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_owned()).clone(),
            links: if kind == 'd' { 0 } else { meta.nlink() },
        }
    }
}

fn digest(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hasher.finalize().as_bytes().to_vec());
        }
        hasher.update(&buffer[..length]);
    }
}

/// Extended attributes of the object itself, never of what a link leads to.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        if let Ok(length) = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            value.truncate(length);
            found.insert(name.to_vec(), value);
        }
    }
    found
}

fn show(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

fn show_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let pairs = xattrs.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(" "))
}

/// Where two files part, when both can still be read.
fn first_difference(one: &Path, two: &Path) -> String {
    let (Ok(left), Ok(right)) = (fs::read(one), fs::read(two)) else {
        return "differ".to_owned();
    };
    let place = left.iter().zip(&right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len()));
    let differing = left.iter().zip(&right).filter(|(a, b)| a != b).count();
    let some = |bytes: &[u8]| bytes[place.min(bytes.len())..(place + 8).min(bytes.len())].escape_ascii().to_string();
    format!("from {place} ({differing} bytes: \"{}\" and \"{}\")", some(&left), some(&right))
}
