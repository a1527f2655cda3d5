//! The open files of a mount: which handles of each there are, what it passes through to, and its second inode if it has one.
//! `open_mode.rs` decides; this holds the locks and talks to the kernel.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use reelfs_volume::{Primary, Stat, Written};
use rustix::io::Errno;

use crate::answer::{TTL, attributes, code, may_write};
use crate::handle::Handle;
use crate::kernel::{BackingId, FileAttr, FileHandle, FopenFlags, INodeNo, ReplyOpen};
use crate::open_mode::{Answer, Handled, Inode, Mode, Purpose};
use crate::second::Second;

/// Smaller files are read by one request and then warm: to pass them through gains nothing.
const PASS_MIN: i64 = 128 << 10;
/// Second inodes have numbers with this bit, which inodes of file systems do not.
const SECOND: u64 = 1 << 63;
/// So many files are remembered that nothing passes through to; then it is begun anew.
const KEPT_MAX: usize = 1 << 16;
/// How long a release may be on its way that was sent before the open that waits for it.
const RELEASE_UNDER_WAY: Duration = Duration::from_millis(5);

/// Whether reads of a mount pass through to the files of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passthrough {
    /// Read-only handles do while nobody may store into the file.
    On,
    /// It was not wanted.
    Off,
    /// It was, and the kernel does not; why.
    Refused(String),
}

/// One open file, or one that has a second inode.
#[derive(Default)]
struct Entry {
    handled: Handled,
    /// What the first inode passes through to, while it does.
    backing: Option<BackingId>,
    second: Option<SecondInode>,
}

/// The second inode of a file in the kernel.
struct SecondInode {
    number: u64,
    generation: u32,
    /// Lookups that the kernel has not forgotten.
    lookups: u64,
}

#[derive(Default)]
struct Table {
    files: HashMap<u64, Entry>,
    /// By the number of their second inode, until the kernel has forgotten it.
    by_second: HashMap<u64, u64>,
    last_second: u64,
    /// Files that had to get a second inode once: they would again, so nothing passes through to them.
    kept: HashSet<u64>,
}

/// An open that is to be answered.
pub(crate) struct Opening {
    /// As the kernel calls it, and as the volume does.
    pub(crate) node: INodeNo,
    pub(crate) ino: u64,
    pub(crate) flags: i32,
    pub(crate) reply: ReplyOpen,
}

/// What the kernel is told of an object whose name it asked for.
pub(crate) struct Presented {
    pub(crate) attributes: FileAttr,
    pub(crate) name_ttl: Duration,
    pub(crate) attribute_ttl: Duration,
}

pub(crate) struct Opens {
    primary: Arc<Primary>,
    table: Mutex<Table>,
    released: Condvar,
    /// How many files have a second inode.
    seconds: AtomicUsize,
    passes: AtomicBool,
    passthrough: Mutex<Passthrough>,
    pub(crate) second: Second,
}

impl Opens {
    pub(crate) fn new(primary: Arc<Primary>, wanted: bool) -> std::io::Result<Arc<Opens>> {
        let opens = Arc::new(Opens {
            primary,
            table: Mutex::default(),
            released: Condvar::new(),
            seconds: AtomicUsize::new(0),
            passes: AtomicBool::new(wanted),
            passthrough: Mutex::new(if wanted { Passthrough::On } else { Passthrough::Off }),
            second: Second::default(),
        });
        opens.second.start(&opens)?;
        Ok(opens)
    }

    pub(crate) fn passthrough(&self) -> Passthrough {
        self.passthrough.lock().clone()
    }

    pub(crate) fn passes(&self) -> bool {
        self.passes.load(Ordering::Relaxed)
    }

    /// The kernel does not do it: nothing more passes through.
    pub(crate) fn refuse(&self, why: &str) {
        if self.passes.swap(false, Ordering::Relaxed) {
            tracing::warn!(why, "reads do not pass through to the volume: they go through the cache of the mount");
            *self.passthrough.lock() = Passthrough::Refused(why.to_owned());
        }
    }

    /// The inode number in the volume of a second inode.
    pub(crate) fn real(&self, node: u64) -> u64 {
        if node & SECOND == 0 {
            return node;
        }
        self.table.lock().by_second.get(&node).copied().unwrap_or(node)
    }

    fn has_seconds(&self) -> bool {
        self.seconds.load(Ordering::SeqCst) > 0
    }

    /// What to say of an object that was looked up, and counts that on the inode that is told.
    pub(crate) fn present(&self, stat: &Stat) -> Presented {
        let mut attributes = attributes(stat);
        if self.has_seconds()
            && let Some(number) = self.second_of(stat, 1)
        {
            // the attributes have the number of the inode; GETATTR has that of the file, and is asked at once
            attributes.ino = INodeNo(number);
            return Presented { attributes, name_ttl: Duration::ZERO, attribute_ttl: Duration::ZERO };
        }
        Presented { attributes, name_ttl: TTL, attribute_ttl: TTL }
    }

    fn second_of(&self, stat: &Stat, lookups: u64) -> Option<u64> {
        let mut table = self.table.lock();
        let entry = table.files.get_mut(&stat.id.ino)?;
        let second = entry.second.as_mut()?;
        if second.generation != stat.id.generation {
            // that file is gone
            entry.second = None;
            entry.handled.end_second();
            self.seconds.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        second.lookups += lookups;
        Some(second.number)
    }

    /// How long attributes may be kept that are told of a file: not at all while the kernel has two inodes of it.
    pub(crate) fn attribute_ttl(&self, ino: u64) -> Duration {
        let has_two =
            self.has_seconds() && self.table.lock().files.get(&ino).is_some_and(|entry| entry.second.is_some());
        if has_two { Duration::ZERO } else { TTL }
    }

    /// The kernel takes back lookups of an inode.
    pub(crate) fn forget(&self, node: u64, count: u64) {
        if node & SECOND == 0 {
            return;
        }
        let mut table = self.table.lock();
        let Some(&ino) = table.by_second.get(&node) else { return };
        match table.files.get_mut(&ino).and_then(|entry| entry.second.as_mut()) {
            Some(second) if second.number == node => {
                second.lookups = second.lookups.saturating_sub(count);
                self.tidy(&mut table, ino);
            }
            _ => drop(table.by_second.remove(&node)),
        }
    }

    /// Drops what is no longer needed of a file; gives what is to be dropped without the lock.
    fn tidy(&self, table: &mut Table, ino: u64) -> Option<BackingId> {
        let entry = table.files.get_mut(&ino)?;
        let backing = if entry.handled.passes_through() { None } else { entry.backing.take() };
        if entry.second.as_ref().is_some_and(|second| second.lookups == 0) && entry.handled.join() {
            let second = entry.second.take();
            self.seconds.fetch_sub(1, Ordering::SeqCst);
            if let Some(second) = second {
                table.by_second.remove(&second.number);
            }
        }
        let entry = table.files.get(&ino)?;
        if entry.handled.is_closed() && entry.second.is_none() {
            table.files.remove(&ino);
        }
        backing
    }

    /// Answers an open of what the volume has opened already.
    pub(crate) fn open(self: &Arc<Self>, opening: Opening) {
        if let Some(opening) = self.try_open(opening, true) {
            self.second.later(move |opens| opens.switch(opening));
        }
    }

    /// Answers it unless the file needs a second inode for it, or, when there is time, those that pass through may just be going.
    fn try_open(&self, opening: Opening, has_time: bool) -> Option<Opening> {
        let Opening { node, ino, flags, reply } = opening;
        let (purpose, inode) = (Purpose::of(flags), inode_of(node));
        let file = if purpose == Purpose::Read && self.passes() { self.to_pass(ino) } else { None };
        let mut table = self.table.lock();
        let is_kept = table.kept.contains(&ino);
        let file = file.filter(|_| !is_kept);
        let entry = table.files.entry(ino).or_default();
        let of_another = inode == Inode::Second && entry.second.as_ref().is_none_or(|second| second.number != node.0);
        let mut answer = match of_another {
            true => Answer::LookAgain,
            false => entry.handled.answer(inode, purpose, file.is_some()),
        };
        if let (Answer::Open(Mode::Through), None, Some(file)) = (answer, &entry.backing, &file) {
            entry.backing = self.register(&reply, file);
        }
        if matches!(answer, Answer::Open(mode) if mode.passes_through()) && entry.backing.is_none() {
            answer = entry.handled.answer(inode, purpose, false);
        }
        match (answer, &entry.backing) {
            (Answer::Open(Mode::Through), _) if is_kept && has_time => {
                return Some(Opening { node, ino, flags, reply });
            }
            (Answer::Open(mode), Some(backing)) if mode.passes_through() => {
                entry.handled.add(inode, mode);
                self.second.watch(&entry.handled);
                reply.opened_passthrough(Handle::new(mode, flags).number(), flags_of(mode), backing);
            }
            (Answer::Open(mode), _) => {
                entry.handled.add(inode, mode);
                self.second.watch(&entry.handled);
                drop(table);
                reply.opened(Handle::new(mode, flags).number(), flags_of(mode));
            }
            (Answer::LookAgain, _) => {
                self.tidy(&mut table, ino);
                drop(table);
                self.refuse_open(Opening { node, ino, flags, reply }, Errno::STALE);
            }
            (Answer::Switch, _) => return Some(Opening { node, ino, flags, reply }),
        }
        None
    }

    /// The file to pass through to, when it is worth it.
    fn to_pass(&self, ino: u64) -> Option<Arc<OwnedFd>> {
        let file = self.primary.backing(ino).ok()?;
        rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_size >= PASS_MIN && ino & SECOND == 0).then_some(file)
    }

    fn register(&self, reply: &ReplyOpen, file: &OwnedFd) -> Option<BackingId> {
        let error = match reply.open_backing(file.as_fd()) {
            Ok(backing) => return Some(backing),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => self.refuse("the volume is on a stacked file system"),
            // this one file, or just now
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::BADF) => {}
            _ => self.refuse(&format!("the kernel refuses: {error}")),
        }
        None
    }

    /// The open failed: the volume's is undone.
    fn refuse_open(&self, opening: Opening, error: Errno) {
        if may_write(opening.flags) {
            self.primary.end_writing();
        }
        self.primary.release(opening.ino);
        opening.reply.error(code(error));
    }

    /// Counts the handle of a file that a create has made, or found because somebody else was faster.
    ///
    /// # Errors
    /// `ESTALE`, the create undone: the kernel is to look it up again.
    pub(crate) fn created(&self, stat: &Stat, flags: i32) -> rustix::io::Result<Mode> {
        if let Some(mode) = self.try_created(stat, flags) {
            return Ok(mode);
        }
        if may_write(flags) {
            self.primary.end_writing();
        }
        self.primary.release(stat.id.ino);
        self.primary.forget(stat.id.ino, 1);
        Err(Errno::STALE)
    }

    fn try_created(&self, stat: &Stat, flags: i32) -> Option<Mode> {
        if self.has_seconds() && self.second_of(stat, 0).is_some() {
            return None;
        }
        let mut table = self.table.lock();
        let handled = &mut table.files.entry(stat.id.ino).or_default().handled;
        match handled.answer(Inode::First, Purpose::of(flags), false) {
            Answer::Open(mode) if !mode.passes_through() => {
                handled.add(Inode::First, mode);
                Some(mode)
            }
            Answer::Open(_) | Answer::LookAgain | Answer::Switch => {
                self.tidy(&mut table, stat.id.ino);
                None
            }
        }
    }

    /// A handle is closed.
    pub(crate) fn release(&self, node: INodeNo, ino: u64, handle: FileHandle) {
        let Some(Handle { mode, .. }) = Handle::of_number(handle) else { return };
        let mut table = self.table.lock();
        let Some(entry) = table.files.get_mut(&ino) else { return };
        entry.handled.remove(inode_of(node), mode);
        let backing = self.tidy(&mut table, ino);
        drop(table);
        drop(backing); // a system call
        if mode.passes_through() {
            self.released.notify_all();
        }
    }

    /// Makes a second inode for a handle that may store, unless the readers have just gone.
    fn switch(&self, opening: Opening) {
        let ino = opening.ino;
        {
            let mut table = self.table.lock();
            let passes = |table: &mut Table| table.files.get(&ino).is_some_and(|entry| entry.handled.passes_through());
            self.released.wait_while_for(&mut table, passes, RELEASE_UNDER_WAY);
        }
        let Some(opening) = self.try_open(opening, false) else { return };
        self.keep(ino);
        if self.second.sees_locks(ino) {
            // who locks a file must meet everybody else on the same inode
            tracing::warn!(ino, "opened for reading and writing while a reader has it locked: refused");
            return self.refuse_open(opening, Errno::BUSY);
        }
        match self.primary.stat(ino) {
            Ok(stat) => self.split(&stat),
            Err(error) => return self.refuse_open(opening, error),
        }
        // what it has cached of earlier times would be believed again once the second one is gone
        self.second.invalidate(ino, 0, 0);
        self.refuse_open(opening, Errno::STALE);
    }

    /// Nothing passes through to a file any more, when those that do have gone.
    fn keep(&self, ino: u64) {
        let kept = &mut self.table.lock().kept;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(ino);
    }

    fn split(&self, stat: &Stat) {
        let mut table = self.table.lock();
        let number = SECOND | (table.last_second + 1);
        let entry = table.files.entry(stat.id.ino).or_default();
        if entry.second.is_some() || !entry.handled.passes_through() {
            return;
        }
        entry.second = Some(SecondInode { number, generation: stat.id.generation, lookups: 0 });
        entry.handled.split();
        self.seconds.fetch_add(1, Ordering::SeqCst);
        table.last_second += 1;
        table.by_second.insert(number, stat.id.ino);
        tracing::debug!(ino = stat.id.ino, "a second inode, for a writer beside readers that pass through");
    }

    /// The second inode, when something was changed through the first and it may have old pages.
    pub(crate) fn to_tell(&self, node: INodeNo, ino: u64) -> Option<u64> {
        if !self.has_seconds() || inode_of(node) == Inode::Second {
            return None;
        }
        self.table.lock().files.get(&ino)?.second.as_ref().map(|second| second.number)
    }

    /// Whether the kernel has two inodes of the file.
    pub(crate) fn has_two(&self, node: INodeNo, ino: u64) -> bool {
        inode_of(node) == Inode::Second
            || self.has_seconds() && self.table.lock().files.get(&ino).is_some_and(|entry| entry.second.is_some())
    }

    /// The inode of a file whose mappings may have been stored into.
    pub(crate) fn may_store(&self, ino: u64) -> Option<u64> {
        let table = self.table.lock();
        let entry = table.files.get(&ino)?;
        match entry.handled.may_store()? {
            Inode::First => Some(ino),
            Inode::Second => entry.second.as_ref().map(|second| second.number),
        }
    }

    /// A write is done: the kernel no longer believes the mode that the file had.
    pub(crate) fn note_written(&self, node: INodeNo, written: &Written) {
        if written.took_privileges {
            self.second.forget_attributes(node.0);
        }
    }

    /// Second inodes whose mappings may have been stored into, unseen by readers that pass through.
    pub(crate) fn hiding(&self) -> Vec<u64> {
        if !self.has_seconds() {
            return Vec::new();
        }
        let table = self.table.lock();
        let hiding = table.files.values().filter(|entry| entry.handled.may_hide_stores());
        hiding.filter_map(|entry| entry.second.as_ref().map(|second| second.number)).collect()
    }
}

fn inode_of(node: INodeNo) -> Inode {
    if node.0 & SECOND == 0 { Inode::First } else { Inode::Second }
}

/// What the kernel is told of a mode; that it passes through is added where it is.
pub(crate) fn flags_of(mode: Mode) -> FopenFlags {
    match mode {
        Mode::Cached | Mode::Storing => FopenFlags::FOPEN_KEEP_CACHE,
        Mode::Direct | Mode::ThroughDirect => FopenFlags::FOPEN_DIRECT_IO,
        Mode::Through => FopenFlags::empty(),
    }
}
