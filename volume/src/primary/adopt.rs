//! Adoption: what changed behind the mount is found by its change time and journaled.
//!
//! A changed directory is told as a whole listing, so nobody needs to know what was in it before. A directory that the
//! journal has never told (moved in from elsewhere) is told with everything beneath it, whatever the times there say.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reelfs_journal::checksum;
use reelfs_journal::disk::{self, Label};
use reelfs_journal::{Change, DATA_MAX, FileId, Name, Reserve};
use rustix::fs::{Dir, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use super::scan::{Found, Scan};
use super::{Primary, Requester};
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::open_directory;
use crate::{sys, xattr};

/// Which directory on which file system a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// UUID of the file system where it tells one, else its `statfs` id.
    pub file_system: String,
    /// Its root directory.
    pub root: FileId,
}

impl Identity {
    /// Of an open directory.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the file system has no file handles.
    pub fn of(root: &OwnedFd) -> Result<Identity> {
        let directory = open_directory(root)?;
        let file_system = match sys::file_system_uuid(&directory) {
            Some(uuid) => uuid::Uuid::from_bytes(uuid).to_string(),
            None => format!("{:016x}", rustix::fs::fstatvfs(&directory)?.f_fsid),
        };
        Ok(Identity { file_system, root: Stat::identified(root, b"")?.id })
    }
}

/// What an adoption found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Adopted {
    /// Directories whose listing was told.
    pub directories: u64,
    /// Files and other objects whose state was told.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Adopted {
    /// Nothing changed behind the mount.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories == 0 && self.files == 0
    }
}

/// Ids of all directories that the journal has told, kept in a log so that a killed daemon's are known too.
#[derive(Debug, Default)]
pub(crate) struct KnownDirectories {
    ids: HashSet<FileId>,
    log: Option<File>,
}

/// Bytes of one id in the log: inode number, generation, CRC-32C of the two.
const LOG_ENTRY: usize = 16;

impl KnownDirectories {
    /// Reads the log; an entry cut short or bent is left out, which only makes its directory be told again.
    pub(crate) fn load(path: &Path) -> std::io::Result<HashSet<FileId>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
            Err(error) => return Err(error),
        };
        let entries = bytes.chunks_exact(LOG_ENTRY).filter_map(|entry| {
            let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let ino = u64::from(word(4)) << 32 | u64::from(word(0));
            (checksum::crc32c(&entry[..12]) == word(12)).then_some(FileId { ino, generation: word(8) })
        });
        Ok(entries.collect())
    }

    /// Starts a new log with these ids in place of the old one.
    pub(crate) fn create(path: &Path, ids: HashSet<FileId>) -> std::io::Result<KnownDirectories> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let mut options = File::options();
        let file = disk::create(Label::KnownCreate, &temporary, options.write(true).create(true).truncate(true))?;
        let bytes: Vec<u8> = ids.iter().flat_map(log_entry).collect();
        disk::append(Label::KnownWrite, &file, &bytes)?;
        disk::sync(Label::KnownSync, &file)?;
        disk::rename(Label::KnownRename, &temporary, path)?;
        disk::sync_parent(Label::KnownNameSync, path)?;
        Ok(KnownDirectories { ids, log: Some(file) })
    }

    /// Makes durable what was added: what a power cut takes from it is told in full.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(disk::sync_data(Label::KnownAppendSync, log)?))
    }

    pub(crate) fn add(&mut self, id: FileId) {
        if self.ids.insert(id)
            && let Some(log) = &self.log
            && let Err(error) = disk::append(Label::KnownAppend, log, &log_entry(&id))
        {
            tracing::warn!(%error, "the list of known directories cannot be written: more than necessary may be adopted");
            self.log = None;
        }
    }
}

fn log_entry(id: &FileId) -> [u8; LOG_ENTRY] {
    let mut entry = [0; LOG_ENTRY];
    entry[..8].copy_from_slice(&id.ino.to_le_bytes());
    entry[8..12].copy_from_slice(&id.generation.to_le_bytes());
    let checksum = checksum::crc32c(&entry[..12]);
    entry[12..].copy_from_slice(&checksum.to_le_bytes());
    entry
}

impl Primary {
    /// Journals what a scan found: all names first, then the bytes.
    pub(super) fn tell_scan(&self, scan: &Scan) -> Result<Adopted> {
        let mut adopted = Adopted { directories: self.tell_listings(scan)?, ..Adopted::default() };
        for found in scan.changed.iter().filter(|found| !found.stat.is_directory()) {
            adopted.files += 1;
            adopted.bytes += self.tell_bytes(&Requester::reelfs(), found)?;
        }
        Ok(adopted)
    }

    /// Journals the names in changed directories, and the attributes of what else changed; gives how many directories.
    pub(super) fn tell_listings(&self, scan: &Scan) -> Result<u64> {
        let who = Requester::reelfs();
        for directory in &scan.changed_directories {
            self.tell(&who, Change::ListBegin { directory: directory.id })?;
            let path = self.volume.path(directory)?;
            let mut result = Ok(());
            self.each_entry(directory, &mut |name| {
                if result.is_ok() {
                    result = self.tell_entry(&who, directory.id, &path, &name);
                }
            })?;
            result?;
            self.tell(&who, Change::ListEnd { directory: directory.id })?;
            if directory.id == self.volume.root_id() {
                self.tell_without_place(&self.volume.root)?;
            }
        }
        let listed: HashSet<FileId> = scan.changed_directories.iter().map(|directory| directory.id).collect();
        for found in scan.changed.iter().filter(|found| !listed.contains(&found.parent.id)) {
            let path = self.volume.path(&found.parent)?;
            let entry = self.entry(found.parent.id, &path, &found.name, &found.stat)?;
            self.tell(&who, entry)?;
        }
        for node in &scan.placeless {
            self.tell_without_place(node)?;
        }
        Ok(scan.changed_directories.len() as u64)
    }

    /// The names in a directory that can be replicated.
    pub(super) fn each_entry(&self, directory: &Arc<Node>, each: &mut dyn FnMut(Name)) -> Result<()> {
        let path = self.volume.path(directory)?;
        for entry in Dir::read_from(open_directory(&path)?)? {
            if let Ok(name) = Name::new(entry?.file_name().to_bytes()) {
                each(name);
            }
        }
        Ok(())
    }

    fn tell_entry(&self, who: &Requester, parent: FileId, path: &OwnedFd, name: &Name) -> Result<()> {
        let stat = Stat::identified(path, name.as_bytes())?;
        if stat.file_system != self.volume.file_system {
            return Ok(());
        }
        let entry = self.entry(parent, path, name, &stat)?;
        self.tell(who, entry)
    }

    pub(super) fn tell(&self, who: &Requester, change: Change<'_>) -> Result<()> {
        self.journal(None, who, &[change], Reserve::Keep).map(|_| ())
    }

    /// Journals the attributes of the root, or of an object of which no name is known.
    pub(super) fn tell_without_place(&self, node: &Arc<Node>) -> Result<()> {
        self.tell(&Requester::reelfs(), self.placeless(node)?)
    }

    /// An entry without a place.
    pub(super) fn placeless(&self, node: &Arc<Node>) -> Result<Change<'static>> {
        let stat = self.volume.stat(node)?;
        let path = self.volume.path(node)?;
        Ok(Change::Entry {
            parent: FileId::NONE,
            name: Name::new(b"?").map_err(|_| Errno::INVAL)?,
            file: node.id,
            kind: stat.node_kind(|| self.volume.link_target(node))?,
            attributes: stat.attributes(),
            xattrs: xattr::all_by_owner(&*path, stat.mode)?,
            size: if stat.file_type == FileType::RegularFile { stat.size } else { 0 },
        })
    }

    pub(super) fn entry(
        &self,
        parent: FileId,
        directory: &OwnedFd,
        name: &Name,
        stat: &Stat,
    ) -> Result<Change<'static>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = rustix::fs::openat(directory, name.as_bytes(), flags, Mode::empty())?;
        Ok(Change::Entry {
            parent,
            name: name.clone(),
            file: stat.id,
            kind: stat.node_kind(|| Ok(rustix::fs::readlinkat(&object, c"", Vec::new())?.into_bytes()))?,
            attributes: stat.attributes(),
            xattrs: xattr::all_by_owner(&object, stat.mode)?,
            size: if stat.file_type == FileType::RegularFile { stat.size } else { 0 },
        })
    }

    /// The whole content of a file, holes left out; then its attributes again, for writing takes some away.
    fn tell_bytes(&self, who: &Requester, found: &Found) -> Result<u64> {
        let (file, mtime, size) = (found.stat.id, found.stat.mtime, found.stat.size);
        if found.stat.file_type != FileType::RegularFile {
            return Ok(0);
        }
        let path = self.volume.path(&found.parent)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(&*path, found.name.as_bytes(), flags, Mode::empty())?;
        self.tell(who, Change::SetSize { file, size: 0, mtime })?;
        self.tell(who, Change::SetSize { file, size, mtime })?;
        let mut told = 0;
        let mut buffer = Vec::with_capacity(DATA_MAX);
        let mut offset = 0;
        while let Some((start, end)) = next_extent(&source, offset, size)? {
            let mut at = start;
            while at < end {
                buffer.clear();
                let room = usize::try_from((end - at).min(DATA_MAX as u64)).map_err(|_| Errno::INVAL)?;
                let read = rustix::io::pread(&source, rustix::buffer::spare_capacity(&mut buffer), at)?;
                buffer.truncate(room);
                if read == 0 {
                    return Err(Errno::AGAIN); // somebody cuts it while we read
                }
                let data = std::borrow::Cow::Borrowed(buffer.as_slice());
                self.tell(who, Change::Write { file, offset: at, data, size, mtime })?;
                at += buffer.len() as u64;
                told += buffer.len() as u64;
            }
            offset = end;
        }
        self.tell_attributes_again(who, found, &source)?;
        Ok(told)
    }

    fn tell_attributes_again(&self, who: &Requester, found: &Found, source: &OwnedFd) -> Result<()> {
        let file = found.stat.id;
        self.tell(who, Change::SetAttr { file, attributes: found.stat.attributes() })?;
        let capability = xattr::all(source)?.into_iter().find(|xattr| xattr.name == b"security.capability");
        capability.map_or(Ok(()), |xattr| self.tell(who, Change::SetXattr { file, xattr }))
    }

    /// An object that a create made and nobody journaled before the daemon was killed, if it is there.
    pub(super) fn unannounced(&self, parent: FileId, name: &Name) -> Result<Option<Scan>> {
        let Ok(directory) = self.volume.node(parent) else {
            return Ok(None);
        };
        let path = self.volume.path(&directory)?;
        let stat = match Stat::identified(&*path, name.as_bytes()) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let changed = vec![Found { parent: directory, name: name.clone(), stat }];
        Ok(Some(Scan { changed, ..Scan::default() }))
    }
}

/// The next stretch of data at or after `offset`; a file system that knows no holes has one.
pub(super) fn next_extent(file: &OwnedFd, offset: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if offset >= size {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start >= size => Ok(None),
        Ok(start) => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
            Ok(Some((start, end)))
        }
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL) => Ok(Some((offset, size))),
        Err(error) => Err(error),
    }
}
