//! The names known for an object: nearly always one, and there may be millions of objects.

use std::ops::Deref;
use std::sync::Arc;

use reelfs_journal::Name;

use crate::node::Node;

/// A name known for an object.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: Name,
}

/// On a primary those that were looked up, on a replica all.
#[derive(Debug, Clone)]
pub(crate) enum Links {
    /// One, kept in place.
    One(Link),
    /// None, or several.
    Other(Box<[Link]>),
}

impl Default for Links {
    fn default() -> Links {
        Links::Other(Box::default())
    }
}

impl Deref for Links {
    type Target = [Link];

    fn deref(&self) -> &[Link] {
        match self {
            Links::One(link) => std::slice::from_ref(link),
            Links::Other(links) => links,
        }
    }
}

impl From<Vec<Link>> for Links {
    fn from(mut links: Vec<Link>) -> Links {
        match links.pop() {
            Some(link) if links.is_empty() => Links::One(link),
            last => {
                links.extend(last);
                Links::Other(links.into())
            }
        }
    }
}

impl Links {
    fn take(&mut self) -> Vec<Link> {
        match std::mem::take(self) {
            Links::One(link) => vec![link],
            Links::Other(links) => links.into(),
        }
    }

    /// One more.
    pub(crate) fn push(&mut self, link: Link) {
        if self.is_empty() {
            *self = Links::One(link);
        } else {
            let mut links = self.take();
            links.push(link);
            *self = links.into();
        }
    }

    /// Only those that `stays` is true of.
    pub(crate) fn retain(&mut self, stays: impl FnMut(&Link) -> bool) {
        let mut links = self.take();
        links.retain(stays);
        *self = links.into();
    }
}

#[cfg(test)]
mod tests {
    use reelfs_journal::FileId;
    use rustix::fs::FileType;

    use super::*;

    #[test]
    fn names_come_and_go() {
        let parent = Node::new(FileId { ino: 1, generation: 0 }, FileType::Directory);
        let mut links = Links::default();
        let names = |links: &Links| links.iter().map(|link| link.name.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["one", "two", "three"] {
            links.push(Link { parent: parent.clone(), name: Name::new(name.as_bytes()).unwrap() });
        }
        assert_eq!(names(&links), "one two three");
        links.retain(|link| link.name.as_bytes() != b"two");
        assert_eq!(names(&links), "one three");
        links.retain(|link| link.name.as_bytes() == b"three");
        assert!(matches!(&links, Links::One(link) if link.name.as_bytes() == b"three"));
        links.retain(|_| false);
        assert!(links.is_empty() && matches!(links, Links::Other(_)));
        assert_eq!(Arc::strong_count(&parent), 1, "who has no name holds no directory");
    }

    #[test]
    fn one_name_takes_no_more_than_itself() {
        assert_eq!(size_of::<Links>(), size_of::<Link>());
    }
}
