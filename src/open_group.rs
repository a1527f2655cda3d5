//! A group opened for itself: locked, recovered, adopted, ready to be changed. The mount process holds one; without a
//! mount every verb that changes something opens one for as long as it runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use reelfs_journal::JournalError;
use reelfs_volume::{Identity, NewEpoch, OpenError, OpenOptions, Opened, Primary, Session};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, ErrorKind, Result};
use crate::group_file::GroupFile;
use crate::lock::GroupLock;
use crate::output::{Output, count};
use crate::pair_state::PairState;
use crate::state::GroupDir;

/// A locked, open group.
pub struct OpenGroup {
    dir: GroupDir,
    file: Mutex<GroupFile>,
    primary: Arc<Primary>,
    device: u64,
    session: Mutex<Session>,
    /// One export or base copy at a time.
    tapes: Mutex<()>,
    /// A base copy or a resync is running.
    copying: AtomicBool,
    _lock: GroupLock,
}

/// A copy that is running, until this is dropped.
#[derive(Debug)]
pub struct Copying<'g>(&'g AtomicBool);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl OpenGroup {
    /// Locks and opens a group for `verb`; what happened behind the mount is told through `output`. `strict` refuses to
    /// adopt.
    ///
    /// # Errors
    /// 11 when another reelfs has it, 10 when the volume is gone, 19 when the journal is damaged, 14 when `strict` refuses.
    pub fn open(dir: &GroupDir, verb: &str, strict: bool, output: &Output) -> Result<OpenGroup> {
        let lock = GroupLock::take(dir, verb)?;
        raise_descriptor_limit();
        let mut file = GroupFile::load(dir)?;
        let root = open_root(&file)?;
        let stat = rustix::fs::fstat(&root);
        let device = stat.map_err(|error| Error::io("look at the PVOL", error.into()))?.st_dev;
        let opened = Primary::start(OpenOptions {
            root,
            jvol: file.journal.clone(),
            group: file.uuid,
            state: dir.path().to_owned(),
            epoch: file.epoch,
            session: file.session.clone(),
            strict,
            on_full: file.on_full,
            clock: crate::clock::of_machine(),
        })
        .map_err(|error| open_error(&file, error))?;
        opened.primary.set_warning(file.settings.warn.0);
        tell(&file, &opened, output);
        file.epoch = opened.epoch;
        file.session = Some(opened.session.clone());
        if opened.replaced.is_some() {
            file.base = None;
        }
        file.store(dir)?;
        Ok(OpenGroup {
            dir: dir.clone(),
            file: Mutex::new(file),
            primary: opened.primary,
            device,
            session: Mutex::new(opened.session),
            tapes: Mutex::new(()),
            copying: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Where the group's state lives.
    #[must_use]
    pub fn dir(&self) -> &GroupDir {
        &self.dir
    }

    /// The volume.
    #[must_use]
    pub fn primary(&self) -> &Arc<Primary> {
        &self.primary
    }

    /// The device that the volume lies on, whatever is mounted over it.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.device
    }

    /// A copy of what is known of the group.
    #[must_use]
    pub fn file(&self) -> GroupFile {
        self.file.lock().clone()
    }

    /// Changes what is known of the group, durably.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn update(&self, change: impl FnOnce(&mut GroupFile)) -> Result<()> {
        let mut file = self.file.lock();
        change(&mut file);
        file.store(&self.dir)
    }

    /// The state of the pair.
    #[must_use]
    pub fn state(&self) -> PairState {
        if self.copying.load(Ordering::SeqCst) {
            PairState::Copy
        } else if self.primary.suspension().is_some() {
            PairState::Susp
        } else if self.file.lock().base.is_some() {
            PairState::Pair
        } else {
            PairState::Smpl
        }
    }

    /// A copy begins; the caller holds off others.
    #[must_use]
    pub fn begin_copy(&self) -> Copying<'_> {
        self.copying.store(true, Ordering::SeqCst);
        Copying(&self.copying)
    }

    /// Holds off other exports and base copies.
    pub fn alone(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.tapes.lock()
    }

    /// Closes the group cleanly.
    ///
    /// # Errors
    /// When journal, volume or state cannot be made durable; the next opening then recovers.
    pub fn close(&self) -> Result<()> {
        let session = self.session.lock().clone();
        let closed = self.primary.close(&session).map_err(|error| open_error(&self.file(), error))?;
        *self.session.lock() = closed.clone();
        self.update(|file| file.session = Some(closed))
    }
}

/// Applications' open files are ours too: as many as the system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::info!(%error, "the limit of open files stays as it is");
    }
}

fn open_root(file: &GroupFile) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = file.pvol.display();
    let opened = rustix::fs::open(&file.pvol, flags, Mode::empty());
    // a dead mount in its place may well let itself be opened, and says what it is when it is asked something
    let root = opened.and_then(|root| rustix::fs::fstatfs(&root).map(|_| root)).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => {
            Error::new(ErrorKind::NotFound, format!("the PVOL {shown} of group {} is gone", file.name))
                .hint(format!("bring the directory back, or run: reelfs group delete {}", file.name))
        }
        Errno::NOTCONN => Error::new(ErrorKind::Busy, format!("{shown} is a mount whose daemon is dead"))
            .hint(format!("reelfs umount {shown}")),
        error => Error::io(format!("open the PVOL {shown}"), error.into()),
    })?;
    let other = file.session.as_ref().is_some_and(|last| Identity::of(&root).is_ok_and(|now| now != last.identity));
    let empty = std::fs::read_dir(&file.pvol).is_ok_and(|mut entries| entries.next().is_none());
    if other && empty {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the PVOL {shown} of group {} is empty and not the directory that it was", file.name),
        )
        .hint("is its disk mounted?"));
    }
    Ok(root)
}

/// Why a volume cannot be opened, as a sentence with an exit code.
pub(crate) fn open_error(file: &GroupFile, error: OpenError) -> Error {
    let name = &file.name;
    match error {
        OpenError::Journal(error @ JournalError::Damaged { .. }) => {
            Error::new(ErrorKind::Damaged, format!("the journal of group {name} is damaged")).because(error)
        }
        OpenError::Journal(error) => Error::from(error),
        OpenError::NoGenerations => Error::usage(format!("the PVOL {}: {error}", file.pvol.display()))
            .hint("ext4, XFS, btrfs and tmpfs serve; overlayfs, NFS and FUSE do not"),
        OpenError::Changed { .. } => {
            Error::new(ErrorKind::WouldOverwrite, format!("the PVOL of group {name}: {error}"))
                .hint("without --strict the changes are adopted into the journal")
        }
        OpenError::Volume { what, source: Errno::NOSPC } => Error::io(
            format!("{what} of group {name}"),
            Errno::NOSPC.into(),
        )
        .hint(format!("make room on the disk of {} without editing files there, then again", file.pvol.display())),
        OpenError::Volume { what, source } => Error::io(format!("{what} of group {name}"), source.into()),
    }
}

/// One sentence for each thing that happened while nobody was looking.
fn tell(file: &GroupFile, opened: &Opened, output: &Output) {
    let name = &file.name;
    if let Some(reason) = opened.replaced {
        let why = match reason {
            NewEpoch::OtherVolume => "the PVOL is another directory than it was",
            NewEpoch::PowerCut => "the machine stopped without closing the PVOL",
            NewEpoch::DiskRefused => "the disk of the PVOL refused what had been written to it",
            NewEpoch::ClockWentBack => "the clock shows a time before the PVOL was last closed",
            NewEpoch::TooMuchChanged => "more changed behind the mount than the journal can take",
        };
        output.warn(format!("{name}: {why}: epoch {} begins, and the next export writes a new base", opened.epoch));
    }
    let lost = matches!(opened.replaced, Some(NewEpoch::PowerCut | NewEpoch::DiskRefused));
    if let Some(recovered) = opened.recovered.filter(|_| lost) {
        let redone = count(recovered.redone, "change");
        output.note(format!("{name}: {redone} of the journal done again on the PVOL"));
        if recovered.left > 0 {
            let left = count(recovered.left, "file");
            output.warn(format!("{name}: {left} changed since the power came back: left as they are now"));
        }
    } else if let Some(recovered) = opened.recovered {
        output.note(format!(
            "{name}: recovered after an unclean stop: {} changes finished, {} amended, {} announced",
            recovered.finished, recovered.amended, recovered.announced
        ));
    }
    if !opened.adopted.is_empty() {
        output.note(format!(
            "{name}: changed behind the mount and adopted: {} and {}, {}",
            count(opened.adopted.directories, "directory"),
            count(opened.adopted.files, "file"),
            crate::size::Size(opened.adopted.bytes)
        ));
    }
}
