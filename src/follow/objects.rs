//! Which object of a replica is which of the primary's, on disk: a file that grows with each checkpoint, and is written anew
//! when most of it is out of date. Byte table: `docs/FORMAT-replica.md`.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reelfs_journal::FileId;
use reelfs_journal::checksum;
use reelfs_journal::disk::{self, Label};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = *b"REELOBJS";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 24;
const FRAME_LEN: usize = 8;
/// So much of the file may be out of date before it is written anew, in bytes.
const SLACK: u64 = 1 << 20;

/// A change of the table: an object of the primary, and what it is here; nothing when it is gone.
pub type Entry = (FileId, Option<FileId>);

/// The table, in memory and on disk.
#[derive(Debug)]
pub struct Objects {
    dir: PathBuf,
    file: File,
    /// Number in the file's name, and how much of it counts.
    extent: Extent,
    own: HashMap<FileId, FileId>,
    primary: HashMap<FileId, FileId>,
}

/// Which file it is and how much of it counts: the rest was written for a checkpoint that never came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// The file is called `objects.N`.
    pub number: u64,
    /// Bytes that count.
    pub bytes: u64,
}

impl Objects {
    /// Makes a table of objects that are all there already, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(dir: &Path, number: u64, entries: HashMap<FileId, FileId>) -> Result<Objects> {
        let path = path(dir, number);
        let fail = |error: io::Error| Error::io(format!("write {}", path.display()), error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = disk::create(Label::ObjectsCreate, &path, &options).map_err(fail)?;
        let primary = entries.iter().map(|(primary, own)| (*own, *primary)).collect();
        let mut bytes = header().to_vec();
        let all: Vec<Entry> = entries.iter().map(|(primary, own)| (*primary, Some(*own))).collect();
        for part in all.chunks(1 << 16) {
            bytes.extend(frame(part));
        }
        disk::append(Label::ObjectsWrite, &file, &bytes).map_err(|errno| fail(errno.into()))?;
        disk::sync(Label::ObjectsSync, &file).map_err(|errno| fail(errno.into()))?;
        disk::sync_parent(Label::ObjectsNameSync, &path).map_err(fail)?;
        let extent = Extent { number, bytes: bytes.len() as u64 };
        Ok(Objects { dir: dir.to_owned(), file, extent, own: entries, primary })
    }

    /// Reads the part of it that counts.
    ///
    /// # Errors
    /// 19 when it is not what was written.
    pub fn open(dir: &Path, extent: Extent) -> Result<Objects> {
        let path = path(dir, extent.number);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let damaged = || {
            Error::new(ErrorKind::Damaged, format!("{} is damaged", path.display()))
                .hint("follow into a new directory; this one can be looked at, and not be followed any more")
        };
        let mut bytes = vec![0; usize::try_from(extent.bytes).map_err(|_| damaged())?];
        file.read_exact_at(&mut bytes, 0).map_err(|_| damaged())?;
        let mut objects = Objects { dir: dir.to_owned(), file, extent, own: HashMap::new(), primary: HashMap::new() };
        let entries = parse(&bytes).ok_or_else(damaged)?;
        entries.into_iter().for_each(|entry| objects.set(entry));
        Ok(objects)
    }

    /// The object of the primary that has this id here.
    #[must_use]
    pub fn of_own(&self, own: FileId) -> Option<FileId> {
        self.primary.get(&own).copied()
    }

    /// It is in the table.
    #[must_use]
    pub fn has(&self, file: FileId) -> bool {
        self.own.contains_key(&file)
    }

    /// Objects known.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.own.keys().copied()
    }

    /// Takes in what changed, durably; what this gives is to be remembered with the position.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, changed: &[Entry]) -> Result<Extent> {
        changed.iter().for_each(|entry| self.set(*entry));
        let live = (HEADER_LEN + self.own.len() * ENTRY_LEN) as u64;
        if self.extent.bytes > live * 2 + SLACK {
            *self = Objects::create(&self.dir, self.extent.number + 1, std::mem::take(&mut self.own))?;
            return Ok(self.extent);
        }
        if !changed.is_empty() {
            let bytes = frame(changed);
            let written = write_all_at(&self.file, &bytes, self.extent.bytes);
            let written = written.and_then(|()| disk::sync_data(Label::ObjectsAppendSync, &self.file));
            written.map_err(|errno| {
                Error::io(format!("write {}", path(&self.dir, self.extent.number).display()), errno.into())
            })?;
            self.extent.bytes += bytes.len() as u64;
        }
        Ok(self.extent)
    }

    /// How much of which file counts.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Removes the files that do not count any more.
    pub fn clean(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("objects.").and_then(|number| number.parse::<u64>().ok());
            if number.is_some_and(|number| number != self.extent.number) {
                // room, nothing else
                let _ = disk::remove(Label::ObjectsRemove, &entry.path());
            }
        }
    }

    fn set(&mut self, (primary, own): Entry) {
        let before = match own {
            Some(own) => self.own.insert(primary, own),
            None => self.own.remove(&primary),
        };
        if let Some(before) = before.filter(|before| self.primary.get(before) == Some(&primary)) {
            self.primary.remove(&before);
        }
        if let Some(own) = own {
            self.primary.insert(own, primary);
        }
    }
}

fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match disk::write_at(Label::ObjectsAppend, file, bytes, offset) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(length) => (bytes, offset) = (&bytes[length..], offset + length as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("objects.{number}"))
}

fn header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

fn frame(entries: &[Entry]) -> Vec<u8> {
    let mut body = Vec::with_capacity(entries.len() * ENTRY_LEN);
    for (primary, own) in entries {
        let own = own.unwrap_or(FileId::NONE);
        body.extend(primary.ino.to_le_bytes());
        body.extend(primary.generation.to_le_bytes());
        body.extend(own.generation.to_le_bytes());
        body.extend(own.ino.to_le_bytes());
    }
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = checksum::crc32c_append(checksum::crc32c(&count), &body).to_le_bytes();
    [&count[..], &checksum[..], &body].concat()
}

fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (head, mut rest) = bytes.split_at_checked(HEADER_LEN)?;
    if *head != header() {
        return None;
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (head, body) = rest.split_at_checked(FRAME_LEN)?;
        let count = u32::from_le_bytes(*head.first_chunk()?);
        let checksum = u32::from_le_bytes(*head[4..].first_chunk()?);
        let length = usize::try_from(count).ok()?.checked_mul(ENTRY_LEN)?;
        let (body, after) = body.split_at_checked(length)?;
        if checksum::crc32c_append(checksum::crc32c(&head[..4]), body) != checksum {
            return None;
        }
        entries.extend(body.as_chunks::<ENTRY_LEN>().0.iter().filter_map(|entry| {
            let word = |at: usize| entry[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            let half = |at: usize| entry[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            let primary = FileId { ino: word(0)?, generation: half(8)? };
            let own = FileId { ino: word(16)?, generation: half(12)? };
            Some((primary, (own != FileId::NONE).then_some(own)))
        }));
        rest = after;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64) -> FileId {
        FileId { ino, generation: 7 }
    }

    #[test]
    fn an_entry_has_the_bytes_of_the_table() {
        let bytes = frame(&[(FileId { ino: 2, generation: 3 }, Some(FileId { ino: 4, generation: 5 }))]);
        assert_eq!(bytes[..4], [1, 0, 0, 0]);
        assert_eq!(bytes[8..], [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[4..8], checksum::crc32c(&[&bytes[..4], &bytes[8..]].concat()).to_le_bytes());
        assert_eq!(header(), *b"REELOBJS\x01\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_was_appended_counts_up_to_the_extent_and_no_further() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let dir = temporary.path();
        let mut objects = Objects::create(dir, 0, HashMap::from([(id(1), id(11))])).expect("made");
        let early = objects.append(&[(id(2), Some(id(12))), (id(1), None)]).expect("appended");
        objects.append(&[(id(3), Some(id(12)))]).expect("appended");
        let late = Objects::open(dir, objects.extent()).expect("opened");
        assert_eq!((late.of_own(id(12)), late.of_own(id(11)), late.own.len()), (Some(id(3)), None, 2));
        let opened = Objects::open(dir, early).expect("opened");
        assert_eq!((opened.of_own(id(12)), opened.of_own(id(11)), opened.own.len()), (Some(id(2)), None, 1));
        let cut = Extent { bytes: early.bytes - 1, ..early };
        assert_eq!(Objects::open(dir, cut).expect_err("cut").code(), 19);
    }

    #[test]
    fn a_file_that_is_mostly_out_of_date_is_written_anew() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let mut objects = Objects::create(temporary.path(), 0, HashMap::new()).expect("made");
        let many: Vec<Entry> = (1..60_000).map(|ino| (id(ino), Some(id(ino)))).collect();
        let gone: Vec<Entry> = (2..60_000).map(|ino| (id(ino), None)).collect();
        objects.append(&many).expect("appended");
        objects.append(&gone).expect("appended");
        assert_eq!(objects.extent().number, 1);
        let opened = Objects::open(temporary.path(), objects.extent()).expect("opened");
        objects.clean();
        assert_eq!((opened.own.len(), fs::read_dir(temporary.path()).expect("list").count()), (1, 1));
    }
}
