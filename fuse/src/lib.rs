//! The mount: the kernel's requests in, changes of the primary volume out.
//!
//! [`mount`] puts a [`Primary`] at a mountpoint and serves it until somebody unmounts it. The mountpoint may be the
//! volume's own directory: its descriptor was opened before.

mod about;
mod adapter;
mod answer;
mod awake;
mod change;
mod control;
mod handle;
mod kernel;
mod linger;
mod locks;
mod open_mode;
mod opens;
mod parker;
mod readers;
mod second;
mod tell;
mod waiting_room;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use reelfs_volume::Primary;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::adapter::Adapter;
use crate::awake::Awake;
pub use crate::awake::wakes_slowly;
use crate::control::Control;
pub use crate::control::{CONTROL_DIR, ControlFiles, Fact, TakeMark, Tell, Told};
use crate::kernel::{BackingId, Config, MountOption, Session, SessionACL};
use crate::linger::Linger;
use crate::opens::Opens;
pub use crate::opens::Passthrough;
pub use crate::parker::Throttled;
use crate::waiting_room::WaitingRoom;

/// Where and how to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The directory to mount at.
    pub mountpoint: PathBuf,
    /// Shown as the source of the mount: the group's name.
    pub source: String,
    /// Everybody may use the mount, not only its owner. Without root `/etc/fuse.conf` must allow it.
    pub allow_other: bool,
    /// Mount options for the kernel: `ro`, `noexec`, `nosuid` and the like.
    pub kernel_options: Vec<String>,
    /// Event loops; 2 to 4 serve well.
    pub threads: usize,
    /// With a control directory ([`CONTROL_DIR`]), unless the volume has something of that name.
    pub control_dir: bool,
    /// Read-only handles pass through to the files of the volume, where the kernel lets them.
    pub passthrough: bool,
    /// Processors are kept from halting while requests come in rows. It takes root.
    pub awake: bool,
}

/// A live mount.
pub struct Mounted {
    mountpoint: PathBuf,
    waiting: Arc<WaitingRoom>,
    opens: Arc<Opens>,
    awake: Arc<Awake>,
    ended: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

/// Mounts a volume, with what is behind its control directory if it is to have one. When this returns, the mount answers.
///
/// # Errors
/// What mounting says: `EPERM` without privileges or `fusermount3`, `ENOENT`, `ENOTDIR`.
pub fn mount(
    primary: Arc<Primary>,
    options: &MountOptions,
    control_files: Option<ControlFiles>,
) -> io::Result<Mounted> {
    let control = control_files.map(|files| Control::new(files, primary.root())).transpose()?;
    let waiting = WaitingRoom::new(primary.clone())?;
    // the kernel leaves access times to us, whatever the option
    if options.kernel_options.iter().any(|option| option == "noatime") {
        primary.leave_access_times();
    }
    let sync_always = options.kernel_options.iter().any(|option| option == "sync");
    let opens = Opens::new(primary.clone(), options.passthrough)?;
    let place = options.mountpoint.canonicalize().unwrap_or_else(|_| options.mountpoint.clone());
    reelfs_volume::keep_large_buffers_apart();
    let awake = Awake::new();
    let linger = Arc::new(Linger::new(awake.clone(), options.threads));
    let adapter = Adapter {
        primary,
        waiting: waiting.clone(),
        opens: opens.clone(),
        linger: linger.clone(),
        sync_always,
        control,
    };
    let session = match session(adapter, options) {
        Ok(session) => session,
        Err(error) => {
            waiting.stop();
            opens.second.stop();
            return Err(error);
        }
    };
    linger.watch(session.as_fd());
    if options.awake
        && let Err(error) = awake.start()
    {
        tracing::info!(%error, "processors halt between requests");
    }
    opens.second.mounted(session.notifier(), place);
    if opens.passes() && !may_pass(&session) {
        opens.refuse("it needs CAP_SYS_ADMIN");
    }
    let ended = Arc::new(AtomicBool::new(false));
    let theirs = ended.clone();
    let thread = std::thread::Builder::new().name("fuse".into()).spawn(move || {
        let result = session.run();
        theirs.store(true, Ordering::SeqCst);
        result
    });
    let thread = thread.inspect_err(|_| {
        waiting.stop();
        opens.second.stop();
        awake.stop();
    })?;
    Ok(Mounted {
        mountpoint: options.mountpoint.clone(),
        waiting,
        opens,
        awake,
        ended,
        thread: Mutex::new(Some(thread)),
    })
}

/// Whether the kernel takes files to pass through to from us: to a directory it says what is wrong with it only then.
fn may_pass(session: &Session<Adapter>) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open("/", flags, Mode::empty()) else { return false };
    let tried = BackingId::create_raw(session, directory);
    tried.is_err_and(|error| matches!(Errno::from_io_error(&error), Some(Errno::ISDIR | Errno::INVAL)))
}

fn session(adapter: Adapter, options: &MountOptions) -> io::Result<Session<Adapter>> {
    let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    if !rustix::process::geteuid().is_root() {
        config.mount_options = helper_options(options);
        return Session::new(adapter, &options.mountpoint, &config); // through fusermount3
    }
    let mountpoint = options.mountpoint.canonicalize()?;
    let device = mount_as_root(&mountpoint, options)?;
    Session::from_fd(adapter, device, acl, config).inspect_err(|_| {
        if let Err(error) = unmount(&mountpoint, true) {
            tracing::warn!(%error, "a mount that does not answer could not be taken away");
        }
    })
}

/// Mounts by itself, because fuser 0.18 leaves the subtype away: `df -T` and fstab are to say `fuse.reelfs`.
fn mount_as_root(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut flags = MountFlags::empty();
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    for option in &options.kernel_options {
        flags |= match option.as_str() {
            "ro" => MountFlags::RDONLY,
            "noexec" => MountFlags::NOEXEC,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noatime" => MountFlags::NOATIME,
            "sync" => MountFlags::SYNCHRONOUS,
            "dirsync" => MountFlags::DIRSYNC,
            other => {
                data.push(',');
                data.push_str(other);
                continue;
            }
        };
    }
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::mount::mount(options.source.as_str(), mountpoint, c"fuse.reelfs", flags, data.as_c_str())?;
    Ok(device)
}

/// What `fusermount3` is told.
fn helper_options(options: &MountOptions) -> Vec<MountOption> {
    let mut list = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("reelfs".to_owned()),
        MountOption::DefaultPermissions,
    ];
    list.extend(options.kernel_options.iter().map(|option| match option.as_str() {
        "ro" => MountOption::RO,
        "noexec" => MountOption::NoExec,
        "nosuid" => MountOption::NoSuid,
        "nodev" => MountOption::NoDev,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "dirsync" => MountOption::DirSync,
        other => MountOption::CUSTOM(other.to_owned()),
    }));
    list
}

impl Mounted {
    /// Requests that wait for room in the journal.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.parker.waiting()
    }

    /// Whether its reads pass through to the files of the volume.
    #[must_use]
    pub fn passthrough(&self) -> Passthrough {
        self.opens.passthrough()
    }

    /// How much writers were slowed down because the journal filled.
    #[must_use]
    pub fn throttled(&self) -> Throttled {
        self.waiting.parker.throttled()
    }

    /// Whether the mount has ended, by whomever.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Answers what waits for room with `ENOSPC`, so that its processes can end.
    pub fn give_up_waiting(&self) {
        self.waiting.parker.give_up();
    }

    /// Waits for the end of the mount.
    ///
    /// # Errors
    /// What ended the session, unless it was an unmount.
    pub fn join(&self) -> io::Result<()> {
        let thread = self.thread.lock().take();
        let result = match thread.map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("an event loop panicked")),
            None => Ok(()),
        };
        self.waiting.stop();
        self.opens.second.stop();
        self.awake.stop();
        result
    }
}

/// Unmounts; `lazy` detaches a busy mount, whose last user then ends it.
///
/// # Errors
/// `EBUSY` while somebody uses it; what `umount(2)` or `fusermount3` says.
pub fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if said.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, said))
}
