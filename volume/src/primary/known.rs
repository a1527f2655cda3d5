//! An object that is looked at for a while: it counts as looked up once more, and is forgotten when this goes.

use std::ops::Deref;
use std::sync::Arc;

use super::Primary;
use crate::node::Node;

pub(super) struct Known<'p> {
    primary: &'p Primary,
    node: Arc<Node>,
}

impl<'p> Known<'p> {
    /// With a lookup that is its own already.
    pub(super) fn counted(primary: &'p Primary, node: Arc<Node>) -> Known<'p> {
        Known { primary, node }
    }

    /// Looked up once more.
    pub(super) fn more(primary: &'p Primary, node: Arc<Node>) -> Known<'p> {
        node.state.lock().lookups.add(1);
        Known::counted(primary, node)
    }
}

impl Deref for Known<'_> {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        // a node goes when nobody else holds it, so we must not
        let ours = std::mem::replace(&mut self.node, self.primary.volume.root.clone());
        let ino = ours.id.ino;
        drop(ours);
        self.primary.forget(ino, 1);
    }
}
