//! The names of a volume in memory, folded from records: what `restore` builds a tree from and `log` finds paths with.
//!
//! Two ways to read the same records. While a base copy was under way its entries were read at different moments, so the
//! name changes of that window are *assignments*: whoever comes last is right and nothing is ever forgotten. From the
//! end of the window on the picture is exact, and what loses its last name is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use reelfs_journal::{Attributes, Change, FileId, FileTime, MarkerKind, Name, NodeKind, RENAME_EXCHANGE, Xattr};

/// Directories on the way from an object to the root that are still believed; a deeper chain is a cycle or hostile.
const DEPTH_MAX: usize = 4096;

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Mode, owner, modification time.
    pub attributes: Attributes,
    /// All extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Size of a regular file in bytes, else 0.
    pub size: u64,
    /// Born from a `Create` record: bytes that a base tape has for this id are already told by records.
    pub born: bool,
}

/// A directory's names and what they stand for.
pub type Directory = BTreeMap<Name, FileId>;

/// Why a picture of names cannot be made into a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// A name stands for something that no record ever described.
    #[error("no record describes object {file}, which the name `{name}` in directory {parent} stands for")]
    Undescribed {
        /// The directory.
        parent: FileId,
        /// The name.
        name: Name,
        /// The object.
        file: FileId,
    },
    /// A directory has two names.
    #[error("directory {0} has two names")]
    TwoNames(FileId),
    /// The root is not a directory, or was never described.
    #[error("no record describes the root directory {0}")]
    NoRoot(FileId),
}

/// A place in the tree: its directory, its name, what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'n> {
    /// The directory.
    pub parent: FileId,
    /// The name in it.
    pub name: &'n Name,
    /// The object.
    pub file: FileId,
    /// The object has stood at an earlier place of the same walk: this one is a hard link to it.
    pub again: bool,
}

/// Names and attributes of a whole volume at one moment.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    root: FileId,
    nodes: HashMap<FileId, Node>,
    directories: HashMap<FileId, Directory>,
    links: HashMap<FileId, Vec<(FileId, Name)>>,
    listing: Option<(FileId, BTreeSet<Name>)>,
    exact: bool,
    bracket: bool,
    loose: Vec<FileId>,
}

impl Namespace {
    /// An empty volume whose root is not described yet.
    #[must_use]
    pub fn new(root: FileId) -> Namespace {
        Namespace { root, ..Namespace::default() }
    }

    /// From here on the picture is exact: objects without a name are forgotten.
    pub fn settle(&mut self) {
        self.exact = true;
        let named = |id: &FileId| *id == self.root || self.links.get(id).is_some_and(|links| !links.is_empty());
        let gone: Vec<FileId> = self.nodes.keys().filter(|id| !named(id)).copied().collect();
        self.loose.extend(gone);
        self.forget_loose();
    }

    /// The root's id.
    #[must_use]
    pub fn root(&self) -> FileId {
        self.root
    }

    /// Says which object is the root, when that was not known at the start.
    pub fn set_root(&mut self, root: FileId) {
        self.root = root;
    }

    /// What is known of an object.
    #[must_use]
    pub fn node(&self, file: FileId) -> Option<&Node> {
        self.nodes.get(&file)
    }

    /// A directory's names; `None` when it has none or is not known.
    #[must_use]
    pub fn directory(&self, file: FileId) -> Option<&Directory> {
        self.directories.get(&file)
    }

    /// What a name stands for.
    #[must_use]
    pub fn lookup(&self, parent: FileId, name: &Name) -> Option<FileId> {
        self.directories.get(&parent)?.get(name).copied()
    }

    /// All names of an object.
    #[must_use]
    pub fn links(&self, file: FileId) -> &[(FileId, Name)] {
        self.links.get(&file).map_or(&[], Vec::as_slice)
    }

    /// How many objects are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What stands at a path relative to the root, components separated by `/`.
    #[must_use]
    pub fn resolve(&self, path: &[u8]) -> Option<FileId> {
        let mut at = self.root;
        for component in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            at = self.lookup(at, &Name::new(component).ok()?)?;
        }
        Some(at)
    }

    /// A path of an object relative to the root, by its first name; `None` when the way up is not known.
    #[must_use]
    pub fn path(&self, file: FileId) -> Option<Vec<u8>> {
        let (mut parts, mut at) = (Vec::new(), file);
        while at != self.root {
            let (parent, name) = self.links(at).first()?;
            parts.push(name.as_bytes());
            at = *parent;
            if parts.len() > DEPTH_MAX {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join(&b'/'))
    }

    /// The path of a name in a directory.
    #[must_use]
    pub fn path_in(&self, parent: FileId, name: &Name) -> Option<Vec<u8>> {
        let mut path = self.path(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Some(path)
    }

    /// Every place below the root, directories before what is in them.
    ///
    /// # Errors
    /// Something that is not a tree, or is not described.
    pub fn walk(&self) -> Result<Vec<Place<'_>>, NamespaceError> {
        match self.nodes.get(&self.root) {
            Some(node) if node.kind == NodeKind::Directory => {}
            _ => return Err(NamespaceError::NoRoot(self.root)),
        }
        let (mut places, mut seen) = (Vec::with_capacity(self.nodes.len()), HashSet::with_capacity(self.nodes.len()));
        let mut pending = vec![self.root];
        seen.insert(self.root);
        while let Some(parent) = pending.pop() {
            for (name, &file) in self.directories.get(&parent).into_iter().flatten() {
                let Some(node) = self.nodes.get(&file) else {
                    return Err(NamespaceError::Undescribed { parent, name: name.clone(), file });
                };
                let again = !seen.insert(file);
                if node.kind == NodeKind::Directory {
                    if again {
                        return Err(NamespaceError::TwoNames(file));
                    }
                    pending.push(file);
                }
                places.push(Place { parent, name, file, again });
            }
        }
        Ok(places)
    }

    /// Takes in one change; control information and data count as far as they leave sizes and times behind.
    pub fn apply(&mut self, change: &Change<'_>) {
        match change {
            Change::Write { file, size, mtime, .. }
            | Change::SetSize { file, size, mtime }
            | Change::Zero { file, size, mtime, .. }
            | Change::Allocate { file, size, mtime, .. } => self.touch(*file, Some(*size), *mtime),
            Change::Punch { file, mtime, .. } => self.touch(*file, None, *mtime),
            Change::SetAttr { file, attributes } => {
                if let Some(node) = self.nodes.get_mut(file) {
                    node.attributes = *attributes;
                }
            }
            Change::SetXattr { file, xattr } => self.set_xattr(*file, &xattr.name, Some(xattr)),
            Change::RemoveXattr { file, name } => self.set_xattr(*file, name, None),
            Change::Marker { kind, .. } => self.marker(*kind),
            _ => self.apply_name(change),
        }
        self.forget_loose();
    }

    fn apply_name(&mut self, change: &Change<'_>) {
        match change {
            Change::Create { parent, name, file, kind, attributes, xattrs, parent_mtime } => {
                let node =
                    Node { kind: kind.clone(), attributes: *attributes, xattrs: xattrs.clone(), size: 0, born: true };
                self.nodes.insert(*file, node);
                self.assign(*parent, name, Some(*file));
                self.touch(*parent, None, *parent_mtime);
            }
            Change::Link { file, parent, name, parent_mtime } => {
                self.assign(*parent, name, Some(*file));
                self.touch(*parent, None, *parent_mtime);
            }
            Change::Unlink { parent, name, parent_mtime, .. } => {
                self.assign(*parent, name, None);
                self.touch(*parent, None, *parent_mtime);
            }
            Change::Rename { file, parent, name, new_parent, new_name, replaced, flags, parent_mtime } => {
                let exchange = flags & RENAME_EXCHANGE != 0;
                if file != replaced || exchange {
                    // else both are names of one file, and the kernel does nothing
                    self.assign(*new_parent, new_name, Some(*file));
                    self.assign(*parent, name, exchange.then_some(*replaced));
                }
                self.touch(*parent, None, *parent_mtime);
                self.touch(*new_parent, None, *parent_mtime);
            }
            Change::Entry { parent, name, file, kind, attributes, xattrs, size } => {
                self.entry(*parent, name, *file, kind, *attributes, xattrs, *size);
            }
            Change::ListBegin { directory } => {
                let names = self.directories.get(directory).into_iter().flat_map(BTreeMap::keys).cloned().collect();
                self.listing = Some((*directory, names));
            }
            Change::ListEnd { directory } => {
                let Some((listed, names)) = self.listing.take() else {
                    return;
                };
                for name in names.iter().filter(|_| listed == *directory) {
                    self.assign(listed, name, None);
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one change")]
    fn entry(
        &mut self,
        parent: FileId,
        name: &Name,
        file: FileId,
        kind: &NodeKind,
        attributes: Attributes,
        xattrs: &[Xattr],
        size: u64,
    ) {
        let node = self.nodes.entry(file).or_insert_with(|| Node {
            kind: kind.clone(),
            attributes,
            xattrs: Vec::new(),
            size,
            born: false,
        });
        (node.kind, node.attributes, node.xattrs) = (kind.clone(), attributes, xattrs.to_vec());
        if parent == FileId::NONE {
            return;
        }
        if let Some((listed, names)) = &mut self.listing
            && *listed == parent
        {
            names.remove(name);
        }
        if *kind == NodeKind::Directory {
            for (old_parent, old_name) in self.links(file).to_vec() {
                if (old_parent, &old_name) != (parent, name) {
                    self.assign(old_parent, &old_name, None);
                }
            }
        }
        self.assign(parent, name, Some(file));
    }

    fn assign(&mut self, parent: FileId, name: &Name, file: Option<FileId>) {
        let names = self.directories.entry(parent).or_default();
        let before = match file {
            Some(file) => names.insert(name.clone(), file),
            None => names.remove(name),
        };
        if before == file {
            return;
        }
        if let Some(before) = before {
            if let Some(links) = self.links.get_mut(&before) {
                links.retain(|(in_parent, of_name)| (*in_parent, of_name) != (parent, name));
            }
            self.loose.push(before);
        }
        if let Some(file) = file {
            self.links.entry(file).or_default().push((parent, name.clone()));
        }
    }

    fn touch(&mut self, file: FileId, size: Option<u64>, mtime: FileTime) {
        if let Some(node) = self.nodes.get_mut(&file) {
            node.attributes.mtime = mtime;
            node.size = size.unwrap_or(node.size);
        }
    }

    fn set_xattr(&mut self, file: FileId, name: &[u8], xattr: Option<&Xattr>) {
        if let Some(node) = self.nodes.get_mut(&file) {
            node.xattrs.retain(|known| known.name != name);
            node.xattrs.extend(xattr.cloned());
        }
    }

    fn marker(&mut self, kind: MarkerKind) {
        match kind {
            kind if kind.begins_bracket() => self.bracket = true,
            kind if kind.ends_bracket() => {
                (self.bracket, self.listing) = (false, None);
            }
            _ => {}
        }
    }

    /// Inside a bracket what vanishes from one listing may reappear in another, so it is kept until the bracket's end.
    fn forget_loose(&mut self) {
        if self.bracket {
            return;
        }
        let mut loose = std::mem::take(&mut self.loose);
        if !self.exact {
            return;
        }
        while let Some(file) = loose.pop() {
            if file == self.root || self.links.get(&file).is_some_and(|links| !links.is_empty()) {
                continue;
            }
            self.nodes.remove(&file);
            self.links.remove(&file);
            for (name, child) in self.directories.remove(&file).unwrap_or_default() {
                if let Some(links) = self.links.get_mut(&child) {
                    links.retain(|(in_parent, of_name)| (*in_parent, of_name) != (file, &name));
                }
                loose.push(child);
            }
        }
    }
}

#[cfg(test)]
mod tests;
