//! A replica that follows: the twin of the primary whenever it stops, killed as often as one likes, from the journal and from tapes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, XattrFlags};
use rustix::process::{Pid, Signal, kill_process};
use support::{Outcome, Random, Sandbox, Tree, program, tools, wait};

fn follow(sandbox: &Sandbox, arguments: &[&str], to: &Path) -> Outcome {
    sandbox.reelfs(["follow"].iter().chain(arguments).map(AsRef::as_ref).chain(["--to".as_ref(), to.as_os_str()]))
}

/// A follower in the background.
fn follower(sandbox: &Sandbox, arguments: &[&str], to: &Path) -> Child {
    let mut command = std::process::Command::new(program::BINARY);
    program::with_environment(&mut command, &sandbox.state());
    let log = File::create(sandbox.path("follower.log")).unwrap();
    command.arg("follow").args(arguments).arg("--to").arg(to);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn kill(mut child: Child, signal: Signal) -> Option<i32> {
    // it may have ended by itself
    _ = kill_process(Pid::from_child(&child), signal);
    child.wait().unwrap().code()
}

fn same(pvol: &Path, replica: &Path, when: &str) {
    Tree::of(pvol).assert_same(&Tree::of(replica), when);
}

/// Names, bytes and attributes, all over a few directories.
fn act(root: &Path, random: &mut Random) {
    let directories = ["", "a", "b", "a/c"];
    let place = |random: &mut Random| {
        let directory = directories[usize::try_from(random.below(4)).unwrap()];
        root.join(directory).join(format!("n{}", random.below(8)))
    };
    let (one, two) = (place(random), place(random));
    let length = random.below(60_000);
    // much of it fails, because something else is there or nothing is
    match random.below(14) {
        0..=2 => drop(fs::write(&one, random.bytes(length))),
        3 | 4 => {
            if let Ok(file) = File::options().write(true).open(&one) {
                drop(file.write_all_at(&random.bytes(length / 4), random.below(100_000)));
            }
        }
        5 => drop(File::options().write(true).open(&one).and_then(|file| file.set_len(random.below(80_000)))),
        6 | 7 => drop(fs::rename(&one, &two)),
        8 => _ = rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE),
        9 => drop(fs::hard_link(&one, &two)),
        10 => drop(fs::remove_file(&one).or_else(|_| fs::remove_dir(&one))),
        11 => drop(fs::create_dir(&one)),
        12 => drop(fs::set_permissions(&one, fs::Permissions::from_mode(0o600 + u32::try_from(length % 64).unwrap()))),
        _ => {
            let value = random.bytes(8);
            _ = rustix::fs::setxattr(&one, "user.test", &value, XattrFlags::empty());
            drop(std::os::unix::fs::symlink("a/n1", &two));
        }
    }
}

/// A group `docs` with some files, a small journal, not mounted.
fn group(sandbox: &Sandbox) -> PathBuf {
    let pvol = sandbox.directory("pvol");
    for directory in ["a", "b", "a/c"] {
        fs::create_dir(pvol.join(directory)).unwrap();
    }
    let mut random = Random::new("follow", 0);
    (0..60).for_each(|_| act(&pvol, &mut random));
    sandbox.group_of_size("docs", &pvol, "64MiB");
    pvol
}

#[test]
fn a_replica_is_the_twin_while_mounted_and_while_not() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    let mut random = Random::new("follow", 1);
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "after the first copy, not mounted");
    let mount = sandbox.mount("docs", "mnt");
    for round in 0..4 {
        (0..300).for_each(|_| act(mount.path(), &mut random));
        mount.sync();
        follow(&sandbox, &["docs", "--once"], &replica).ok();
        same(&pvol, &replica, &format!("mounted, round {round}"));
    }
    (0..300).for_each(|_| act(mount.path(), &mut random));
    mount.umount();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "unmounted");
    let told = follow(&sandbox, &["--status", "--json"], &replica).ok().json();
    assert!(told["inside"].is_null() && told["applying"].is_null() && told["group"] == "docs", "{told}");
    // nothing is left of the first copy, here or in the group
    assert!(!sandbox.path("replica.replica/base").exists());
    let shown = sandbox.reelfs(["status", "docs", "--json"]).ok().json();
    assert_eq!(shown["groups"][0]["targets"].as_array().unwrap().len(), 0, "{shown}");
}

#[test]
fn killed_at_any_moment_it_goes_on_and_is_the_twin() {
    let sandbox = Sandbox::new();
    let (pvol, replica) = (group(&sandbox), sandbox.path("replica"));
    let mount = sandbox.mount("docs", "mnt");
    let is_over = AtomicBool::new(false);
    let rounds = tools::rounds(25, 200);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new("follow", 2);
            while !is_over.load(Ordering::SeqCst) {
                act(mount.path(), &mut random);
            }
        });
        let mut random = Random::new("kill", 2);
        let mut killed_inside = 0;
        for round in 0..rounds {
            let child = follower(&sandbox, &["docs"], &replica);
            // also in the first copy
            let pause = if round < 5 { 20 + random.below(200) } else { 100 + random.below(700) };
            wait::pause(Duration::from_millis(pause));
            kill(child, Signal::KILL);
            let told = follow(&sandbox, &["--status", "--json"], &replica);
            killed_inside += usize::from(told.code == 0 && !told.json()["applying"].is_null());
            if round % 8 == 7 {
                let child = follower(&sandbox, &["docs"], &replica);
                wait::pause(Duration::from_millis(800));
                assert_eq!(
                    kill(child, Signal::TERM),
                    Some(0),
                    "{}",
                    fs::read_to_string(sandbox.path("follower.log")).unwrap()
                );
            }
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(killed_inside > 0, "no kill hit a batch");
    });
    mount.sync();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "after the kills");
    mount.umount();
    follow(&sandbox, &["docs", "--once"], &replica).ok();
    same(&pvol, &replica, "at the end");
}
