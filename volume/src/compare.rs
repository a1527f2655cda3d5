//! Comparing two directory trees: is the replica the primary's twin?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::stat::Stat;
use crate::xattr;

/// What differs at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Relative to both roots, empty for the roots themselves.
    pub path: PathBuf,
    /// What, with both values.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// One object as a twin must have it.
struct Object {
    stat: Stat,
    target: Option<Vec<u8>>,
    xattrs: Vec<reelfs_journal::Xattr>,
}

/// Compares names, types, bytes (holes as zeros), mode, owner, modification time to the nanosecond, extended attributes,
/// ACLs, hard-link structure, link targets and device numbers. Access and change times, inode numbers and block
/// allocation are not replicated and not compared.
///
/// # Errors
/// When one of the trees cannot be read.
pub fn trees(left: &Path, right: &Path) -> io::Result<Vec<Difference>> {
    let (a, b) = (scan(left)?, scan(right)?);
    let mut differences = Vec::new();
    let paths: BTreeSet<&PathBuf> = a.keys().chain(b.keys()).collect();
    for path in paths {
        match (a.get(path), b.get(path)) {
            (Some(one), Some(other)) => {
                let mut what = compare_objects(one, other);
                let regular = one.stat.file_type == FileType::RegularFile;
                if regular && what.is_empty() {
                    what.extend(compare_bytes(&left.join(path), &right.join(path))?);
                }
                differences.extend(what.into_iter().map(|what| Difference { path: path.clone(), what }));
            }
            (one, _) => {
                let what = if one.is_some() { "only on the left" } else { "only on the right" };
                differences.push(Difference { path: path.clone(), what: what.to_owned() });
            }
        }
    }
    differences.extend(compare_links(&a, &b));
    Ok(differences)
}

fn scan(root: &Path) -> io::Result<BTreeMap<PathBuf, Object>> {
    let mut objects = BTreeMap::new();
    let mut queue = vec![PathBuf::new()];
    while let Some(path) = queue.pop() {
        let full = root.join(&path);
        let descriptor = rustix::fs::open(&full, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = Stat::at(descriptor.as_fd(), b"")?;
        let target = match stat.file_type {
            FileType::Symlink => Some(rustix::fs::readlinkat(CWD, &full, Vec::new())?.into_bytes()),
            _ => None,
        };
        if stat.is_directory() {
            for entry in std::fs::read_dir(&full)? {
                queue.push(path.join(entry?.file_name()));
            }
        }
        let xattrs = xattr::all(descriptor.as_fd())?;
        objects.insert(path, Object { stat, target, xattrs });
    }
    Ok(objects)
}

fn compare_objects(a: &Object, b: &Object) -> Vec<String> {
    let mut what = Vec::new();
    let (x, y) = (&a.stat, &b.stat);
    if x.file_type != y.file_type {
        return vec![format!("type {:?} and {:?}", x.file_type, y.file_type)];
    }
    if x.mode != y.mode {
        what.push(format!("mode {:04o} and {:04o}", x.mode, y.mode));
    }
    if (x.uid, x.gid) != (y.uid, y.gid) {
        what.push(format!("owner {}:{} and {}:{}", x.uid, x.gid, y.uid, y.gid));
    }
    if x.mtime != y.mtime {
        what.push(format!("mtime {} and {}", x.mtime, y.mtime));
    }
    if x.device != y.device {
        what.push("device number".to_owned());
    }
    if x.file_type == FileType::RegularFile && x.size != y.size {
        what.push(format!("size {} and {}", x.size, y.size));
    }
    if a.target != b.target {
        what.push("link target".to_owned());
    }
    if a.xattrs != b.xattrs {
        let names = |object: &Object| -> Vec<String> {
            object.xattrs.iter().map(|xattr| String::from_utf8_lossy(&xattr.name).into_owned()).collect()
        };
        what.push(format!("extended attributes {:?} and {:?}", names(a), names(b)));
    }
    what
}

fn compare_bytes(left: &Path, right: &Path) -> io::Result<Option<String>> {
    let (mut a, mut b) = (File::open(left)?, File::open(right)?);
    let (mut x, mut y) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    let mut offset = 0;
    loop {
        let count = a.read(&mut x)?;
        if count == 0 {
            return Ok(None);
        }
        b.read_exact(&mut y[..count])?;
        if let Some(at) = (0..count).find(|&at| x[at] != y[at]) {
            return Ok(Some(format!("bytes differ at offset {}", offset + at)));
        }
        offset += count;
    }
}

/// Hard links: the same paths must share an object on both sides.
fn compare_links(a: &BTreeMap<PathBuf, Object>, b: &BTreeMap<PathBuf, Object>) -> Vec<Difference> {
    let (x, y) = (shared(a), shared(b));
    let groups = x.iter().filter(|group| !y.contains(*group)).chain(y.iter().filter(|group| !x.contains(*group)));
    groups
        .map(|group| Difference { path: group[0].clone(), what: format!("hard links {group:?} on one side only") })
        .collect()
}

fn shared(objects: &BTreeMap<PathBuf, Object>) -> BTreeSet<Vec<PathBuf>> {
    let mut groups: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    for (path, object) in objects.iter().filter(|(_, object)| !object.stat.is_directory()) {
        groups.entry(object.stat.id.ino).or_default().push(path.clone());
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// One number for a whole tree, for progress lines and tables: objects, bytes.
///
/// # Errors
/// When the tree cannot be read.
pub fn totals(root: &Path) -> io::Result<(u64, u64)> {
    let objects = scan(root)?;
    let bytes = objects.values().filter(|object| object.stat.file_type == FileType::RegularFile);
    Ok((objects.len() as u64, bytes.map(|object| object.stat.size).sum()))
}
