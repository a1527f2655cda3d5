//! The kernel's requests, one thin handler each: take it apart, call the volume, answer. The only file that names `fuser`'s
//! requests and replies. It is long because it is one implementation of one large trait.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use reelfs_journal::NodeKind;
use reelfs_volume::{Noticed, Primary, SetAttr, Waits};
use rustix::io::Errno;

use crate::about::{about, is_about, without_about};
use crate::answer::*;
use crate::control::{Control, is_control};
use crate::handle::Handle;
use crate::kernel::*;
use crate::linger::Linger;
use crate::opens::{Opening, Opens, flags_of};
use crate::waiting_room::WaitingRoom;

/// Largest request: one record (1 MiB).
const REQUEST_MAX: u32 = 1 << 20;

/// The file system that the kernel talks to.
pub(crate) struct Adapter {
    pub(crate) primary: Arc<Primary>,
    pub(crate) waiting: Arc<WaitingRoom>,
    pub(crate) opens: Arc<Opens>,
    pub(crate) linger: Arc<Linger>,
    /// Mounted with `-o sync`.
    pub(crate) sync_always: bool,
    /// The control directory, if there is one.
    pub(crate) control: Option<Control>,
}

impl Adapter {
    pub(crate) fn real(&self, ino: INodeNo) -> u64 {
        if ino == INodeNo::ROOT { self.primary.root() } else { self.opens.real(ino.0) }
    }

    /// The control directory, when a request is about something in it.
    fn control_of(&self, ino: INodeNo) -> Option<&Control> {
        self.control.as_ref().filter(|_| is_control(ino.0))
    }

    /// Who knows, when an extended attribute is one that says something about the object.
    fn about(&self, name: &OsStr) -> Option<&Control> {
        self.control.as_ref().filter(|_| is_about(name))
    }

    /// Why a name may not be made, changed or removed.
    fn refusal(&self, parent: INodeNo, name: &OsStr) -> Option<Errno> {
        self.control.as_ref().and_then(|control| control.refusal(self.real(parent), name))
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // never FUSE_WRITEBACK_CACHE: it loses the order, the number and the time of writes
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DONT_MASK,
            // never with FUSE_READDIRPLUS_AUTO: whoever lists to the end before he looks at anything (find, du, ls -l) gets
            // attributes with the first page alone, and asks for each of the other files by itself
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_MAX_PAGES,
            // the kernel would give out handles of files that we cannot find again once it has forgotten them
            InitFlags::FUSE_NO_EXPORT_SUPPORT,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::info!(?flag, "the kernel does not offer a capability");
            }
        }
        if config.set_max_write(REQUEST_MAX).is_err() {
            tracing::info!("the kernel limits requests to less than 1 MiB");
        }
        let _ = config.set_max_background(64);
        if self.opens.passes()
            && (config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err() || config.set_max_stack_depth(1).is_err())
        {
            self.opens.refuse("the kernel does not offer it");
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _next = self.linger.after();
        if let Some(control) = self.control.as_ref().filter(|control| control.is_name(self.real(parent), name)) {
            return control.lookup(self.real(parent), name, reply);
        }
        entry((reply, self.opens.clone()), self.primary.lookup(self.real(parent), name));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let _at_work = self.linger.at_work();
        let real = self.real(ino);
        self.opens.forget(ino.0, count);
        self.primary.forget(real, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let _next = self.linger.after();
        if let Some(control) = self.control_of(ino) {
            return control.getattr(ino.0, reply);
        }
        let real = self.real(ino);
        attr((reply, self.opens.attribute_ttl(real)), self.primary.stat(real));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _next = self.linger.after();
        if let Some(control) = self.control_of(ino) {
            return control.setattr(ino.0, size, reply);
        }
        let (who, tell) = (who(request), self.tell(ino, 0, 0));
        if size.is_some() && handle.is_none() && tell.is_needed() {
            return reply.error(code(Errno::STALE)); // by name, which has another inode now
        }
        let ino = tell.ino;
        let (atime, mtime) = (atime.map(time_set), mtime.map(time_set));
        let asked = SetAttr { mode, uid, gid, size, atime, mtime };
        let run = move |primary: &Primary| primary.set_attr(&who, ino, asked);
        self.change(0, &tell.clone(), (reply, tell), run, |(reply, tell), result| {
            let ttl = tell.attribute_ttl();
            tell.then(move || attr((reply, ttl), result));
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let _at_work = self.linger.at_work();
        match self.primary.readlink(self.real(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(code(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _next = self.linger.after();
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG => NodeKind::File,
            libc::S_IFIFO => NodeKind::Fifo,
            libc::S_IFSOCK => NodeKind::Socket,
            libc::S_IFCHR => NodeKind::CharDevice(decode_device(rdev)),
            libc::S_IFBLK => NodeKind::BlockDevice(decode_device(rdev)),
            _ => return reply.error(code(Errno::INVAL)),
        };
        self.make(request, parent, name, kind, mode, umask, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _next = self.linger.after();
        self.make(request, parent, name, NodeKind::Directory, mode, umask, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _next = self.linger.after();
        let kind = NodeKind::Symlink(target.as_os_str().as_bytes().to_vec());
        self.make(request, parent, name, kind, 0o777, 0, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.linger.after();
        if let Some(refusal) = self.refusal(parent, name) {
            return reply.error(code(refusal));
        }
        let (who, parent, name) = (who(request), self.real(parent), name.to_owned());
        self.waiting.change(0, reply, move |primary| primary.unlink(&who, parent, &name), empty);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.linger.after();
        if let Some(refusal) = self.refusal(parent, name) {
            return reply.error(code(refusal));
        }
        let (who, parent, name) = (who(request), self.real(parent), name.to_owned());
        self.waiting.change(0, reply, move |primary| primary.rmdir(&who, parent, &name), empty);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _next = self.linger.after();
        if let Some(refusal) = self.refusal(parent, name).or_else(|| self.refusal(new_parent, new_name)) {
            return reply.error(code(refusal));
        }
        let who = who(request);
        let (old, new) = ((self.real(parent), name.to_owned()), (self.real(new_parent), new_name.to_owned()));
        let flags = flags.bits();
        let run = move |primary: &Primary| primary.rename(&who, (old.0, &old.1), (new.0, &new.1), flags);
        self.waiting.change(0, reply, run, empty);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _next = self.linger.after();
        if let Some(refusal) = self.refusal(parent, name).or(self.control_of(ino).map(|_| Errno::PERM)) {
            return reply.error(code(refusal));
        }
        let (who, ino, parent, name) = (who(request), self.real(ino), self.real(parent), name.to_owned());
        self.waiting.change(
            0,
            (reply, self.opens.clone()),
            move |primary| primary.link(&who, ino, parent, &name),
            entry,
        );
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _next = self.linger.after();
        if let Some(control) = self.control_of(ino) {
            return control.open(ino.0, reply);
        }
        let (real, write) = (self.real(ino), may_write(flags.0));
        let opened = self.primary.open(real, write);
        if opened.is_ok() && write {
            self.primary.begin_writing();
        }
        match opened {
            Ok(()) => self.opens.open(Opening { node: ino, ino: real, flags: flags.0, reply }),
            Err(error) => reply.error(code(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _next = self.linger.after();
        if let Some(control) = self.control_of(ino) {
            return control.read(handle, offset, size, reply);
        }
        let (ino, size) = (self.real(ino), size as usize);
        let noticed = if flags.0 & libc::O_NOATIME == 0 { Noticed::Yes } else { Noticed::No };
        // it says who would have a lock where it reads past its cache, and only there; a mapping has the flags of its handle
        let result = match owner {
            Some(_) => self.primary.read(ino, offset, size, noticed),
            None => self.primary.read_page(ino, offset, size, noticed),
        };
        match result {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(code(error)),
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _next = self.linger.after();
        if let Some(control) = self.control_of(ino) {
            return control.write(ino.0, data, reply);
        }
        let mut tell = self.tell(ino, offset, data.len() as u64);
        let (node, who, ino) = (ino, who(request), tell.ino);
        let writing = self.writing((node, ino), offset, flags.0, write_flags, owner);
        if writing.append {
            (tell.offset, tell.length) = (0, 0); // who knows where
        }
        let reply = self.changed(reply, self.sync_after(handle, flags.0), who, &tell);
        let opens = self.opens.clone();
        let write = move |primary: &Primary, data: &[u8], waits: Option<&Waits>| {
            primary.write_after(&who, ino, writing, data, waits).inspect(|written| opens.note_written(node, written))
        };
        if tell.is_needed() {
            let (waiting, data, payload) = (self.waiting.clone(), data.to_vec(), data.len() as u64);
            let run = move |primary: &Primary| write(primary, &data, None);
            return tell.first(move || waiting.change(payload, reply, run, Changed::answer_write));
        }
        // somebody may have it mapped, and store into the pages that have this already
        let is_stored = self.opens.may_store(ino).is_some();
        let waits = || self.primary.wait_to_write(ino, writing, data.len());
        let mut waiting = if is_stored { waits() } else { None };
        // without a copy unless it must wait
        let delay = self.primary.delay(data.len() as u64);
        match self.waiting.try_now(delay, || write(&self.primary, data, waiting.as_ref())) {
            tried @ Err(Errno::AGAIN | Errno::INPROGRESS) => {
                let waits = waiting.take().or_else(waits);
                let (data, payload) = (data.to_vec(), data.len() as u64);
                let run = move |primary: &Primary| write(primary, &data, waits.as_ref());
                self.waiting.answer(tried, (payload, delay), reply, run, Changed::answer_write);
            }
            result => {
                drop(waiting.take());
                reply.answer_write(result);
            }
        }
        if writing.append && !tell.is_needed() {
            // through the second inode, whose page has it where the kernel believed the end to be; it holds that until it is answered
            self.opens.second.later(move |opens| opens.second.invalidate(node.0, 0, 0));
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(code(Errno::NOSYS)); // nothing happens at close(2); the kernel need not ask again
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _next = self.linger.after();
        match self.control_of(ino) {
            Some(control) => control.release(handle),
            None => {
                let real = self.real(ino);
                self.opens.release(ino, real, handle);
                self.primary.release(real);
                if may_write(flags.0) {
                    self.primary.end_writing();
                }
            }
        }
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let _at_work = self.linger.at_work();
        if self.control_of(ino).is_some() {
            return reply.ok();
        }
        // what was stored through another inode of the file is not here yet
        let (tell, who, primary) = (self.tell(ino, 0, 0), who(request), self.primary.clone());
        let real = tell.ino;
        tell.first(move || primary.sync_file(&who, real, Box::new(move |result| empty(reply, result))));
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // nothing to open: the kernel asks once, then leaves opening and closing away and keeps what it read
        reply.error(code(Errno::NOSYS));
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _at_work = self.linger.at_work();
        if let Some(control) = self.control_of(ino) {
            return control.readdir(offset, reply);
        }
        let result = self.primary.read_dir(self.real(ino), offset, &mut |entry| {
            reply.add(INodeNo(entry.ino), entry.next_offset, kind(entry.file_type), OsStr::from_bytes(entry.name))
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(error)),
        }
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
        if let Some(control) = self.control_of(ino) {
            return control.readdirplus(offset, reply);
        }
        let parent = self.real(ino);
        let (mut failed, mut has_some) = (None, false);
        let result = self.primary.read_dir(parent, offset, &mut |entry| {
            let name = OsStr::from_bytes(entry.name);
            // of `.` and `..` the kernel takes number and type alone
            if matches!(entry.name, b"." | b"..") {
                return reply.add(INodeNo(entry.ino), entry.next_offset, name, &TTL, &dots(entry.ino), Generation(0));
            }
            let stat = match self.primary.lookup(parent, name) {
                Ok(stat) => stat,
                // gone since, or on another file system
                Err(Errno::NOENT | Errno::STALE | Errno::XDEV) => return false,
                Err(error) => {
                    // a listing that leaves something out would be believed
                    failed = Some(error);
                    return true;
                }
            };
            let told = self.opens.present(&stat);
            let (node, generation) = (told.attributes.ino, Generation(stat.id.generation.into()));
            let full = reply.add(node, entry.next_offset, name, &told.name_ttl, &told.attributes, generation);
            if full {
                self.opens.forget(node.0, 1);
                self.primary.forget(stat.id.ino, 1);
            }
            has_some |= !full;
            full
        });
        match failed.map_or(result, Err) {
            // what was found is forgotten only if the kernel hears of it; whoever reads on meets the error
            Err(error) if !has_some => reply.error(code(error)),
            _ => reply.ok(),
        }
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, handle, data_only, reply);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _at_work = self.linger.at_work();
        match self.primary.statfs() {
            Ok(s) => {
                let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let (block, fragment) = (small(s.f_bsize), small(s.f_frsize));
                reply.statfs(
                    s.f_blocks,
                    s.f_bfree,
                    s.f_bavail,
                    s.f_files,
                    s.f_ffree,
                    block,
                    small(s.f_namemax),
                    fragment,
                );
            }
            Err(error) => reply.error(code(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _at_work = self.linger.at_work();
        if self.control_of(ino).is_some() {
            return reply.error(code(Errno::OPNOTSUPP));
        }
        if self.about(name).is_some() {
            return reply.error(code(Errno::PERM));
        }
        let (who, ino, name, value) = (who(request), self.real(ino), name.to_owned(), value.to_vec());
        let run = move |primary: &Primary| primary.setxattr(&who, ino, &name, &value, flags);
        self.waiting.change(0, reply, run, empty);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _next = self.linger.after();
        if self.control_of(ino).is_some() {
            return reply.error(code(Errno::NODATA));
        }
        if let Some(control) = self.about(name) {
            return xattr(reply, size, about(control, &self.primary, self.real(ino), name));
        }
        xattr(reply, size, self.primary.getxattr(self.real(ino), name));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _at_work = self.linger.at_work();
        if self.control_of(ino).is_some() {
            return xattr(reply, size, Ok(Vec::new()));
        }
        let names = self.primary.listxattr(self.real(ino)).map(|names| visible(names, request.uid()));
        // those of ours that an object of the volume has by itself cannot be read
        let names = if self.control.is_some() { names.map(without_about) } else { names };
        xattr(reply, size, names);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _at_work = self.linger.at_work();
        if self.about(name).is_some() {
            return reply.error(code(Errno::PERM));
        }
        if self.control_of(ino).is_some() {
            return reply.error(code(Errno::NODATA));
        }
        let (who, ino, name) = (who(request), self.real(ino), name.to_owned());
        self.waiting.change(0, reply, move |primary| primary.removexattr(&who, ino, &name), empty);
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        let _at_work = self.linger.at_work();
        reply.error(code(Errno::NOSYS)); // the kernel checks: default_permissions
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        let _at_work = self.linger.at_work();
        reply.error(code(Errno::NOTTY)); // as on a file system that knows none
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _next = self.linger.after();
        if let Some(refusal) = self.refusal(parent, name) {
            return reply.error(code(refusal));
        }
        let (who, parent, name) = (who(request), self.real(parent), name.to_owned());
        let run = move |primary: &Primary| created(primary, &who, parent, &name, (mode, umask, flags));
        self.waiting.change(0, (reply, self.opens.clone(), flags), run, |(reply, opens, flags), result| {
            match result.and_then(|stat| Ok((opens.created(&stat, flags)?, stat))) {
                Ok((mode, stat)) => {
                    let (told, generation) = (attributes(&stat), Generation(stat.id.generation.into()));
                    reply.created(&TTL, &told, generation, Handle::new(mode, flags).number(), flags_of(mode));
                }
                Err(error) => reply.error(code(error)),
            }
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _at_work = self.linger.at_work();
        if self.control_of(ino).is_some() {
            return reply.error(code(Errno::OPNOTSUPP));
        }
        let tell = self.tell(ino, offset, length);
        let (who, node, ino, opens) = (who(request), ino.0, tell.ino, self.opens.clone());
        let run = move |primary: &Primary| {
            // a file system that finds no room may have made the file longer before, and the kernel does not ask
            let is_over = |error: &Errno| !matches!(*error, Errno::AGAIN | Errno::INPROGRESS);
            let done = primary.allocate(&who, ino, mode, offset, length);
            done.inspect_err(|error| {
                if is_over(error) {
                    opens.second.forget_attributes(node)
                }
            })
        };
        let reply = self.changed(reply, self.sync_of(handle), who, &tell);
        self.change(0, &tell, reply, run, |reply, result| reply.answer_dropping(result, empty));
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _at_work = self.linger.at_work();
        if self.control_of(ino).is_some() {
            return reply.error(code(Errno::INVAL));
        }
        let Ok(offset) = u64::try_from(offset) else { return reply.error(code(Errno::NXIO)) };
        let (primary, ino) = (self.primary.clone(), self.real(ino));
        let seek = move || match primary.seek(ino, offset, whence) {
            Ok(position) => reply.offset(i64::try_from(position).unwrap_or(i64::MAX)),
            Err(error) => reply.error(code(error)),
        };
        match self.opens.may_store(ino) {
            None => seek(),
            // a hole of the volume may have been stored into
            Some(node) => self.opens.second.slowly(move |opens| {
                opens.second.invalidate(node, offset, 0);
                seek();
            }),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _at_work = self.linger.at_work();
        if self.control_of(from).or(self.control_of(to)).is_some() {
            return reply.error(code(Errno::XDEV)); // the kernel reads and writes then
        }
        let tell = self.tell(to, to_offset, length);
        let (who, from, to) = (who(request), (self.real(from), from_offset), (tell.ino, to_offset));
        let run = move |primary: &Primary| {
            let copied = primary.copy_range(&who, from, to, length)?;
            u32::try_from(copied).map_err(|_| Errno::IO)
        };
        let reply = self.changed(reply, self.sync_of(to_handle), who, &tell);
        self.change(u64::from(REQUEST_MAX), &tell, reply, run, |reply, result| reply.answer(result, written));
    }
}

impl Adapter {
    #[expect(clippy::too_many_arguments, reason = "what mknod, mkdir and symlink have in common")]
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: NodeKind,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        if let Some(refusal) = self.refusal(parent, name) {
            return reply.error(code(refusal));
        }
        let (who, parent, name) = (who(request), self.real(parent), name.to_owned());
        let run = move |primary: &Primary| primary.make(&who, parent, &name, kind.clone(), mode & 0o7777, umask);
        self.waiting.change(0, (reply, self.opens.clone()), run, entry);
    }
}
