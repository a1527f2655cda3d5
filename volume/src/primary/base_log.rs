//! How far a base copy through the journal has come: what of the volume is told already, kept in a log so that a killed daemon's
//! copy goes on where it was.
//!
//! The log never runs ahead of the journal: what it says is told was durable there before. An entry that is missing
//! only makes something be told once more.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reelfs_journal::disk::{self, Label};
use reelfs_journal::{Epoch, FileId, Seq};
use uuid::Uuid;

use super::dirty::{ENTRY, entry, read_entry};

/// Number of the `BaseBegin`, in place of an inode number, and the epoch, in place of a generation.
const BEGUN: u8 = 1;
/// UUID of the base copy: its first half in place of an inode number, its second half as the number.
const BASE: u8 = 2;
/// All names of a directory are told.
const LISTED: u8 = 3;
/// An object is told with all its bytes. The number is 1 when every name that it has is told, too, wherever it stands.
const TOLD: u8 = 4;
/// The bytes of a file are told up to the number.
const REACHED: u8 = 5;

/// Bytes of entries that are kept for the log at most, before it is told of further objects that were made (1 MiB).
const BORN_MAX: usize = 1 << 20;

/// A base copy through the journal that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Its identity.
    pub base: Uuid,
    /// Its first `BaseBegin`.
    pub began: Seq,
    /// The history that it belongs to: in another one it leads nowhere.
    pub epoch: Epoch,
}

#[derive(Debug)]
pub(super) struct BaseLog {
    path: PathBuf,
    log: Arc<File>,
    pub(super) under_way: UnderWay,
    listed: HashSet<FileId>,
    /// Whether all names are told, too.
    told: HashMap<FileId, bool>,
    /// The file whose bytes were being told last, and how many are.
    reached: Option<(FileId, u64)>,
    /// Entries that the log does not have yet.
    pending: Vec<u8>,
}

impl BaseLog {
    fn place(state: &Path) -> PathBuf {
        state.join("base")
    }

    /// Starts a log, durably, in place of another one.
    pub(super) fn create(state: &Path, under_way: UnderWay) -> io::Result<BaseLog> {
        let path = BaseLog::place(state);
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let log = disk::create(Label::BaseLogCreate, &temporary, &options)?;
        let begun = FileId { ino: under_way.began.0, generation: under_way.epoch.0 };
        let (first, second) = under_way.base.as_u64_pair();
        let head = [entry(BEGUN, begun, 0), entry(BASE, FileId { ino: first, generation: 0 }, second)].concat();
        disk::append(Label::BaseLogHead, &log, &head)?;
        disk::sync(Label::BaseLogSync, &log)?;
        disk::rename(Label::BaseLogRename, &temporary, &path)?;
        disk::sync_parent(Label::BaseLogNameSync, &path)?;
        Ok(BaseLog::empty(path, log, under_way))
    }

    fn empty(path: PathBuf, log: File, under_way: UnderWay) -> BaseLog {
        let (listed, told, reached, pending) = (HashSet::new(), HashMap::new(), None, Vec::new());
        BaseLog { path, log: Arc::new(log), under_way, listed, told, reached, pending }
    }

    /// The log of a base copy that has not ended. One whose beginning does not read back is none: the copy begins anew.
    pub(super) fn load(state: &Path) -> io::Result<Option<BaseLog>> {
        let path = BaseLog::place(state);
        let mut file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.len() % ENTRY != 0 {
            disk::set_size(Label::BaseLogSetSize, &file, (bytes.len() - bytes.len() % ENTRY) as u64)?;
        }
        let Some(under_way) = read_head(&bytes) else { return Ok(None) };
        let mut log = BaseLog::empty(path, file, under_way);
        for (kind, id, number) in bytes.chunks_exact(ENTRY).skip(2).filter_map(read_entry) {
            log.take(kind, id, number);
        }
        Ok(Some(log))
    }

    fn take(&mut self, kind: u8, id: FileId, number: u64) {
        match kind {
            LISTED => drop(self.listed.insert(id)),
            TOLD => drop(self.told.insert(id, number == 1)),
            REACHED => self.reached = Some((id, number)),
            _ => {}
        }
    }

    fn note(&mut self, kind: u8, id: FileId, number: u64) {
        self.take(kind, id, number);
        self.pending.extend(entry(kind, id, number));
    }

    /// All names of a directory were told.
    pub(super) fn note_listed(&mut self, directory: FileId) {
        self.note(LISTED, directory, 0);
    }

    /// An object was told whole.
    pub(super) fn note_told(&mut self, id: FileId, with_all_names: bool) {
        self.note(TOLD, id, with_all_names.into());
    }

    /// The bytes of a file were told up to here.
    pub(super) fn note_reached(&mut self, id: FileId, end: u64) {
        self.note(REACHED, id, end);
    }

    /// An object was made, and the journal has it from its beginning. Only a help: not noted when nobody writes the log down.
    pub(super) fn note_born(&mut self, id: FileId) {
        if self.pending.len() < BORN_MAX {
            self.note(TOLD, id, 1);
        }
    }

    pub(super) fn is_listed(&self, directory: FileId) -> bool {
        self.listed.contains(&directory)
    }

    /// Whether an object was told, and whether with all names.
    pub(super) fn told(&self, id: FileId) -> Option<bool> {
        self.told.get(&id).copied()
    }

    /// Up to where the bytes of a file were told.
    pub(super) fn reached(&self, id: FileId) -> u64 {
        self.reached.filter(|(file, _)| *file == id).map_or(0, |(_, end)| end)
    }

    /// Appends to the log what [`BaseLog::take_pending`] gave, durably.
    pub(super) fn append(log: &File, pending: &[u8]) -> io::Result<()> {
        disk::append(Label::BaseLogAppend, log, pending)?;
        Ok(disk::sync_data(Label::BaseLogAppendSync, log)?)
    }

    /// What is to be written to the log when all that is journaled now is durable: nobody need wait for that.
    pub(super) fn take_pending(&mut self) -> (Arc<File>, Vec<u8>) {
        (self.log.clone(), std::mem::take(&mut self.pending))
    }

    /// The base copy has ended, or is given up.
    pub(super) fn remove(&self) -> io::Result<()> {
        disk::remove(Label::BaseLogRemove, &self.path)?;
        disk::sync_parent(Label::BaseLogRemoveSync, &self.path)
    }
}

/// The base copy through the journal that has not ended, if there is one, for whoever only wants to tell.
///
/// # Errors
/// The log is there and cannot be read.
pub fn base_under_way(state: &Path) -> io::Result<Option<UnderWay>> {
    let mut head = Vec::new();
    match File::open(BaseLog::place(state)) {
        Ok(file) => file.take(2 * ENTRY as u64).read_to_end(&mut head)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(read_head(&head))
}

fn read_head(bytes: &[u8]) -> Option<UnderWay> {
    let mut entries = bytes.chunks_exact(ENTRY).map(read_entry);
    let (begun, base) = (entries.next()??, entries.next()??);
    let base_uuid = Uuid::from_u64_pair(base.1.ino, base.2);
    let under_way = UnderWay { base: base_uuid, began: Seq(begun.1.ino), epoch: Epoch(begun.1.generation) };
    ((begun.0, base.0) == (BEGUN, BASE)).then_some(under_way)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const UNDER_WAY: UnderWay =
        UnderWay { base: Uuid::from_u128(0x0102_0304 << 70 | 9), began: Seq(77), epoch: Epoch(3) };

    fn id(ino: u64) -> FileId {
        FileId { ino, generation: 9 }
    }

    fn write(log: &mut BaseLog) {
        let (file, pending) = log.take_pending();
        BaseLog::append(&file, &pending).expect("written");
    }

    #[test]
    fn a_log_comes_back_as_far_as_it_was_written() {
        let state = tempfile::tempdir().expect("a directory");
        assert!(BaseLog::load(state.path()).expect("none").is_none());
        let mut log = BaseLog::create(state.path(), UNDER_WAY).expect("a log");
        log.note_told(id(1), true);
        log.note_told(id(2), false);
        log.note_listed(id(1));
        log.note_reached(id(3), 1 << 40);
        write(&mut log);
        log.note_told(id(4), true);
        OpenOptions::new().append(true).open(&log.path).and_then(|mut file| file.write_all(&[7; 5])).expect("torn");
        let mut again = BaseLog::load(state.path()).expect("readable").expect("there");
        assert_eq!(again.under_way, UNDER_WAY);
        assert_eq!([1, 2, 3, 4].map(|ino| again.told(id(ino))), [Some(true), Some(false), None, None]);
        assert_eq!([1, 2].map(|ino| again.is_listed(id(ino))), [true, false]);
        assert_eq!([2, 3].map(|ino| again.reached(id(ino))), [0, 1 << 40]);
        again.note_told(id(5), true);
        write(&mut again);
        let third = BaseLog::load(state.path()).expect("readable").expect("there");
        assert_eq!(third.told(id(5)), Some(true), "what came after the torn entry reads back");
        assert_eq!(base_under_way(state.path()).expect("readable"), Some(UNDER_WAY));
        third.remove().expect("removed");
        assert_eq!(base_under_way(state.path()).expect("none"), None);
    }

    #[test]
    fn a_bent_entry_is_left_out_and_a_bent_beginning_is_none() {
        let state = tempfile::tempdir().expect("a directory");
        let mut log = BaseLog::create(state.path(), UNDER_WAY).expect("a log");
        (1..=3).for_each(|ino| log.note_told(id(ino), true));
        write(&mut log);
        let mut bytes = fs::read(&log.path).expect("the log");
        bytes[3 * ENTRY + 9] ^= 1;
        fs::write(&log.path, &bytes).expect("bent");
        let bent = BaseLog::load(state.path()).expect("readable").expect("there");
        assert_eq!([1, 2, 3].map(|ino| bent.told(id(ino))), [Some(true), None, Some(true)]);
        bytes[9] ^= 1;
        fs::write(&log.path, bytes).expect("bent");
        assert!(BaseLog::load(state.path()).expect("readable").is_none());
    }

    #[test]
    fn the_head_is_that_of_the_format() {
        let state = tempfile::tempdir().expect("a directory");
        BaseLog::create(state.path(), UNDER_WAY).expect("a log");
        let bytes = fs::read(BaseLog::place(state.path())).expect("the log");
        let (first, second) = UNDER_WAY.base.as_u64_pair();
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..8], [1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[8..24], [77u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
        assert_eq!(bytes[32..40], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..56], [first.to_le_bytes(), second.to_le_bytes()].concat());
    }
}
