//! The one seam for the disk: every call that changes or syncs what must outlive the process passes here, with its label.
//!
//! Without a watcher this costs one load and a branch. A [`Watcher`] is told of each call before it is made and may let it
//! fail or fall short, and is told again after it. It watches a thread and those that the thread starts to serve the volume
//! it opens ([`with_same_watcher`]), or the process; so tests side by side each watch a volume of their own.

mod failpoint;
mod label;
mod mistake;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::{Errno, Result};

pub use self::failpoint::{FAILPOINT_VARIABLE, FailpointError, arm_failpoint};
pub use self::label::Label;
pub use self::mistake::{Mistake, makes};

/// What a call is about to do. Directories may be `CWD`, and names then paths.
#[derive(Debug, Clone)]
pub enum Operation<'a> {
    /// Bytes at an offset, or at the end.
    Write {
        /// Open for writing.
        file: BorrowedFd<'a>,
        /// In bytes; `None`: at the end of the file.
        offset: Option<u64>,
        /// What is written.
        bytes: Cow<'a, [u8]>,
    },
    /// Blocks, zeros or holes (`fallocate(2)`).
    Allocate {
        /// Open for writing.
        file: BorrowedFd<'a>,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
        /// The end of the range may become the size.
        may_grow: bool,
    },
    /// A size in bytes.
    SetSize {
        /// Open for writing.
        file: BorrowedFd<'a>,
        /// In bytes.
        size: u64,
    },
    /// Mode, owner, times or extended attributes of the object itself; the descriptor may be `O_PATH`.
    SetAttributes {
        /// The object.
        file: BorrowedFd<'a>,
    },
    /// A new object, or the file that has that name already.
    Create {
        /// Where.
        directory: BorrowedFd<'a>,
        /// Its name there.
        name: Cow<'a, [u8]>,
    },
    /// A further name.
    Link {
        /// The object.
        file: BorrowedFd<'a>,
        /// Where.
        directory: BorrowedFd<'a>,
        /// Its name there.
        name: Cow<'a, [u8]>,
    },
    /// A name goes.
    Remove {
        /// Where.
        directory: BorrowedFd<'a>,
        /// Which.
        name: Cow<'a, [u8]>,
    },
    /// A name changes, or two change places.
    Rename {
        /// From where.
        from: BorrowedFd<'a>,
        /// The old name.
        name: Cow<'a, [u8]>,
        /// To where.
        to: BorrowedFd<'a>,
        /// The new name.
        new_name: Cow<'a, [u8]>,
        /// What stands there takes the old name.
        exchange: bool,
    },
    /// One file or directory is made durable.
    Sync {
        /// It.
        file: BorrowedFd<'a>,
    },
    /// A whole file system is made durable.
    SyncAll {
        /// Something on it.
        file: BorrowedFd<'a>,
    },
    /// A store to a mapped file: it cannot fail.
    Store,
}

/// A call at the seam.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Which place in the program makes it.
    pub label: Label,
    /// What it does.
    pub operation: Operation<'a>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Proceed,
    /// It is not made, and fails with this.
    Fail(Errno),
    /// Of a write only so many bytes are written; any other call is made.
    Short(usize),
}

/// Whoever is told of the calls.
pub trait Watcher: Send + Sync {
    /// A call is about to be made.
    fn before(&self, call: &Call<'_>) -> Verdict;
    /// It was made, or it failed.
    fn after(&self, call: &Call<'_>, is_done: bool);
    /// What the program shall do wrong while it is watched; a release build does nothing wrong on purpose.
    fn mistake(&self) -> Option<Mistake> {
        None
    }
}

/// There is or was a watcher somewhere.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Of all threads that have none of their own.
static EVERYWHERE: OnceLock<Arc<dyn Watcher>> = OnceLock::new();

thread_local! {
    static HERE: RefCell<Option<Arc<dyn Watcher>>> = const { RefCell::new(None) };
}

/// Watches the whole process, for good; false when something does already.
pub fn watch_process(watcher: Arc<dyn Watcher>) -> bool {
    let is_first = EVERYWHERE.set(watcher).is_ok();
    WATCHED.store(true, Ordering::SeqCst);
    is_first
}

/// Watches this thread from now on, and the threads that are started from it by [`with_same_watcher`]; gives back what did
/// before.
pub fn watch_thread(watcher: Option<Arc<dyn Watcher>>) -> Option<Arc<dyn Watcher>> {
    if watcher.is_some() {
        WATCHED.store(true, Ordering::SeqCst);
    }
    HERE.replace(watcher)
}

/// What a new thread shall run, watched as this one is.
pub fn with_same_watcher<T>(run: impl FnOnce() -> T + Send) -> impl FnOnce() -> T + Send {
    let watcher = HERE.with_borrow(Clone::clone);
    move || {
        watch_thread(watcher);
        run()
    }
}

#[inline]
fn is_watched() -> bool {
    WATCHED.load(Ordering::Relaxed)
}

fn watcher() -> Option<Arc<dyn Watcher>> {
    // a thread that is ending has none of its own any more
    let here = HERE.try_with(|here| here.borrow().clone()).unwrap_or(None);
    here.or_else(|| EVERYWHERE.get().cloned())
}

/// Makes a call that writes no bytes.
///
/// # Errors
/// What `act` says, or what a watcher wants.
#[inline]
pub fn call<'a, T, E: From<Errno>>(
    label: Label,
    operation: impl FnOnce() -> Operation<'a>,
    act: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    if is_watched() { watched(label, operation(), |_| act()) } else { act() }
}

#[cold]
fn watched<T, E: From<Errno>>(
    label: Label,
    operation: Operation<'_>,
    act: impl FnOnce(Option<usize>) -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let Some(watcher) = watcher() else { return act(None) };
    let call = Call { label, operation };
    let result = match watcher.before(&call) {
        Verdict::Proceed => act(None),
        Verdict::Short(length) => act(Some(length)),
        Verdict::Fail(errno) => Err(E::from(errno)),
    };
    watcher.after(&call, result.is_ok());
    result
}

/// One `pwrite(2)`: gives how many bytes were written, perhaps fewer than asked for.
///
/// # Errors
/// What the system says.
#[inline]
pub fn write_at(label: Label, file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    if !is_watched() {
        return rustix::io::pwrite(file, bytes, offset);
    }
    let file = file.as_fd();
    let operation = Operation::Write { file, offset: Some(offset), bytes: Cow::Borrowed(bytes) };
    watched(label, operation, |limit| rustix::io::pwrite(file, cut(bytes, limit), offset))
}

fn cut(bytes: &[u8], limit: Option<usize>) -> &[u8] {
    &bytes[..limit.map_or(bytes.len(), |limit| limit.min(bytes.len()))]
}

/// One `pwritev(2)`, as [`write_at`].
///
/// # Errors
/// What the system says.
#[inline]
pub fn write_parts_at(label: Label, file: impl AsFd, parts: &[IoSlice<'_>], offset: u64) -> Result<usize> {
    if !is_watched() {
        return rustix::io::pwritev(file, parts, offset);
    }
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    write_at(label, file, &bytes, offset)
}

/// Writes all of this at the end of a file that only this program extends.
///
/// # Errors
/// What the system says; a part may have been written.
pub fn append(label: Label, file: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    let file = file.as_fd();
    while !bytes.is_empty() {
        let operation = || Operation::Write { file, offset: None, bytes: Cow::Borrowed(bytes) };
        let write = |limit: Option<usize>| rustix::io::write(file, cut(bytes, limit));
        let written = if is_watched() { watched(label, operation(), write) } else { write(None) };
        match written {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file that is written from its beginning to its end.
#[derive(Debug)]
pub struct Appender<'f> {
    label: Label,
    file: &'f std::fs::File,
}

impl<'f> Appender<'f> {
    /// Writes with this label.
    #[must_use]
    pub fn new(label: Label, file: &'f std::fs::File) -> Appender<'f> {
        Appender { label, file }
    }
}

impl std::io::Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        append(self.label, self.file, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `fsync(2)`.
///
/// # Errors
/// What the system says, and it says so once: nothing may be taken for durable because a second call succeeds.
#[inline]
pub fn sync(label: Label, file: impl AsFd) -> Result<()> {
    let file = file.as_fd();
    call(label, || Operation::Sync { file }, || rustix::fs::fsync(file))
}

/// `fdatasync(2)`, as [`sync`].
///
/// # Errors
/// What the system says.
#[inline]
pub fn sync_data(label: Label, file: impl AsFd) -> Result<()> {
    let file = file.as_fd();
    call(label, || Operation::Sync { file }, || rustix::fs::fdatasync(file))
}

/// Opens the directory of a file and syncs it: names in it are durable.
///
/// # Errors
/// What the system says.
pub fn sync_parent(label: Label, path: &std::path::Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = std::fs::File::open(parent.unwrap_or(std::path::Path::new(".")))?;
    Ok(sync(label, directory)?)
}

/// Opens a file, which may be made by that.
///
/// # Errors
/// What the system says.
pub fn create(label: Label, path: &std::path::Path, options: &std::fs::OpenOptions) -> std::io::Result<std::fs::File> {
    call(label, || Operation::Create { directory: rustix::fs::CWD, name: path_bytes(path) }, || options.open(path))
}

/// Renames within one directory.
///
/// # Errors
/// What the system says.
pub fn rename(label: Label, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    let operation = || Operation::Rename {
        from: rustix::fs::CWD,
        name: path_bytes(from),
        to: rustix::fs::CWD,
        new_name: path_bytes(to),
        exchange: false,
    };
    call(label, operation, || std::fs::rename(from, to))
}

/// Removes a file.
///
/// # Errors
/// What the system says.
pub fn remove(label: Label, path: &std::path::Path) -> std::io::Result<()> {
    let operation = || Operation::Remove { directory: rustix::fs::CWD, name: path_bytes(path) };
    call(label, operation, || std::fs::remove_file(path))
}

/// `ftruncate(2)`.
///
/// # Errors
/// What the system says.
#[inline]
pub fn set_size(label: Label, file: impl AsFd, size: u64) -> Result<()> {
    let file = file.as_fd();
    call(label, || Operation::SetSize { file, size }, || rustix::fs::ftruncate(file, size))
}

/// Stores to mapped memory.
#[inline]
pub(crate) fn store<T>(label: Label, act: impl FnOnce() -> T) -> T {
    if !is_watched() {
        return act();
    }
    let Some(watcher) = watcher() else { return act() };
    let call = Call { label, operation: Operation::Store };
    // it cannot fail: what a watcher wants does not matter
    let _ = watcher.before(&call);
    let done = act();
    watcher.after(&call, true);
    done
}

fn path_bytes(path: &std::path::Path) -> Cow<'_, [u8]> {
    Cow::Borrowed(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

#[cfg(test)]
mod tests;
