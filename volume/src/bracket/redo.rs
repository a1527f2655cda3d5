//! Names after a kill: a replica that stands somewhere among the records gets the names that stand after the last of them.
//!
//! A record of names says absolutely what a place holds afterwards, so the last one of each place decides, and a place of which
//! no record speaks is as it was. What is not in its place is parked first, as in every bracket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use reelfs_journal::{Attributes, Change, FileId, FileTime, Name, NodeKind, RENAME_EXCHANGE, Xattr};
use rustix::fs::AtFlags;
use rustix::io::Result;

use super::{Bracket, Entry, remove_tree};
use crate::replica::Recalled;
use crate::volume::Volume;

/// What records say of places: the names of a stretch of the journal, folded.
#[derive(Debug, Default)]
pub struct Places {
    /// By directory and name: what stands there at the end, if anything.
    told: HashMap<FileId, HashMap<Name, Option<FileId>>>,
    /// Where an object was last put.
    last: HashMap<FileId, (FileId, Name)>,
    /// Directories of which everything was told.
    listed: HashSet<FileId>,
    /// Listings that have begun and not ended.
    open: HashMap<FileId, HashSet<Name>>,
    /// What objects are, as far as the records say.
    made: HashMap<FileId, (NodeKind, Attributes, Vec<Xattr>)>,
}

impl Places {
    /// Takes in the next record.
    pub fn take(&mut self, change: &Change<'_>) {
        match change {
            Change::Create { parent, name, file, kind, attributes, xattrs, .. } => {
                self.made.insert(*file, (kind.clone(), *attributes, xattrs.clone()));
                self.put(*parent, name, *file);
            }
            Change::Link { file, parent, name, .. } => self.put(*parent, name, *file),
            Change::Unlink { parent, name, .. } => self.clear(*parent, name),
            Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, .. } => {
                if flags & RENAME_EXCHANGE != 0 {
                    self.put(*parent, name, *replaced);
                } else if replaced == file {
                    return; // two names of one file: nothing happened
                } else {
                    self.clear(*parent, name);
                }
                self.put(*new_parent, new_name, *file);
            }
            Change::Entry { parent, name, file, kind, attributes, xattrs, .. } if *parent != FileId::NONE => {
                self.made.entry(*file).or_insert_with(|| (kind.clone(), *attributes, xattrs.clone()));
                self.take_entry(*parent, name, *file, *kind == NodeKind::Directory);
            }
            Change::ListBegin { directory } => {
                self.open.insert(*directory, HashSet::new());
            }
            Change::ListEnd { directory } => {
                let names = self.open.remove(directory).unwrap_or_default();
                for (name, place) in self.told.entry(*directory).or_default() {
                    if !names.contains(name) {
                        *place = None;
                    }
                }
                self.listed.insert(*directory);
            }
            _ => {}
        }
    }

    /// A directory has one place: where it was told to be before, it is no more.
    fn take_entry(&mut self, parent: FileId, name: &Name, file: FileId, is_directory: bool) {
        if is_directory
            && let Some((before, old)) = self.last.get(&file).cloned()
            && (before, &old) != (parent, name)
            && self.at(before, &old) == Some(Some(file))
        {
            self.clear(before, &old);
        }
        if let Some(names) = self.open.get_mut(&parent) {
            names.insert(name.clone());
        }
        self.put(parent, name, file);
    }

    fn put(&mut self, parent: FileId, name: &Name, file: FileId) {
        self.told.entry(parent).or_default().insert(name.clone(), Some(file));
        self.last.insert(file, (parent, name.clone()));
    }

    fn clear(&mut self, parent: FileId, name: &Name) {
        self.told.entry(parent).or_default().insert(name.clone(), None);
    }

    fn at(&self, parent: FileId, name: &Name) -> Option<Option<FileId>> {
        self.told.get(&parent).and_then(|names| names.get(name)).copied()
    }

    /// The records speak of something with this name.
    #[must_use]
    pub fn mentions(&self, name: &Name) -> bool {
        self.told.values().any(|names| names.contains_key(name))
    }

    /// An object that stands at this place stays there.
    fn stays(&self, file: FileId, is_directory: bool, parent: FileId, name: &Name) -> bool {
        match self.at(parent, name) {
            Some(place) => place == Some(file),
            None if self.listed.contains(&parent) => false,
            None => {
                let elsewhere = self.last.get(&file).filter(|(to, name)| self.at(*to, name) == Some(Some(file)));
                !(is_directory && elsewhere.is_some())
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (parent, names) in &self.told {
            for (name, file) in names.iter().filter_map(|(name, file)| Some((name, (*file)?))) {
                let none = Attributes { mode: 0, uid: 0, gid: 0, mtime: FileTime::default() };
                let unknown = || (NodeKind::File, none, Vec::new());
                let (kind, attributes, xattrs) = self.made.get(&file).cloned().unwrap_or_else(unknown);
                entries.push(Entry { parent: *parent, name: name.clone(), file, kind, attributes, xattrs });
            }
        }
        entries
    }
}

impl Volume {
    /// Opens a bracket that was open when the replica was left, with what is parked in it; a new one when none was.
    ///
    /// # Errors
    /// What making the parking directory says.
    pub fn reopen_bracket(&self, scratch: Name, recalled: &Recalled) -> Result<Bracket<'_>> {
        let Some(parking) = recalled.parking.clone() else {
            return self.bracket(scratch);
        };
        let (entries, listed) = (Vec::new(), HashSet::new());
        let mut bracket = Bracket { volume: self, scratch, parking, parked: 0, entries, listed };
        bracket.parked = bracket.parked_before();
        Ok(bracket)
    }
}

impl Bracket<'_> {
    /// The highest number that something parked has.
    fn parked_before(&self) -> u64 {
        let number = |name: &Name| std::str::from_utf8(name.as_bytes()).ok().and_then(|name| name.parse().ok());
        let nodes = self.volume.nodes.all();
        let links = nodes.iter().flat_map(|node| node.state.lock().links.to_vec());
        let parked = links.filter(|link| Arc::ptr_eq(&link.parent, &self.parking));
        parked.filter_map(|link| number(&link.name)).max().unwrap_or(0)
    }

    /// Gives the replica the names that the records lead to. What nobody knows was made by those records before the kill: it is
    /// removed, and made again.
    ///
    /// # Errors
    /// What the file system says; `ESTALE` when the records speak of an object that nobody told.
    pub fn redo_names(&mut self, places: &Places, recalled: &Recalled) -> Result<()> {
        // what nobody knows may have been parked, too, under a later number
        let numbered = recalled.strangers.iter().filter(|stranger| Arc::ptr_eq(&stranger.parent, &self.parking));
        let number = |name: &Name| std::str::from_utf8(name.as_bytes()).ok().and_then(|name| name.parse().ok());
        self.parked = numbered.filter_map(|stranger| number(&stranger.name)).fold(self.parked, u64::max);
        let parking = self.parking.clone();
        for node in self.volume.nodes.all() {
            let links = node.state.lock().links.clone();
            for link in links.iter().filter(|link| !Arc::ptr_eq(&link.parent, &parking)) {
                let stranger = link.parent.id == FileId::NONE;
                if stranger || !places.stays(node.id, node.is_directory(), link.parent.id, &link.name) {
                    self.park_name(&node, &link.parent, &link.name)?;
                }
            }
        }
        self.remove_strangers(recalled)?;
        let entries: Vec<Entry> =
            places.entries().into_iter().filter(|entry| self.will_have_parent(entry, places)).collect();
        self.place(&entries)
    }

    /// The directory of an entry is there, or another entry makes it.
    fn will_have_parent(&self, entry: &Entry, places: &Places) -> bool {
        let (mut at, mut steps) = (entry.parent, places.last.len() + 1);
        while !self.volume.knows(at) {
            match places.last.get(&at) {
                Some((parent, name)) if places.at(*parent, name) == Some(Some(at)) && steps > 0 => at = *parent,
                _ => return false,
            }
            steps -= 1;
        }
        true
    }

    fn remove_strangers(&self, recalled: &Recalled) -> Result<()> {
        // a directory was found before what is in it
        for stranger in recalled.strangers.iter().rev() {
            let parent = self.volume.path(&stranger.parent)?;
            let name = stranger.name.as_bytes();
            if stranger.is_directory {
                remove_tree(&*parent, name)?;
            } else {
                rustix::fs::unlinkat(&*parent, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}
