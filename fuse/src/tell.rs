//! A change that comes through the first inode of a file that has a second one: what is stored in the mappings of that comes first,
//! and then its pages are old.

use std::sync::Arc;
use std::time::Duration;

use crate::kernel::INodeNo;
use crate::opens::Opens;

/// A change of some bytes of an inode.
#[derive(Clone)]
pub(crate) struct Tell {
    pub(crate) opens: Arc<Opens>,
    pub(crate) node: INodeNo,
    /// Its number in the volume.
    pub(crate) ino: u64,
    pub(crate) offset: u64,
    /// 0 for all that follow.
    pub(crate) length: u64,
}

impl Tell {
    pub(crate) fn is_needed(&self) -> bool {
        self.opens.to_tell(self.node, self.ino).is_some()
    }

    /// How long the attributes may be kept that the change leaves.
    pub(crate) fn attribute_ttl(&self) -> Duration {
        self.opens.attribute_ttl(self.ino)
    }

    /// Makes the change when what the second inode has stored is here: written back later, it would bring old bytes with it.
    pub(crate) fn first(&self, change: impl FnOnce() + Send + 'static) {
        match self.opens.to_tell(self.node, self.ino) {
            None => change(),
            Some(second) => {
                let (offset, length) = (self.offset, self.length);
                self.opens.second.later(move |opens| {
                    opens.second.invalidate(second, offset, length);
                    change();
                });
            }
        }
    }

    /// Tells it if there is anybody to be told, and answers then.
    pub(crate) fn then(self, answer: impl FnOnce() + Send + 'static) {
        let Tell { opens, node, ino, offset, length } = self;
        match opens.to_tell(node, ino) {
            None => answer(),
            Some(second) => opens.second.later(move |opens| {
                opens.second.invalidate(second, offset, length);
                answer();
            }),
        }
    }
}
