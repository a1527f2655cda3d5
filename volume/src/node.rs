//! The objects of a volume that somebody knows: by inode number, with the names known for them and their descriptors.
//!
//! There is one for each object that the kernel knows, millions of them: what only an object in use has is kept apart.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{FileId, Name};
use rustix::fs::FileType;

use crate::links::{Link, Links};
use crate::overtaken::Overtaken;
use crate::passed::Passed;
use crate::stat::Stat;

/// One known object.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: FileId,
    pub(crate) file_type: FileType,
    /// Held while a change of the object is numbered and applied.
    pub(crate) order: Mutex<()>,
    pub(crate) state: Mutex<NodeState>,
    /// Looked at since the descriptor cache last came by.
    pub(crate) used: AtomicBool,
    /// Names that it got or lost since it became known; changes under the lock of the state (primary).
    renames: AtomicU32,
}

#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) links: Links,
    in_use: Option<Box<InUse>>,
    /// Lookups that the kernel has not forgotten, and pins of a base copy (primary).
    pub(crate) lookups: Lookups,
    /// The last name is gone: it lives as long as somebody has it open.
    pub(crate) nameless: bool,
    /// Counted once among the lookups, because the dirty map speaks of it (primary).
    pub(crate) kept: bool,
    /// Its names were on disk when the object was last synced whole, and it got and lost none since: what else changes can be
    /// done again from the journal (primary).
    pub(crate) anchored: bool,
    /// Known to have neither suid, sgid nor file capabilities, so that a write has nothing to take away (primary).
    pub(crate) harmless: bool,
}

/// What an object has only while it is open, or one of its descriptors is kept.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    /// `O_PATH` descriptor, dropped by the cache unless `pinned`.
    pub(crate) path: Option<Arc<OwnedFd>>,
    /// Open for reading and writing data.
    pub(crate) data: Option<Arc<OwnedFd>>,
    /// Cut off, or made longer, while that was open: to close it may take long.
    pub(crate) cut: bool,
    /// What stood when a file that nobody had open lost its last name: all that is left of it for whoever still asks.
    pub(crate) ghost: Option<Box<Stat>>,
    /// No name of it is known (the root, a nameless file, one whose other names nobody looked up): its descriptor is the
    /// only way to it and stays.
    pub(crate) pinned: bool,
    /// Open handles (primary).
    pub(crate) opens: u32,
    /// Its size, while every change of it since it was looked at went through here; under the node's order lock (primary).
    pub(crate) size: Option<u64>,
    /// How it was found by the change that is about to set its attributes, under the node's order lock (primary).
    pub(crate) found: Option<Box<Stat>>,
    /// Its file capability has just been removed: what the kernel asks for next may belong to that (primary).
    pub(crate) capability_taken: bool,
    /// What pages of it may have in an old state when the kernel writes them back (primary).
    pub(crate) overtaken: Overtaken,
    /// Writes through the cache that wait, and what has passed them (primary).
    pub(crate) passed: Passed,
}

static NOT_IN_USE: InUse = InUse {
    path: None,
    data: None,
    cut: false,
    ghost: None,
    pinned: false,
    opens: 0,
    size: None,
    found: None,
    capability_taken: false,
    overtaken: Overtaken::NOTHING,
    passed: Passed::NOBODY,
};

impl NodeState {
    /// What it has while it is in use.
    pub(crate) fn in_use(&self) -> &InUse {
        self.in_use.as_deref().unwrap_or(&NOT_IN_USE)
    }

    /// The same, to be changed: it is in use from now on.
    pub(crate) fn begin_use(&mut self) -> &mut InUse {
        self.in_use.get_or_insert_default()
    }

    /// The same, to be taken from; its place is given back when nothing is left but the size, which can be asked for again.
    pub(crate) fn end_use<T: Default>(&mut self, change: impl FnOnce(&mut InUse) -> T) -> T {
        let Some(in_use) = &mut self.in_use else { return T::default() };
        let result = change(in_use);
        if let InUse {
            path: None,
            data: None,
            cut: _,
            ghost: None,
            pinned: false,
            opens: 0,
            size: _,
            found: None,
            capability_taken: false,
            overtaken: _, // of a file that nobody has open
            passed: _,
        } = **in_use
        {
            self.in_use = None;
        }
        result
    }
}

/// How often an object was told of and not forgotten. Beyond what this can count it is never forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lookups(u32);

impl Lookups {
    /// None that is not forgotten.
    pub(crate) const NONE: Lookups = Lookups(0);

    /// So many more.
    pub(crate) fn add(&mut self, count: u64) {
        self.0 = self.0.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// So many are forgotten.
    pub(crate) fn forget(&mut self, count: u64) {
        if self.0 < u32::MAX {
            self.0 = self.0.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}

impl Node {
    pub(crate) fn new(id: FileId, file_type: FileType) -> Arc<Node> {
        Arc::new(Node {
            id,
            file_type,
            order: Mutex::new(()),
            state: Mutex::new(NodeState::default()),
            used: AtomicBool::new(true),
            renames: AtomicU32::new(0),
        })
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(crate) fn add_link(&self, parent: &Arc<Node>, name: &Name) {
        let mut state = self.state.lock();
        if !state.links.iter().any(|link| Arc::ptr_eq(&link.parent, parent) && link.name == *name) {
            if self.is_directory() {
                state.links = Links::default();
            }
            state.links.push(Link { parent: parent.clone(), name: name.clone() });
            self.renamed(&mut state);
        }
    }

    /// Forgets a name; true when no known one is left.
    pub(crate) fn remove_link(&self, parent: &Node, name: &Name) -> bool {
        let mut state = self.state.lock();
        state.links.retain(|link| link.parent.id != parent.id || link.name != *name);
        self.renamed(&mut state);
        state.links.is_empty()
    }

    fn renamed(&self, state: &mut NodeState) {
        self.renames.fetch_add(1, Ordering::Relaxed);
        state.anchored = false;
    }

    /// How often it got or lost a name.
    pub(crate) fn renames(&self) -> u32 {
        self.renames.load(Ordering::Relaxed)
    }

    /// The object was synced whole, and had got or lost so many names when that began.
    pub(crate) fn anchor(&self, renames: u32) {
        let mut state = self.state.lock();
        state.anchored = self.renames() == renames;
    }
}

/// A node as the table finds it: by its inode number.
#[derive(Debug)]
struct ByNumber(Arc<Node>);

impl Borrow<u64> for ByNumber {
    fn borrow(&self) -> &u64 {
        &self.0.id.ino
    }
}

impl Hash for ByNumber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.ino.hash(state);
    }
}

impl PartialEq for ByNumber {
    fn eq(&self, other: &ByNumber) -> bool {
        self.0.id.ino == other.0.id.ino
    }
}

impl Eq for ByNumber {}

/// Table of nodes by inode number. At any time one inode number is one object: a nameless one that somebody has open keeps
/// its number by its descriptor; one that nobody has open gives it up, and its node gives way to the next.
#[derive(Debug, Default)]
pub(crate) struct Nodes(RwLock<HashSet<ByNumber>>);

impl Nodes {
    pub(crate) fn get(&self, id: FileId) -> Option<Arc<Node>> {
        self.by_ino(id.ino).filter(|node| node.id == id)
    }

    pub(crate) fn by_ino(&self, ino: u64) -> Option<Arc<Node>> {
        self.0.read().get(&ino).map(|ByNumber(node)| node.clone())
    }

    /// The node of an object, made if it is not known; `count` lookups are added under the table's lock.
    pub(crate) fn intern(&self, id: FileId, file_type: FileType, count: u64) -> Arc<Node> {
        if let Some(ByNumber(node)) = self.0.read().get(&id.ino).filter(|known| known.0.id == id) {
            node.state.lock().lookups.add(count);
            return node.clone();
        }
        let mut nodes = self.0.write();
        let node = match nodes.get(&id.ino) {
            Some(ByNumber(node)) if node.id == id => node.clone(),
            before => {
                // The kernel counts lookups by inode number. What it has not forgotten yet of a file that had this number
                // before it will forget of this one.
                let mut owed = Lookups::NONE;
                if let Some(ByNumber(before)) = before {
                    let state = before.state.lock();
                    owed = state.lookups;
                    owed.forget(u64::from(state.kept));
                }
                let node = Node::new(id, file_type);
                node.state.lock().lookups = owed;
                nodes.replace(ByNumber(node.clone()));
                node
            }
        };
        node.state.lock().lookups.add(count);
        node
    }

    /// Drops a node if nothing holds it any more; then its parents, likewise.
    pub(crate) fn drop_unused(&self, node: Arc<Node>) {
        let mut candidates = vec![node];
        while let Some(node) = candidates.pop() {
            let mut nodes = self.0.write();
            let state = node.state.lock();
            // held by: the table, and us; whoever else holds one that has no name will not look for it in the table
            let is_held = Arc::strong_count(&node) > 2 && !state.nameless;
            let unused = state.lookups == Lookups::NONE && state.in_use().opens == 0 && !is_held;
            if unused && nodes.get(&node.id.ino).is_some_and(|known| Arc::ptr_eq(&known.0, &node)) {
                candidates.extend(state.links.iter().map(|link| link.parent.clone()));
                drop(state);
                nodes.remove(&node.id.ino);
            }
        }
    }

    pub(crate) fn remove(&self, id: FileId) {
        let mut nodes = self.0.write();
        if nodes.get(&id.ino).is_some_and(|known| known.0.id == id) {
            nodes.remove(&id.ino);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.0.read().iter().map(|ByNumber(node)| node.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }
}

/// Keeps the number of cached descriptors below a budget (CLOCK: a second chance for what was used).
#[derive(Debug)]
pub(crate) struct DescriptorCache {
    budget: usize,
    ring: Mutex<std::collections::VecDeque<std::sync::Weak<Node>>>,
}

impl DescriptorCache {
    pub(crate) fn new(budget: usize) -> DescriptorCache {
        DescriptorCache { budget, ring: Mutex::default() }
    }

    /// Notes that a node just got a cached descriptor; takes some from others when there are too many.
    pub(crate) fn noted(&self, node: &Arc<Node>) {
        let mut ring = self.ring.lock();
        ring.push_back(Arc::downgrade(node));
        let mut chances = ring.len() * 2;
        while ring.len() > self.budget && chances > 0 {
            chances -= 1;
            let Some(weak) = ring.pop_front() else { break };
            let Some(victim) = weak.upgrade() else { continue };
            if Arc::ptr_eq(&victim, node) || victim.used.swap(false, Ordering::Relaxed) {
                ring.push_back(weak);
                continue;
            }
            let Some(mut state) = victim.state.try_lock() else {
                ring.push_back(weak);
                continue;
            };
            let nameless = state.nameless;
            state.end_use(|in_use| {
                if !in_use.pinned {
                    in_use.path = None;
                }
                if in_use.opens == 0 && !nameless {
                    in_use.data = None;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind an `Arc`, whose two counts come before it, in what an allocator gives for 88 bytes: there are millions.
    #[test]
    fn an_object_that_nobody_uses_takes_72_bytes_and_its_name() {
        assert_eq!(size_of::<Node>(), 72);
        let node = Node::new(FileId { ino: 7, generation: 1 }, FileType::RegularFile);
        let mut state = node.state.lock();
        state.begin_use().opens = 1;
        state.begin_use().size = Some(3);
        assert_eq!(state.end_use(|in_use| in_use.size), Some(3), "still open");
        state.end_use(|in_use| in_use.opens = 0);
        assert!(state.in_use.is_none(), "nobody uses it");
        assert_eq!(state.end_use(|in_use| in_use.size), None);
    }

    #[test]
    fn more_lookups_than_can_be_counted_are_never_forgotten() {
        let mut lookups = Lookups::NONE;
        lookups.add(5);
        lookups.forget(4);
        assert_ne!(lookups, Lookups::NONE);
        lookups.forget(2);
        assert_eq!(lookups, Lookups::NONE);
        lookups.add(u64::from(u32::MAX) - 1);
        lookups.forget(u64::from(u32::MAX) - 1);
        assert_eq!(lookups, Lookups::NONE);
        lookups.add(u64::MAX);
        lookups.forget(u64::MAX);
        assert_ne!(lookups, Lookups::NONE);
    }
}
