//! What later changes of a window take back, and so need not be done again.
//!
//! A redo begins with what is on disk, which may be the end of it all. There a file that was cut long ago and one that grew
//! into its room would stand side by side as they never did, and so would two extended attributes of one file.

use std::borrow::Cow;
use std::collections::HashMap;

use reelfs_journal::{Change, FileId, Record, Seq, Xattr};

/// Records of a window whose effect does not last to its end.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    /// Sizes that a file was cut to or extended to: in the end each with the least of those after it.
    sizes: HashMap<FileId, Vec<(Seq, u64)>>,
    /// Changes of an extended attribute: in the end the last one.
    xattrs: HashMap<(FileId, Vec<u8>), Vec<Seq>>,
}

impl Superseded {
    /// Takes in a record; they come in order.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        match &record.change {
            Change::SetSize { file, size, .. } => self.sizes.entry(*file).or_default().push((record.seq, *size)),
            Change::SetXattr { file, xattr: Xattr { name, .. } } | Change::RemoveXattr { file, name } => {
                self.xattrs.entry((*file, name.clone())).or_default().push(record.seq);
            }
            _ => {}
        }
    }

    /// All records were noted; those that are not done again, amended ones say, take nothing back.
    pub(super) fn finish(&mut self, is_left_out: impl Fn(Seq) -> bool) {
        for sizes in self.sizes.values_mut() {
            sizes.retain(|(seq, _)| !is_left_out(*seq));
            let mut least = u64::MAX;
            for (_, size) in sizes.iter_mut().rev() {
                least = least.min(*size);
                *size = least;
            }
        }
        for changes in self.xattrs.values_mut() {
            changes.retain(|seq| !is_left_out(*seq));
            *changes = changes.pop().into_iter().collect();
        }
    }

    /// What of a change lasts; `None` when that is nothing.
    pub(super) fn lasting<'a>(&self, seq: Seq, change: Change<'a>) -> Option<Change<'a>> {
        let least = self.least_size_after(change.file(), seq);
        let room = |offset: u64| least.saturating_sub(offset);
        match change {
            Change::Write { file, offset, data, size, mtime } => {
                let length = usize::try_from(room(offset)).unwrap_or(usize::MAX).min(data.len());
                let data = match data {
                    Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[..length]),
                    Cow::Owned(bytes) => Cow::Owned(bytes[..length].to_vec()),
                };
                (length > 0).then_some(Change::Write { file, offset, data, size, mtime })
            }
            Change::Zero { file, offset, length, size, mtime } => {
                let length = length.min(room(offset));
                (length > 0).then_some(Change::Zero { file, offset, length, size, mtime })
            }
            Change::Allocate { file, offset, length, size, mtime } => {
                let length = length.min(room(offset));
                (length > 0).then_some(Change::Allocate { file, offset, length, size, mtime })
            }
            Change::SetXattr { file, ref xattr } if self.xattr_changes_after(file, &xattr.name, seq) => None,
            Change::RemoveXattr { file, ref name } if self.xattr_changes_after(file, name, seq) => None,
            change => Some(change),
        }
    }

    fn least_size_after(&self, file: FileId, seq: Seq) -> u64 {
        let Some(sizes) = self.sizes.get(&file) else { return u64::MAX };
        let next = sizes.partition_point(|(at, _)| *at <= seq);
        sizes.get(next).map_or(u64::MAX, |(_, least)| *least)
    }

    fn xattr_changes_after(&self, file: FileId, name: &[u8], seq: Seq) -> bool {
        self.xattrs.get(&(file, name.to_vec())).and_then(|changes| changes.last()).is_some_and(|last| *last > seq)
    }
}

#[cfg(test)]
mod tests {
    use reelfs_journal::{FileTime, Timestamp, VolumeIndex};

    use super::*;

    const FILE: FileId = FileId { ino: 7, generation: 1 };

    fn write(offset: u64, length: usize) -> Change<'static> {
        let size = offset + length as u64;
        Change::Write { file: FILE, offset, data: Cow::Owned(vec![1; length]), size, mtime: FileTime::default() }
    }

    fn lasting(superseded: &Superseded, seq: u64, change: Change<'_>) -> Option<usize> {
        superseded.lasting(Seq(seq), change).map(|change| match change {
            Change::Write { data, .. } => data.len(),
            _ => 0,
        })
    }

    #[test]
    fn of_a_write_lasts_what_no_later_cut_takes() {
        let mut superseded = Superseded::default();
        for (seq, size) in [(3, 100), (5, 10), (9, 50)] {
            let change = Change::SetSize { file: FILE, size, mtime: FileTime::default() };
            let record = Record {
                seq: Seq(seq),
                more: false,
                time: Timestamp(0),
                wall: Timestamp(0),
                uid: 0,
                pid: 0,
                volume: VolumeIndex(0),
                change,
            };
            superseded.note(&record);
        }
        superseded.finish(|_| false);
        assert_eq!(lasting(&superseded, 2, write(0, 200)), Some(10));
        assert_eq!(lasting(&superseded, 4, write(10, 200)), None);
        assert_eq!(lasting(&superseded, 6, write(40, 200)), Some(10));
        assert_eq!(lasting(&superseded, 10, write(40, 200)), Some(200));
    }
}
