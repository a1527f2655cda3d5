//! Behind the mount: people edit the volume while it is not mounted, and put it onto another disk. The journal catches up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools};

/// What is there before.
fn furnish(directory: &Path) {
    let mut random = Random::new("behind", 0);
    for number in 0..60 {
        let place = directory.join(format!("d{}", number % 6));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(format!("f{number}")), random.bytes(3_000 + number * 100)).unwrap();
    }
    tools::shell(
        directory,
        "mkdir -p d1/x/y; echo deep >d1/x/y/z; ln d2/f2 d3/linked; ln -s d1 link; touch -d '2020-01-01' d4/f4",
    );
}

/// Everything that people do to files, all at once.
const EDITS: &str = "
    echo edited >>d0/f0; printf XX | dd of=d0/f6 bs=1 seek=100 conv=notrunc status=none
    truncate -s 10 d0/f12; echo new >d1/new; mkdir -p d5/made/deeper; echo more >d5/made/deeper/file
    rm d1/f1; rm -r d1/x; mv d2/f2 d3/f2-moved; mv d2 d2-renamed; mv d4 d5/d4-moved; ln d3/f3 d3/f3-again
    mv d3/f9 tmp; mv d3/f15 d3/f9; mv tmp d3/f15
    rm d5/f5; echo another >d5/f5; touch -d '2001-01-01 01:01:01.5Z' d5/f11 d5
    printf same-size >d5/f17; touch -r d5/f11 d5/f17; chmod 600 d5/f23; chmod 700 d5
    ln -sfn d3 link; mkfifo pipe; rm d0/f18; mkdir d0/f18; echo in >d0/f18/in
";

/// A group with a base and some history, unmounted.
fn with_history(sandbox: &Sandbox, pvol: &Path, tapes: &Path) {
    furnish(pvol);
    sandbox.group("behind", pvol);
    sandbox.base("behind", tapes);
    let mount = sandbox.mount("behind", "mnt");
    fs::write(mount.join("through-the-mount"), b"journaled").unwrap();
    sandbox.export("behind", tapes);
    mount.umount();
}

/// Mounts again, exports, and the tapes hold the volume as it stands. Returns what the daemon said.
fn caught_up(sandbox: &Sandbox, pvol: &Path, tapes: &Path) -> String {
    let before = Tree::of(pvol);
    let mount = sandbox.mount("behind", "mnt");
    before.assert_same(&Tree::of(pvol), "catching up changes nothing on the volume");
    fs::write(mount.join("afterwards"), b"life goes on").unwrap();
    sandbox.export("behind", tapes);
    let log = mount.umount();
    let restored = sandbox.restore(tapes, "latest", "restored");
    Tree::of(pvol).assert_same(&Tree::of(&restored), "after the next export");
    fs::remove_dir_all(restored).unwrap();
    log
}

#[test]
fn edits_are_adopted_and_counted_in_one_sentence() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    tools::shell(&pvol, EDITS);
    let log = caught_up(&sandbox, &pvol, &tapes);
    let sentences: Vec<&str> = log.lines().filter(|line| line.contains("behind the mount")).collect();
    assert_eq!(sentences.len(), 1, "one sentence:\n{log}");
    assert!(sentences[0].chars().any(|c| c.is_ascii_digit()), "with counts: {}", sentences[0]);
    // and the second time there is nothing to say
    let log = caught_up(&sandbox, &pvol, &tapes);
    assert!(!log.contains("behind the mount"), "{log}");
}

/// `umount(8)` returns while the daemon still closes; whoever edits then has edited behind the mount.
#[test]
fn an_edit_while_the_daemon_closes_is_adopted() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    let mount = sandbox.mount("behind", "mnt");
    fs::write(mount.join("through-the-mount"), b"journaled again").unwrap();
    support::wait::pause(std::time::Duration::from_millis(100)); // longer than the grain of change times
    tools::run("umount", &[mount.path().to_str().unwrap()]);
    fs::write(pvol.join("through-the-mount"), b"edited at once").unwrap();
    drop(mount.umount());
    caught_up(&sandbox, &pvol, &tapes);
}

#[test]
fn an_edit_that_follows_the_unmount_at_once_is_adopted() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    let mut mount = sandbox.mount("behind", "mnt");
    for round in 0..20 {
        // the last change through the mount, and an edit within one tick of the clock of file times
        fs::write(mount.join("d0/f0"), format!("{round} through the mount")).unwrap();
        drop(mount.umount());
        fs::write(pvol.join("d0/f0"), format!("{round} at once")).unwrap();
        mount = sandbox.mount("behind", "mnt");
        assert!(mount.log().contains("changed behind the mount and adopted"), "round {round}: {}", mount.log());
    }
    drop(mount.umount());
    caught_up(&sandbox, &pvol, &tapes);
}

#[test]
fn each_edit_alone_is_adopted() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    let edits = [
        "touch -d '1990-01-01' d0/f0",
        "touch -d '1990-01-01' d0",
        "chmod 711 .",
        "echo in-place | dd of=d0/f6 conv=notrunc status=none; touch -d '2019-01-01' d0/f6",
        "rm -rf d1",
        "mv d2/f2 d0/",
        "mv d3 d4/",
        "mv d4/d3/linked d4/d3/linked-2; mv d0/f2 d4/d3/linked",
        "cp -a d5 d6; rm -r d5",
        "rm through-the-mount; mkdir through-the-mount",
        "setfattr -n user.x -v y d6; setfacl -m u:5:r d6/f5",
        "find . -mindepth 1 -delete",
    ];
    for edit in edits {
        tools::shell(&pvol, edit);
        let mount = sandbox.mount("behind", "mnt");
        sandbox.export("behind", &tapes);
        mount.umount();
        let restored = sandbox.restore(&tapes, "latest", "restored");
        Tree::of(&pvol).assert_same(&Tree::of(&restored), edit);
        fs::remove_dir_all(restored).unwrap();
    }
}

#[test]
fn strict_refuses_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    let point = sandbox.directory("mnt");
    // nothing was edited: strict has nothing against that
    Mount::new(&sandbox, "behind", &point, &["--strict"]).umount();
    tools::shell(&pvol, "echo edited >>d0/f0");
    let before = Tree::of(&pvol);
    let mount =
        sandbox.command().args(["mount", "behind", point.to_str().unwrap(), "-f", "--strict"]).output().unwrap();
    let said = String::from_utf8_lossy(&mount.stderr);
    assert_eq!(mount.status.code(), Some(14), "{said}");
    assert!(said.contains("behind the mount"), "{said}");
    before.assert_same(&Tree::of(&pvol), "a refusal changes nothing");
    caught_up(&sandbox, &pvol, &tapes);
}

#[test]
fn the_volume_on_another_disk_begins_a_new_epoch_with_a_new_base() {
    if !tools::root() || !tools::present(&["mkfs.ext4", "mkfs.xfs"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "place", FileSystem::Ext4, 100);
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    with_history(&sandbox, &pvol, &tapes);
    let old = Tree::of(&pvol);
    let copy = sandbox.path("copy");
    tools::run("cp", &["-a", pvol.to_str().unwrap(), copy.to_str().unwrap()]);
    disk.umount();
    let other = Disk::new(&sandbox, "place", FileSystem::Xfs, 320);
    tools::run("cp", &["-a", copy.to_str().unwrap(), pvol.to_str().unwrap()]);
    tools::shell(&pvol, "echo on-the-new-disk >d0/only-here");
    let log = caught_up(&sandbox, &pvol, &tapes);
    assert!(log.contains("new epoch") || log.contains("another"), "says that it is another disk:\n{log}");
    let restored = sandbox.restore(&tapes, "oldest", "old");
    let (old, restored) = (old.without("through-the-mount").without_times(), Tree::of(&restored).without_times());
    old.assert_same(&restored, "the old epoch is still restorable");
    drop(other);
}
