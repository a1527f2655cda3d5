//! The mount: the kernel's requests in, changes of the primary volume out.
//!
//! [`mount`] puts a [`Primary`] at a mountpoint and serves it until somebody unmounts it. The mountpoint may be the
//! volume's own directory: its descriptor was opened before.

mod adapter;
mod parker;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fuser::{Config, MountOption, Session, SessionACL};
use reelfs_volume::Primary;
use rustix::mount::UnmountFlags;

use crate::adapter::Adapter;
use crate::parker::Parker;

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
}

/// A live mount.
pub struct Mounted {
    mountpoint: PathBuf,
    parker: Arc<Parker>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

/// Mounts a volume. When this returns, the mount answers.
///
/// # Errors
/// What mounting says: `EPERM` without privileges or `fusermount3`, `ENOENT`, `ENOTDIR`.
pub fn mount(primary: Arc<Primary>, options: &MountOptions) -> io::Result<Mounted> {
    let parker = Arc::new(Parker::new(primary.clone())?);
    let mut config = Config::default();
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    config.mount_options = kernel_options(options);
    let adapter = Adapter { primary, parker: parker.clone() };
    let session = match Session::new(adapter, &options.mountpoint, &config) {
        Ok(session) => session,
        Err(error) => {
            parker.stop();
            return Err(error);
        }
    };
    let ended = Arc::new(AtomicBool::new(false));
    let theirs = ended.clone();
    let thread = std::thread::Builder::new().name("fuse".into()).spawn(move || {
        let result = session.run();
        theirs.store(true, Ordering::SeqCst);
        result
    })?;
    Ok(Mounted { mountpoint: options.mountpoint.clone(), parker, ended, thread: Some(thread) })
}

fn kernel_options(options: &MountOptions) -> Vec<MountOption> {
    let mut list = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("reelfs".to_owned()),
        MountOption::DefaultPermissions,
    ];
    let root = rustix::process::geteuid().is_root();
    let given = |name: &str| options.kernel_options.iter().any(|option| option == name);
    for (off, on) in [("nosuid", MountOption::Suid), ("nodev", MountOption::Dev)] {
        if root && !given(off) {
            list.push(on);
        }
    }
    for option in &options.kernel_options {
        list.push(match option.as_str() {
            "ro" => MountOption::RO,
            "noexec" => MountOption::NoExec,
            "nosuid" => MountOption::NoSuid,
            "nodev" => MountOption::NoDev,
            "noatime" => MountOption::NoAtime,
            "sync" => MountOption::Sync,
            "dirsync" => MountOption::DirSync,
            other => MountOption::CUSTOM(other.to_owned()),
        });
    }
    list
}

impl Mounted {
    /// Requests that wait for room in the journal.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.parker.waiting()
    }

    /// Whether the mount has ended, by whomever.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Answers what waits for room with `ENOSPC`, so that its processes can end.
    pub fn give_up_waiting(&self) {
        self.parker.give_up();
    }

    /// Waits for the end of the mount.
    ///
    /// # Errors
    /// What ended the session, unless it was an unmount.
    pub fn join(mut self) -> io::Result<()> {
        let result = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("an event loop panicked")),
            None => Ok(()),
        };
        self.parker.stop();
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
