//! `reelfs protect` by the real program: a schedule of tapes, the end of it, going on, and tape disks that are missing
//! or full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::program::{BINARY, Outcome, with_environment};
use support::{Mount, Sandbox, Tree, tools, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// A directory with something in it, a directory for tapes, and a group of a small journal.
struct Site {
    sandbox: Sandbox,
    source: PathBuf,
    tapes: PathBuf,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        let (source, tapes) = (sandbox.directory("docs"), sandbox.directory("tapes"));
        fs::create_dir(source.join("before")).unwrap();
        fs::write(source.join("before/file"), "was there").unwrap();
        sandbox.group("docs", &source);
        Site { sandbox, source, tapes }
    }

    fn arguments(&self, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &self.sandbox.state());
        command.arg("protect").arg(&self.source).arg(&self.source).arg("--tapes").arg(&self.tapes).args(more);
        command
    }

    /// In place, in the foreground of a child.
    fn protect(&self, more: &[&str]) -> Mount {
        Mount::from_command(self.arguments(more), &self.sandbox, &self.source).unwrap_or_else(|log| panic!("{log}"))
    }

    fn count(&self, kind: &str) -> usize {
        let of_kind = |path: &&PathBuf| path.to_string_lossy().ends_with(&format!(".{kind}.reel.tar.zst"));
        self.sandbox.tapes(&self.tapes).iter().filter(of_kind).count()
    }

    #[track_caller]
    fn await_tapes(&self, mount: &Mount, kind: &str, number: usize) {
        let came = wait::until(LIMIT, || self.tapes.is_dir() && self.count(kind) >= number);
        assert!(came, "not {number} {kind} tapes:\n{}", mount.log());
    }

    #[track_caller]
    fn await_word(&self, mount: &Mount, word: &str) {
        assert!(wait::until(LIMIT, || mount.log().contains(word)), "never says `{word}`:\n{}", mount.log());
    }

    #[track_caller]
    fn assert_restores(&self, to: &str) {
        let restored = self.sandbox.restore(&self.tapes, "latest", to);
        Tree::of(&restored).assert_same(&Tree::of(&self.source), to);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn a_schedule_of_tapes_and_a_last_one_in_place() {
    let site = Site::new();
    let mount = site.protect(&["--every", "2s"]);
    site.await_tapes(&mount, "upd", 1);
    fs::write(mount.join("scheduled"), "one").unwrap();
    site.await_tapes(&mount, "upd", 2);
    fs::write(mount.join("last"), "two").unwrap();
    let log = mount.umount();
    assert_eq!(site.count("base"), 1);
    assert_eq!(fs::read_to_string(site.source.join("last")).unwrap(), "two");
    site.assert_restores("back");
    assert_eq!(log.matches("not encrypted").count(), 1, "{log}");
    assert_eq!(log.matches("one broken disk takes both").count(), 1, "{log}");
    assert!(log.contains("in place") && log.contains("docs is unmounted") && log.contains("+00:00"), "{log}");

    let mount = site.protect(&["--every", "1h", "--json"]);
    site.await_word(&mount, "\"mounted\"");
    fs::write(mount.join("again"), "three").unwrap();
    let (code, log) = mount.interrupt();
    assert_eq!((code, site.count("base")), (Some(0), 1), "goes on without a new base:\n{log}");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let types: Vec<&str> = lines.iter().filter_map(|line| line["message_type"].as_str()).collect();
    assert!(types.contains(&"mounted") && types.contains(&"tape") && types.last() == Some(&"summary"), "{log}");
    site.assert_restores("back again");
}

#[test]
fn goes_on_after_a_kill_with_the_dead_mount_in_the_way() {
    let site = Site::new();
    let mount = site.protect(&["--every", "1h"]);
    site.await_tapes(&mount, "upd", 1);
    fs::write(mount.join("acknowledged"), "kept").unwrap();
    mount.sync();
    mount.kill_and_leave();
    let mount = site.protect(&["--every", "1h"]);
    site.await_word(&mount, "detached");
    assert_eq!(fs::read_to_string(mount.join("acknowledged")).unwrap(), "kept");
    site.await_tapes(&mount, "upd", 2);
    mount.umount();
    assert_eq!(site.count("base"), 1);
    site.assert_restores("back");
}

#[test]
fn a_missing_tape_directory_is_said_and_used_when_it_is_back() {
    let site = Site::new();
    let mount = site.protect(&["--every", "2s"]);
    site.await_tapes(&mount, "upd", 1);
    fs::rename(&site.tapes, site.sandbox.path("away")).unwrap();
    fs::write(mount.join("meanwhile"), "waits").unwrap();
    site.await_word(&mount, "is not there");
    site.await_word(&mount, "wait in the journal");
    fs::rename(site.sandbox.path("away"), &site.tapes).unwrap();
    site.await_word(&mount, "the tapes go on");
    assert_eq!(site.count("base"), 1);
    // a new directory under the old name needs a base of its own
    fs::remove_dir_all(&site.tapes).unwrap();
    fs::write(mount.join("more"), "waits").unwrap();
    assert!(wait::until(LIMIT, || mount.log().matches("no tape was made").count() == 2), "{}", mount.log());
    fs::create_dir(&site.tapes).unwrap();
    site.await_tapes(&mount, "upd", 1);
    mount.umount();
    assert_eq!(site.count("base"), 1);
    site.assert_restores("back");
}

#[test]
fn a_directory_that_comes_back_is_noticed_before_the_schedule() {
    let site = Site::new();
    let mount = site.protect(&["--every", "12s"]);
    site.await_tapes(&mount, "upd", 1);
    fs::remove_dir_all(&site.tapes).unwrap();
    fs::write(mount.join("file"), "waits").unwrap();
    site.await_word(&mount, "no tape was made");
    let begin = wait::now();
    fs::create_dir(&site.tapes).unwrap();
    site.await_tapes(&mount, "base", 1);
    assert!(begin.elapsed() < Duration::from_secs(9), "only on schedule: {:?}", begin.elapsed());
    mount.umount();
    site.assert_restores("back");
}

#[test]
fn a_full_tape_disk_is_said_at_once_and_used_when_there_is_room() {
    if !tools::root() {
        return;
    }
    let mut site = Site::new();
    site.tapes = site.sandbox.directory("disk");
    tools::run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", path(&site.tapes)]);
    let mount = site.protect(&["--every", "1s"]);
    site.await_tapes(&mount, "upd", 1);
    let filler = site.tapes.join("filler");
    let free = rustix::fs::statvfs(&site.tapes).unwrap();
    fs::write(&filler, vec![7_u8; usize::try_from(free.f_bavail * free.f_frsize).unwrap()]).unwrap();
    fs::write(mount.join("file"), "waits").unwrap();
    site.await_word(&mount, "make room there, then again; until then the changes wait in the journal");
    fs::remove_file(&filler).unwrap();
    site.await_word(&mount, "the tapes go on");
    let log = mount.umount();
    assert!(!log.contains("one broken disk"), "another disk:\n{log}");
    assert_eq!(site.count("base"), 1);
    site.assert_restores("back");
    // and at the end: the exit code says that the last tape is missing
    let number = site.count("upd");
    let mount = site.protect(&["--every", "1h"]);
    site.await_word(&mount, "is protected");
    site.await_tapes(&mount, "upd", number + 1);
    fs::write(mount.join("late"), "waits").unwrap();
    let free = rustix::fs::statvfs(&site.tapes).unwrap();
    fs::write(&filler, vec![7_u8; usize::try_from(free.f_bavail * free.f_frsize).unwrap()]).unwrap();
    let (code, log) = mount.interrupt();
    assert!(code == Some(22) && log.contains("nothing is lost"), "{code:?}\n{log}");
    fs::remove_file(&filler).unwrap();
    site.protect(&["--every", "1h"]).umount();
    site.assert_restores("back at last");
    tools::run("umount", &[path(&site.tapes)]);
}

#[test]
fn a_tape_disk_that_is_unplugged_leaves_no_tape_in_its_mountpoint() {
    if !tools::root() {
        return;
    }
    let mut site = Site::new();
    site.tapes = site.sandbox.directory("disk");
    tools::run("mount", &["-t", "tmpfs", "-o", "size=16m", "none", path(&site.tapes)]);
    let mount = site.protect(&["--every", "1s"]);
    site.await_tapes(&mount, "upd", 1);
    tools::run("umount", &[path(&site.tapes)]);
    fs::write(mount.join("file"), "waits").unwrap();
    site.await_word(&mount, "the tape disk is not at");
    let (code, log) = mount.interrupt();
    assert_eq!((code, fs::read_dir(&site.tapes).unwrap().count()), (Some(10), 0), "{log}");
}

#[test]
fn the_group_is_named_after_the_directory_and_found_again() {
    let sandbox = Sandbox::new();
    let (source, tapes) = (sandbox.directory("My Thesis (final)"), sandbox.directory("tapes"));
    fs::write(source.join("text"), "x").unwrap();
    let point = sandbox.directory("work");
    for round in 0..2 {
        let mut command = Command::new(BINARY);
        with_environment(&mut command, &sandbox.state());
        command.arg("protect").args([&source, &point]).arg("--tapes").arg(&tapes).args(["--every", "1h"]);
        let mount = Mount::from_command(command, &sandbox, &point).unwrap_or_else(|log| panic!("{log}"));
        fs::write(mount.join(&format!("round {round}")), "x").unwrap();
        let second =
            sandbox.reelfs(["protect", path(&source), path(&sandbox.directory("other")), "--tapes", path(&tapes)]);
        second.refused(11, &["in use"]);
        mount.umount();
        assert_eq!(sandbox.reelfs(["group", "list", "-q"]).ok().stdout.matches("my_thesis_final").count(), 1);
    }
    Tree::of(&sandbox.restore(&tapes, "latest", "back")).assert_same(&Tree::of(&source), "back");
}

#[test]
fn refusals_come_before_the_first_change() {
    let sandbox = Sandbox::new();
    let (source, tapes) = (sandbox.directory("docs"), sandbox.directory("tapes"));
    let (point, inside) = (sandbox.directory("mnt"), sandbox.directory("docs/inside"));
    let (missing, full) = (sandbox.path("missing"), sandbox.directory("full"));
    fs::write(full.join("file"), "").unwrap();
    fs::write(sandbox.path("file"), "").unwrap();
    let protect = |source: &Path, point: &Path, tapes: &Path| -> Outcome {
        sandbox.reelfs(["protect", path(source), path(point), "--tapes", path(tapes)])
    };
    protect(&missing, &point, &tapes).refused(10, &["missing is not there"]);
    protect(&sandbox.path("file"), &point, &tapes).refused(2, &["is not a directory"]);
    protect(&source, &missing, &tapes).refused(10, &["the mountpoint", "mkdir"]);
    protect(&source, &inside, &tapes).refused(2, &["lies inside the PVOL"]);
    protect(&inside, &source, &tapes).refused(2, &["lies around the PVOL"]);
    protect(&source, &point, &missing).refused(10, &["the tape directory", "is the disk mounted?"]);
    protect(&source, &point, &inside).refused(2, &["the tape directory", "inside the PVOL"]);
    protect(&source, &point, &point).refused(2, &["the tape directory", "inside the mount"]);
    protect(&source, &full, &tapes).refused(14, &["is not empty"]);
    protect(Path::new("/proc"), &point, &tapes).refused(2, &["/proc"]);
    sandbox
        .reelfs(["protect", path(&source), path(&point), "--tapes", path(&tapes), "--every", "0s"])
        .refused(2, &["schedule"]);
    assert_eq!(fs::read_dir(sandbox.state()).unwrap().count(), 0, "something was made");
    assert_eq!(fs::read_dir(&tapes).unwrap().count(), 0, "something was made");
}
