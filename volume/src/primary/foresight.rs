//! Foresight: which cold objects will be asked for next, so that one flush serves many.
//!
//! Programs go through trees: after one object come its neighbours, then what is in the directories beside it. The more often
//! something was cold of late, the further it is looked ahead. Whatever goes wrong on the way only makes the look shorter.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use reelfs_journal::{ACTIVE_UNIT, Active, FileId};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Result;

use super::Primary;
use super::activity::{Cost, Need};
use super::resync::NAME_BYTES;
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::open_directory;

/// Entries that the first record of a busy time foresees; each further one eight times as many, up to the last.
const REACH: (usize, usize) = (8, 512);
/// A busy time ends when nothing was cold for so long, in nanoseconds (5 s).
const QUIET: i64 = 5_000_000_000;
/// Entries of one directory that are looked at.
const ENTRIES_MAX: usize = 65_536;
/// Directories above an object in which it is looked for more.
const LEVELS: usize = 3;
/// Bytes of entries read at once.
const PAGE: usize = 32 << 10;
/// Records that tell an object and its attributes.
pub(super) const RECORDS: u64 = 2;
/// Further ones that tell the bytes of a small file.
const RECORDS_OF_BYTES: u64 = 2;

/// What is being foreseen.
struct Look<'p> {
    primary: &'p Primary,
    need: Need,
    entries: Vec<Active>,
    seen: HashSet<u64>,
    left: usize,
    /// What all may cost that was ever foreseen.
    limit: Cost,
    /// Directories that may still be opened.
    openings: usize,
}

impl Primary {
    /// Entries for what is needed, and for what may be needed soon.
    pub(super) fn foresee(&self, needs: &[Need]) -> Vec<Active> {
        let limit = self.limit_of_foresight();
        let mut entries = Vec::with_capacity(needs.len());
        for need in needs {
            entries.push(match *need {
                Need::Names(id) => Active::Names { directory: id.ino },
                Need::Attributes(id) => Active::Attributes { object: id.ino },
                Need::Bytes { file, from, to, size } => self.activity.widen(file.ino, (from, to, size), limit),
            });
        }
        // whoever writes here and there in one file does not go through the tree
        let Some(last) = needs.iter().rfind(|need| !self.activity.is_again(need)) else { return entries };
        let reach = {
            let now = self.clock().read().wall;
            let mut reach = self.activity.reach.lock();
            let is_quiet = now.0.saturating_sub(reach.1.0).unsigned_abs() > QUIET.unsigned_abs();
            let next = if is_quiet { REACH.0 } else { (reach.0 * 8).min(REACH.1) };
            *reach = (next, now);
            next
        };
        let seen = HashSet::new();
        let mut look = Look { primary: self, need: *last, entries, seen, left: reach, limit, openings: 16 + reach };
        if let Err(error) = look.around() {
            tracing::debug!(%error, "what may change soon could not be looked at");
        }
        look.entries.truncate(reelfs_journal::ACTIVE_MAX.max(needs.len()));
        look.entries
    }

    /// What is foreseen and never asked for must not keep a recovery from telling the rest: a quarter of the journal's data, and
    /// half of the records that it has room for now.
    pub(super) fn limit_of_foresight(&self) -> Cost {
        let (geometry, pointers) = (self.jvol().geometry(), self.jvol().pointers());
        let held = pointers.next.0.saturating_sub(pointers.out.0);
        Cost { bytes: geometry.data_size / 4, records: geometry.control_slots.saturating_sub(held) / 2 }
    }
}

impl Look<'_> {
    /// The directory of the object first with what is below it, then those above, with what is below them.
    fn around(&mut self) -> Result<()> {
        let (id, is_inside) = match self.need {
            Need::Names(id) => (id, true),
            Need::Attributes(id) | Need::Bytes { file: id, .. } => (id, false),
        };
        let parent = |node: &Arc<Node>| node.state.lock().links.first().map(|link| link.parent.clone());
        let node = self.primary.volume.node(id)?;
        let mut at = if is_inside { Some(node) } else { parent(&node) };
        for _ in 0..LEVELS {
            let Some(directory) = at else { return Ok(()) };
            if is_inside {
                self.take(Active::Names { directory: directory.id.ino }, Need::Names(directory.id), None);
            }
            let path = self.primary.volume.path(&directory)?;
            self.below(directory.id.ino, open_directory(&path)?);
            if self.left == 0 {
                return Ok(());
            }
            at = parent(&directory);
        }
        Ok(())
    }

    /// A directory and all that is below it, level by level.
    fn below(&mut self, ino: u64, directory: OwnedFd) {
        let mut queue = VecDeque::from([(ino, directory)]);
        while let Some((ino, directory)) = queue.pop_front() {
            if self.left == 0 || self.openings == 0 {
                return;
            }
            if self.seen.insert(ino) {
                self.openings -= 1;
                let _ = self.list(&directory, &mut queue);
            }
        }
    }

    fn list(&mut self, directory: &OwnedFd, queue: &mut VecDeque<(u64, OwnedFd)>) -> Result<()> {
        let mut buffer = Vec::with_capacity(PAGE);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        for _ in 0..ENTRIES_MAX {
            let Some(entry) = entries.next() else { return Ok(()) };
            let entry = entry?;
            let (ino, name) = (entry.ino(), entry.file_name().to_bytes());
            if matches!(name, b"." | b"..") {
                continue;
            }
            let is_directory = entry.file_type() == FileType::Directory;
            self.entry(directory, ino, name, entry.file_type());
            if self.left == 0 {
                return Ok(());
            }
            if is_directory && !self.seen.contains(&ino) && queue.len() < self.openings {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = rustix::fs::openat(directory, name, flags, Mode::empty()) {
                    queue.push_back((ino, child));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, ino: u64, name: &[u8], file_type: FileType) {
        let id = FileId { ino, generation: 0 };
        match self.need {
            Need::Names(_) if file_type == FileType::Directory => {
                self.take(Active::Names { directory: ino }, Need::Names(id), None);
            }
            Need::Names(_) => {}
            Need::Attributes(_) => self.take(Active::Attributes { object: ino }, Need::Attributes(id), None),
            Need::Bytes { .. } if file_type == FileType::RegularFile => {
                let need = Need::Bytes { file: id, from: 0, to: ACTIVE_UNIT, size: ACTIVE_UNIT };
                if self.primary.activity.is_hot(&need) {
                    return;
                }
                // a large file is told where it changes, and nobody knows where that will be
                if let Some(stat) = Stat::at(directory, name).ok().filter(|stat| stat.size < ACTIVE_UNIT) {
                    self.take(Active::Bytes { file: ino, first: 0, units: 1 }, need, Some(stat.size));
                }
            }
            Need::Bytes { .. } => {}
        }
    }

    /// An entry, if it is a new one and within the limit; `bytes` are those of a file that are told with it.
    fn take(&mut self, entry: Active, need: Need, bytes: Option<u64>) {
        if self.left == 0 || self.primary.activity.is_hot(&need) || self.entries.contains(&entry) {
            return;
        }
        let records = RECORDS + if bytes.is_some() { RECORDS_OF_BYTES } else { 0 };
        let cost = Cost { bytes: NAME_BYTES + bytes.unwrap_or(0), records };
        if !self.primary.activity.foresees(cost, self.limit) {
            self.left = 0;
            return;
        }
        self.left -= 1;
        self.entries.push(entry);
    }
}
