//! Walking a live volume for a base copy: every object that lives at the end was told, whatever moves meanwhile.
//!
//! A name and what it stands for are read together under the names lock, one entry at a time, so no name operation waits
//! for more than one entry. An object that moves from a directory not yet listed into one that was listed would be
//! missed; so whatever moves while a walk runs is also told by itself.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use reelfs_journal::{FileId, Name, NodeKind, Xattr};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Primary;
use super::known::Known;
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::{open_directory, reopen};
use crate::xattr;

/// Objects that moved while a walk runs.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    pub(super) active: AtomicBool,
    moved: Mutex<Vec<Arc<Node>>>,
}

impl Announcements {
    /// Notes an object about to move or to get a further name; under the names lock.
    pub(super) fn moved(&self, node: &Arc<Node>) {
        if self.active.load(Ordering::SeqCst) {
            node.state.lock().lookups.add(1);
            self.moved.lock().push(node.clone());
        }
    }

    /// One that has moved.
    pub(super) fn next_moved<'p>(&self, primary: &'p Primary) -> Option<Known<'p>> {
        self.moved.lock().pop().map(|node| Known::counted(primary, node))
    }
}

/// An object met on the way.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Its directory; [`FileId::NONE`] for the root and for an object told because it moved.
    pub parent: FileId,
    /// Its path beneath the root as it was when its directory was listed; empty for the root.
    pub path: &'a [Name],
    /// Its state.
    pub stat: Stat,
    /// What it is.
    pub kind: NodeKind,
    /// All that it has.
    pub xattrs: Vec<Xattr>,
    /// A regular file met for the first time, open for reading; a further name of it has none.
    pub file: Option<OwnedFd>,
    /// The object was told before: this is a further name.
    pub again: bool,
}

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
pub enum WalkError<E> {
    /// An object could not be read.
    #[error("`{path}`: {source}")]
    Read {
        /// Where, beneath the root.
        path: String,
        /// What the file system said.
        source: Errno,
    },
    /// The visitor did not want to go on.
    #[error(transparent)]
    Visit(E),
}

/// Switches announcements off however the walk ends, and lets go of what they held.
pub(super) struct Active<'p>(pub(super) &'p Primary);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.walk.active.store(false, Ordering::SeqCst);
        let left = std::mem::take(&mut *self.0.walk.moved.lock());
        left.into_iter().for_each(|node| drop(Known::counted(self.0, node)));
    }
}

struct Walk<'p, 'v, E> {
    primary: &'p Primary,
    visit: &'v mut dyn FnMut(Visit<'_>) -> std::result::Result<(), E>,
    seen: HashSet<FileId>,
    queue: VecDeque<(Known<'p>, Vec<Name>)>,
}

impl Primary {
    /// Tells every object to `visit`, the root first, directories before what is in them, while the volume is in use.
    ///
    /// # Errors
    /// The first object that cannot be read, or what `visit` says.
    pub fn walk<E>(
        &self,
        visit: &mut dyn FnMut(Visit<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), WalkError<E>> {
        self.walk.active.store(true, Ordering::SeqCst);
        let _active = Active(self);
        // whoever took the names lock before now did not announce; wait for them
        drop(self.names.write());
        let mut walk = Walk { primary: self, visit, seen: HashSet::new(), queue: VecDeque::new() };
        walk.tell(Known::more(self, self.volume.root.clone()), FileId::NONE, &[])?;
        loop {
            if let Some((directory, path)) = walk.queue.pop_front() {
                walk.list(&directory, &path)?;
                continue;
            }
            let Some(node) = self.walk.next_moved(self) else { return Ok(()) };
            walk.tell_moved(node)?;
        }
    }
}

impl<'p, E> Walk<'p, '_, E> {
    fn list(&mut self, directory: &Arc<Node>, path: &[Name]) -> std::result::Result<(), WalkError<E>> {
        let opened = {
            let _names = self.primary.names.read();
            self.primary.volume.path(directory).and_then(|fd| open_directory(&fd))
        };
        let listing = match opened {
            Ok(listing) => listing,
            Err(Errno::STALE | Errno::NOENT) => return Ok(()), // removed since
            Err(source) => return Err(read_error(path, source)),
        };
        for entry in Dir::read_from(&listing).map_err(|source| read_error(path, source))? {
            let entry = entry.map_err(|source| read_error(path, source))?;
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else {
                continue;
            };
            let found = {
                let _names = self.primary.names.read();
                self.primary.find(directory, &name, 1).map(|(node, _)| node)
            };
            let child: Vec<Name> = path.iter().cloned().chain([name]).collect();
            match found {
                Ok(node) => self.tell(Known::counted(self.primary, node), directory.id, &child)?,
                Err(Errno::NOENT | Errno::STALE) => {}
                Err(Errno::XDEV) => {
                    tracing::warn!(path = %shown(&child), "another file system is not part of the volume")
                }
                Err(source) => return Err(read_error(&child, source)),
            }
        }
        Ok(())
    }

    fn tell_moved(&mut self, node: Known<'p>) -> std::result::Result<(), WalkError<E>> {
        if self.seen.contains(&node.id) || node.state.lock().nameless {
            return Ok(());
        }
        let Ok(name) = Name::new(format!(".moved-{}", node.id).as_bytes()) else {
            return Ok(());
        };
        self.tell(node, FileId::NONE, &[name])
    }

    /// Tells one object; a directory told for the first time is queued.
    fn tell(&mut self, node: Known<'p>, parent: FileId, path: &[Name]) -> std::result::Result<(), WalkError<E>> {
        let again = !self.seen.insert(node.id);
        let visit = match self.look(&node, parent, path, again) {
            Ok(visit) => visit,
            Err(Errno::NOENT | Errno::STALE) => {
                // gone since it was found; should it come back under another name, it moved and is told again
                self.seen.remove(&node.id);
                return Ok(());
            }
            Err(source) => return Err(read_error(path, source)),
        };
        (self.visit)(visit).map_err(WalkError::Visit)?;
        if node.is_directory() && !again {
            self.queue.push_back((node, path.to_vec()));
        }
        Ok(())
    }

    fn look<'a>(&self, node: &Arc<Node>, parent: FileId, path: &'a [Name], again: bool) -> Result<Visit<'a>> {
        let _names = self.primary.names.read();
        let volume = &self.primary.volume;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // not through the cache of descriptors: a walk must not push out what the applications use
        let link = node.state.lock().links.first().cloned();
        let object = match link {
            Some(link) => rustix::fs::openat(volume.path(&link.parent)?, link.name.as_bytes(), flags, Mode::empty())?,
            None => reopen(volume.path(node)?, OFlags::PATH)?,
        };
        let stat = Stat::at(&object, b"")?;
        if stat.id.ino != node.id.ino {
            return Err(Errno::STALE);
        }
        let kind = stat.node_kind(|| Ok(rustix::fs::readlinkat(&object, c"", Vec::new())?.into_bytes()))?;
        let xattrs = xattr::all(&object)?;
        let file = match (again, stat.file_type) {
            (false, FileType::RegularFile) => Some(reopen(&object, OFlags::RDONLY)?),
            _ => None,
        };
        Ok(Visit { parent, path, stat: Stat { id: node.id, ..stat }, kind, xattrs, file, again })
    }
}

fn shown(path: &[Name]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
}

fn read_error<E>(path: &[Name], source: Errno) -> WalkError<E> {
    WalkError::Read { path: shown(path), source }
}
