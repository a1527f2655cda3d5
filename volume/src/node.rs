//! The objects of a volume that somebody knows: by inode number, with the names known for them and their descriptors.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use reelfs_journal::{FileId, Name};
use rustix::fs::FileType;

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
}

/// A name known for an object.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: Name,
}

#[derive(Debug, Default)]
pub(crate) struct NodeState {
    /// On a primary those that were looked up, on a replica all.
    pub(crate) links: Vec<Link>,
    /// `O_PATH` descriptor, dropped by the cache unless `pinned`.
    pub(crate) path: Option<Arc<OwnedFd>>,
    /// Open for reading and writing data.
    pub(crate) data: Option<Arc<OwnedFd>>,
    /// The last name is gone: it lives as long as somebody has it open.
    pub(crate) nameless: bool,
    /// What stood when a file that nobody had open lost its last name: all that is left of it for whoever still asks.
    pub(crate) ghost: Option<Box<Stat>>,
    /// No name of it is known (the root, a nameless file, one whose other names nobody looked up): its descriptor is the
    /// only way to it and stays.
    pub(crate) pinned: bool,
    /// Open handles (primary).
    pub(crate) opens: u32,
    /// Lookups that the kernel has not forgotten, and pins of a base copy (primary).
    pub(crate) lookups: u64,
    /// Its size, while every change of it since it was looked at went through here; under the node's order lock (primary).
    pub(crate) size: Option<u64>,
    /// How it was found by the change that is about to set its attributes, under the node's order lock (primary).
    pub(crate) found: Option<Box<Stat>>,
    /// Counted once among the lookups, because the dirty map speaks of it (primary).
    pub(crate) kept: bool,
    /// Names that it got or lost since it became known (primary).
    pub(crate) renames: u32,
    /// Their count when the object was last synced whole: while that is the present one, its names are on disk, and what
    /// else changes can be done again from the journal (primary).
    pub(crate) anchored: Option<u32>,
    /// Known to have neither suid, sgid nor file capabilities, so that a write has nothing to take away (primary).
    pub(crate) harmless: bool,
}

impl Node {
    pub(crate) fn new(id: FileId, file_type: FileType) -> Arc<Node> {
        Arc::new(Node {
            id,
            file_type,
            order: Mutex::new(()),
            state: Mutex::new(NodeState::default()),
            used: AtomicBool::new(true),
        })
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(crate) fn add_link(&self, parent: &Arc<Node>, name: &Name) {
        let mut state = self.state.lock();
        if !state.links.iter().any(|link| Arc::ptr_eq(&link.parent, parent) && link.name == *name) {
            if self.is_directory() {
                state.links.clear();
            }
            // nearly every object has one name, and there may be millions
            state.links.reserve_exact(1);
            state.links.push(Link { parent: parent.clone(), name: name.clone() });
            state.renames = state.renames.wrapping_add(1);
        }
    }

    /// Forgets a name; true when no known one is left.
    pub(crate) fn remove_link(&self, parent: &Node, name: &Name) -> bool {
        let mut state = self.state.lock();
        state.links.retain(|link| link.parent.id != parent.id || link.name != *name);
        state.renames = state.renames.wrapping_add(1);
        state.links.is_empty()
    }
}

/// Table of nodes by inode number. At any time one inode number is one object: a nameless one that somebody has open keeps
/// its number by its descriptor; one that nobody has open gives it up, and its node gives way to the next.
#[derive(Debug, Default)]
pub(crate) struct Nodes(RwLock<HashMap<u64, Arc<Node>>>);

impl Nodes {
    pub(crate) fn get(&self, id: FileId) -> Option<Arc<Node>> {
        self.0.read().get(&id.ino).filter(|node| node.id == id).cloned()
    }

    pub(crate) fn by_ino(&self, ino: u64) -> Option<Arc<Node>> {
        self.0.read().get(&ino).cloned()
    }

    /// The node of an object, made if it is not known; `count` lookups are added under the table's lock.
    pub(crate) fn intern(&self, id: FileId, file_type: FileType, count: u64) -> Arc<Node> {
        if let Some(node) = self.0.read().get(&id.ino).filter(|node| node.id == id) {
            node.state.lock().lookups += count;
            return node.clone();
        }
        let mut nodes = self.0.write();
        let node = match nodes.get(&id.ino) {
            Some(node) if node.id == id => node.clone(),
            before => {
                // The kernel counts lookups by inode number. What it has not forgotten yet of a file that had this number
                // before it will forget of this one.
                let owed = before.map_or(0, |before| {
                    let state = before.state.lock();
                    state.lookups - u64::from(state.kept)
                });
                let node = Node::new(id, file_type);
                node.state.lock().lookups = owed;
                nodes.insert(id.ino, node.clone());
                node
            }
        };
        node.state.lock().lookups += count;
        node
    }

    /// Drops a node if nothing holds it any more; then its parents, likewise.
    pub(crate) fn drop_unused(&self, node: Arc<Node>) {
        let mut candidates = vec![node];
        while let Some(node) = candidates.pop() {
            let mut nodes = self.0.write();
            let state = node.state.lock();
            // held by: the table, and us
            let unused = state.lookups == 0 && state.opens == 0 && Arc::strong_count(&node) <= 2;
            if unused && nodes.get(&node.id.ino).is_some_and(|known| Arc::ptr_eq(known, &node)) {
                candidates.extend(state.links.iter().map(|link| link.parent.clone()));
                drop(state);
                nodes.remove(&node.id.ino);
            }
        }
    }

    pub(crate) fn remove(&self, id: FileId) {
        let mut nodes = self.0.write();
        if nodes.get(&id.ino).is_some_and(|node| node.id == id) {
            nodes.remove(&id.ino);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.0.read().values().cloned().collect()
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
            if !state.pinned {
                state.path = None;
            }
            if state.opens == 0 && !state.nameless {
                state.data = None;
            }
        }
    }
}
