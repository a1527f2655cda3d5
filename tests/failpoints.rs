//! Killed at every place that changes or syncs a disk: the daemon comes back, what was acknowledged is there, and journal,
//! volume and restore agree. (`tests/killed.rs` kills at random moments under more load.)

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reelfs_journal::disk::{FAILPOINT_VARIABLE, Label};
use rustix::fs::{FallocateFlags, XattrFlags};
use support::program::{BINARY, with_environment};
use support::{Mount, Random, Sandbox, Tree, tools};

/// Labels that no load of this test passes, and why.
const ELSEWHERE: &[(Label, &str)] = &[
    (Label::InFlightSetSize, "only a table that is not whole is emptied"),
    (Label::JvolCutTail, "only a power cut tears a tail"),
    (Label::ApplyZeros, "only a replica whose file system has no holes"),
    (Label::UnmakeObject, "only when a new object cannot be journaled"),
    (Label::MakeMode, "only a create that was born with suid bits"),
    (Label::DirtyMapSetSize, "passed when a suspended group is opened: `tests/nth_call.rs`"),
    (Label::BaseLogSetSize, "only a power cut cuts an entry short: `volume/src/primary/base_log.rs`"),
    (Label::DirtyMapRename, "passed when a suspended group is opened: `tests/nth_call.rs`"),
    (Label::RedoNoteCreate, "only after a power cut"),
    (Label::RedoNoteWrite, "only after a power cut"),
    (Label::RedoNoteSync, "only after a power cut"),
    (Label::RedoNoteNameSync, "only after a power cut"),
    (Label::RedoNoteRemove, "only after a power cut"),
    (Label::JvolSpareCopy, "only when the disk of the journal fails: `tests/spare_journal.rs`"),
    (Label::JvolSpareSuperblocks, "the same"),
    (Label::JvolSpareSync, "the same"),
    (Label::JvolMendData, "only a damaged journal is repaired: `tests/journal_repair.rs`"),
    (Label::JvolMendControl, "the same"),
    (Label::JvolMendSync, "the same"),
    (Label::JvolGrowRemove, "only what a killed growth left is removed"),
    (Label::TapeRemove, "only what a killed export left is removed"),
    (Label::ReplicaCreate, "of a replica: `tests/follow.rs`"),
    (Label::ReplicaWrite, "of a replica: `tests/follow.rs`"),
    (Label::ReplicaSync, "of a replica: `tests/follow.rs`"),
    (Label::ReplicaRename, "of a replica: `tests/follow.rs`"),
    (Label::ReplicaNameSync, "of a replica: `tests/follow.rs`"),
    (Label::ReplicaRemove, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsCreate, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsWrite, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsSync, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsNameSync, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsAppend, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsAppendSync, "of a replica: `tests/follow.rs`"),
    (Label::ObjectsRemove, "only when most of a table of objects was out of date"),
    (Label::TapePrune, "only where the settings let tapes go"),
    (Label::TapePruneSync, "only where the settings let tapes go"),
];

/// A group in memory, and what its applications were told.
struct Site {
    sandbox: Sandbox,
    pvol: PathBuf,
    tapes: PathBuf,
    point: PathBuf,
    /// Acknowledged bytes by path; `None`: acknowledged to be gone.
    told: BTreeMap<PathBuf, Option<Vec<u8>>>,
    uncertain: BTreeSet<PathBuf>,
    cycles: u32,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::in_memory();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        let point = sandbox.directory("mnt");
        let (told, uncertain) = (BTreeMap::new(), BTreeSet::new());
        Site { sandbox, pvol, tapes, point, told, uncertain, cycles: 0 }
    }

    /// Makes the group; gives whether that was cut off by the failpoint.
    fn create(&self, failpoint: Option<&str>) -> bool {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &self.sandbox.state());
        command.args(["group", "create", "fp", "--size", "16MiB", "--pvol"]).arg(&self.pvol);
        command.envs(failpoint.map(|text| (FAILPOINT_VARIABLE, text)));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        // the group was there already, and only its maker does not know
        let is_there = status.code() == Some(14) && self.sandbox.state().join("groups/fp/group.json").exists();
        assert!(is_killed || status.success() || is_there, "{status} with {failpoint:?}");
        is_killed
    }

    /// The base copy; gives whether it was cut off by the failpoint, and then made it again.
    fn base(&self, failpoint: &str) -> bool {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &self.sandbox.state());
        command.args(["base", "copy", "fp", "--to"]).arg(&self.tapes).env(FAILPOINT_VARIABLE, failpoint);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        if is_killed {
            self.sandbox.base("fp", &self.tapes);
        }
        is_killed
    }

    /// Journal volumes from a pool and back, and one that others may read; each verb again when it was cut off. Gives whether one
    /// was.
    fn pools(&self, failpoint: &str) -> Result<bool, String> {
        let (place, pvol) = (self.sandbox.directory("pool"), self.sandbox.directory("second"));
        let (place, pvol) = (place.to_str().unwrap(), pvol.to_str().unwrap());
        let volume = format!("{place}/one.jvol");
        let verbs: [&[&str]; 5] = [
            &["journal", "pool", "add", "p", &volume, "--size", "16MiB"],
            &["group", "create", "pooled", "--pvol", pvol, "--pool", "p"],
            &["group", "delete", "pooled", "--yes"],
            &["group", "create", "seen", "--pvol", pvol, "--journal", place, "--size", "16MiB", "--journal-visible"],
            &["group", "delete", "seen", "--yes"],
        ];
        let mut is_killed = false;
        for verb in verbs {
            let mut command = self.sandbox.command();
            command.args(verb).env(FAILPOINT_VARIABLE, failpoint);
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            if status.success() {
                continue;
            }
            is_killed = true;
            let again = self.sandbox.reelfs(verb);
            // it was done already, and only who asked does not know
            if !matches!(again.code, 0 | 10 | 14) {
                return Err(format!("again after {failpoint}: {again}"));
            }
        }
        // whatever was cut off, its volume can be had again
        let taken = self.sandbox.reelfs(["group", "create", "pooled", "--pvol", pvol, "--pool", "p"]);
        if taken.code != 0 {
            return Err(format!("after {failpoint} the pool has no volume: {taken}"));
        }
        self.sandbox.reelfs(["group", "delete", "pooled", "--yes"]).ok();
        Ok(is_killed)
    }

    /// Mounts with a failpoint, works until it strikes, and comes back; gives whether it struck.
    fn cycle(&mut self, failpoint: &str) -> Result<bool, String> {
        self.cycles += 1;
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &self.sandbox.state());
        command.args(["mount", "fp"]).arg(&self.point).arg("-f").env(FAILPOINT_VARIABLE, failpoint);
        let has_struck = match Mount::from_command(command, &self.sandbox, &self.point) {
            Err(log) if log.contains("error:") => return Err(format!("no mount: {log}")),
            Err(_) => true,
            Ok(mount) => {
                let point = mount.path().to_owned();
                // a load that ends early says nothing more: its errors are those of a dead mount
                let ended = self.load(&point);
                if ended.is_ok() && rustix::fs::statfs(&point).is_ok() {
                    is_killed_while_closing(mount)
                } else {
                    mount.kill();
                    true
                }
            }
        };
        let mount =
            Mount::try_new(&self.sandbox, "fp", &self.point, &[]).map_err(|log| format!("no remount: {log}"))?;
        self.check(mount.path())
            .and_then(|()| self.check(&self.pvol))
            .map_err(|text| format!("{text}\n{}", mount.log()))?;
        let uncertain = std::mem::take(&mut self.uncertain);
        self.told.retain(|path, _| !uncertain.iter().any(|known| path.starts_with(known)));
        if self.status() != "PAIR" {
            self.sandbox.reelfs(["pair", "resync", "fp"]).ok();
        }
        self.sandbox.export("fp", &self.tapes);
        let restored = self.sandbox.restore(&self.tapes, "latest", "restored");
        Tree::of(&self.pvol).same(&Tree::of(&restored), "volume and restore")?;
        fs::remove_dir_all(restored).unwrap();
        mount.umount();
        Ok(has_struck)
    }

    fn status(&self) -> String {
        let status = self.sandbox.reelfs(["status", "fp", "--json"]).ok().json();
        status["groups"][0]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// One of everything, each noted when it was acknowledged.
    fn load(&mut self, mount: &Path) -> io::Result<()> {
        let place = PathBuf::from(format!("w{}", self.cycles));
        let (a, b, c) = (place.join("a"), place.join("b"), place.join("c"));
        // what is under way may be either way when it ends
        self.uncertain = BTreeSet::from([place.clone()]);
        fs::create_dir(mount.join(&place))?;
        self.uncertain.clear();
        self.put(mount, &a, 0, &[7; 9_000])?;
        self.put(mount, &a, 4_000, &[8; 3_000])?;
        self.put(mount, &b, 0, b"small")?;
        self.attributes(mount, &a, &place)?;
        self.uncertain = BTreeSet::from([a.clone(), b.clone(), c.clone()]);
        fs::hard_link(mount.join(&a), mount.join(&c))?;
        fs::rename(mount.join(&b), mount.join(&a))?;
        fs::remove_file(mount.join(&c))?;
        symlink("a", mount.join(place.join("s")))?;
        let file = File::options().write(true).open(mount.join(&a))?;
        file.set_len(3)?;
        file.sync_all()?;
        self.told.extend([(a.clone(), Some(b"sma".to_vec())), (b.clone(), None), (c, None)]);
        self.uncertain.clear();
        self.quietly(&["mark", "fp", &format!("m{}", self.cycles)])?;
        self.quietly(&["pair", "split", "fp"])?;
        self.put(mount, &place.join("noted"), 0, &[9; 70_000])?;
        self.quietly(&["pair", "resync", "fp"])?;
        self.put(mount, &b, 0, b"after the resync")?;
        self.quietly(&["journal", "grow", "fp", "--size", &format!("{}MiB", 16 + self.cycles)])?;
        self.put(mount, &b, 6, b"grown")?;
        self.quietly(&["pair", "resync", "fp", "--full"])?;
        let tapes = self.tapes.to_str().unwrap().to_owned();
        self.quietly(&["tape", "export", "fp", "--to", &tapes])
    }

    fn attributes(&mut self, mount: &Path, a: &Path, place: &Path) -> io::Result<()> {
        let path = mount.join(a);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
        std::os::unix::fs::chown(&path, Some(1_000), Some(1_000))?;
        rustix::fs::setxattr(&path, "user.one", b"1", XattrFlags::empty())?;
        rustix::fs::removexattr(&path, "user.one")?;
        let file = File::options().write(true).open(&path)?;
        let times = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        file.set_times(fs::FileTimes::new().set_accessed(times))?;
        self.uncertain = BTreeSet::from([a.to_path_buf()]);
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4_096)?;
        self.told.get_mut(a).and_then(Option::as_mut).unwrap()[..4_096].fill(0);
        self.uncertain.clear();
        // as somebody else: the new file is given to its requester
        let made = mount.join(place).join("foreign");
        fs::set_permissions(mount.join(place), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let status = Command::new("setpriv")
            .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "touch"])
            .arg(&made)
            .stderr(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    fn put(&mut self, mount: &Path, path: &Path, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.uncertain = BTreeSet::from([path.to_path_buf()]);
        let file = File::options().create(true).truncate(false).write(true).open(mount.join(path))?;
        file.write_all_at(bytes, offset as u64)?;
        file.sync_all()?;
        let known = self.told.entry(path.to_path_buf()).or_default().get_or_insert_default();
        known.resize(known.len().max(offset + bytes.len()), 0);
        known[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.uncertain.clear();
        Ok(())
    }

    /// A verb that may meet its end in the daemon.
    fn quietly(&self, arguments: &[&str]) -> io::Result<()> {
        let output = self.sandbox.command().args(arguments).stdin(Stdio::null()).output()?;
        if output.status.success() { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    }

    fn check(&self, root: &Path) -> Result<(), String> {
        for (path, told) in &self.told {
            let there = fs::read(root.join(path)).ok();
            if there != *told && !self.uncertain.contains(path) {
                let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(Vec::len);
                let (is, was) = (length(&there), length(told));
                return Err(format!("{}: {is:?} bytes, acknowledged {was:?}", root.join(path).display()));
            }
        }
        Ok(())
    }
}

/// Ends a mount in order; gives whether it was killed by its failpoint on the way.
fn is_killed_while_closing(mount: Mount) -> bool {
    let pid = mount.pid();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let code = mount.wait();
    code.is_none()
}

/// All three ways to strike at one label; gives whether one did.
fn strike(label: Label) -> Result<bool, String> {
    let name = label.name();
    let mut site = Site::new();
    let mut has_struck = site.create(Some(&format!("{name}:before")));
    if has_struck && site.create(Some(&format!("{name}:after"))) {
        site.create(None);
    }
    has_struck |= site.base(&format!("{name}:before"));
    if name.starts_with("Pools") || name.starts_with("Jvol") {
        has_struck |= site.pools(&format!("{name}:before"))?;
        has_struck |= site.pools(&format!("{name}:after"))?;
    }
    let number = 2 + Random::new(name, 0).below(12);
    for failpoint in [format!("{name}:before"), format!("{name}:after"), format!("{name}:{number}")] {
        has_struck |= site.cycle(&failpoint).map_err(|error| format!("{failpoint}: {error}"))?;
    }
    Ok(has_struck)
}

#[test]
fn killed_at_every_place_it_comes_back() {
    if !tools::has_failpoints() || !tools::root() || !tools::present(&["setpriv"]) {
        return;
    }
    let labels: Vec<Label> =
        Label::ALL.iter().copied().filter(|label| !ELSEWHERE.iter().any(|(known, _)| known == label)).collect();
    assert!(labels.len() >= 40);
    let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some(&label) = labels.get(next.fetch_add(1, Ordering::Relaxed)) {
            match strike(label) {
                Ok(true) => {}
                Ok(false) => complaints.lock().unwrap().push(format!("{}: never passed", label.name())),
                Err(error) => complaints.lock().unwrap().push(error),
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| _ = scope.spawn(worker)));
    let complaints = complaints.into_inner().unwrap();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
