//! A replica that is opened again: which of its objects is which of the primary's, and what nobody knows.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reelfs_journal::{Change, FileId, FileTime, Name};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Result;

use crate::apply::only_mtime;
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::{Volume, open_directory};

/// An object as it was found in a replica.
#[derive(Debug)]
pub struct Found<'a> {
    /// Relative to the root.
    pub path: &'a Path,
    /// As it stands; its id is the replica's own.
    pub stat: Stat,
}

/// What was found beside the objects that somebody knows.
#[derive(Debug, Default)]
pub struct Recalled {
    /// The parking directory of a bracket is there.
    pub(crate) parking: Option<Arc<Node>>,
    pub(crate) strangers: Vec<Stranger>,
    /// Objects of the primary that were found.
    pub files: HashSet<FileId>,
}

/// An object that nobody knows.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: Name,
    pub(crate) is_directory: bool,
    path: PathBuf,
}

impl Recalled {
    /// Paths of what nobody knows, relative to the root; what lies in the parking directory is not told.
    pub fn strangers(&self) -> impl Iterator<Item = &Path> {
        let parked =
            |stranger: &&Stranger| !self.parking.as_ref().is_some_and(|parking| Arc::ptr_eq(parking, &stranger.parent));
        self.strangers.iter().filter(parked).map(|stranger| stranger.path.as_path())
    }
}

/// A directory on the way through the replica.
struct Entered {
    node: Arc<Node>,
    path: PathBuf,
}

impl Volume {
    /// The id that an object has on the replica's own file system.
    ///
    /// # Errors
    /// `ESTALE` for an object that is not known, `EOPNOTSUPP` when the file system gives no file handles.
    pub fn own_id(&self, file: FileId) -> Result<FileId> {
        let path = self.path(&self.node(file)?)?;
        Ok(Stat::identified(&*path, b"")?.id)
    }

    /// Change time of the root directory, after everything that was done so far: the root is touched for it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn stamp(&self) -> Result<FileTime> {
        let mtime = self.stat(&self.root)?.mtime;
        self.set_root_mtime(mtime)?;
        Ok(self.stat(&self.root)?.ctime)
    }

    /// Modification time of the root directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn root_mtime(&self) -> Result<FileTime> {
        Ok(self.stat(&self.root)?.mtime)
    }

    /// Sets it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_root_mtime(&self, mtime: FileTime) -> Result<()> {
        rustix::fs::utimensat(&*self.path(&self.root)?, c"", &only_mtime(mtime), AtFlags::EMPTY_PATH)
    }

    /// Goes through a replica; `which` says which object of the primary one is, by the id that it has here. `scratch` is the
    /// parking directory of brackets.
    ///
    /// # Errors
    /// What the file system says.
    pub fn recall(&self, scratch: &Name, which: &mut dyn FnMut(&Found<'_>) -> Option<FileId>) -> Result<Recalled> {
        let mut recalled = Recalled::default();
        let root = Found { path: Path::new(""), stat: self.stat(&self.root)? };
        which(&root);
        let mut entered = vec![Entered { node: self.root.clone(), path: PathBuf::new() }];
        while let Some(at) = entered.pop() {
            let directory = self.path(&at.node)?;
            for entry in Dir::new(open_directory(&directory)?)? {
                let entry = entry?;
                let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                let path = at.path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
                let stat = Stat::identified(&*directory, name.as_bytes())?;
                if Arc::ptr_eq(&at.node, &self.root) && name == *scratch && stat.is_directory() {
                    let parking = unknown_directory(&at.node, &name);
                    recalled.parking = Some(parking.clone());
                    entered.push(Entered { node: parking, path });
                    continue;
                }
                let of_file_system = at.path.as_os_str().is_empty() && name.as_bytes() == b"lost+found";
                let node = match which(&Found { path: &path, stat }) {
                    None if of_file_system => continue,
                    Some(file) => {
                        let is_new = recalled.files.insert(file);
                        let node = self.nodes.intern(file, stat.file_type, 0);
                        node.add_link(&at.node, &name);
                        if !is_new {
                            continue;
                        }
                        node
                    }
                    None => {
                        let is_directory = stat.is_directory();
                        let stranger = Stranger { parent: at.node.clone(), name: name.clone(), is_directory, path };
                        recalled.strangers.push(stranger);
                        let path = at.path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
                        if is_directory {
                            entered.push(Entered { node: unknown_directory(&at.node, &name), path });
                        }
                        continue;
                    }
                };
                if stat.is_directory() {
                    entered.push(Entered { node, path });
                }
            }
        }
        Ok(recalled)
    }

    /// Does a change again on a tree whose names stand already where the records lead: bytes and attributes, and the times of
    /// directories. Sizes become what the record says, so [`Volume::set_converging`] is on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn apply_again(&self, change: &Change<'_>) -> Result<u64> {
        let directory = |file: FileId, mtime: FileTime| match self.knows(file) || file == self.root_id() {
            true => self.set_mtime_of(file, mtime),
            false => Ok(()),
        };
        match change {
            Change::Create { parent, parent_mtime, .. }
            | Change::Link { parent, parent_mtime, .. }
            | Change::Unlink { parent, parent_mtime, .. } => directory(*parent, *parent_mtime)?,
            Change::Rename { parent, new_parent, parent_mtime, .. } => {
                directory(*parent, *parent_mtime)?;
                directory(*new_parent, *parent_mtime)?;
            }
            Change::Entry { file, attributes, xattrs, .. } if self.knows(*file) => {
                self.set_xattrs_exact(*file, xattrs)?;
                self.set_attributes(*file, attributes)?;
                self.set_xattrs_exact(*file, xattrs)?; // a new owner takes capabilities away
            }
            change => return self.apply(change),
        }
        Ok(0)
    }
}

/// A directory that is no object of the primary.
fn unknown_directory(parent: &Arc<Node>, name: &Name) -> Arc<Node> {
    let node = Node::new(FileId::NONE, FileType::Directory);
    node.add_link(parent, name);
    node
}
