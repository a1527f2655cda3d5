//! The mounts of one process: which volumes of a group are mounted, where, and how it ends with each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use reelfs_fuse::{MountOptions, Mounted};
use reelfs_journal::{GroupName, Timestamp, VolumeIndex, VolumeName};

use crate::control_files;
use crate::error::{Error, ErrorKind, Result};
use crate::mounts;
use crate::open_group::OpenGroup;
use crate::open_volume::OpenVolume;
use crate::unmount;

/// A mounted volume.
pub(crate) struct Served {
    pub(crate) index: VolumeIndex,
    pub(crate) name: VolumeName,
    pub(crate) mounted: Mounted,
    pub(crate) mountpoint: PathBuf,
    pub(crate) since: Timestamp,
}

impl Served {
    /// It is on its way out: the kernel has let go of it, or somebody has taken it away and users that it still has end it.
    pub(crate) fn is_ending(&self, group: &GroupName) -> bool {
        self.mounted.has_ended() || mounts::is_at(&self.mountpoint, group).is_ok_and(|is_there| !is_there)
    }
}

/// What became of a mount that somebody asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its volume is closed, and others are mounted still.
    Volume,
    /// It was the last: the process ends.
    Last,
}

/// All mounts of an open group.
pub(crate) struct Mounts {
    group: Arc<OpenGroup>,
    now: Mutex<Now>,
    changed: Condvar,
    /// One is being made.
    adding: Mutex<()>,
    ended: AtomicBool,
}

/// Exit code and sentence of a closing that failed.
type Closing = std::result::Result<(), (u8, String)>;

#[derive(Default)]
struct Now {
    /// Those that are live; the last one stays when it has ended.
    list: Vec<Arc<Served>>,
    /// Volumes that are being closed.
    closing: usize,
    /// How closing a volume went that was not the last.
    closed: Vec<(VolumeIndex, Closing)>,
    /// How the last one ended, until somebody takes it; [`Mounts::ended`] stays.
    last: Option<io::Result<()>>,
}

impl Mounts {
    pub(crate) fn new(group: Arc<OpenGroup>) -> Arc<Mounts> {
        let (now, adding) = (Mutex::default(), Mutex::new(()));
        Arc::new(Mounts { group, now, changed: Condvar::new(), adding, ended: AtomicBool::new(false) })
    }

    /// Mounts a volume; when this returns, it answers. A volume that was open without a mount is opened anew: it may have been
    /// edited since.
    ///
    /// # Errors
    /// 11 when it is mounted already, 16 when the last mount has just ended; the mount cannot be made.
    pub(crate) fn add(self: &Arc<Self>, index: VolumeIndex, strict: bool, options: &MountOptions) -> Result<()> {
        let _adding = self.adding.lock();
        self.refuse_ended()?;
        if let Some(served) = self.list().iter().find(|served| served.index == index) {
            let shown = served.mountpoint.display();
            let message = format!("{} is mounted already, at {shown}", options.source);
            return Err(Error::new(ErrorKind::Busy, message).hint(format!("reelfs umount {shown}")));
        }
        // it may be the one that is just being closed
        let Some(_taken) = self.group.uses().try_take(index) else {
            let message = format!("somebody copies {} or brings it back", options.source);
            return Err(Error::new(ErrorKind::Busy, message)
                .hint(format!("mount it then; how far it is: reelfs status {}", self.group.dir().name())));
        };
        self.group.close_volume(index)?;
        let volume = self.group.open_volume(index, strict)?;
        self.put(volume, options)
    }

    /// Mounts the first one, whose volume was opened a moment ago.
    ///
    /// # Errors
    /// As [`Mounts::add`].
    pub(crate) fn first(self: &Arc<Self>, index: VolumeIndex, options: &MountOptions) -> Result<()> {
        match self.group.volume(index) {
            Some(volume) => self.put(volume, options),
            None => self.add(index, false, options),
        }
    }

    fn put(self: &Arc<Self>, volume: OpenVolume, options: &MountOptions) -> Result<()> {
        let index = volume.index;
        let files = if options.control_dir { control_files::of(&self.group, &volume) } else { None };
        let mounted = match reelfs_fuse::mount(volume.primary.clone(), options, files) {
            Ok(mounted) => mounted,
            Err(error) => {
                self.group.close_volume(index)?;
                return Err(mount_error(&options.mountpoint, error));
            }
        };
        let since = self.group.journal().clock().read().wall;
        let (name, mountpoint) = (volume.name, options.mountpoint.clone());
        let served = Arc::new(Served { index, name, mounted, mountpoint, since });
        let mut now = self.now.lock();
        if self.has_ended() {
            drop(now);
            unmount::detach(&options.mountpoint)?;
            let _ = served.mounted.join();
            self.group.close_volume(index)?;
            return self.refuse_ended();
        }
        now.list.push(served.clone());
        drop(now);
        let ours = self.clone();
        let watcher = std::thread::Builder::new().name("mount".into()).spawn(move || ours.watch(&served));
        watcher.map(|_| ()).map_err(|error| Error::io("start the mount thread", error))
    }

    fn refuse_ended(&self) -> Result<()> {
        match self.has_ended() {
            true => Err(Error::new(ErrorKind::State, format!("{} is being unmounted", self.group.dir().name()))),
            false => Ok(()),
        }
    }

    /// Serves one mount until it ends. The volume is closed here unless it is the last: that one is closed with the group.
    fn watch(&self, served: &Arc<Served>) {
        let outcome = served.mounted.join();
        let mut taken = None;
        loop {
            let mut now = self.now.lock();
            if now.list.len() == 1 {
                self.ended.store(true, Ordering::SeqCst);
                now.last = Some(outcome);
                self.changed.notify_all();
                return;
            }
            if taken.is_some() {
                now.list.retain(|other| !Arc::ptr_eq(other, served));
                now.closed.retain(|(index, _)| *index != served.index);
                now.closing += 1;
                break;
            }
            drop(now);
            // whoever works on it comes first, as where it is the last one
            taken = Some(self.group.uses().take(served.index));
        }
        if let Err(error) = outcome {
            tracing::error!(%error, mountpoint = %served.mountpoint.display(), "a mount ended with an error");
        }
        let closed = self.group.close_volume(served.index).map_err(|error| (error.code(), error.chain()));
        if let Err((_, error)) = &closed {
            tracing::error!(%error, "a volume could not be closed: its next opening recovers");
        }
        let mut now = self.now.lock();
        now.closing -= 1;
        now.closed.push((served.index, closed));
        self.changed.notify_all();
    }

    /// The live ones, the first mounted first; at the end the last one.
    pub(crate) fn list(&self) -> Vec<Arc<Served>> {
        self.now.lock().list.clone()
    }

    /// Where they are.
    pub(crate) fn points(&self) -> Vec<PathBuf> {
        self.list().iter().map(|served| served.mountpoint.clone()).collect()
    }

    /// The last one has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits for that; how it ended.
    pub(crate) fn wait_last(&self) -> io::Result<()> {
        let mut now = self.now.lock();
        self.changed.wait_while(&mut now, |now| !self.has_ended() || now.closing > 0);
        now.last.take().unwrap_or(Ok(()))
    }

    /// Asks the kernel to unmount one (a busy one stays), and waits until its volume is closed or the process ends.
    ///
    /// # Errors
    /// 10 when nothing is mounted there, 11 when it is in use; the volume could not be closed.
    pub(crate) fn unmount(&self, point: Option<&Path>) -> Result<Gone> {
        let list = self.list();
        let wanted = list.iter().find(|served| point.is_none_or(|point| served.mountpoint == point));
        let Some(served) = wanted else {
            let shown = point.map_or_else(String::new, |point| format!(" at {}", point.display()));
            return Err(Error::new(ErrorKind::NotFound, format!("nothing is mounted{shown}")));
        };
        let (index, point) = (served.index, &served.mountpoint);
        unmount::unmount(point)?;
        let mut now = self.now.lock();
        // a volume may have been closed before, and mounted again since
        let is_live = |now: &Now| now.list.iter().any(|other| Arc::ptr_eq(other, served));
        let is_closed = |now: &Now| !is_live(now) && now.closed.iter().any(|(closed, _)| *closed == index);
        // two who take it away at once wait both, and one of them gets how it ended
        let is_under_way = |now: &Now| is_live(now) || (now.closing > 0 && !is_closed(now));
        self.changed.wait_while(&mut now, |now| !self.has_ended() && is_under_way(now));
        if self.has_ended() && !is_closed(&now) {
            return Ok(Gone::Last);
        }
        let Some(at) = now.closed.iter().position(|(closed, _)| *closed == index) else { return Ok(Gone::Volume) };
        match now.closed.swap_remove(at).1 {
            Ok(()) => Ok(Gone::Volume),
            Err((code, message)) => Err(Error::new(ErrorKind::from_code(code), message)),
        }
    }

    /// Takes all of them away, even those that are in use: their users keep what they have open.
    ///
    /// # Errors
    /// The kernel does not let go of one.
    pub(crate) fn detach_all(&self) -> Result<()> {
        for served in self.list() {
            unmount::detach(&served.mountpoint)?;
        }
        Ok(())
    }

    /// The same because of a signal: writers that wait for room get an error; what is not in use goes at once. Whether all of
    /// them are going.
    pub(crate) fn end_all(&self) -> bool {
        let (mut all, list) = (true, self.list());
        list.iter().for_each(|served| served.mounted.give_up_waiting());
        for served in list {
            if !mounts::is_at(&served.mountpoint, self.group.dir().name()).unwrap_or(true) {
                // whatever is mounted there now is another's
                tracing::warn!("detached already: ends with the last user");
                continue;
            }
            let outcome = match unmount::unmount_briefly(&served.mountpoint) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    tracing::warn!("still in use: detached, ends with the last user");
                    unmount::detach(&served.mountpoint)
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot be unmounted: detached, ends with the last user");
                    unmount::detach(&served.mountpoint)
                }
            };
            if let Err(error) = outcome
                && !served.mounted.has_ended()
            {
                tracing::error!(%error, "cannot unmount");
                all = false;
            }
        }
        all
    }
}

fn mount_error(mountpoint: &Path, error: io::Error) -> Error {
    let shown = mountpoint.display();
    let root = rustix::process::geteuid().is_root();
    match error.kind() {
        io::ErrorKind::NotFound if !root && !mountpoint.exists() => {
            Error::new(ErrorKind::NotFound, format!("the mountpoint {shown} is not there"))
        }
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if !root => {
            Error::io(format!("mount at {shown}"), error)
                .hint("without root this needs fusermount3 (Debian: apt install fuse3), a /dev/fuse of mode 0666, and a mountpoint of \
                       your own")
        }
        _ => Error::io(format!("mount at {shown}"), error).hint("is /dev/fuse there, and may this user open it?"),
    }
}
