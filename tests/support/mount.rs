//! A mounted group that is always unmounted, and whose daemon is always ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::program::{BINARY, with_environment};
use super::{Sandbox, wait};

/// A mount may take this long until it is live, and this long to go.
const LIMIT: Duration = Duration::from_secs(60);

/// A mount whose daemon is our child.
pub struct Mount {
    daemon: Child,
    point: PathBuf,
    log: PathBuf,
}

impl Mount {
    /// Mounts in the foreground of a child process and waits until it is live. A mount that cannot be made fails.
    pub fn new(sandbox: &Sandbox, group: &str, point: &Path, options: &[&str]) -> Mount {
        Mount::try_new(sandbox, group, point, options).unwrap_or_else(|log| panic!("no mount of {group}:\n{log}"))
    }

    /// The same; what the daemon said when it ended instead.
    pub fn try_new(sandbox: &Sandbox, group: &str, point: &Path, options: &[&str]) -> Result<Mount, String> {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &sandbox.state());
        command.args(["mount", group]).arg(point).arg("-f").args(options).args(wished(options));
        Mount::from_command(command, sandbox, point)
    }

    /// Starts a prepared command line that mounts at `point` in the foreground.
    pub fn from_command(mut command: Command, sandbox: &Sandbox, point: &Path) -> Result<Mount, String> {
        let log = sandbox.path(&format!("daemon-{}.log", unique()));
        let output = File::create(&log).expect("a log in the sandbox");
        let second = output.try_clone().expect("a second descriptor");
        let daemon = command.stdin(Stdio::null()).stdout(output).stderr(second).spawn().expect("the daemon starts");
        let mut mount = Mount { daemon, point: point.to_owned(), log };
        let mut has_ended = false;
        let is_live = wait::until(LIMIT, || {
            has_ended = mount.daemon.try_wait().expect("our child").is_some();
            // in this order: a dead mount answers ENOTCONN (a stat may come from the cache) until it is taken away
            has_ended || (rustix::fs::statfs(&mount.point).is_ok() && is_mounted(&mount.point))
        });
        if has_ended || !is_live { Err(mount.log()) } else { Ok(mount) }
    }

    /// The mountpoint.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// A path in the mount.
    pub fn join(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// What the daemon has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The daemon's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.daemon)
    }

    /// Sends what an application has written and not synced to the daemon.
    pub fn sync(&self) {
        super::tools::run("sync", &["-f", self.point.to_str().expect("sandboxes have UTF-8 paths")]);
    }

    /// Unmounts cleanly by signal and returns the daemon's log; fails when the daemon does not end well.
    pub fn umount(mut self) -> String {
        kill_process(self.pid(), Signal::TERM).expect("our daemon can be told");
        let mut status = None;
        wait::until(LIMIT, || {
            status = self.daemon.try_wait().expect("our child");
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("the daemon does not end after SIGTERM:\n{}", self.log()));
        let is_orderly = status.success() || status.code() == Some(143);
        assert!(is_orderly, "the daemon ended with {status}:\n{}", self.log());
        assert!(!is_mounted(&self.point), "still mounted at {}", self.point.display());
        let log = self.log();
        assert!(!log.contains("panicked at"), "the daemon panicked:\n{log}");
        log
    }

    /// Ctrl-C as `timeout -s INT` sends it, twice at once, and the code that the process ends with, whatever it is; and the log.
    pub fn interrupt(mut self) -> (Option<i32>, String) {
        kill_process(self.pid(), Signal::INT).expect("our daemon can be told");
        wait::pause(Duration::from_millis(20));
        kill_process(self.pid(), Signal::INT).expect("our daemon has not been waited for");
        let status = self.daemon.wait().expect("our child");
        (status.code(), self.log())
    }

    /// Waits until the daemon has ended and gives its exit code; none when it was killed.
    pub fn wait(mut self) -> Option<i32> {
        let status = self.daemon.wait().expect("our child");
        if is_mounted(&self.point) {
            detach(&self.point);
        }
        status.code()
    }

    /// Waits until the daemon has ended, and leaves alone what another one has mounted in its place.
    pub fn wait_ended(mut self) -> Option<i32> {
        let status = self.daemon.wait().expect("our child");
        self.point = PathBuf::new();
        status.code()
    }

    /// SIGKILL, then takes the dead mount away as an administrator would; returns the log.
    pub fn kill(mut self) -> String {
        kill_process(self.pid(), Signal::KILL).expect("our daemon can be killed");
        self.daemon.wait().expect("our child");
        detach(&self.point);
        self.log()
    }

    /// SIGKILL, and the dead mount stays where it is; returns the log.
    pub fn kill_and_leave(mut self) -> String {
        kill_process(self.pid(), Signal::KILL).expect("our daemon can be killed");
        self.daemon.wait().expect("our child");
        self.point = PathBuf::new();
        self.log()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.daemon.try_wait().is_ok_and(|status| status.is_none()) {
            _ = kill_process(self.pid(), Signal::TERM);
            let has_ended =
                wait::until(Duration::from_secs(10), || self.daemon.try_wait().is_ok_and(|status| status.is_some()));
            if !has_ended {
                drop(self.daemon.kill());
                drop(self.daemon.wait());
            }
        }
        if is_mounted(&self.point) {
            detach(&self.point);
        }
        if std::thread::panicking() {
            eprintln!("-- the daemon of {} said:\n{}", self.point.display(), self.log());
        }
    }
}

/// Whether a reelfs mount, dead or alive, stands at this directory.
pub fn is_mounted(point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut words = line.split(' ');
        words.nth(1).is_some_and(|at| Path::new(at) == point) && words.next() == Some("fuse.reelfs")
    })
}

/// What `REELFS_TEST_PASSTHROUGH` (`on`, `off` or `auto`) adds to a mount that says nothing of it: so any test, and a benchmark,
/// runs in every mode of its reads.
pub fn wished(options: &[&str]) -> Vec<String> {
    let says = options.iter().any(|option| option.contains("passthrough"));
    let mode = std::env::var("REELFS_TEST_PASSTHROUGH").ok().filter(|_| !says);
    mode.map_or_else(Vec::new, |mode| vec!["--passthrough".to_owned(), mode])
}

fn detach(point: &Path) {
    let done =
        Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !done {
        drop(Command::new("fusermount3").arg("-uz").arg(point).status());
    }
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
