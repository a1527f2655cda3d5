//! A FUSE file system that does nothing but answer: what the kernel's way to a daemon and back costs at least.
//!
//! It keeps names and sizes in memory and forgets what is written. Its requests are as few, and its threads linger, as those of the
//! mount. `REELFS_FLOOR="target/release/examples/floor {source} {point}" cargo bench --bench mount` measures it beside a
//! peer and reelfs; no file system that is told of each change by a request can be faster. With `--keep` before the two it
//! writes what it is given into a file of the source for each, syncs it when it is told to, removes it, and nothing else: what a
//! daemon costs that writes. With `--twice` it writes everything a second time, one behind the other into one file of 1 GiB that
//! is there already and is synced every 16 MiB, and the source every 128 MiB or when it can, for what leaves a journal must be on the
//! disk of its volume; a sync is one of that file: what any journal costs that has no checksums, no order and no recovery.

#[path = "../src/awake.rs"]
#[expect(dead_code, reason = "it ends with its process")]
mod awake;
#[path = "../src/kernel.rs"]
#[expect(unused_imports, reason = "the mount uses more of it")]
mod kernel;
#[path = "../src/linger.rs"]
mod linger;
#[path = "../src/readers.rs"]
mod readers;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awake::Awake;
use kernel::{
    Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    KernelErrno, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use linger::Linger;
use parking_lot::Mutex;

const ROOT: u64 = 1;
const TTL: Duration = Duration::from_secs(3600);
const REQUEST_MAX: u32 = 1 << 20;
const THREADS: usize = 2;

/// What is only written passes the page cache, as in the mount: a copy less.
fn way_of(flags: i32) -> FopenFlags {
    if flags & libc::O_ACCMODE == libc::O_WRONLY { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
}

struct Node {
    attributes: FileAttr,
    names: BTreeMap<OsString, u64>,
    content: Option<Arc<File>>,
}

impl Node {
    fn new(attributes: FileAttr) -> Node {
        Node { attributes, names: BTreeMap::new(), content: None }
    }
}

struct Nodes {
    nodes: HashMap<u64, Node>,
    last: u64,
}

impl Nodes {
    fn make(&mut self, parent: u64, name: &OsStr, kind: FileType, mode: u32, owner: (u32, u32)) -> Option<FileAttr> {
        self.last += 1;
        let made = attributes(self.last, kind, mode, owner);
        let names = &mut self.nodes.get_mut(&parent)?.names;
        if names.contains_key(name) {
            return None;
        }
        names.insert(name.to_owned(), self.last);
        self.nodes.insert(self.last, Node::new(made));
        Some(made)
    }

    fn take(&mut self, parent: u64, name: &OsStr) -> Option<(u64, Node)> {
        let child = self.nodes.get_mut(&parent)?.names.remove(name)?;
        Some((child, self.nodes.remove(&child)?))
    }

    fn find(&self, parent: u64, name: &OsStr) -> Option<FileAttr> {
        let child = self.nodes.get(&parent)?.names.get(name)?;
        self.nodes.get(child).map(|node| node.attributes)
    }
}

fn attributes(ino: u64, kind: FileType, mode: u32, (uid, gid): (u32, u32)) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: u16::try_from(mode & 0o7777).unwrap_or(0),
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Where everything is written a second time.
struct Second {
    file: File,
    end: AtomicU64,
    /// To who syncs it, with its end.
    due: SyncSender<u64>,
}

const SECOND: u64 = 1 << 30;
/// So much is synced at once.
const DUE: u64 = 16 << 20;
/// And of the source.
const VOLUME_DUE: u64 = 128 << 20;

impl Second {
    fn new(source: &Path) -> io::Result<Second> {
        let file = File::create(source.join("second"))?;
        let zeros = vec![0; 1 << 20];
        (0..SECOND >> 20).try_for_each(|piece| file.write_all_at(&zeros, piece << 20))?;
        file.sync_all()?;
        let (due, to_sync) = sync_channel(1);
        let (synced, volume) = (file.try_clone()?, File::open(source)?);
        std::thread::spawn(move || {
            let mut done = 0;
            let mut sync = |end: u64| -> io::Result<()> {
                synced.sync_data()?;
                if end / VOLUME_DUE != done {
                    rustix::fs::syncfs(&volume)?;
                    done = end / VOLUME_DUE;
                }
                Ok(())
            };
            if let Err(error) = to_sync.iter().try_for_each(&mut sync) {
                eprintln!("cannot sync: {error}");
                std::process::exit(1);
            }
        });
        Ok(Second { file, end: AtomicU64::new(0), due })
    }

    fn write(&self, data: &[u8]) -> io::Result<()> {
        let length = data.len() as u64;
        let end = self.end.fetch_add(length, Ordering::Relaxed);
        let begin = end % SECOND;
        let first = usize::try_from(SECOND - begin).unwrap_or(usize::MAX).min(data.len());
        self.file.write_all_at(&data[..first], begin)?;
        self.file.write_all_at(&data[first..], 0)?;
        if end / DUE != (end + length) / DUE {
            // one that is due already is enough
            let _ = self.due.try_send(end + length);
        }
        Ok(())
    }
}

struct Floor {
    nodes: Mutex<Nodes>,
    /// Where what is written goes.
    kept: Option<PathBuf>,
    second: Option<Second>,
    linger: Arc<Linger>,
}

impl Floor {
    fn path(&self, ino: u64) -> Option<PathBuf> {
        Some(self.kept.as_ref()?.join(format!("floor-{ino}")))
    }

    fn content(&self, ino: u64) -> io::Result<Option<Arc<File>>> {
        let Some(path) = self.path(ino) else { return Ok(None) };
        // one before this has left it
        Ok(Some(Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(path)?)))
    }

    fn write_both(&self, content: Option<&File>, data: &[u8], offset: u64) -> io::Result<()> {
        self.second.as_ref().map_or(Ok(()), |second| second.write(data))?;
        content.map_or(Ok(()), |content| content.write_all_at(data, offset))
    }

    fn sync(&self, content: Option<&File>) -> io::Result<()> {
        self.second.as_ref().map(|second| &second.file).or(content).map_or(Ok(()), File::sync_data)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let child = self.nodes.lock().take(parent.0, name);
        let Some((child, node)) = child else { return reply.error(KernelErrno::ENOENT) };
        let path = if node.content.is_some() { self.path(child) } else { None };
        match path.map_or(Ok(()), fs::remove_file) {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(KernelErrno::EIO),
        }
    }

    fn list(&self, ino: INodeNo, offset: u64) -> Vec<(u64, OsString, FileAttr)> {
        let nodes = self.nodes.lock();
        let Some(node) = nodes.nodes.get(&ino.0) else { return Vec::new() };
        let entries = node.names.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX));
        let known = |(index, (name, child)): (usize, (&OsString, &u64))| {
            Some((index as u64 + 1, name.clone(), nodes.nodes.get(child)?.attributes))
        };
        entries.take(200).filter_map(known).collect()
    }
}

fn entry(reply: ReplyEntry, found: Option<FileAttr>) {
    match found {
        Some(found) => reply.entry(&TTL, &found, Generation(0)),
        None => reply.error(KernelErrno::ENOENT),
    }
}

fn told(time: Option<TimeOrNow>, before: SystemTime) -> SystemTime {
    match time {
        Some(TimeOrNow::SpecificTime(time)) => time,
        Some(TimeOrNow::Now) | None => before,
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in [
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(REQUEST_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _next = self.linger.after();
        entry(reply, self.nodes.lock().find(parent.0, name));
    }

    fn forget(&self, _request: &Request, _ino: INodeNo, _count: u64) {
        let _at_work = self.linger.at_work();
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let _next = self.linger.after();
        match self.nodes.lock().nodes.get(&ino.0) {
            Some(node) => reply.attr(&TTL, &node.attributes),
            None => reply.error(KernelErrno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<kernel::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _next = self.linger.after();
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.nodes.get_mut(&ino.0) else { return reply.error(KernelErrno::ENOENT) };
        let known = &mut node.attributes;
        known.perm = mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()).unwrap_or(known.perm);
        (known.uid, known.gid) = (uid.unwrap_or(known.uid), gid.unwrap_or(known.gid));
        known.size = size.unwrap_or(known.size);
        (known.atime, known.mtime) = (told(atime, known.atime), told(mtime, known.mtime));
        reply.attr(&TTL, known);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let _next = self.linger.after();
        let owner = (request.uid(), request.gid());
        entry(reply, self.nodes.lock().make(parent.0, name, FileType::Directory, mode, owner));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _next = self.linger.after();
        let owner = (request.uid(), request.gid());
        let mut nodes = self.nodes.lock();
        let Some(made) = nodes.make(parent.0, name, FileType::RegularFile, mode, owner) else {
            return reply.error(KernelErrno::EEXIST);
        };
        match (self.content(made.ino.0), nodes.nodes.get_mut(&made.ino.0)) {
            (Ok(content), Some(node)) => node.content = content,
            _ => return reply.error(KernelErrno::EIO),
        }
        reply.created(&TTL, &made, Generation(0), FileHandle(0), way_of(flags));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _next = self.linger.after();
        reply.opened(FileHandle(0), way_of(flags.0));
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _next = self.linger.after();
        let content = self.nodes.lock().nodes.get_mut(&ino.0).and_then(|node| {
            node.attributes.size = node.attributes.size.max(offset + data.len() as u64);
            node.content.clone()
        });
        match self.write_both(content.as_deref(), data, offset) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(_) => reply.error(KernelErrno::EIO),
        }
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let _next = self.linger.after();
        let content = self.nodes.lock().nodes.get(&ino.0).and_then(|node| node.content.clone());
        match self.sync(content.as_deref()) {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(KernelErrno::EIO),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.linger.after();
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.linger.after();
        self.remove(parent, name, reply);
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(KernelErrno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(KernelErrno::ENOSYS);
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (next, name, found) in self.list(ino, offset) {
            if reply.add(found.ino, next, found.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _next = self.linger.after();
        for (next, name, found) in self.list(ino, offset) {
            if reply.add(found.ino, next, name, &TTL, &found, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}

fn main() -> io::Result<()> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (keep, twice, words) = match words.split_first() {
        Some((word, rest)) if word.as_os_str() == "--keep" => (true, false, rest),
        Some((word, rest)) if word.as_os_str() == "--twice" => (true, true, rest),
        _ => (false, false, words.as_slice()),
    };
    let [source, point] = words else {
        return Err(io::Error::other(
            "floor [--keep|--twice] SOURCE MOUNTPOINT, as a file system that passes through; alone it does not look at the source",
        ));
    };
    let awake = Awake::new();
    if awake::wakes_slowly() {
        awake.start()?;
    }
    let linger = Arc::new(Linger::new(awake.clone(), THREADS));
    let root = Node::new(attributes(ROOT, FileType::Directory, 0o755, (0, 0)));
    let nodes = Nodes { nodes: HashMap::from([(ROOT, root)]), last: ROOT };
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config.mount_options = vec![MountOption::FSName("floor".to_owned()), MountOption::DefaultPermissions];
    let kept = keep.then(|| source.clone());
    let second = if twice { Some(Second::new(source)?) } else { None };
    let floor = Floor { nodes: Mutex::new(nodes), kept, second, linger: linger.clone() };
    let session = Session::new(floor, point, &config)?;
    linger.watch(session.as_fd());
    session.run()
}
