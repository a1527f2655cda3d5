//! A place of its own for one test: directories, a state directory, and nothing left behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::program::{self, Outcome};
use super::{Mount, tools};

/// A temporary directory with a state directory in it.
pub struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    /// On the machine's disk (or where `REELFS_TEST_DIR` says).
    pub fn new() -> Sandbox {
        let place = std::env::var_os("REELFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Sandbox::within(&place)
    }

    /// In memory.
    pub fn in_memory() -> Sandbox {
        Sandbox::within(Path::new("/dev/shm"))
    }

    /// Below this directory.
    pub fn within(place: &Path) -> Sandbox {
        let directory =
            tempfile::Builder::new().prefix("reelfs-test-").tempdir_in(place).expect("a temporary directory");
        let mut sandbox = Sandbox { directory };
        // to look into after a failure
        sandbox.directory.disable_cleanup(std::env::var_os("REELFS_TEST_KEEP").is_some());
        fs::create_dir(sandbox.state()).expect("the sandbox is empty");
        sandbox
    }

    /// Where all of it is.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A path in it, which need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A directory in it, made when it is missing.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory in the sandbox");
        path
    }

    /// The program's state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The program with this sandbox's state, ready for arguments.
    pub fn command(&self) -> Command {
        program::command(&self.state())
    }

    /// Runs the program.
    pub fn reelfs<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command().args(arguments))
    }

    /// Makes a group of a directory, with a small journal.
    pub fn group(&self, name: &str, pvol: &Path) {
        self.group_of_size(name, pvol, "64MiB");
    }

    /// Makes a group with a journal of this size.
    pub fn group_of_size(&self, name: &str, pvol: &Path, size: &str) {
        self.reelfs(
            [OsStr::new("group"), "create".as_ref(), name.as_ref(), "--pvol".as_ref(), pvol.as_ref()]
                .into_iter()
                .chain(["--size", size, "--on-full", "block", "--export-at", "never"].map(OsStr::new)),
        )
        .ok();
    }

    /// Mounts a group at a directory of the sandbox, made when it is missing.
    pub fn mount(&self, group: &str, point: &str) -> Mount {
        Mount::new(self, group, &self.directory(point), &[])
    }

    /// Base copy of a group to a directory.
    pub fn base(&self, group: &str, to: &Path) -> Outcome {
        self.reelfs([OsStr::new("base"), "copy".as_ref(), group.as_ref(), "--to".as_ref(), to.as_ref()]).ok()
    }

    /// Exports what is new of a group to a directory.
    pub fn export(&self, group: &str, to: &Path) -> Outcome {
        self.reelfs([OsStr::new("tape"), "export".as_ref(), group.as_ref(), "--to".as_ref(), to.as_ref()]).ok()
    }

    /// Sets a named point.
    pub fn mark(&self, group: &str, name: &str) -> Outcome {
        self.reelfs(["mark", group, name]).ok()
    }

    /// Restores a point from a directory of tapes to a directory of the sandbox, by a machine that has only the tapes.
    pub fn try_restore(&self, tapes: &Path, point: &str, to: &str) -> Outcome {
        let stranger = self.directory("stranger");
        Outcome::of(
            program::command(&stranger)
                .arg("restore")
                .arg("--tapes")
                .arg(tapes)
                .args(["--at", point, "--yes"])
                .arg("--to")
                .arg(self.path(to)),
        )
    }

    /// As above, and it must succeed; returns where the tree is.
    pub fn restore(&self, tapes: &Path, point: &str, to: &str) -> PathBuf {
        self.try_restore(tapes, point, to).ok();
        self.path(to)
    }

    /// Tapes of a directory in the order of their names.
    pub fn tapes(&self, directory: &Path) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(directory)
            .expect("a directory of tapes")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().ends_with(".reel.tar.zst"))
            .collect();
        found.sort();
        found
    }
}

/// Removes what is left in memory of journals: their names are made of the UUID of the group and the number of the device.
pub(super) fn remove_rings(is_meant: impl Fn(&str) -> bool) {
    let places = ["/run/reelfs".to_owned(), format!("/dev/shm/reelfs-{}", rustix::process::geteuid().as_raw())];
    for ring in places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
        if ring.file_name().to_str().is_some_and(&is_meant) {
            _ = fs::remove_file(ring.path());
        }
    }
}

impl Drop for Sandbox {
    /// Whatever a failed test left mounted below the sandbox is detached, so that the directory can be removed; what killed
    /// daemons left in memory goes with it.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = |line: &&str| line.split(' ').nth(1).is_some_and(|point| Path::new(point).starts_with(self.root()));
        for line in mounts.lines().rev().filter(below) {
            let point = line.split(' ').nth(1).unwrap_or_default();
            let program = if tools::find("umount").is_some() { "umount" } else { "fusermount3" };
            let flags = if program == "umount" { "-l" } else { "-uz" };
            drop(Command::new(program).args([flags, point]).status());
        }
        let entries = walkdir::WalkDir::new(self.root()).same_file_system(true).into_iter().flatten();
        for group in entries.filter(|entry| entry.file_name() == "group.json") {
            let text = fs::read_to_string(group.path()).unwrap_or_default();
            remove_rings(|ring| ring.get(..36).is_some_and(|uuid| text.contains(uuid)));
        }
    }
}
