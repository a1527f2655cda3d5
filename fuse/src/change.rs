//! What a request that changes bytes means: how the bytes come, who is to be told, and what must be durable before it is answered.

use reelfs_volume::{Primary, Requester, Way, Writing};
use rustix::io::Result;

use crate::adapter::Adapter;
use crate::answer::{Changed, asks_to_sync};
use crate::handle::Handle;
use crate::kernel::{FileHandle, INodeNo, LockOwner, WriteFlags};
use crate::open_mode::Mode;
use crate::tell::Tell;

impl Adapter {
    /// Whether a write must be durable before it is answered. Behind one through its cache the kernel asks for a sync by itself; of
    /// a handle that only writes, past the cache, it tells us no more than its flags.
    pub(crate) fn sync_after(&self, handle: FileHandle, flags: i32) -> bool {
        let by_kernel = Handle::of_number(handle).is_some_and(|handle| handle.mode == Mode::Cached);
        flags & libc::O_ACCMODE == libc::O_WRONLY && !by_kernel && (self.sync_always || asks_to_sync(flags))
    }

    /// The same of a change that is no write: the kernel syncs none of them.
    pub(crate) fn sync_of(&self, handle: FileHandle) -> bool {
        self.sync_always || Handle::of_number(handle).is_some_and(|handle| handle.sync)
    }

    /// How the bytes of a write come, and whether they go to the end: where the kernel has two inodes of a file it does not know where
    /// that is. It says who would have a lock where bytes pass its cache, and only there.
    pub(crate) fn writing(
        &self,
        (node, ino): (INodeNo, u64),
        offset: u64,
        flags: i32,
        write_flags: WriteFlags,
        owner: Option<LockOwner>,
    ) -> Writing {
        let way = match (write_flags.contains(WriteFlags::FUSE_WRITE_CACHE), owner) {
            (true, _) => Way::PageBack,
            (false, Some(_)) => Way::PastCache,
            (false, None) => Way::Plain,
        };
        let append = flags & libc::O_APPEND != 0 && self.opens.has_two(node, ino);
        Writing { offset, append, kill: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID), way }
    }

    /// What is to be told when so many bytes of an inode have changed; 0 are all.
    pub(crate) fn tell(&self, node: INodeNo, offset: u64, length: u64) -> Tell {
        Tell { opens: self.opens.clone(), node, ino: self.real(node), offset, length }
    }

    /// A change of the bytes of a file that is not a write.
    pub(crate) fn change<T: 'static, R: Send + 'static>(
        &self,
        payload: u64,
        tell: &Tell,
        reply: R,
        run: impl FnMut(&Primary) -> Result<T> + Send + 'static,
        answer: fn(R, Result<T>),
    ) {
        let waiting = self.waiting.clone();
        tell.first(move || waiting.change(payload, reply, run, answer));
    }

    /// The answer to a change of bytes.
    pub(crate) fn changed<R>(&self, reply: R, sync: bool, who: Requester, tell: &Tell) -> Changed<R> {
        Changed { reply, sync, primary: self.primary.clone(), who, ino: tell.ino, tell: tell.clone() }
    }
}
