//! A base copy through the journal: the whole present state of a volume is told in records, while the volume is in use.
//!
//! Every entry and every piece of a file is read and journaled under the locks that order the changes of its names and its
//! bytes, so each record is true at its place in the order: nobody waits longer than for one of them. What moves meanwhile is told by
//! itself, as for a base tape (walk.rs). What was told is noted (base_log.rs): after an interruption the tree is walked
//! again, and only what is not noted is told.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reelfs_journal::{Change, DATA_MAX, FileId, Name, Seq};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::adopt::next_extent;
use super::base_log::{BaseLog, UnderWay};
use super::known::Known;
use super::resync::ResyncError;
use super::walk::Active;
use super::{Primary, Requester};
use crate::node::Node;
use crate::stat::Stat;
use crate::volume::{open_directory, reopen};

/// Journal bytes after which what was told is noted (4 MiB): so much is told once more at most when the daemon is killed.
const NOTED_AFTER: u64 = 4 << 20;
/// Journal bytes that telling one name takes, about.
const ENTRY_BYTES: u64 = 512;

/// A base copy that went through the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Based {
    /// Its identity.
    pub base: Uuid,
    /// Its first `BaseBegin`.
    pub began: Seq,
    /// Its `BaseEnd`.
    pub ended: Seq,
    /// Directories told now, not by an attempt before.
    pub directories: u64,
    /// Other objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

type Result<T> = std::result::Result<T, ResyncError>;

fn failed(what: &'static str) -> impl Fn(Errno) -> ResyncError {
    move |source| ResyncError::Failed { what, source }
}

fn failed_log(error: std::io::Error) -> ResyncError {
    failed("note what is told")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

impl Primary {
    /// The base copy through the journal that has begun in this epoch and not ended.
    #[must_use]
    pub fn base_under_way(&self) -> Option<UnderWay> {
        self.base.lock().as_ref().map(|log| log.under_way).filter(|under_way| under_way.epoch == self.group.epoch())
    }

    /// Begins a base copy through the journal, or goes on with the one that was interrupted.
    ///
    /// # Errors
    /// The volume is suspended; the journal or the log cannot be written.
    pub fn begin_base(&self, base: Uuid) -> Result<Telling<'_>> {
        if self.is_suspended() {
            return Err(ResyncError::Again);
        }
        let before = self.base_under_way();
        let (base, root) = (before.map_or(base, |before| before.base), self.root_id());
        let write = failed("write the journal");
        let begun = self.control(&Change::BaseBegin { base, root }).map_err(&write)?;
        self.jvol().sync(begun).map_err(|_| write(Errno::IO))?;
        let under_way = match before {
            Some(before) => before,
            None => {
                let under_way = UnderWay { base, began: begun, epoch: self.group.epoch() };
                *self.base.lock() = Some(BaseLog::create(&self.state, under_way).map_err(failed_log)?);
                under_way
            }
        };
        let told = Based { base, began: under_way.began, ended: Seq::ZERO, directories: 0, objects: 0, bytes: 0 };
        let (seen, queue) = (HashSet::new(), VecDeque::new());
        Ok(Telling { primary: self, under_way, seen, queue, told, done: 0, unnoted: 0, buffer: Vec::new() })
    }

    /// Forgets a base copy through the journal that has not ended: another one stands.
    ///
    /// # Errors
    /// Its log cannot be removed.
    pub fn give_up_base(&self) -> std::io::Result<()> {
        let Some(log) = self.base.lock().take() else { return Ok(()) };
        log.remove().inspect_err(|_| *self.base.lock() = Some(log))
    }

    /// An object was made, and the journal has it from its beginning: a base copy need not tell it.
    pub(super) fn born(&self, id: FileId) {
        if !self.is_suspended()
            && let Some(log) = self.base.lock().as_mut()
        {
            log.note_born(id);
        }
    }
}

/// What a teller asks its caller for.
struct Caller<'c> {
    /// Exports, say; whether that freed anything.
    make_room: &'c mut dyn FnMut() -> bool,
    /// Bytes done, bytes in all.
    progress: &'c mut dyn FnMut(u64, u64),
    expected: u64,
}

/// A base copy through the journal that is under way.
pub struct Telling<'p> {
    primary: &'p Primary,
    under_way: UnderWay,
    /// Directories that were queued.
    seen: HashSet<FileId>,
    queue: VecDeque<Known<'p>>,
    told: Based,
    /// Bytes of the objects gone by, told now or before.
    done: u64,
    /// Journal bytes since something was noted last.
    unnoted: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Telling<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telling").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

/// How telling a name went.
enum Step<'p> {
    NoRoom,
    /// Nothing stands there any more.
    Gone,
    /// The object, and its bytes where they are still to be told.
    Found(Known<'p>, Option<Content>),
}

struct Content {
    file: OwnedFd,
    size: u64,
    /// The name it was told with is its only one.
    with_all_names: bool,
}

impl<'p> Telling<'p> {
    /// Its identity, and where it began.
    #[must_use]
    pub fn under_way(&self) -> UnderWay {
        self.under_way
    }

    /// Tells everything that is not told yet, and ends the base copy. `make_room` exports, say, and tells whether that freed
    /// anything; half of the journal is left to the applications. When it fails, [`Primary::begin_base`] goes on.
    ///
    /// # Errors
    /// See [`ResyncError`].
    pub fn tell(mut self, make_room: &mut dyn FnMut() -> bool, progress: &mut dyn FnMut(u64, u64)) -> Result<Based> {
        let primary = self.primary;
        let expected = primary.statfs().map_or(0, |stat| (stat.f_blocks - stat.f_bfree) * stat.f_frsize);
        let mut caller = Caller { make_room, progress, expected };
        primary.walk.active.store(true, Ordering::SeqCst);
        let active = Active(primary);
        // whoever took the names lock before now did not announce; wait for them
        drop(primary.names.write());
        let outcome = self.walk(&mut caller);
        drop(active);
        self.queue.clear();
        self.note()?;
        outcome?;
        self.end()
    }

    fn walk(&mut self, caller: &mut Caller<'_>) -> Result<()> {
        let primary = self.primary;
        self.tell_without_place(Known::more(primary, primary.volume.root.clone()), caller)?;
        loop {
            if let Some(directory) = self.queue.pop_front() {
                self.list(&directory, caller)?;
                continue;
            }
            let Some(node) = primary.walk.next_moved(primary) else { return Ok(()) };
            self.tell_without_place(node, caller)?;
        }
    }

    fn list(&mut self, directory: &Arc<Node>, caller: &mut Caller<'_>) -> Result<()> {
        let read = failed("list a directory");
        let opened = {
            let _names = self.primary.names.read();
            self.primary.volume.path(directory).and_then(|path| open_directory(&path))
        };
        let listing = match opened {
            Err(Errno::STALE | Errno::NOENT) => return Ok(()), // removed since
            listing => listing.map_err(&read)?,
        };
        for entry in Dir::read_from(&listing).map_err(&read)? {
            let entry = entry.map_err(&read)?;
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            let step = loop {
                match self.tell_name(directory, &name)? {
                    Step::NoRoom => self.room(caller)?,
                    step => break step,
                }
            };
            if let Step::Found(node, content) = step {
                self.take(node, content, caller)?;
            }
        }
        self.log(|log| log.note_listed(directory.id));
        Ok(())
    }

    /// Tells the bytes of an object whose name was told, or queues it as a directory.
    fn take(&mut self, node: Known<'p>, content: Option<Content>, caller: &mut Caller<'_>) -> Result<()> {
        let told = content.map_or(Ok(()), |content| self.tell_content(&node, &content, caller));
        let told = told.and_then(|()| self.note_now_and_then());
        if told.is_ok() && node.is_directory() && self.seen.insert(node.id) {
            self.queue.push_back(node);
        }
        (caller.progress)(self.done.min(caller.expected), caller.expected);
        told
    }

    fn log<T>(&self, act: impl FnOnce(&mut BaseLog) -> T) -> Option<T> {
        self.primary.base.lock().as_mut().map(act)
    }

    /// Journals a name and what stands there, unless that was told.
    fn tell_name(&mut self, directory: &Arc<Node>, name: &Name) -> Result<Step<'p>> {
        let primary = self.primary;
        let _admitted = primary.under_way();
        let _names = primary.names.read();
        let node = match primary.find(directory, name, 1) {
            Ok((node, _)) => Known::counted(primary, node),
            Err(Errno::NOENT | Errno::STALE) => return Ok(Step::Gone),
            Err(Errno::XDEV) => {
                tracing::warn!(%name, "another file system is not part of the volume");
                return Ok(Step::Gone);
            }
            Err(error) => return Err(failed("look at a file")(error)),
        };
        let told = self.tell_found(directory, name, &node)?;
        Ok(told.map_or(Step::NoRoom, |content| Step::Found(node, content)))
    }

    /// The same under the locks of names and of the object; `None` when there is no room.
    fn tell_found(&mut self, directory: &Arc<Node>, name: &Name, node: &Arc<Node>) -> Result<Option<Option<Content>>> {
        let (primary, read) = (self.primary, failed("look at a file"));
        let _order = node.order.lock();
        let path = primary.volume.path(directory).map_err(&read)?;
        let stat = Stat::identified(&*path, name.as_bytes()).map_err(&read)?;
        let known = self.log(|log| (log.told(node.id), log.is_listed(directory.id)));
        let (known, is_listed) = known.unwrap_or_default();
        if known == Some(true) || (known.is_some() && is_listed) {
            self.done += stat.blocks * 512;
            return Ok(Some(None));
        }
        let entry = primary.entry(directory.id, &path, name, &stat).map_err(&read)?;
        if !self.journal(entry)? {
            return Ok(None);
        }
        if known.is_some() {
            return Ok(Some(None));
        }
        if stat.file_type != FileType::RegularFile {
            // a directory has one name; another one of anything else is told where it stands
            self.log(|log| log.note_told(node.id, stat.is_directory() || stat.links <= 1));
            self.count(&stat);
            return Ok(Some(None));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&*path, name.as_bytes(), flags, Mode::empty()).map_err(&read)?;
        if !self.journal(Change::SetSize { file: node.id, size: stat.size, mtime: stat.mtime })? {
            return Ok(None);
        }
        self.count(&stat);
        Ok(Some(Some(Content { file, size: stat.size, with_all_names: stat.links <= 1 })))
    }

    fn count(&mut self, stat: &Stat) {
        if stat.is_directory() { self.told.directories += 1 } else { self.told.objects += 1 }
    }

    /// The root, or an object that moved: where it stands is told by the record of the move.
    fn tell_without_place(&mut self, node: Known<'p>, caller: &mut Caller<'_>) -> Result<()> {
        let content = loop {
            match self.try_without_place(&node)? {
                None => self.room(caller)?,
                Some(content) => break content,
            }
        };
        self.take(node, content, caller)
    }

    fn try_without_place(&mut self, node: &Arc<Node>) -> Result<Option<Option<Content>>> {
        let (primary, read) = (self.primary, failed("look at a file"));
        let _admitted = primary.under_way();
        let _names = primary.names.read();
        let _order = node.order.lock();
        let known = self.log(|log| log.told(node.id)).flatten();
        if known.is_some() || node.state.lock().nameless {
            return Ok(Some(None));
        }
        let stat = primary.volume.stat(node).map_err(&read)?;
        if !self.journal(primary.placeless(node).map_err(&read)?)? {
            return Ok(None);
        }
        if stat.file_type != FileType::RegularFile {
            self.log(|log| log.note_told(node.id, stat.is_directory()));
            self.count(&stat);
            return Ok(Some(None));
        }
        let path = primary.volume.path(node).map_err(&read)?;
        let file = reopen(&*path, OFlags::RDONLY).map_err(&read)?;
        if !self.journal(Change::SetSize { file: node.id, size: stat.size, mtime: stat.mtime })? {
            return Ok(None);
        }
        self.count(&stat);
        Ok(Some(Some(Content { file, size: stat.size, with_all_names: false })))
    }

    /// The bytes that a file had when it was named: what comes behind them meanwhile is journaled by whoever writes it.
    fn tell_content(&mut self, node: &Arc<Node>, content: &Content, caller: &mut Caller<'_>) -> Result<()> {
        let read = failed("read a file");
        let mut at = self.log(|log| log.reached(node.id)).unwrap_or(0);
        self.done += at;
        while let Some((start, end)) = next_extent(&content.file, at, content.size).map_err(&read)? {
            at = start;
            while at < end {
                match self.tell_piece(node, &content.file, at, (end - at).min(DATA_MAX as u64))? {
                    None => self.room(caller)?,
                    Some(0) => return self.finish_content(node, content),
                    Some(bytes) => {
                        at += bytes;
                        (self.told.bytes, self.done) = (self.told.bytes + bytes, self.done + bytes);
                        self.log(|log| log.note_reached(node.id, at));
                        (caller.progress)(self.done.min(caller.expected), caller.expected);
                        self.note_now_and_then()?;
                    }
                }
            }
        }
        self.finish_content(node, content)
    }

    /// Its attributes again, for writing takes some away on a replica.
    fn finish_content(&mut self, node: &Arc<Node>, content: &Content) -> Result<()> {
        let primary = self.primary;
        let _admitted = primary.under_way();
        let _names = primary.names.read();
        let _order = node.order.lock();
        if primary.is_suspended() {
            return Err(ResyncError::Again);
        }
        if !node.state.lock().nameless {
            primary.tell_attributes(node).map_err(failed("journal attributes"))?;
        }
        self.log(|log| log.note_told(node.id, content.with_all_names));
        Ok(())
    }

    /// One piece, as it stands now; 0 at the end of the file or when it has no name any more, `None` when there is no room.
    fn tell_piece(&mut self, node: &Arc<Node>, file: &OwnedFd, at: u64, length: u64) -> Result<Option<u64>> {
        let (primary, read) = (self.primary, failed("read a file"));
        let _admitted = primary.under_way();
        let _names = primary.names.read();
        let _order = node.order.lock();
        if node.state.lock().nameless {
            return Ok(Some(0));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let length = usize::try_from(length).map_err(|_| read(Errno::INVAL))?;
        buffer.resize(length, 0);
        let bytes = rustix::io::pread(file, &mut buffer[..], at).map_err(&read)?;
        let stat = Stat::at(file, b"").map_err(&read)?;
        let told = match &buffer[..bytes] {
            [] => true,
            data => {
                let data = Cow::Borrowed(data);
                self.journal(Change::Write { file: node.id, offset: at, data, size: stat.size, mtime: stat.mtime })?
            }
        };
        self.buffer = buffer;
        Ok(told.then_some(bytes as u64))
    }

    /// Journals a record that is true here and now; false when there is no room. Half of the journal is the applications'.
    fn journal(&mut self, change: Change<'_>) -> Result<bool> {
        let primary = self.primary;
        if primary.is_suspended() {
            return Err(ResyncError::Again);
        }
        let bytes = match &change {
            Change::Write { data, .. } => ENTRY_BYTES + data.len() as u64,
            Change::Entry { xattrs, .. } => {
                ENTRY_BYTES + xattrs.iter().map(|xattr| (xattr.name.len() + xattr.value.len()) as u64).sum::<u64>()
            }
            _ => ENTRY_BYTES,
        };
        let geometry = primary.jvol().geometry();
        if !primary.jvol().has_room(bytes + geometry.data_size / 2, geometry.control_slots / 2) {
            return Ok(false);
        }
        match primary.tell(&Requester::reelfs(), change) {
            Ok(()) => {
                self.unnoted += bytes;
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(failed("write the journal")(error)),
        }
    }

    /// Waits for nobody's sake: no lock is held.
    fn room(&mut self, caller: &mut Caller<'_>) -> Result<()> {
        self.note()?;
        if (caller.make_room)() { Ok(()) } else { Err(ResyncError::NoRoom) }
    }

    fn note_now_and_then(&mut self) -> Result<()> {
        if self.unnoted >= NOTED_AFTER { self.note() } else { Ok(()) }
    }

    /// Makes durable what was told, and then notes it.
    fn note(&mut self) -> Result<()> {
        let primary = self.primary;
        let Some((file, pending)) = self.log(BaseLog::take_pending) else { return Ok(()) };
        let last = primary.jvol().pointers().next.previous();
        primary.jvol().sync(last).map_err(|_| failed("sync the journal")(Errno::IO))?;
        BaseLog::append(&file, &pending).map_err(failed_log)?;
        self.unnoted = 0;
        Ok(())
    }

    /// Everything is told: so says the journal, and the log goes.
    fn end(mut self) -> Result<Based> {
        let (primary, write) = (self.primary, failed("write the journal"));
        let _admitted = primary.under_way();
        if primary.is_suspended() {
            return Err(ResyncError::Again);
        }
        let end = Change::BaseEnd { base: self.under_way.base, began: self.under_way.began, digest: [0; 32] };
        self.told.ended = primary.control(&end).map_err(&write)?;
        primary.jvol().sync(self.told.ended).map_err(|_| write(Errno::IO))?;
        primary.give_up_base().map_err(failed_log)?;
        tracing::info!(base = %self.told.base, "the volume went through the journal: everything is told");
        Ok(self.told)
    }
}
