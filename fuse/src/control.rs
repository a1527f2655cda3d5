//! The control directory: `.reelfs` in the root of a mount, which no listing shows. What the daemon knows can be read there,
//! and a marker be set; nothing of it is in the volume or in the journal.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use reelfs_journal::FileTime;
use rustix::io::{Errno, Result};

use crate::answer::{code, dots, system_time};
use crate::kernel::{
    FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEntry, ReplyOpen, ReplyWrite,
};

/// Its name in the root directory.
pub const CONTROL_DIR: &str = ".reelfs";

/// Its inode numbers end the range: no file system gives these to a file.
const DIRECTORY: u64 = u64::MAX - 0x10;
/// The file that takes markers.
const MARK: u64 = DIRECTORY + 1;
/// How long the kernel may keep the name of the directory. What is in it is asked for each time.
const NAME_TTL: Duration = Duration::from_secs(60);

/// A file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// How the group is.
    Status,
    /// The last record.
    Position,
    /// How far the others are behind.
    Lag,
}

impl Fact {
    const ALL: [Fact; 3] = [Fact::Status, Fact::Position, Fact::Lag];

    fn name(self) -> &'static str {
        match self {
            Fact::Status => "status",
            Fact::Position => "position",
            Fact::Lag => "lag",
        }
    }

    fn ino(self) -> u64 {
        MARK + 1 + self as u64
    }

    fn of(ino: u64) -> Option<Fact> {
        Fact::ALL.into_iter().find(|fact| fact.ino() == ino)
    }

    /// What `status` tells the control socket keeps to the daemon's user, and so does this.
    fn mode(self) -> u16 {
        if self == Fact::Status { 0o400 } else { 0o444 }
    }
}

/// What a fact is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The bytes of the file.
    pub text: Vec<u8>,
    /// Its mtime.
    pub time: FileTime,
}

/// Tells a fact.
pub type Tell = dyn Fn(Fact) -> Result<Told> + Send + Sync;
/// Sets a marker: its name, and on further lines a note.
pub type TakeMark = dyn Fn(&str) -> Result<()> + Send + Sync;

/// What is behind the files.
pub struct ControlFiles {
    /// For what is read.
    pub tell: Box<Tell>,
    /// For what is written.
    pub mark: Box<TakeMark>,
    /// The word for the state of the pair.
    pub pair: Box<dyn Fn() -> &'static str + Send + Sync>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The directory in one mount.
pub(crate) struct Control {
    files: Arc<ControlFiles>,
    root: u64,
    /// What open handles read: one text from beginning to end.
    open: Arc<Mutex<HashMap<u64, Vec<u8>>>>,
    next: AtomicU64,
    /// Done by a thread of its own: a fact may take its time, and no event loop waits for it.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// In a mount whose root directory has this inode number.
    pub(crate) fn new(files: ControlFiles, root: u64) -> std::io::Result<Control> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("control-dir".into()).spawn(move || {
            queue.into_iter().for_each(|job| job());
        })?;
        let (open, next) = (Arc::default(), AtomicU64::new(1));
        Ok(Control { files: Arc::new(files), root, open, next, jobs: Some(jobs), thread: Some(thread) })
    }

    pub(crate) fn pair(&self) -> &'static str {
        (self.files.pair)()
    }

    /// A lookup of this name is about it.
    pub(crate) fn is_name(&self, parent: u64, name: &OsStr) -> bool {
        is_control(parent) || (parent == self.root && name == CONTROL_DIR)
    }

    /// Why a name cannot be made or taken away: it is not the user's.
    pub(crate) fn refusal(&self, parent: u64, name: &OsStr) -> Option<Errno> {
        self.is_name(parent, name).then_some(Errno::PERM)
    }

    pub(crate) fn lookup(&self, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let ino = if is_control(parent) { inode(name) } else { Some(DIRECTORY) };
        match ino {
            Some(DIRECTORY) => reply.entry(&NAME_TTL, &attributes(DIRECTORY, None), Generation(0)),
            Some(ino) => self.with_attributes(ino, reply, |reply, told| match told {
                Ok(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
                Err(error) => reply.error(code(error)),
            }),
            None => reply.error(code(Errno::NOENT)),
        }
    }

    pub(crate) fn getattr(&self, ino: u64, reply: ReplyAttr) {
        self.with_attributes(ino, reply, |reply, told| match told {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(code(error)),
        });
    }

    /// A shell truncates what it writes to.
    pub(crate) fn setattr(&self, ino: u64, size: Option<u64>, reply: ReplyAttr) {
        match size {
            Some(0) if ino == MARK => self.getattr(ino, reply),
            _ => reply.error(code(Errno::PERM)),
        }
    }

    pub(crate) fn open(&self, ino: u64, reply: ReplyOpen) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let (files, open) = (self.files.clone(), self.open.clone());
        self.queue(move || {
            let text = match Fact::of(ino).map(|fact| (files.tell)(fact)) {
                Some(Err(error)) => return reply.error(code(error)),
                Some(Ok(told)) => told.text,
                None => Vec::new(),
            };
            open.lock().insert(handle, text);
            // its size is not known before it is read
            reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    pub(crate) fn read(&self, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        let open = self.open.lock();
        let text = open.get(&handle.0).map_or(&[][..], Vec::as_slice);
        let rest = usize::try_from(offset).ok().and_then(|offset| text.get(offset..)).unwrap_or_default();
        reply.data(&rest[..rest.len().min(size as usize)]);
    }

    pub(crate) fn write(&self, ino: u64, data: &[u8], reply: ReplyWrite) {
        let (Ok(text), MARK) = (std::str::from_utf8(data), ino) else { return reply.error(code(Errno::INVAL)) };
        let (files, text) = (self.files.clone(), text.to_owned());
        self.queue(move || match (files.mark)(&text) {
            // a request has 1 MiB at most
            Ok(()) => reply.written(u32::try_from(text.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(code(error)),
        });
    }

    pub(crate) fn release(&self, handle: FileHandle) {
        self.open.lock().remove(&handle.0);
    }

    pub(crate) fn readdir(&self, offset: u64, mut reply: ReplyDirectory) {
        for (next, (ino, kind, name)) in listing(self.root).into_iter().enumerate().skip(skipped(offset)) {
            if reply.add(INodeNo(ino), next as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    pub(crate) fn readdirplus(&self, offset: u64, mut reply: ReplyDirectoryPlus) {
        for (next, (ino, _, name)) in listing(self.root).into_iter().enumerate().skip(skipped(offset)) {
            let told = if name.starts_with('.') { dots(ino) } else { attributes(ino, None) };
            if reply.add(INodeNo(ino), next as u64 + 1, name, &Duration::ZERO, &told, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    /// The lag alone has an mtime and a size that must be asked for.
    fn with_attributes<R: Send + 'static>(&self, ino: u64, reply: R, answer: fn(R, Result<FileAttr>)) {
        match Fact::of(ino) {
            Some(Fact::Lag) => {
                let files = self.files.clone();
                self.queue(move || {
                    let told = (files.tell)(Fact::Lag);
                    answer(reply, told.map(|told| attributes(ino, Some(&told))));
                });
            }
            Some(Fact::Status | Fact::Position) => answer(reply, Ok(attributes(ino, None))),
            None if ino == DIRECTORY || ino == MARK => answer(reply, Ok(attributes(ino, None))),
            None => answer(reply, Err(Errno::STALE)),
        }
    }

    fn queue(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // dropped at the end with what it would have answered, which answers EIO
            let _ = jobs.send(Box::new(job));
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control directory panicked");
        }
    }
}

/// An inode number of the control directory.
pub(crate) fn is_control(ino: u64) -> bool {
    ino >= DIRECTORY
}

fn inode(name: &OsStr) -> Option<u64> {
    let fact = Fact::ALL.into_iter().find(|fact| name == fact.name());
    fact.map(Fact::ino).or_else(|| (name == "mark").then_some(MARK))
}

fn listing(root: u64) -> Vec<(u64, FileType, &'static str)> {
    let file = |(ino, name)| (ino, FileType::RegularFile, name);
    let mut all = vec![(DIRECTORY, FileType::Directory, "."), (root, FileType::Directory, ".."), file((MARK, "mark"))];
    all.extend(Fact::ALL.into_iter().map(|fact| file((fact.ino(), fact.name()))));
    all
}

fn skipped(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn attributes(ino: u64, told: Option<&Told>) -> FileAttr {
    let (kind, perm) = match (ino, Fact::of(ino)) {
        (DIRECTORY, _) => (FileType::Directory, 0o555),
        (_, Some(fact)) => (FileType::RegularFile, fact.mode()),
        (_, None) => (FileType::RegularFile, 0o200),
    };
    let blank = dots(ino);
    let time = told.map_or(blank.mtime, |told| system_time(told.time));
    FileAttr {
        size: told.map_or(0, |told| told.text.len() as u64),
        atime: time,
        mtime: time,
        ctime: time,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        blksize: 4096,
        ..blank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_inode_of_its_own_and_leads_back() {
        let mut seen = Vec::new();
        for (ino, _, name) in listing(7).into_iter().skip(2) {
            assert_eq!(inode(OsStr::new(name)), Some(ino), "{name}");
            assert!(is_control(ino) && !seen.contains(&ino) && ino != DIRECTORY, "{name}");
            seen.push(ino);
        }
        assert_eq!(seen.len(), 4);
        assert!(Fact::ALL.into_iter().all(|fact| Fact::of(fact.ino()) == Some(fact)));
        assert_eq!(inode(OsStr::new("other")), None);
        assert!(!is_control(7) && !is_control(u64::MAX - 0x100));
    }
}
