//! The ring before the journal of a mount: what waits in it is shown to whoever asks, outlives the daemon, and goes with the group.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Sandbox, Tree};

/// The link beside the journal of the only group, and what it names.
fn ring(sandbox: &Sandbox) -> Option<(PathBuf, PathBuf)> {
    let entries = walkdir::WalkDir::new(sandbox.state()).into_iter().map(Result::unwrap);
    let link =
        entries.map(walkdir::DirEntry::into_path).find(|path| path.extension().is_some_and(|end| end == "ring"))?;
    let target = fs::read_link(&link).unwrap();
    Some((link, target))
}

/// A group of one volume, and its mount.
fn mounted(sandbox: &Sandbox) -> support::Mount {
    sandbox.group("docs", &sandbox.directory("pvol"));
    sandbox.mount("docs", "mnt")
}

fn write_some(mount: &Path, from: u32) {
    for number in from..from + 200 {
        fs::write(mount.join(format!("file{number}")), vec![b'x'; 5000]).unwrap();
    }
}

/// Sealed tapes of all that is there, restored, are the volume.
fn assert_twin(sandbox: &Sandbox, what: &str) {
    let tapes = sandbox.directory("tapes");
    sandbox.base("docs", &tapes);
    sandbox.export("docs", &tapes);
    let restored = sandbox.restore(&tapes, "latest", &format!("restored-{what}"));
    Tree::of(&sandbox.path("pvol")).assert_same(&Tree::of(&restored), what);
}

#[test]
fn who_asks_sees_what_was_journaled_a_moment_ago() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    assert!(ring(&sandbox).is_some_and(|(_, ring)| ring.exists()), "no ring beside this mount:\n{}", mount.log());
    // more often than a flush a second lies between
    for round in 0..20 {
        let name = format!("now{round}");
        fs::write(mount.join(&name), b"new").unwrap();
        let seen = sandbox.reelfs(["log", "docs", "--path", &name]).ok();
        assert!(seen.stdout.contains(&name), "round {round}: {seen}");
        sandbox.mark("docs", &name);
        let points = sandbox.reelfs(["points", "docs"]).ok();
        assert!(points.stdout.contains(&name), "round {round}: {points}");
        sandbox.reelfs(["tape", "export", "docs", "--to", sandbox.directory("tapes").to_str().unwrap()]).ok();
    }
    mount.umount();
    assert_eq!(ring(&sandbox), None, "a clean end leaves no ring");
    assert_twin(&sandbox, "after a clean end");
}

#[test]
fn a_killed_daemon_leaves_it_and_the_next_one_goes_on_from_there() {
    let sandbox = Sandbox::new();
    let mut mount = mounted(&sandbox);
    for round in 0..5 {
        write_some(mount.path(), round * 100);
        mount.kill();
        let (_, left) = ring(&sandbox).expect("a ring that was left");
        assert!(left.exists(), "{} outlives its daemon", left.display());
        mount = sandbox.mount("docs", "mnt");
        for number in 0..round * 100 + 200 {
            assert_eq!(fs::read(mount.join(&format!("file{number}"))).unwrap().len(), 5000, "round {round}");
        }
    }
    let log = mount.log();
    assert!(!log.contains("gone"), "nothing was lost:\n{log}");
    mount.umount();
    assert_twin(&sandbox, "after five kills");
}

#[test]
fn who_takes_it_away_loses_no_more_than_by_a_power_cut() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    write_some(mount.path(), 0);
    mount.kill();
    let (link, target) = ring(&sandbox).expect("a ring");
    fs::remove_file(&target).unwrap();
    let mount = sandbox.mount("docs", "mnt");
    let log = mount.log();
    assert!(log.contains("the memory with what was journaled last is gone"), "nothing is said of it:\n{log}");
    assert_eq!(fs::read(mount.join("file7")).unwrap().len(), 5000, "what was acknowledged is in the volume");
    write_some(mount.path(), 100);
    mount.umount();
    assert!(fs::symlink_metadata(link).is_err(), "it is dealt with");
    assert_twin(&sandbox, "after it was taken away");
}

#[test]
fn it_goes_with_its_group() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    write_some(mount.path(), 0);
    mount.kill();
    let (_, target) = ring(&sandbox).expect("a ring");
    assert!(target.exists());
    sandbox.reelfs(["group", "delete", "docs", "--yes"]).ok();
    assert!(!target.exists(), "{} is left in memory", target.display());
    assert_eq!(ring(&sandbox), None);
}
