//! Where a debug build makes the deliberate mistakes about activity that a test asks for.

use std::sync::Arc;

use reelfs_journal::disk::{self, Mistake};
use rustix::fs::FileType;
use rustix::io::Result;

use super::Primary;
use super::activity::Need;
use super::dirty::DirtyMap;
use super::restate::in_memory;
use crate::node::Node;
use crate::stat::Stat;

impl Primary {
    /// What is cold for a program that makes a mistake; none: it goes on without asking. Without one that is what is cold.
    pub(super) fn mistaken(&self, cold: Vec<Need>) -> Option<Vec<Need>> {
        if disk::makes(Mistake::NoActivityMap) {
            return None;
        }
        if !disk::makes(Mistake::ContentsByDirectory) {
            return Some(cold);
        }
        let by_directory = |need| match need {
            Need::Bytes { file, .. } => {
                let node = self.volume.nodes.get(file);
                let link = node.and_then(|node| node.state.lock().links.first().cloned());
                link.map_or(need, |link| Need::Names(link.parent.id))
            }
            need => need,
        };
        let cold: Vec<Need> = cold.into_iter().map(by_directory).filter(|need| !self.activity.is_hot(need)).collect();
        (!cold.is_empty()).then_some(cold)
    }

    /// The same mistake after a power cut: a directory that is active has all bytes of its files told.
    pub(super) fn note_mistaken(&self, map: &mut DirtyMap, directory: &Arc<Node>) -> Result<()> {
        if !disk::makes(Mistake::ContentsByDirectory) {
            return Ok(());
        }
        let path = self.volume.path(directory)?;
        let mut names = Vec::new();
        self.each_entry(directory, &mut |name| names.push(name))?;
        for name in names {
            let stat = Stat::identified(&*path, name.as_bytes())?;
            if stat.file_type == FileType::RegularFile {
                let node = self.volume.nodes.intern(stat.id, stat.file_type, 0);
                node.add_link(directory, &name);
                map.note_whole(stat.id, false).map_err(in_memory)?;
            }
        }
        Ok(())
    }
}
