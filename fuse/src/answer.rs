//! Answers: our results and states in the kernel's words.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reelfs_journal::FileTime;
use reelfs_volume::{Primary, Requester, Stat, TimeSet, Written};
use rustix::fs::FileType as NativeType;
use rustix::io::{Errno, Result};

use crate::kernel::{
    FileAttr, FileType, Generation, INodeNo, KernelErrno, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr,
    Request, TimeOrNow,
};
use crate::opens::Opens;
use crate::tell::Tell;

/// How long the kernel may keep names and attributes: reelfs is the only writer, and the kernel itself forgets what its own
/// requests change. Shorter than the time between two walks of a large tree, it would cost a request for each file again.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn who(request: &Request) -> Requester {
    Requester { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(crate) fn code(error: Errno) -> KernelErrno {
    KernelErrno::from_i32(error.raw_os_error())
}

pub(crate) fn empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(code(error)),
    }
}

pub(crate) fn entry((reply, opens): (ReplyEntry, Arc<Opens>), result: Result<Stat>) {
    match result {
        Ok(stat) => {
            let (told, generation) = (opens.present(&stat), Generation(stat.id.generation.into()));
            reply.entry_with_ttls(&told.attribute_ttl, &told.name_ttl, &told.attributes, generation);
        }
        Err(error) => reply.error(code(error)),
    }
}

pub(crate) fn attr((reply, ttl): (ReplyAttr, Duration), result: Result<Stat>) {
    match result {
        Ok(stat) => reply.attr(&ttl, &attributes(&stat)),
        Err(error) => reply.error(code(error)),
    }
}

pub(crate) fn written(reply: ReplyWrite, result: Result<u32>) {
    match result {
        Ok(count) => reply.written(count),
        Err(error) => reply.error(code(error)),
    }
}

/// Whether flags of `open(2)` ask for changes of bytes to be durable before they are answered: `O_SYNC` has the bit of `O_DSYNC`.
pub(crate) fn asks_to_sync(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0
}

/// A change of bytes to be answered, at once or when it is durable.
pub(crate) struct Changed<R> {
    pub(crate) reply: R,
    pub(crate) sync: bool,
    pub(crate) primary: Arc<Primary>,
    pub(crate) who: Requester,
    pub(crate) ino: u64,
    pub(crate) tell: Tell,
}

impl<R: Send + 'static> Changed<R> {
    /// The same of a change that may be done in part when it fails, while the kernel keeps the pages of what it had before.
    pub(crate) fn answer_dropping<T: Send + 'static>(self, result: Result<T>, say: fn(R, Result<T>)) {
        if result.is_ok() {
            return self.answer(result, say);
        }
        let Tell { opens, node, offset, length, .. } = self.tell.clone();
        // it may come back to us with what is dirty, so not from an event loop
        opens.clone().second.slowly(move |_| {
            opens.second.invalidate(node.0, offset, length);
            self.answer(result, say);
        });
    }

    pub(crate) fn answer<T: Send + 'static>(self, result: Result<T>, say: fn(R, Result<T>)) {
        let Changed { reply, sync, primary, who, ino, tell } = self;
        match (result, sync) {
            (Ok(value), true) => {
                let done = Box::new(move |synced: Result<()>| {
                    tell.then(move || say(reply, synced.map(|()| value)));
                });
                primary.sync_file(&who, ino, done);
            }
            (result, _) => tell.then(move || say(reply, result)),
        }
    }
}

impl Changed<ReplyWrite> {
    /// The same of a write. Pages that were read again while it waited go before it is answered: what is stored there afterwards
    /// must not be taken for older than it. None of them is locked by the write itself.
    pub(crate) fn answer_write(self, result: Result<Written>) {
        match result {
            Ok(Written { count, reread, .. }) if !reread.is_empty() => {
                let node = self.tell.node.0;
                self.tell.opens.clone().second.slowly(move |opens| {
                    reread.iter().for_each(|&(from, to)| opens.second.invalidate(node, from, to - from));
                    self.answer(Ok(count), written);
                });
            }
            result => self.answer(result.map(|done| done.count), written),
        }
    }
}

pub(crate) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(code(Errno::RANGE)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(code(error)),
    }
}

/// The names of attributes, each with a NUL behind it, that a user may see: what belongs to root alone is not listed for others.
pub(crate) fn visible(names: Vec<u8>, uid: u32) -> Vec<u8> {
    const ROOTS: &[u8] = b"trusted.";
    if uid == 0 || !names.windows(ROOTS.len()).any(|window| window == ROOTS) {
        return names;
    }
    names.split_inclusive(|&byte| byte == 0).filter(|name| !name.starts_with(ROOTS)).flatten().copied().collect()
}

pub(crate) fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.id.ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(stat.file_type),
        perm: u16::try_from(stat.mode).unwrap_or(0),
        nlink: stat.links,
        uid: stat.uid,
        gid: stat.gid,
        rdev: encode_device(stat.device),
        blksize: stat.block_size,
        flags: 0,
    }
}

/// What a listing with attributes says of `.` and `..`.
pub(crate) fn dots(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(crate) fn kind(native: NativeType) -> FileType {
    match native {
        NativeType::Directory => FileType::Directory,
        NativeType::Symlink => FileType::Symlink,
        NativeType::Fifo => FileType::NamedPipe,
        NativeType::Socket => FileType::Socket,
        NativeType::CharacterDevice => FileType::CharDevice,
        NativeType::BlockDevice => FileType::BlockDevice,
        NativeType::RegularFile | NativeType::Unknown => FileType::RegularFile,
    }
}

pub(crate) fn system_time(time: FileTime) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    match u64::try_from(time.seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(time.seconds.unsigned_abs()) + nanos,
    }
}

/// Undoes fuser 0.18's reading of a time: before 1970 it *subtracts* the nanoseconds that it should add.
pub(crate) fn file_time(time: SystemTime) -> FileTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            FileTime { seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            FileTime { seconds, nanos: before.subsec_nanos() }
        }
    }
}

pub(crate) fn time_set(time: TimeOrNow) -> TimeSet {
    match time {
        TimeOrNow::Now => TimeSet::Now,
        TimeOrNow::SpecificTime(time) => TimeSet::To(file_time(time)),
    }
}

/// `(major << 32) | minor` as the kernel's 32-bit device number.
pub(crate) fn encode_device(device: u64) -> u32 {
    let (major, minor) = ((device >> 32) as u32, (device & 0xFFFF_FFFF) as u32);
    (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12)
}

pub(crate) fn decode_device(device: u32) -> u64 {
    let (major, minor) = ((device & 0xF_FF00) >> 8, (device & 0xFF) | ((device >> 12) & 0xF_FF00));
    u64::from(major) << 32 | u64::from(minor)
}

/// A file made and opened; opened only, when somebody else made it since the kernel looked.
pub(crate) fn created(
    primary: &Primary,
    who: &Requester,
    parent: u64,
    name: &OsString,
    (mode, umask, flags): (u32, u32, i32),
) -> Result<Stat> {
    let writes = may_write(flags);
    if writes {
        primary.begin_writing(); // before there is anything to see of the file
    }
    let made = match primary.create(who, parent, name, mode & 0o7777, umask) {
        // made by somebody else since the kernel looked
        Err(Errno::EXIST) if flags & libc::O_EXCL == 0 => {
            primary.lookup(parent, name).and_then(|stat| match primary.open(stat.id.ino, writes) {
                Ok(()) => Ok(stat),
                Err(error) => {
                    primary.forget(stat.id.ino, 1);
                    Err(error)
                }
            })
        }
        result => result,
    };
    if made.is_err() && writes {
        primary.end_writing();
    }
    made
}

/// Whether a handle that was opened with these flags may write.
pub(crate) fn may_write(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}
