//! Adoption and recovery on a replica: names change as a whole, from what the listings say, never one rename at a time.
//!
//! What leaves a listed directory is parked, so that it can turn up in another one; what is still parked at the end is
//! gone. Objects move only from the parking place or from a place that no listing speaks of, so no move can make a cycle
//! that the primary does not have.

mod redo;

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;

use reelfs_journal::{Attributes, Change, FileId, Name, NodeKind, Xattr};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};

pub use redo::Places;

use crate::apply::only_mtime;
use crate::links::Link;
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::{Volume, reopen};

/// An object's name and state inside a bracket.
struct Entry {
    parent: FileId,
    name: Name,
    file: FileId,
    kind: NodeKind,
    attributes: Attributes,
    xattrs: Vec<Xattr>,
}

/// An open bracket: takes its changes in order, ends with [`Bracket::end`].
pub struct Bracket<'v> {
    volume: &'v Volume,
    scratch: Name,
    parking: Arc<Node>,
    parked: u64,
    /// Entries told and not yet made true.
    entries: Vec<Entry>,
    /// Directories whose listing is complete.
    listed: HashSet<FileId>,
}

impl std::fmt::Debug for Bracket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bracket").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens a bracket on a replica; `scratch` is a name in the root that nothing else has.
    ///
    /// # Errors
    /// What making the parking directory says.
    pub fn bracket(&self, scratch: Name) -> Result<Bracket<'_>> {
        let root = self.path(&self.root)?;
        let before = self.stat(&self.root)?.mtime;
        rustix::fs::mkdirat(&*root, scratch.as_bytes(), Mode::from_raw_mode(0o700))?;
        rustix::fs::utimensat(&*root, c"", &only_mtime(before), AtFlags::EMPTY_PATH)?;
        let parking = Node::new(FileId::NONE, rustix::fs::FileType::Directory);
        parking.add_link(&self.root, &scratch);
        Ok(Bracket { volume: self, scratch, parking, parked: 0, entries: Vec::new(), listed: HashSet::new() })
    }
}

impl Bracket<'_> {
    /// Takes the next change of the bracket.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` when an entry's directory is never told.
    pub fn change(&mut self, change: &Change<'_>) -> Result<()> {
        match change {
            Change::ListBegin { .. } => Ok(()),
            Change::ListEnd { directory } => {
                self.listed.insert(*directory);
                Ok(())
            }
            Change::Entry { parent, name, file, kind, attributes, xattrs, .. } => {
                self.entries.push(Entry {
                    parent: *parent,
                    name: name.clone(),
                    file: *file,
                    kind: kind.clone(),
                    attributes: *attributes,
                    xattrs: xattrs.clone(),
                });
                Ok(())
            }
            Change::Marker { .. } | Change::Sync { .. } | Change::Active { .. } => Ok(()),
            _ => {
                self.settle_names()?;
                self.volume.apply(change).map(|_| ())
            }
        }
    }

    /// All of it is told once more, from the beginning: what was told and not made true yet was not whole.
    pub fn again(&mut self) {
        self.entries.clear();
        self.listed.clear();
    }

    /// Ends the bracket: what was parked and never turned up is gone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(mut self) -> Result<()> {
        self.settle_names()?;
        let volume = self.volume;
        let before = volume.stat(&volume.root)?.mtime;
        // looked at before anything changes: what lies in a directory that is gone goes by where that is parked
        let stays = |node: &Arc<Node>| -> Option<Vec<Link>> {
            let links = node.state.lock().links.clone();
            let stays: Vec<Link> =
                links.iter().filter(|link| !is_under(&link.parent, &self.parking)).cloned().collect();
            (stays.len() < links.len()).then_some(stays)
        };
        let changed: Vec<(Arc<Node>, Vec<Link>)> =
            volume.nodes.all().into_iter().filter_map(|node| stays(&node).map(|stays| (node, stays))).collect();
        for (node, stays) in changed {
            let mut state = node.state.lock();
            state.end_use(|in_use| (in_use.path, in_use.data) = (None, None));
            state.links = stays.into();
            if state.links.is_empty() {
                drop(state);
                volume.nodes.remove(node.id);
            }
        }
        let root = volume.path(&volume.root)?;
        remove_tree(&*root, self.scratch.as_bytes())?;
        rustix::fs::utimensat(&*root, c"", &only_mtime(before), AtFlags::EMPTY_PATH)
    }

    fn settle_names(&mut self) -> Result<()> {
        let entries = std::mem::take(&mut self.entries);
        let listed = std::mem::take(&mut self.listed);
        if entries.is_empty() && listed.is_empty() {
            return Ok(());
        }
        self.park(&entries, &listed)?;
        self.place(&entries)?;
        // attributes last, directories after what is in them
        let (directories, others): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| entry.kind == NodeKind::Directory);
        for entry in others.into_iter().chain(directories) {
            self.volume.set_xattrs_exact(entry.file, &entry.xattrs)?;
            self.volume.set_attributes(entry.file, &entry.attributes)?;
            self.volume.set_xattrs_exact(entry.file, &entry.xattrs)?; // a new owner takes capabilities away
        }
        Ok(())
    }

    /// Takes away every name that is not, or no longer for that object, in a listing; and whatever stands where a lone
    /// entry wants to be.
    fn park(&mut self, entries: &[Entry], listed: &HashSet<FileId>) -> Result<()> {
        let wanted: HashMap<(FileId, &Name), FileId> =
            entries.iter().map(|entry| ((entry.parent, &entry.name), entry.file)).collect();
        for node in self.volume.nodes.all() {
            let links = node.state.lock().links.clone();
            for link in links.iter() {
                let place = (link.parent.id, &link.name);
                let stays = match wanted.get(&place) {
                    Some(file) => *file == node.id,
                    None => !listed.contains(&link.parent.id),
                };
                if !stays && link.parent.id != FileId::NONE {
                    self.park_name(&node, &link.parent, &link.name)?;
                }
            }
        }
        Ok(())
    }

    fn park_name(&mut self, node: &Arc<Node>, parent: &Arc<Node>, name: &Name) -> Result<()> {
        self.parked += 1;
        let place = Name::new(self.parked.to_string().as_bytes()).map_err(|_| Errno::INVAL)?;
        let (from, parking) = (self.volume.path(parent)?, self.volume.path(&self.parking)?);
        rustix::fs::renameat(&*from, name.as_bytes(), &*parking, place.as_bytes())?;
        node.remove_link(parent, name);
        node.add_link(&self.parking, &place);
        Ok(())
    }

    /// Puts objects where the entries say, parents before children, again and again until nothing more can be done.
    fn place(&self, entries: &[Entry]) -> Result<()> {
        let mut left: Vec<&Entry> = entries.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            let mut later = Vec::new();
            for entry in left {
                if !self.place_one(entry)? {
                    later.push(entry);
                }
            }
            if later.len() == before {
                return Err(Errno::STALE);
            }
            left = later;
        }
        Ok(())
    }

    fn place_one(&self, entry: &Entry) -> Result<bool> {
        let volume = self.volume;
        if entry.parent == FileId::NONE {
            return Ok(true); // the root, or a nameless file
        }
        let Some(parent) = volume.nodes.get(entry.parent) else {
            return Ok(false);
        };
        let Some(node) = volume.nodes.get(entry.file) else {
            volume.make(entry.parent, &entry.name, entry.file, &entry.kind, &entry.attributes, &entry.xattrs)?;
            return Ok(true);
        };
        let links = node.state.lock().links.clone();
        if links.iter().any(|link| link.parent.id == entry.parent && link.name == entry.name) {
            return Ok(true);
        }
        let parked = links.iter().find(|link| Arc::ptr_eq(&link.parent, &self.parking));
        let moves = if node.is_directory() { links.first() } else { parked };
        let Some(from) = moves else {
            volume.link(entry.file, entry.parent, &entry.name)?;
            return Ok(true);
        };
        let (old, new) = (volume.path(&from.parent)?, volume.path(&parent)?);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&*old, from.name.as_bytes(), &*new, entry.name.as_bytes(), flags) {
            Err(Errno::INVAL | Errno::EXIST) => Ok(false), // into itself, until its new parent has moved away
            Err(error) => Err(error),
            Ok(()) => {
                node.remove_link(&from.parent, &from.name);
                node.add_link(&parent, &entry.name);
                Ok(true)
            }
        }
    }
}

fn is_under(node: &Arc<Node>, parking: &Arc<Node>) -> bool {
    let mut at = node.clone();
    loop {
        if Arc::ptr_eq(&at, parking) {
            return true;
        }
        let parent = at.state.lock().links.iter().map(|link| link.parent.clone()).next();
        match parent {
            Some(parent) => at = parent,
            None => return false,
        }
    }
}

/// Removes `name` in `directory` and everything beneath it.
fn remove_tree(directory: impl AsFd, name: &[u8]) -> Result<()> {
    let mut stack = vec![(reopen_child(&directory, name)?, name.to_vec())];
    while let Some((at, _)) = stack.last() {
        let mut deeper = None;
        for entry in Dir::read_from(at)? {
            let entry = entry?;
            let child = entry.file_name().to_bytes();
            if child == b"." || child == b".." {
                continue;
            }
            if Stat::at(at, child)?.is_directory() {
                deeper = Some((reopen_child(at, child)?, child.to_vec()));
                break;
            }
            rustix::fs::unlinkat(at, child, AtFlags::empty())?;
        }
        if let Some(deeper) = deeper {
            stack.push(deeper);
            continue;
        }
        let Some((_, name)) = stack.pop() else { break };
        match stack.last() {
            Some((parent, _)) => rustix::fs::unlinkat(parent, name.as_slice(), AtFlags::REMOVEDIR)?,
            None => rustix::fs::unlinkat(&directory, name.as_slice(), AtFlags::REMOVEDIR)?,
        }
    }
    Ok(())
}

fn reopen_child(directory: impl AsFd, name: &[u8]) -> Result<std::os::fd::OwnedFd> {
    let path = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    reopen(path, OFlags::RDONLY | OFlags::DIRECTORY)
}

#[cfg(test)]
mod tests;
