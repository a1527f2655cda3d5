//! Bytes: open, read, write, allocate, copy, sync.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reelfs_journal::{Change, DATA_MAX, Reserve, Seq};
use rustix::fs::{FileType, OFlags, SeekFrom};
use rustix::io::{Errno, Result};

use super::committer::Done;
use super::{Primary, Requester};
use crate::node::{Lookups, Node};
use crate::overtaken::Overtaken;
use crate::volume::{open_directory, reopen};

/// `fallocate(2)` modes.
const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;
const FALLOC_ZERO_RANGE: i32 = 16;

/// How the bytes of a write come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// From pages of the mount's cache, which have them already.
    #[default]
    Plain,
    /// Past the cache, which may have pages of the file.
    PastCache,
    /// In pages that the kernel gives back, because somebody has stored into a mapping.
    PageBack,
}

/// A write: where to, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Writing {
    /// The first byte; not looked at by one that appends.
    pub offset: u64,
    /// Goes to where the file ends now.
    pub append: bool,
    /// Takes suid and sgid away.
    pub kill: bool,
    /// How its bytes come.
    pub way: Way,
}

/// Whether a read moves the time of the last access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// As the mount below has it.
    Yes,
    /// Not, for a handle that is opened with `O_NOATIME`.
    No,
}

impl Noticed {
    fn read(self, file: &OwnedFd, offset: u64, length: usize) -> Result<Vec<u8>> {
        match self {
            Noticed::Yes => read_from(file, offset, length),
            // when it may not be opened so it is not ours, and we are not root; or nothing may be opened any more
            Noticed::No => match reopen(file, OFlags::RDONLY | OFlags::NOATIME) {
                Ok(unnoticed) => read_from(unnoticed, offset, length),
                Err(_) => read_from(file, offset, length),
            },
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub count: u32,
    /// Set-user-id or set-group-id went: whoever keeps attributes keeps wrong ones, for the kernel goes by them in `execve`.
    pub took_privileges: bool,
    /// Stretches of it whose pages were read again while it waited: whoever keeps them keeps old ones.
    pub reread: Vec<(u64, u64)>,
}

/// A write that waits, until this is dropped: what comes back meanwhile of the pages that have it passes it.
#[derive(Debug)]
#[must_use = "it waits no more when this is dropped"]
pub struct Waits {
    node: Arc<Node>,
    ticket: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.node.state.lock().end_use(|in_use| in_use.passed.leave(self.ticket));
    }
}

impl Primary {
    /// Opens a regular file; `write` when the handle may write.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(&self, ino: u64, write: bool) -> Result<()> {
        let _names = self.names.read();
        let node = self.node(ino)?;
        if node.file_type == FileType::RegularFile {
            self.volume.data(&node, write)?;
        }
        node.state.lock().begin_use().opens += 1;
        self.open_files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Closes one handle. The last one of a nameless file ends it.
    pub fn release(&self, ino: u64) {
        let Ok(node) = self.node(ino) else { return };
        self.open_files.fetch_sub(1, Ordering::Relaxed);
        let mut state = node.state.lock();
        let mut to_close = None;
        let is_open = state.end_use(|in_use| {
            in_use.opens = in_use.opens.saturating_sub(1);
            if in_use.opens == 0 {
                // a file of a daemon without privileges may not be opened again once its mode has changed
                let is_cut = std::mem::take(&mut in_use.cut);
                to_close = in_use.data.take().map(|data| (data, is_cut));
                in_use.overtaken = Overtaken::NOTHING;
            }
            in_use.opens > 0
        });
        if is_open {
            return;
        }
        let (nameless, lookups) = (state.nameless && ino != self.root(), state.lookups);
        drop(state);
        // whoever opens it meanwhile does not wait for that
        if let Some((data, true)) = to_close {
            self.group.committer().close(data, &self.closings);
        }
        if nameless && !self.is_suspended() {
            let dropped = Change::Drop { file: node.id };
            match self.journal(None, &Requester::reelfs(), &[dropped], Reserve::Keep) {
                // nobody needs to be told: nothing can bring it back
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => tracing::warn!(%error, "the end of a nameless file is not in the journal"),
            }
        }
        if lookups == Lookups::NONE {
            self.volume.nodes.drop_unused(node);
        }
    }

    /// The file below an inode, to be read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn backing(&self, ino: u64) -> Result<Arc<OwnedFd>> {
        self.file_of(&self.node(ino)?)
    }

    /// The same; whoever asks holds neither names nor the object's order.
    fn file_of(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if let Some(file) = self.volume.kept_data(node) {
            return Ok(file);
        }
        let _names = self.names.read();
        self.volume.data(node, false)
    }

    /// Reads up to `length` bytes into pages of the kernel: from then on these are not old, so nothing is written meanwhile.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_page(&self, ino: u64, offset: u64, length: usize, noticed: Noticed) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let file = self.file_of(&node)?;
        let end = offset.saturating_add(length as u64);
        let is_simple = {
            let state = node.state.lock();
            let in_use = state.in_use();
            in_use.overtaken.is_empty() && !in_use.passed.concerns(offset, end)
        };
        if is_simple {
            return noticed.read(&file, offset, length);
        }
        let _order = node.order.lock();
        node.state.lock().end_use(|in_use| {
            in_use.overtaken.forget(offset, end);
            in_use.passed.read(offset, end);
        });
        noticed.read(&file, offset, length)
    }

    /// Reads up to `length` bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, ino: u64, offset: u64, length: usize, noticed: Noticed) -> Result<Vec<u8>> {
        noticed.read(&*self.backing(ino)?, offset, length)
    }

    /// `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` beyond the end; `EINVAL` for another whence.
    pub fn seek(&self, ino: u64, offset: u64, whence: i32) -> Result<u64> {
        let file = self.backing(ino)?;
        let position = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(&file, position)
    }

    /// Writes bytes; more than [`DATA_MAX`] are answered short. `kill` asks to take suid and sgid away.
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn write(&self, who: &Requester, ino: u64, offset: u64, bytes: &[u8], kill: bool) -> Result<u32> {
        self.write_as(who, ino, Writing { offset, kill, ..Writing::default() }, bytes).map(|written| written.count)
    }

    /// The same, said in full.
    ///
    /// # Errors
    /// As [`Primary::write`].
    pub fn write_as(&self, who: &Requester, ino: u64, writing: Writing, bytes: &[u8]) -> Result<Written> {
        self.write_after(who, ino, writing, bytes, None)
    }

    /// A write of so many bytes is to wait. Nothing need be remembered of one that does not come through the cache: its pages are
    /// dropped.
    pub fn wait_to_write(&self, ino: u64, writing: Writing, length: usize) -> Option<Waits> {
        let node = self.node(ino).ok().filter(|_| writing.way == Way::Plain && !writing.append)?;
        let end = writing.offset.saturating_add(length as u64);
        let mut state = node.state.lock();
        let in_use = state.begin_use();
        // the pages that it came through have it by now
        in_use.overtaken.forget(writing.offset, end);
        let ticket = in_use.passed.enter(writing.offset, end);
        drop(state);
        Some(Waits { node, ticket })
    }

    /// As [`Primary::write_as`], of a write that has waited: what has passed it is newer, and stays.
    ///
    /// # Errors
    /// As [`Primary::write`].
    pub fn write_after(
        &self,
        who: &Requester,
        ino: u64,
        writing: Writing,
        bytes: &[u8],
        waits: Option<&Waits>,
    ) -> Result<Written> {
        let bytes = &bytes[..bytes.len().min(DATA_MAX)];
        let _admitted = self.admit(bytes.len() as u64)?;
        let node = self.node(ino)?;
        let order = node.order.lock();
        let harmless = node.state.lock().harmless;
        if harmless && self.volume.kept_data(&node).is_some() {
            return self.write_ordered(who, &node, writing, bytes, waits);
        }
        // what takes privileges away goes by name, as does what must open the file; and names come first
        drop(order);
        let _names = self.names.read();
        let _order = node.order.lock();
        self.write_ordered(who, &node, writing, bytes, waits)
    }

    fn write_ordered(
        &self,
        who: &Requester,
        node: &Arc<Node>,
        writing: Writing,
        bytes: &[u8],
        waits: Option<&Waits>,
    ) -> Result<Written> {
        let (harmless, known_size, overtaken) = {
            let mut state = node.state.lock();
            let overtaken = !state.in_use().overtaken.is_empty();
            (state.harmless, state.end_use(|in_use| in_use.size.take()), overtaken)
        };
        let mut changes = Vec::new();
        let before = match known_size {
            Some(size) if harmless => size,
            _ => {
                let before = self.volume.stat(node)?;
                changes = self.take_privileges(who, node, &before, writing.kill)?;
                before.size
            }
        };
        let offset = if writing.append { before } else { writing.offset };
        let end =
            offset.checked_add(bytes.len() as u64).filter(|&end| i64::try_from(end).is_ok()).ok_or(Errno::FBIG)?;
        let newer = match (writing.way, waits) {
            (Way::PageBack, _) if overtaken => node.state.lock().in_use().overtaken.within(offset, end),
            (Way::Plain, Some(waits)) => node.state.lock().in_use().passed.stored(waits.ticket),
            (Way::PageBack | Way::PastCache | Way::Plain, _) => Vec::new(),
        };
        let data = self.with_newer(node, offset, bytes, newer)?;
        let size = before.max(end);
        changes.push(Change::Write { file: node.id, offset, data, size, mtime: self.now() });
        let slot = self.in_flight.begin();
        let written = self.commit(&slot, who, &changes)?;
        let mut state = node.state.lock();
        if written == bytes.len() as u64 {
            state.begin_use().size = Some(size);
        }
        match writing.way {
            Way::PastCache => state.begin_use().overtaken.note(offset, offset + written),
            Way::Plain if overtaken => state.begin_use().overtaken.forget(offset, offset + written),
            Way::PageBack => state.end_use(|in_use| in_use.passed.note(offset, offset + written)),
            Way::Plain => {}
        }
        let done = offset + written;
        let reread = waits.map_or_else(Vec::new, |waits| state.in_use().passed.reread(waits.ticket, offset, done));
        reread.iter().for_each(|&(from, to)| state.begin_use().overtaken.note(from, to));
        let took_privileges = changes.iter().any(|change| matches!(change, Change::SetAttr { .. }));
        Ok(Written { count: u32::try_from(written).map_err(|_| Errno::IO)?, took_privileges, reread })
    }

    /// What is to be written, but for stretches of it in which something newer stands: written past the pages that come back here, or
    /// stored into pages that came back before.
    fn with_newer<'a>(
        &self,
        node: &Arc<Node>,
        offset: u64,
        bytes: &'a [u8],
        newer: Vec<(u64, u64)>,
    ) -> Result<Cow<'a, [u8]>> {
        let mut merged = Cow::Borrowed(bytes);
        let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        for (from, to) in newer {
            let new = read_from(&*self.volume.data(node, false)?, from, index(to) - index(from))?;
            merged.to_mut()[index(from)..][..new.len()].copy_from_slice(&new);
        }
        Ok(merged)
    }

    /// Reserves, zeroes or punches a range (`fallocate(2)`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for modes that move bytes; what the file system says; `EAGAIN` when the journal has no room now.
    pub fn allocate(&self, who: &Requester, ino: u64, mode: i32, offset: u64, length: u64) -> Result<()> {
        let _admitted = self.admit(0)?;
        let end = offset.checked_add(length).filter(|&end| i64::try_from(end).is_ok()).ok_or(Errno::FBIG)?;
        let _names = self.names.read();
        let node = self.node(ino)?;
        let _order = node.order.lock();
        let before = self.volume.stat(&node)?;
        let (file, mtime) = (node.id, self.now());
        let size = if mode & FALLOC_KEEP_SIZE != 0 { before.size } else { before.size.max(end) };
        let change = match mode & !FALLOC_KEEP_SIZE {
            0 => Change::Allocate { file, offset, length, size, mtime },
            FALLOC_ZERO_RANGE => Change::Zero { file, offset, length, size, mtime },
            FALLOC_PUNCH_HOLE if mode & FALLOC_KEEP_SIZE != 0 => Change::Punch { file, offset, length, mtime },
            _ => return Err(Errno::OPNOTSUPP),
        };
        let zeroes = !matches!(change, Change::Allocate { .. });
        let mut changes = self.take_privileges(who, &node, &before, who.uid != 0)?;
        changes.push(change);
        node.state.lock().end_use(|in_use| in_use.size = None);
        let slot = self.in_flight.begin();
        self.commit(&slot, who, &changes)?;
        if zeroes {
            // the kernel drops these pages by itself
            node.state.lock().end_use(|in_use| in_use.overtaken.forget(offset, end));
        }
        Ok(())
    }

    /// Copies bytes between files; answered short after [`DATA_MAX`].
    ///
    /// # Errors
    /// What the file system says; `EAGAIN` when the journal has no room now.
    pub fn copy_range(
        &self,
        who: &Requester,
        (from, from_offset): (u64, u64),
        (to, to_offset): (u64, u64),
        length: u64,
    ) -> Result<u64> {
        let length = usize::try_from(length).unwrap_or(DATA_MAX).min(DATA_MAX);
        let bytes = self.read(from, from_offset, length, Noticed::Yes)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        // the kernel drops the pages itself, and what is stored meanwhile comes before that
        let writing = Writing { offset: to_offset, append: false, kill: who.uid != 0, way: Way::PastCache };
        self.write_as(who, to, writing, &bytes).map(|written| u64::from(written.count))
    }

    /// Makes a file or directory durable; `done` is called from another thread. A file whose names are on disk needs the
    /// journal alone: after a power cut the rest is done again from there (`redo.rs`).
    pub fn sync_file(&self, who: &Requester, ino: u64, done: Done) {
        let point = match self.sync_point(who, ino) {
            Ok(point) => point,
            Err(error) => return done(Err(error)), // nothing was synced, so nothing is settled
        };
        let (group, index) = (self.group.clone(), self.index);
        let done: Done = Box::new(move |result| match result {
            Err(Errno::AGAIN) => done(group.settled(index)),
            // a loss may have been settled meanwhile, and the disk have refused what it took with it
            Ok(()) if group.has_refused(index) => done(Err(Errno::IO)),
            result => done(result),
        });
        match point {
            SyncPoint::Journal(upto) => self.group.committer().sync_journal(upto, done),
            // its data are its names, which ext4 leaves to a full sync
            SyncPoint::Directory(file, upto) => self.group.committer().sync(file, upto, &self.refusal, done),
            SyncPoint::File { node, file, renames, upto } => {
                let anchor = Box::new(move |result: Result<()>| {
                    if result.is_ok() {
                        node.anchor(renames);
                    }
                    // whoever is answered may have it forgotten at once, which needs nobody to hold it
                    drop(node);
                    done(result);
                });
                self.group.committer().sync(file, upto, &self.refusal, anchor);
            }
        }
    }

    fn sync_point(&self, who: &Requester, ino: u64) -> Result<SyncPoint> {
        if self.has_failed() {
            return Err(Errno::IO);
        }
        let _names = self.names.read();
        let node = self.node(ino)?;
        let directory = if node.is_directory() { Some(open_directory(&*self.volume.path(&node)?)?) } else { None };
        let _order = node.order.lock();
        let upto = match self.journal_sync(who, &node) {
            Ok(placed) => placed.last,
            // a full journal has no room for the boundary; the sync itself needs none
            Err(Errno::AGAIN) => self.jvol().pointers().next.previous(),
            Err(error) => return Err(error),
        };
        if let Some(directory) = directory {
            return Ok(SyncPoint::Directory(Arc::new(directory), upto));
        }
        let (renames, anchored) = {
            let state = node.state.lock();
            (node.renames(), state.anchored)
        };
        // until the map is gone nothing is done again from the journal
        if anchored && self.dirty.lock().is_none() {
            return Ok(SyncPoint::Journal(upto));
        }
        let file = self.volume.data(&node, false)?;
        Ok(SyncPoint::File { node: node.clone(), file, renames, upto })
    }
}

pub(super) fn read_from(file: impl AsFd, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

impl Primary {
    fn journal_sync(&self, who: &Requester, node: &Arc<Node>) -> Result<reelfs_journal::Appended> {
        if self.is_suspended() {
            return Err(Errno::AGAIN);
        }
        self.journal(None, who, &[Change::Sync { file: node.id }], Reserve::Keep)
    }
}

/// What makes an object durable.
enum SyncPoint {
    Journal(Seq),
    Directory(Arc<OwnedFd>, Seq),
    /// With its names, of which there were so many.
    File {
        node: Arc<Node>,
        file: Arc<OwnedFd>,
        renames: u32,
        upto: Seq,
    },
}
