//! `reelfs umount`: who uses a mount is named, who only looks at it is waited for, and it is not looked at without need.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use rustix::process::{Signal, kill_process};
use support::{Disk, FileSystem, Mount, Sandbox, program, tools, wait};

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

#[test]
fn who_looks_in_passing_does_not_keep_a_mount() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mount"));
    sandbox.group("passing", &pvol);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // as `df` and monitors do, but much more often: umount(2) answers EBUSY again and again
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                _ = rustix::fs::statfs(&point);
                wait::pause(Duration::from_micros(100));
            }
        });
        // nothing may panic here: the other thread would look for ever
        let round = |_| {
            let mounted = sandbox.reelfs(["mount", "passing", text(&point)]);
            let gone = sandbox.reelfs(["umount", text(&point)]);
            // whoever refuses it leaves it there
            _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
            mounted.code == 0 && gone.code == 0
        };
        let rounds = (0..10).map(round).take_while(|&went| went).count();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(rounds, 10, "a look in passing kept it from being unmounted");
    });
}

#[test]
fn who_has_something_open_or_stands_there_is_named() {
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mount"));
    sandbox.group("users", &pvol);
    let mount = Mount::new(&sandbox, "users", &point, &[]);
    fs::create_dir(point.join("below")).unwrap();
    fs::write(point.join("disk"), vec![0; 1 << 20]).unwrap();
    let refused = |who: &str| sandbox.reelfs(["umount", text(&point)]).refused(11, &["is in use by", who, "fuser -vm"]);

    let held = File::open(point.join("disk")).unwrap();
    let mine = fs::read_to_string("/proc/self/comm").unwrap();
    refused(&format!("{} ({})", mine.trim_end(), std::process::id()));
    drop(held);

    let mut sleeper = Command::new(tools::find("sleep").unwrap());
    let mut sleeper = sleeper.arg("300").current_dir(point.join("below")).stdin(Stdio::null()).spawn().unwrap();
    refused(&format!("sleep ({})", sleeper.id()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    mount.umount();
}

#[test]
fn what_is_built_upon_it_is_named() {
    if !tools::root() || !tools::present(&["losetup"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, point) = (sandbox.directory("pvol"), sandbox.directory("mount"));
    sandbox.group("built", &pvol);
    let mount = Mount::new(&sandbox, "built", &point, &[]);
    fs::create_dir(point.join("below")).unwrap();
    fs::write(point.join("disk"), vec![0; 1 << 20]).unwrap();
    let refused = |who: &str| sandbox.reelfs(["umount", text(&point)]).refused(11, &["is in use by", who]);

    rustix::mount::mount("tmpfs", point.join("below"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    refused(&format!("the mount at {}", point.join("below").display()));
    rustix::mount::unmount(point.join("below"), UnmountFlags::empty()).unwrap();

    let losetup = || Command::new(tools::find("losetup").unwrap());
    let output = losetup().args(["--find", "--show"]).arg(point.join("disk")).output().unwrap();
    let device = String::from_utf8(output.stdout).unwrap();
    refused(device.trim_end());
    assert!(losetup().args(["--detach", device.trim_end()]).status().unwrap().success());
    // the kernel lets go of the file a moment after
    assert!(wait::until(Duration::from_secs(10), || sandbox.reelfs(["umount", text(&point)]).code == 0));
    drop(mount);
}

#[test]
fn in_place_who_uses_the_directory_below_is_not_named() {
    if !tools::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 64);
    sandbox.group("place", disk.path());
    // stands below, and does not keep the mount
    let mut below = Command::new(tools::find("sleep").unwrap());
    let mut below = below.arg("300").current_dir(disk.path()).stdin(Stdio::null()).spawn().unwrap();
    let mount = Mount::new(&sandbox, "place", disk.path(), &[]);
    let held = File::create(mount.join("held")).unwrap();
    let said = sandbox.reelfs(["umount", text(disk.path())]).refused(11, &["is in use by"]).stderr.clone();
    assert!(!said.contains("sleep") && !said.contains("reelfs ("), "{said}");
    drop(held);
    // of two who take it away, neither takes what lies below
    let twice = std::thread::scope(|scope| {
        let umount = || sandbox.reelfs(["umount", text(disk.path())]);
        let other = scope.spawn(umount);
        [umount(), other.join().unwrap()]
    });
    assert!(twice.iter().any(|outcome| outcome.code == 0), "{} {}", twice[0], twice[1]);
    assert!(disk.path().join("held").exists(), "the disk is not there any more: {} {}", twice[0], twice[1]);
    below.kill().unwrap();
    below.wait().unwrap();
    drop(mount);
}

#[test]
fn of_two_who_take_one_volume_away_both_come_back() {
    let sandbox = Sandbox::new();
    sandbox.reelfs(["group", "create", "both", "--size", "16MiB"]).ok();
    for name in ["one", "other"] {
        sandbox.reelfs(["pair", "create", &format!("both/{name}"), "--pvol", text(&sandbox.directory(name))]).ok();
    }
    let mount = sandbox.mount("both/one", "mnt");
    let point = sandbox.directory("mnt-other");
    for _ in 0..4 {
        sandbox.reelfs(["mount", "both/other", text(&point)]).ok();
        // while it is held both of them try
        let held = File::create(point.join("held")).unwrap();
        std::thread::scope(|scope| {
            let umount = || sandbox.reelfs(["umount", text(&point)]);
            let tries = [scope.spawn(umount), scope.spawn(umount)];
            wait::pause(Duration::from_millis(100));
            drop(held);
            let [one, other] = tries.map(|thread| thread.join().unwrap());
            assert!([&one, &other].iter().all(|outcome| [0, 10, 11].contains(&outcome.code)), "{one}\n{other}");
        });
        // on a slow machine both may have given up while it was held
        if support::mount::is_mounted(&point) {
            sandbox.reelfs(["umount", text(&point)]).ok();
        }
    }
    mount.umount();
}

#[test]
fn status_does_not_wait_for_the_mount_of_another_group_of_that_name() {
    let (mine, other) = (Sandbox::new(), Sandbox::new());
    let point = other.directory("mount");
    other.group("namesake", &other.directory("pvol"));
    let mount = Mount::new(&other, "namesake", &point, &[]);
    mine.group("namesake", &mine.directory("pvol"));
    kill_process(mount.pid(), Signal::STOP).unwrap();
    let mut asked = Command::new(program::BINARY);
    let mut asked = asked.arg("status").env("REELFS_STATE_DIR", mine.state()).stdout(Stdio::null()).spawn().unwrap();
    let has_answered = wait::until(Duration::from_secs(30), || asked.try_wait().unwrap().is_some());
    kill_process(mount.pid(), Signal::CONT).unwrap();
    assert!(asked.wait().unwrap().success());
    assert!(has_answered, "status waited for a mount that is not its own");
    mount.umount();
}
