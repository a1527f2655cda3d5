//! The dirty map: what changed while the group is suspended and nothing is journaled.
//!
//! Bytes are kept by units of 64 KiB, names by directory, everything else by object. It lives in memory and in a log beside
//! it, written before the change is applied: the page cache keeps it when the daemon is killed. Its first entry says since
//! when, at which record and why; a log that is there is a group that is suspended.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use reelfs_journal::checksum;
use reelfs_journal::disk::{self, Label};
use reelfs_journal::{Change, FileId, FileTime, NodeKind, Seq, Timestamp};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Bytes of a unit: what one random write costs at most when the group comes back (64 KiB).
pub(super) const UNIT: u64 = 64 << 10;
/// Units that one change makes dirty at most (4 GiB): of a longer range it is noted that everything behind its beginning changed.
const UNITS_MAX: u64 = 1 << 16;
/// Bytes of one entry of the log: kind (8 bits), generation (32 bits at 4), inode number (64 at 8), a number (64 at 16), CRC-32C
/// of all that (32 at 24), zeros to the end. Little-endian. The head has the record's number for an inode number and the
/// time for the number; zeros in its place hold the room for it.
pub(super) const ENTRY: usize = 32;

const HEAD: u8 = 1;
const DIRECTORY: u8 = 2;
const OBJECT: u8 = 3;
const BYTES: u8 = 4;
const CUT: u8 = 5;

/// Why nothing is journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Somebody split the pair.
    User,
    /// Bringing the pair back failed.
    Error,
    /// There was no room in the journal.
    JournalFull,
}

/// Since when nothing is journaled, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Why.
    pub reason: Reason,
    /// The marker in the journal: what comes after it is not in order.
    pub seq: Seq,
    /// Its time: the last moment that can be restored.
    pub time: Timestamp,
}

impl Suspension {
    /// In a journal that lost what it held and goes on at `out`: what came before the suspension is lost, or some of it.
    pub(super) fn loses_its_place(&self, out: Seq) -> bool {
        self.reason == Reason::Error || self.seq < out
    }
}

/// How much changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirtyCounts {
    /// Directories whose names changed.
    pub directories: u64,
    /// Objects of which something else changed.
    pub objects: u64,
    /// Bytes to be told again at most, what was cut and written anew aside.
    pub bytes: u64,
}

impl DirtyCounts {
    /// What changed here and there together.
    #[must_use]
    pub fn plus(self, other: DirtyCounts) -> DirtyCounts {
        DirtyCounts {
            directories: self.directories + other.directories,
            objects: self.objects + other.objects,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What of one object changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dirt {
    /// Numbers of units.
    pub(super) units: BTreeSet<u64>,
    /// From this byte on everything.
    pub(super) cut: Option<u64>,
}

impl Dirt {
    /// Bytes from and to, neighbours together.
    pub(super) fn stretches(&self) -> Vec<(u64, u64)> {
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        for unit in &self.units {
            let (start, end) = (unit * UNIT, (unit + 1) * UNIT);
            match stretches.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => stretches.push((start, end)),
            }
        }
        if let Some(cut) = self.cut {
            stretches.push((cut, u64::MAX));
        }
        stretches
    }
}

#[derive(Debug)]
pub(super) struct DirtyMap {
    path: PathBuf,
    /// None while it is only in memory.
    log: Option<File>,
    /// Of the first suspension, if it was brought back only in part.
    pub(super) suspension: Suspension,
    /// The last record that may leave the machine, and the time until which it speaks: of the last suspension.
    pub(super) sealed: (Seq, Timestamp),
    /// When the last session noted something last: what changed before, it changed itself.
    pub(super) written: FileTime,
    /// An entry does not read back: after a power cut those that were not synced may not.
    pub(super) torn: bool,
    pub(super) directories: HashSet<FileId>,
    pub(super) objects: HashMap<FileId, Dirt>,
}

/// A file for a map that has not begun; without that it goes again.
#[derive(Debug)]
pub(super) struct Reserved {
    path: PathBuf,
    log: Option<File>,
}

impl Reserved {
    /// Begins the map, durably.
    pub(super) fn begin(mut self, suspension: Suspension) -> io::Result<DirtyMap> {
        if let Some(log) = &self.log {
            if disk::write_at(Label::DirtyMapHead, log, &head(suspension), 0)? < ENTRY {
                return Err(Errno::NOSPC.into());
            }
            disk::sync(Label::DirtyMapSync, log)?;
        }
        Ok(DirtyMap::empty(std::mem::take(&mut self.path), self.log.take(), suspension))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            // one that stays behind was not begun: the group is not suspended
            let _ = disk::set_size(Label::DirtyMapSetSize, log, 0);
            let _ = disk::remove(Label::DirtyMapRemove, &self.path);
        }
    }
}

impl DirtyMap {
    fn place(state: &Path) -> PathBuf {
        state.join("dirty")
    }

    fn empty(path: PathBuf, log: Option<File>, suspension: Suspension) -> DirtyMap {
        let sealed = (suspension.seq, suspension.time);
        let (written, directories, objects) = (FileTime::default(), HashSet::new(), HashMap::new());
        DirtyMap { path, log, suspension, sealed, written, torn: false, directories, objects }
    }

    /// A place for a map, durably, so that to begin it takes no room.
    pub(super) fn reserve(state: &Path) -> io::Result<Reserved> {
        let path = DirtyMap::place(state);
        let mut options = OpenOptions::new();
        let log = disk::create(Label::DirtyMapCreate, &path, options.write(true).create_new(true).mode(0o600))?;
        let reserved = Reserved { path, log: Some(log) };
        if let Some(log) = &reserved.log {
            disk::append(Label::DirtyMapReserve, log, &[0; ENTRY])?;
            disk::sync(Label::DirtyMapSync, log)?;
            disk::sync_parent(Label::DirtyMapNameSync, &reserved.path)?;
        }
        Ok(reserved)
    }

    /// A map in memory alone: of what a recovery is about to tell.
    pub(super) fn in_memory() -> DirtyMap {
        let suspension = Suspension { reason: Reason::Error, seq: Seq::ZERO, time: Timestamp(0) };
        DirtyMap::empty(PathBuf::new(), None, suspension)
    }

    /// The same map as that of a suspension, in a copy that takes its place at [`DirtyMap::end_copy`].
    pub(super) fn keep(self, state: &Path, suspension: Suspension) -> io::Result<DirtyMap> {
        let sealed = (suspension.seq, suspension.time);
        let mut map = DirtyMap { path: DirtyMap::place(state), suspension, sealed, ..self };
        let mut bytes = head(suspension).to_vec();
        for id in &map.directories {
            bytes.extend(entry(DIRECTORY, *id, 0));
        }
        for (id, dirt) in &map.objects {
            bytes.extend(entry(OBJECT, *id, 0));
            bytes.extend(dirt.cut.iter().flat_map(|cut| entry(CUT, *id, *cut)));
            bytes.extend(dirt.units.iter().flat_map(|unit| entry(BYTES, *id, *unit)));
        }
        map.copy(&bytes)?;
        Ok(map)
    }

    /// The map that a suspended group has.
    pub(super) fn load(state: &Path) -> io::Result<Option<DirtyMap>> {
        let path = DirtyMap::place(state);
        let mut log = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        if is_unbegun(&bytes) {
            disk::remove(Label::DirtyMapRemove, &path)?;
            return Ok(None);
        }
        let written = log.metadata()?;
        let written = FileTime { seconds: written.mtime(), nanos: u32::try_from(written.mtime_nsec()).unwrap_or(0) };
        // an entry cut short is of a change that was never made
        disk::set_size(Label::DirtyMapSetSize, &log, (bytes.len() - bytes.len() % ENTRY) as u64)?;
        let map = DirtyMap::read(path, log, &bytes)?;
        Ok(Some(DirtyMap { written, ..map }))
    }

    fn read(path: PathBuf, log: File, bytes: &[u8]) -> io::Result<DirtyMap> {
        let mut entries = bytes.chunks_exact(ENTRY);
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the dirty map is damaged");
        let suspension = entries.next().and_then(read_head).ok_or_else(broken)?;
        let mut map = DirtyMap::empty(path, Some(log), suspension);
        for bytes in entries {
            match read_entry(bytes) {
                Some((kind, id, number)) => _ = map.take(kind, id, number),
                None => map.torn = true,
            }
        }
        Ok(map)
    }

    fn copy_place(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    /// What is noted from now on goes to a copy of the log. An opening that is cut off leaves the log as it was: whole, after
    /// a clean stop.
    pub(super) fn begin_copy(&mut self) -> io::Result<()> {
        let bytes = std::fs::read(&self.path)?;
        self.copy(&bytes)
    }

    fn copy(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let copy = disk::create(Label::DirtyMapCreate, &self.copy_place(), options)?;
        disk::append(Label::DirtyMapHead, &copy, bytes)?;
        self.log = Some(copy);
        Ok(())
    }

    /// The copy takes the place of the log, durably.
    pub(super) fn end_copy(&self) -> io::Result<()> {
        self.sync()?;
        disk::rename(Label::DirtyMapRename, &self.copy_place(), &self.path)?;
        disk::sync_parent(Label::DirtyMapNameSync, &self.path)
    }

    /// The group is no longer suspended.
    pub(super) fn remove(&self) -> io::Result<()> {
        disk::remove(Label::DirtyMapRemove, &self.path)
    }

    /// Everything noted is durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(disk::sync(Label::DirtyMapSync, log)?))
    }

    /// Its removal is durable; after an error it may come back with the next power cut.
    pub(super) fn sync_removal(&self) -> io::Result<()> {
        disk::sync_parent(Label::DirtyMapRemoveSync, &self.path)
            .inspect_err(|error| tracing::error!(%error, "the dirty map may come back: no more changes are taken"))
    }

    /// Notes what a change is about to do. Nothing may be applied when this fails.
    pub(super) fn note(&mut self, change: &Change<'_>) -> io::Result<()> {
        match change {
            Change::Write { file, offset, data, .. } => self.bytes(*file, *offset, data.len() as u64),
            Change::Zero { file, offset, length, .. } | Change::Punch { file, offset, length, .. } => {
                self.bytes(*file, *offset, *length)
            }
            Change::SetSize { file, size, .. } => self.add(CUT, *file, *size),
            Change::Create { parent, file, kind, .. } => {
                self.add(DIRECTORY, *parent, 0)?;
                match kind {
                    NodeKind::Directory => self.add(DIRECTORY, *file, 0),
                    _ => self.add(CUT, *file, 0),
                }
            }
            Change::Link { parent, .. } | Change::Unlink { parent, .. } => self.add(DIRECTORY, *parent, 0),
            Change::Rename { parent, new_parent, .. } => {
                self.add(DIRECTORY, *parent, 0)?;
                self.add(DIRECTORY, *new_parent, 0)
            }
            Change::Allocate { file, .. }
            | Change::SetAttr { file, .. }
            | Change::SetXattr { file, .. }
            | Change::RemoveXattr { file, .. } => self.add(OBJECT, *file, 0),
            Change::Drop { .. }
            | Change::Sync { .. }
            | Change::Active { .. }
            | Change::Amend { .. }
            | Change::BaseBegin { .. }
            | Change::Entry { .. }
            | Change::BaseData { .. }
            | Change::BaseEnd { .. }
            | Change::ListBegin { .. }
            | Change::ListEnd { .. }
            | Change::Marker { .. } => Ok(()),
        }
    }

    /// Everything about a directory, or about an object: nobody knows what of it changed.
    pub(super) fn note_whole(&mut self, id: FileId, is_directory: bool) -> io::Result<()> {
        if is_directory { self.add(DIRECTORY, id, 0) } else { self.add(CUT, id, 0) }
    }

    /// Its attributes, and nothing that is known of its bytes.
    pub(super) fn note_attributes(&mut self, id: FileId) -> io::Result<()> {
        self.add(OBJECT, id, 0)
    }

    /// Everything of a file from a byte on.
    pub(super) fn note_from(&mut self, file: FileId, offset: u64) -> io::Result<()> {
        self.add(CUT, file, offset)
    }

    /// Units of a file, from the first to before the end.
    pub(super) fn note_units(&mut self, file: FileId, first: u64, end: u64) -> io::Result<()> {
        self.bytes(file, first * UNIT, (end - first).saturating_mul(UNIT))
    }

    pub(super) fn has(&self, id: FileId) -> bool {
        self.objects.contains_key(&id) || self.directories.contains(&id)
    }

    pub(super) fn counts(&self) -> DirtyCounts {
        let bytes = self.objects.values().map(|dirt| dirt.units.len() as u64 * UNIT).sum();
        DirtyCounts { directories: self.directories.len() as u64, objects: self.objects.len() as u64, bytes }
    }

    fn bytes(&mut self, file: FileId, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let (first, last) = (offset / UNIT, (offset + length - 1) / UNIT);
        if last - first >= UNITS_MAX {
            return self.add(CUT, file, offset);
        }
        (first..=last).try_for_each(|unit| self.add(BYTES, file, unit))
    }

    fn add(&mut self, kind: u8, id: FileId, number: u64) -> io::Result<()> {
        if !self.take(kind, id, number) {
            return Ok(());
        }
        let Some(log) = &self.log else { return Ok(()) };
        Ok(disk::append(Label::DirtyMapAppend, log, &entry(kind, id, number))?)
    }

    /// Takes in one entry; false when the map has it already.
    fn take(&mut self, kind: u8, id: FileId, number: u64) -> bool {
        if kind == DIRECTORY {
            return self.directories.insert(id);
        }
        let is_new = !self.objects.contains_key(&id);
        let dirt = self.objects.entry(id).or_default();
        let covered = dirt.cut.is_some_and(|cut| cut <= number);
        match kind {
            BYTES => dirt.cut.is_none_or(|cut| cut > number * UNIT) && dirt.units.insert(number),
            CUT if covered => is_new,
            CUT => {
                dirt.cut = Some(number);
                dirt.units.split_off(&number.div_ceil(UNIT));
                true
            }
            _ => is_new,
        }
    }
}

/// Whether and why a group is suspended, for whoever only wants to tell; it may be written meanwhile.
///
/// # Errors
/// The map is there and cannot be read.
pub fn suspension(state: &Path) -> io::Result<Option<(Suspension, DirtyCounts)>> {
    let path = DirtyMap::place(state);
    let mut log = match File::open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    if is_unbegun(&bytes) {
        return Ok(None);
    }
    let map = DirtyMap::read(path, log, &bytes)?;
    Ok(Some((map.suspension, map.counts())))
}

/// A map without a whole head and with nothing behind it: nothing is suspended before the head is durable.
fn is_unbegun(bytes: &[u8]) -> bool {
    bytes.len() <= ENTRY && bytes.get(..ENTRY).and_then(read_head).is_none()
}

fn head(suspension: Suspension) -> [u8; ENTRY] {
    let id = FileId { ino: suspension.seq.0, generation: suspension.reason as u32 };
    entry(HEAD, id, suspension.time.0.cast_unsigned())
}

pub(super) fn entry(kind: u8, id: FileId, number: u64) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[0] = kind;
    bytes[4..8].copy_from_slice(&id.generation.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.ino.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = checksum::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub(super) fn read_entry(bytes: &[u8]) -> Option<(u8, FileId, u64)> {
    let long = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
    let short = |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_le_bytes);
    let is_whole = checksum::crc32c(bytes.get(..24)?) == short(24)?;
    is_whole.then_some((bytes[0], FileId { ino: long(8)?, generation: short(4)? }, long(16)?))
}

fn read_head(bytes: &[u8]) -> Option<Suspension> {
    let (kind, id, time) = read_entry(bytes)?;
    let reason = match id.generation {
        0 => Reason::User,
        1 => Reason::Error,
        2 => Reason::JournalFull,
        _ => return None,
    };
    let head = Suspension { reason, seq: Seq(id.ino), time: Timestamp(time.cast_signed()) };
    (kind == HEAD).then_some(head)
}

#[cfg(test)]
mod tests;
